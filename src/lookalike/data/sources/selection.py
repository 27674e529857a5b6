"""Which of the listed images are taken: so many of a class, the largest classes, what may be sold.

Two passes over a listing. The first learns classes and sizes, at 16 bytes an image; nothing depends on the order of
images, nor on the machine: what decides among images of a class is a digest of their names.
"""

import hashlib
from array import array
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int64

from lookalike.core.config import in_range
from lookalike.core.licences import commercial
from lookalike.data.sources.classes import split_of


@dataclass(frozen=True)
class Selection:
    """What is taken of images that are there to learn from: split `train`, or none. Others are taken as they are."""

    max_per_class: int | None = None
    """At most so many images of a class."""
    min_per_class: int = 1
    """Classes with fewer images are left out."""
    max_classes: int | None = None
    """The classes with the most images; of equal ones the first by name."""
    commercial: bool = False
    """Leave out images whose licence forbids commercial use, or is not known; for all splits."""
    validation: float = 0.0
    """Share of each class's images that becomes split `val`."""
    held_out: float = 0.0
    """Share of the classes that becomes split `test` wholly, told by their names alone as `split_of` does."""
    first: int | None = None
    """Number of the first class; the column `class_index` counts from there, in the order of labels."""

    def __post_init__(self) -> None:
        in_range(self, 1.0, float("inf"), "max_per_class", "min_per_class", "max_classes")
        in_range(self, 0.0, 0.5, "validation", "held_out")

    @property
    def takes_all(self) -> bool:
        """Whether it leaves everything as it is."""
        return self == TAKE_ALL


TAKE_ALL = Selection()


@dataclass
class Chosen:
    """What a selection takes of rows that are added first, batch by batch, and asked for in the same order then."""

    selection: Selection
    left_out: Counter[str] = field(default_factory=Counter)  # licence -> images that are not taken for it
    _class: "array[int]" = field(default_factory=lambda: array("q"))  # -1: not to learn from, -2: not taken
    _digest: "array[int]" = field(default_factory=lambda: array("Q"))
    _classes: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, batch: pa.RecordBatch) -> None:
        """Learn of rows of a listing."""
        columns = ("source", "domain", "label", "split")
        licences = batch["licence"].to_pylist() if "licence" in batch.schema.names else [""] * len(batch)
        for source, domain, label, split, licence in zip(
            *(batch[name].to_pylist() for name in columns), licences, strict=True
        ):
            code = -1
            if self.selection.commercial and licence != "" and not commercial(licence):
                self.left_out[licence or "unknown"] += 1
                code = -2
            elif label is not None and split in ("train", None):
                code = self._classes.setdefault((domain or "", label), len(self._classes))
            self._class.append(code)
            self._digest.append(int.from_bytes(hashlib.blake2b(source.encode(), digest_size=8).digest(), "big"))

    def taken(self, start: int, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Those of the batch, whose first row was added as number `start`, that are taken; with `class_index`."""
        part = slice(start, start + len(batch))
        kept = np.flatnonzero(self._kept[part])
        columns = dict(zip(batch.schema.names, batch.take(pa.array(kept)).columns, strict=True))
        codes = self._codes[part][kept]
        for mask, name in ((self._validated[part][kept], "val"), ((codes >= 0) & self._held[codes], "test")):
            columns["split"] = pc.if_else(pa.array(mask), name, columns["split"])
        if self.selection.first is not None:
            numbers = self._numbers[np.maximum(codes, 0)] + self.selection.first if len(self._numbers) else codes
            columns["class_index"] = pa.array(numbers, pa.int64(), mask=codes < 0)
        return pa.RecordBatch.from_pydict(columns, batch.schema)

    def facts(self) -> dict[str, Any]:
        """For the card: what was asked for, and what came of it."""
        kept, codes = self._kept, self._codes
        told: dict[str, Any] = {
            "max_per_class": self.selection.max_per_class,
            "min_per_class": self.selection.min_per_class,
            "max_classes": self.selection.max_classes,
            "classes": len(np.unique(codes[kept & (codes >= 0)])),
            "images": int(kept.sum()),
        }
        if self.left_out:
            told["left_out"] = dict(self.left_out)
        return told

    @cached_property
    def _codes(self) -> Int64[np.ndarray, "N"]:
        return np.frombuffer(self._class, np.int64) if len(self._class) else np.zeros(0, np.int64)

    @cached_property
    def _order(self) -> tuple[Int64[np.ndarray, "M"], Int64[np.ndarray, "M"]]:
        """Rows to learn from, those of a class together and by their digests, and their places among these."""
        rows = np.flatnonzero(self._codes >= 0)
        digests = np.frombuffer(self._digest, np.uint64)[rows] if len(rows) else np.zeros(0, np.uint64)
        rows = rows[np.lexsort((digests, self._codes[rows]))]
        sizes = np.bincount(self._codes[rows], minlength=len(self._classes))
        first = np.cumsum(sizes) - sizes
        return rows, np.arange(len(rows)) - first[self._codes[rows]]

    @cached_property
    def _chosen(self) -> Bool[np.ndarray, "C"]:
        """The classes that are taken."""
        sizes = np.bincount(self._codes[self._codes >= 0], minlength=len(self._classes))
        chosen: np.ndarray = sizes >= self.selection.min_per_class
        if self.selection.max_classes is not None:
            names = sorted(self._classes, key=lambda name: (-sizes[self._classes[name]], _natural(name)))
            first = [self._classes[name] for name in names if chosen[self._classes[name]]][: self.selection.max_classes]
            chosen = np.isin(np.arange(len(sizes)), first)
        return chosen

    @cached_property
    def _kept(self) -> Bool[np.ndarray, "N"]:
        kept: np.ndarray = self._codes == -1
        rows, place = self._order
        most = self.selection.max_per_class
        taken = self._chosen[self._codes[rows]] & (place < (len(rows) if most is None else most))
        kept[rows[taken]] = True
        return kept

    @cached_property
    def _held(self) -> Bool[np.ndarray, "C"]:
        """The classes that are kept from learning; one more, for rows that are in none."""
        share = self.selection.held_out
        return np.array([split_of(*name, share) == "test" for name in self._classes] + [False])

    @cached_property
    def _validated(self) -> Bool[np.ndarray, "N"]:
        """Of the images of a class that are taken the last ones, as many as the share says, rounded."""
        found = np.zeros(len(self._codes), bool)
        if self.selection.validation:
            rows, place = self._order
            rows, place = rows[self._kept[rows]], place[self._kept[rows]]
            sizes = np.bincount(self._codes[rows], minlength=len(self._classes))[self._codes[rows]]
            found[rows[place >= sizes - np.round(sizes * self.selection.validation)]] = True
        return found

    @cached_property
    def _numbers(self) -> Int64[np.ndarray, "C"]:
        """The place of each class among those that are taken, in the order of labels: numbers by their size."""
        names = sorted((name for name in self._classes if self._chosen[self._classes[name]]), key=_natural)
        numbers = np.zeros(len(self._classes), np.int64)
        numbers[[self._classes[name] for name in names]] = np.arange(len(names))
        return numbers


def _natural(name: tuple[str, str]) -> tuple[str, int, int, str]:
    """By domain and label; labels that are numbers by their size, and before others."""
    domain, label = name
    return (domain, 0, int(label), label) if label.isascii() and label.isdecimal() else (domain, 1, 0, label)
