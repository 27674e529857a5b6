"""A judge at home: queries and an index of the challenge's eleven kinds of object, drawn from public data sets.

The Google Universal Image Embedding challenge (2022) measured with 5,000 queries among 200,000 images of eleven kinds,
which were never published. Here each kind has an eleventh of both, drawn from sets that anyone can get. What is drawn
depends on names alone (BLAKE2b), so that it is the same on every machine.

    a class           is as the data set has it: an item, a landmark, an exhibit
    its queries       are its images with the lowest digests; the one with the highest never is one
    its index images  are those with the highest digests that are no queries, at most `PER_CLASS`
    distractors       are images of the kind that belong to no class with a query, the lowest digests first

A query is not in the index. Classes come by their digests, one query of each and then a second of each, until there are
`QUERIES`. All rows are of split `test`, and their domain is the kind.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int8, Int64, UInt64

from lookalike.core.config import did_you_mean
from lookalike.core.errors import SourceError, UsageError
from lookalike.core.licences import commercial
from lookalike.data.sources import open_source
from lookalike.data.sources.dataset import dataset_of, open_dataset
from lookalike.data.sources.listed import LISTED, Source, names_digested, twice

QUERIES = 455
"""Of each kind: 5,000 of eleven."""
INDEX = 18_182
"""Images of each kind to search among: 200,000 of eleven."""
PER_CLASS = 20
"""Index images of a class with queries."""

LEFT_OUT, QUERY, IN_INDEX = range(3)
"""What a row is in the judge."""


@dataclass(frozen=True)
class Kind:
    """A kind of object, and which images of a data set are of it."""

    dataset: str | None  # None: no set of single things of this kind is known to be published
    split: str | None = None  # of its rows; None: all
    column: str | None = None  # whose values tell the kind; None: all rows are of it
    values: tuple[str, ...] = ()  # of the column
    but: bool = False  # all values but these
    roles: bool = True  # False: every image may be a query, whatever the data set says

    @property
    def licence(self) -> str:
        """Of the data set, by its name."""
        return "yours" if self.dataset is None else dataset_of(self.dataset).licence

    @property
    def is_open(self) -> bool:
        """Whether anyone may use these images, for money too."""
        return self.dataset is not None and commercial(self.licence)


SHOPS = ("shopping", "restaurant")
"""What GLDv2's `hierarchical_label` calls landmarks whose photos show a front with signs."""

KINDS: dict[str, Kind] = {
    "apparel": Kind(
        "abo",
        column="product_type",
        values=(
            *("SHOES", "TECHNICAL_SPORT_SHOE", "SANDAL", "BOOT", "HAT", "SHIRT", "PANTS", "SHORTS", "SWEATSHIRT"),
            *("OUTERWEAR", "SOCKSHOSIERY", "UNDERWEAR", "ACCESSORY", "FINERING", "FINEEARRING", "BACKPACK"),
            *("FINENECKLACEBRACELETANKLET", "HANDBAG", "WRIST_WATCH", "WATCH"),
        ),
    ),
    "packaged": Kind(
        "abo",
        column="product_type",
        values=(
            *("GROCERY", "COFFEE", "TEA", "HEALTH_PERSONAL_CARE", "VITAMIN", "DIETARY_SUPPLEMENTS", "BEAUTY"),
            *("SHAMPOO", "HAIR_STYLING_AGENT", "ABIS_DRUGSTORE", "PROFESSIONAL_HEALTHCARE"),
        ),
    ),
    "landmarks": Kind("gldv2", "test", "hierarchical_label", SHOPS, but=True),
    "furniture": Kind(
        "abo",
        column="product_type",
        values=(
            *("SOFA", "CHAIR", "TABLE", "DESK", "BED", "BED_FRAME", "HEADBOARD", "BENCH", "OTTOMAN", "DRESSER"),
            *("CABINET", "SHELF", "STOOL_SEATING", "FURNITURE", "HOME_FURNITURE_AND_DECOR", "RUG", "LAMP"),
            *("LIGHT_FIXTURE", "HOME_LIGHTING_AND_LAMPS", "HOME_MIRROR", "PILLOW", "PLANTER", "VASE", "CLOCK"),
        ),
    ),
    "storefronts": Kind("gldv2", "test", "hierarchical_label", SHOPS, roles=False),
    "dishes": Kind("food101", "test"),
    "artwork": Kind("met", "test"),
    "toys": Kind("abo", column="product_type", values=("TOYS_AND_GAMES", "TOY_FIGURE", "TOY_BUILDING_BLOCK")),
    "memes": Kind(None),
    "illustrations": Kind(None),
    "cars": Kind("cars196", "test"),
}
"""Kind of object, in the challenge's order -> where its images come from."""


