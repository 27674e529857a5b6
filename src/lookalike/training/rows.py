"""What there is to learn from: rows of a collection with their classes, and the features of rows."""

import shlex
from dataclasses import dataclass, replace
from os.path import realpath
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32, Int64, Shaped

from lookalike.core.errors import CollectionError
from lookalike.core.files import fingerprint
from lookalike.core.journal import note
from lookalike.core.shapes import Ids
from lookalike.data.batches import stored_smaller
from lookalike.data.collection import Collection
from lookalike.encoders.encoder import Encoder
from lookalike.vectors.rows import cached_features, made_features
from lookalike.vectors.runtime import Embedder, combine

Features = Float32[np.ndarray, "N F"]
Labels = Int32[np.ndarray, "N"]


@dataclass(frozen=True)
class Rows:
    """Rows of a collection, in the order of their ids."""

    collection: Collection
    ids: Ids
    label: Labels  # of each, 0 to C - 1, one for each pair of domain and label; -1: none
    domain: Shaped[np.ndarray, "N"]  # its name, "" where there is none
    classes: tuple[str, ...]  # names: domain and label, with a tab between
    others: "Rows | None" = None  # which help to choose directions, without their labels

    @property
    def sizes(self) -> Int64[np.ndarray, "C"]:
        """Rows of each class."""
        return np.bincount(self.label[self.label >= 0], minlength=len(self.classes))

    @property
    def content(self) -> str:
        """A fingerprint of what is learned from, 64 hex digits."""
        return fingerprint(self.ids.tobytes(), self.label.tobytes(), *self.classes)

    def where(self, condition: str) -> "Rows":
        """Those for which a Lance filter holds, with classes and others of all; CollectionError if there are none."""
        if not condition:
            return self
        held = np.isin(self.ids, self.collection.table(["id"], condition)["id"].to_numpy())
        if not held.any():
            raise CollectionError(
                f"None of the {len(self.ids)} rows to learn from in `{self.collection.path}` meets `{condition}`.",
                hint=f"`lookalike info {shlex.quote(self.collection.path)}` counts rows by domain and split",
            )
        return self.only(held)

    def only(self, held: Shaped[np.ndarray, "N"]) -> "Rows":
        """Those at which `held` is true, with the classes and the others of all."""
        return replace(self, ids=self.ids[held], label=self.label[held], domain=self.domain[held])


def training_rows(collection: Collection, where: str, *, labelled: bool) -> Rows:
    """The rows of split "train", or all where no row has a split; with a label, if `labelled`.

    CollectionError if there are none, or fewer than two classes.
    """
    table = collection.table(["id", "label", "domain", "split"], where or None)
    label, domain, split = (table[name].to_pylist() for name in ("label", "domain", "split"))
    names = ["" if a is None else f"{b or ''}\t{a}" for a, b in zip(label, domain, strict=True)]
    wanted = {"train"} if any(collection.table(["split"])["split"].to_pylist()) else set(split)
    keep = [i for i, name in enumerate(names) if split[i] in wanted and (name or not labelled)]
    used = sorted({names[i] for i in keep} - {""})
    if not keep or (labelled and len(used) < 2):
        refused = _refused(collection)
        words = f" {refused} may not be learned from, only be measured on." if refused else ""
        raise CollectionError(
            f"`{collection.path}` has {len(keep)} rows of {len(used)} classes to learn from; "
            f"two classes are the least.{words}",
            hint=f"`lookalike info {shlex.quote(collection.path)}` counts rows by split; labels come with "
            "`lookalike prepare`",
        )
    code = {name: place for place, name in enumerate(used)}
    codes = np.array([code.get(names[i], -1) for i in keep], np.int32)
    return Rows(collection, table["id"].to_numpy()[keep], codes, np.array([domain[i] or "" for i in keep]), tuple(used))


def _refused(collection: Collection) -> str:
    """Names of its sources that are only to be measured on."""
    return " and ".join(f"`{s['name']}`" for s in collection.card.get("sources", ()) if s.get("learn") is False)


def unlabelled_rows(path: str, learned: Rows) -> Rows:
    """The rows of the collection at `path` without their labels, but those of split "test" and those of `learned`.

    CollectionError if there are none, or if some are only to be measured on.
    """
    collection = Collection.open(path)
    if refused := _refused(collection):
        raise CollectionError(f"`{path}` holds {refused}, which may not be learned from, only be measured on.")
    same = realpath(collection.path) == realpath(learned.collection.path)
    ids = _free(collection, learned.ids if same else learned.ids[:0])
    if not len(ids):
        raise CollectionError(
            f"All {len(collection)} images of `{path}` are of split `test`, or learned from with their labels: none is "
            "left for `--unlabelled`.",
            hint=f"`lookalike info {shlex.quote(path)}` counts rows by split",
        )
    return Rows(collection, ids, np.full(len(ids), -1, np.int32), np.full(len(ids), ""), learned.classes)


def _free(collection: Collection, taken: Int64[np.ndarray, "M"], where: str | None = None) -> Int64[np.ndarray, "K"]:
    """Rows of no split or another than "test", but those that are taken."""
    table = collection.table(["id", "split"], where)
    ids = table["id"].to_numpy()
    return ids[np.array([split != "test" for split in table["split"].to_pylist()], bool) & ~np.isin(ids, taken)]


def note_without_labels(rows: Rows) -> None:
    """Say how many images are left out for want of a label, where they could help."""
    if count := len(_free(rows.collection, rows.ids, "label IS NULL")):
        place = shlex.quote(rows.collection.path)
        note(
            f"{count:,} images of `{rows.collection.path}` have no label; `--unlabelled {place}` lets them help to "
            "choose the directions"
        )


def note_smaller(rows: Rows, size: int) -> None:
    """Say how many of the rows are stored smaller than a tower reads images, `size` pixels."""
    if count := stored_smaller(rows.collection, rows.ids, size):
        note(
            f"{count:,} of {len(rows.ids):,} images to learn from are stored with a side below the {size} px that the "
            f"tower reads, and are enlarged; `lookalike prepare SOURCE --size {size} --out NEW` keeps more"
        )


def features_of(encoder: Encoder, path: str | Path, rows: Rows, mirror: bool) -> Float32[np.ndarray, "N V F"]:
    """Features of the rows' images, and of their mirror images if asked for.

    Of an encoder that has a model directory `path` they are columns of the collection; of one that a stage has just
    made they are computed, and not kept. They are float32 whatever the steps of a stage compute in.
    """
    encoder = replace(encoder, dtype="float32")
    if path:
        collection = Collection.open(rows.collection.path)  # as a measurement left it, which may have added the column
        parts = cached_features(Embedder.of(encoder, path=path), collection, rows.ids, mirror)
        return np.stack([part for part in parts if part is not None], axis=1)
    return made_features(encoder, rows.collection, rows.ids, mirror)


def mean_of(features: Float32[np.ndarray, "N V F"]) -> Features:
    """The features of images that count together with their mirror images."""
    return combine(*features.swapaxes(0, 1)[:2])