def rule() -> str:
    """Eight hexadecimal digits of all that decides what is drawn, but for the files."""
    told: dict[str, Any] = {"queries": QUERIES, "index": INDEX, "per_class": PER_CLASS}
    told |= {"kinds": {name: asdict(kind) for name, kind in KINDS.items()}}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]


class Part(NamedTuple):
    """Kinds that come from one place."""

    place: Path
    kinds: tuple[str, ...]
    dataset: str | None  # None: a folder of one's own
    asked: bool  # whether they were asked for by name, so that none may be missing


def parts_at(place: str, kinds: Sequence[str] = ()) -> list[Part]:
    """What of the kinds, or of these alone, is at `place`: `KIND/` with a folder a class comes before `DATASET/`.

    UsageError: a kind is unknown. SourceError: nothing is there, or nothing of one that is asked for.
    """
    for name in kinds:
        if name not in KINDS:
            raise UsageError(
                f"`{name}` is no kind of object that is judged.{did_you_mean(name, KINDS)}",
                hint=f"kinds: {', '.join(KINDS)}",
            )
    found: dict[tuple[Path, str | None], list[str]] = {}
    for name in kinds or KINDS:
        own, dataset = Path(place, name), KINDS[name].dataset
        if own.is_dir():
            found[own, None] = [name]
        elif dataset is not None and Path(place, dataset).exists():
            found.setdefault((Path(place, dataset), dataset), []).append(name)
        elif kinds:
            wanted = f"`{own}` with a folder for each thing" + (f", or `{Path(place, dataset)}`" if dataset else "")
            raise SourceError(f"There are no images of `{name}`: expected {wanted}.", hint="lookalike judge --list")
    if not found:
        sets = sorted({kind.dataset for kind in KINDS.values() if kind.dataset})
        raise SourceError(
            f"`{place}` has nothing that can be judged: expected folders {', '.join(sets)}, or one named as a kind.",
            hint="`lookalike judge --list` says where to get them",
        )
    return [Part(path, tuple(names), dataset, bool(kinds)) for (path, dataset), names in found.items()]


def judged_source(part: Part, out: str) -> Source:
    """The images of a part that are drawn, as a source of the collection `out`; its `facts` say how many there are."""
    if part.dataset is None:
        source = open_source(str(part.place), ())
    else:
        source = open_dataset(part.dataset, str(part.place))

    def batches() -> Iterator[pa.RecordBatch]:
        rows = _Rows(part)
        with twice(iter(source), rows.add, pa.schema([*LISTED, *source.columns]), out) as learned:
            drawn = {name: rows.draw(name) for name in part.kinds}
            roles = {name: role for name, role in drawn.items() if part.asked or role.any()}
            source.facts["judge"] = {name: rows.facts(role) for name, role in roles.items()}
            for start, batch in learned:
                for name, role in roles.items():
                    mine = role[start : start + len(batch)]
                    if mine.any():
                        yield _told(batch, mine, name)

    source.facts["learn"] = False
    return replace(source, batches=batches)


def draw(
    digest: UInt64[np.ndarray, "N"],
    label: Int64[np.ndarray, "N"],
    group: Int64[np.ndarray, "N"],
    is_query: Bool[np.ndarray, "N"],
    is_gallery: Bool[np.ndarray, "N"],
    class_digest: UInt64[np.ndarray, "C"],
    queries: int = QUERIES,
    index: int = INDEX,
) -> Int8[np.ndarray, "N"]:
    """What each row of one kind is: `LEFT_OUT`, `QUERY` or `IN_INDEX`.

    `label` and `group` are numbers, -1 where there is none; `class_digest` has one for each number of `label`.
    """
    role = np.zeros(len(digest), np.int8)
    order = np.argsort(digest, kind="stable")
    rows: dict[int, list[int]] = {}
    for row in order[label[order] >= 0].tolist():
        rows.setdefault(int(label[row]), []).append(row)
    asked: list[list[int]] = []
    for one in sorted(rows, key=lambda one: (int(class_digest[one]), one)):
        kept = next((row for row in reversed(rows[one]) if is_gallery[row]), None)
        mine = [] if kept is None else [r for r in rows[one] if is_query[r] and r != kept and _apart(group, r, kept)]
        asked += [mine] if mine else []
    left = queries
    for turn in count():
        some = [mine[turn] for mine in asked if turn < len(mine)][:left]
        role[some] = QUERY
        left -= len(some)
        if not some or not left:
            break
    drawn = {int(one) for one in label[role == QUERY]}
    for one in drawn:
        found = [row for row in reversed(rows[one]) if is_gallery[row] and role[row] != QUERY]
        role[found[:PER_CLASS]] = IN_INDEX
    others = order[is_gallery[order] & ~np.isin(label[order], list(drawn))]
    role[others[: max(0, index - int((role == IN_INDEX).sum()))]] = IN_INDEX
    return role


def _apart(group: np.ndarray, one: int, other: int) -> bool:
    return bool(group[one] < 0 or group[one] != group[other])


class _Rows:
    """What decides about the rows of a source, in 40 bytes a row."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self._labels: dict[str, int] = {}
        self._groups: dict[str, int] = {}
        self._parts: list[tuple[np.ndarray, ...]] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Learn of rows."""
        names = np.frombuffer(names_digested(batch["source"].to_pylist(), 8), np.uint64)
        label, group = (
            np.array([-1 if name is None else known.setdefault(name, len(known)) for name in batch[column].to_pylist()])
            for column, known in (("label", self._labels), ("group", self._groups))
        )
        is_query, is_gallery = (batch[name].fill_null(True).to_numpy(False) for name in ("is_query", "is_gallery"))
        masks = [self._of(batch, name) for name in self.part.kinds]
        self._parts.append((names, label.astype(np.int64), group.astype(np.int64), is_query, is_gallery, *masks))

    def draw(self, name: str) -> Int8[np.ndarray, "N"]:
        """The role of each row in one kind; all are left out where there is nothing to search for."""
        mine = np.flatnonzero(self._column(5 + self.part.kinds.index(name)))
        digest, label, group, is_query, is_gallery = (self._column(i)[mine] for i in range(5))
        if self.part.dataset is None or not KINDS[name].roles:
            is_query, is_gallery = np.ones((2, len(mine)), bool)
        classes = np.frombuffer(names_digested(list(self._labels), 8), np.uint64)
        role = np.zeros(len(self._column(0)), np.int8)
        role[mine] = draw(digest, label, group, is_query, is_gallery, classes)
        if (role == QUERY).any():
            return role
        if not self.part.asked:
            return np.zeros_like(role)
        raise SourceError(
            f"`{self.part.place}` has no {name} to search for: there is no class with two images among {len(mine):,} "
            "that are of this kind.",
            hint="`lookalike judge --kinds` names the others, and `--list` says what each needs",
        )

    def facts(self, role: Int8[np.ndarray, "N"]) -> dict[str, Any]:
        """How much is drawn of one kind, and eight hexadecimal digits of the names with their roles."""
        taken = np.flatnonzero(role)
        pairs = sorted(zip(self._column(0)[taken].tolist(), role[taken].tolist(), strict=True))
        told: dict[str, Any] = {"queries": int((role == QUERY).sum()), "index": int((role == IN_INDEX).sum())}
        told["classes"] = len(np.unique(self._column(1)[role == QUERY]))
        return {**told, "drawn": hashlib.sha256(repr(pairs).encode()).hexdigest()[:8]}

    def _column(self, place: int) -> Any:
        return np.concatenate([part[place] for part in self._parts]) if self._parts else np.zeros(0, np.int64)

    def _of(self, batch: pa.RecordBatch, name: str) -> Bool[np.ndarray, "N"]:
        """Which rows are of a kind."""
        kind, mask = KINDS[name], np.ones(len(batch), bool)
        if self.part.dataset is None:
            return mask
        if kind.split is not None:
            mask &= np.array([split == kind.split for split in batch["split"].to_pylist()], bool)
        if kind.column is not None:
            mask &= np.array([(v in kind.values) != kind.but for v in batch[kind.column].to_pylist()], bool)
        return mask


def _told(batch: pa.RecordBatch, role: Int8[np.ndarray, "N"], kind: str) -> pa.RecordBatch:
    """The drawn rows of a batch, with the kind as their domain and their roles."""
    kept = np.flatnonzero(role)
    columns: dict[str, Any] = dict(zip(batch.schema.names, batch.take(pa.array(kept)).columns, strict=True))
    columns |= {"domain": [kind] * len(kept), "split": ["test"] * len(kept)}
    columns |= {"is_query": (role[kept] == QUERY).tolist(), "is_gallery": (role[kept] == IN_INDEX).tolist()}
    return pa.RecordBatch.from_pydict(columns, batch.schema)


def version(sources: Mapping[str, Mapping[str, Any]]) -> str:
    """The name of what was drawn: the rule, and digests of the names of each kind; equal ones are comparable."""
    parts = {name: told["drawn"] for facts in sources.values() for name, told in facts.get("judge", {}).items()}
    whole = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
    return f"judge-{rule()}-{whole}"
