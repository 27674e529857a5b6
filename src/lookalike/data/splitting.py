"""Splits of the rows of a collection, so that nothing that belongs together stands on two sides.

What belongs together is a class (a pair of domain and label), a group, or near duplicates. Each such unit is judged by
a number from 0 to 1 that is its own on every machine (`sources.classes.share_of`), as `prepare --test` judges classes:
with seed 0 and units that share nothing both say the same. Units that share rows are on one side, by the least number
among them.

    by          units                          what two splits never share
    class       classes                        classes, groups, duplicates
    group       groups; rows without a group   groups, duplicates
    duplicates  duplicates; other rows         groups, duplicates
"""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from lookalike.data.collection import Collection
from lookalike.data.sources.classes import share_of

By = Literal["class", "group", "duplicates"]
COLUMNS = ("id", "sha256", "label", "domain", "split", "group", "is_query", "is_gallery", "duplicate_of")
ENTRY = "split"  # of the card: the options of a split that `prepare` keeps to
OWN = ("split", "is_query", "is_gallery")  # columns that are then no more the sources'


@dataclass(frozen=True)
class Options:
    """How a collection is split."""

    test: float
    val: float
    by: By
    seed: int

    def to_json(self) -> dict[str, Any]:
        """For the card."""
        return asdict(self)


class Units:
    """Rows that belong together, joined as long as anything new is told."""

    def __init__(self) -> None:
        self._one: dict[tuple[str, ...], tuple[str, ...]] = {}
        self.share: dict[tuple[str, ...], float] = {}

    def add(self, name: tuple[str, ...], share: float) -> tuple[str, ...]:
        """A unit with its own number; what is there already keeps its own."""
        self.share.setdefault(name, share)
        return name

    def last(self, name: tuple[str, ...]) -> tuple[str, ...]:
        """The unit that stands for all that `name` is joined with: that of the least number."""
        while (other := self._one.get(name, name)) != name:
            self._one[name] = self._one.get(other, other)
            name = other
        return name

    def join(self, one: tuple[str, ...], other: tuple[str, ...]) -> None:
        """Both on one side from now on."""
        one, other = self.last(one), self.last(other)
        if one != other:
            least, more = sorted((one, other), key=lambda name: (self.share[name], name))
            self._one[more] = least


def units_of(rows: pa.Table, by: By, seed: int = 0) -> list[tuple[str, ...] | None]:
    """The unit of each row, joined with all that it shares; None for rows without a label where units are classes.

    Rows that are near duplicates of a gone row are those of no one.
    """
    units, names = Units(), list[tuple[str, ...] | None]()
    columns = [rows[name].to_pylist() for name in ("sha256", "label", "domain", "group")]
    first: dict[tuple[str, ...], tuple[str, ...]] = {}
    for digest, label, domain, group in zip(*columns, strict=True):
        own = (domain or "", label) if by == "class" else ("group", domain or "", group)
        if by == "class" and label is None:
            names.append(None)
            continue
        if own[-1] is None or by == "duplicates":
            own = ("file", digest.hex())
        name = units.add(own, share_of(own if not seed else (str(seed), *own)))
        names.append(name)
        if group is not None:
            units.join(name, first.setdefault((domain or "", group), name))
    ids, marks = rows["id"].to_pylist(), rows["duplicate_of"].to_pylist()
    at = {id: place for place, id in enumerate(ids)}
    known = dict[int, tuple[str, ...]]()
    for place, mark in enumerate(marks):
        for one in () if mark is None else (mark, ids[place]):
            name_of = names[at[one]] if one in at else None
            if name_of is not None:
                units.join(name_of, known.setdefault(mark, name_of))
    return [None if name is None else units.last(name) for name in names]


def splits_of(rows: pa.Table, options: Options) -> list[str | None]:
    """The split of each row; None for rows without a label where units are classes.

    A split that no unit's number falls into gets the unit of the least number that is in `train`, if that leaves one.
    """
    units = units_of(rows, options.by, options.seed)
    shares = {unit: share_of(unit if not options.seed else (str(options.seed), *unit)) for unit in units if unit}
    sides = {unit: _side(share, options) for unit, share in shares.items()}
    for name, wanted in (("test", options.test), ("val", options.val)):
        train = sorted((share, unit) for unit, share in shares.items() if sides[unit] == "train")
        if wanted > 0 and name not in sides.values() and len(train) > 1:
            sides[train[0][1]] = name
    return [None if unit is None else sides[unit] for unit in units]


def _side(share: float, options: Options) -> str:
    return "test" if share < options.test else "val" if share < options.test + options.val else "train"


def largest_unit(rows: pa.Table, options: Options) -> int:
    """How many rows the largest unit has, which can't be cut."""
    counts = Counter(unit for unit in units_of(rows, options.by, options.seed) if unit is not None)
    return max(counts.values(), default=0)


def shared(rows: pa.Table) -> dict[str, int]:
    """What stands in more than one split: how many classes, groups, and sets of near duplicates."""
    found = dict[str, int]()
    columns = {name: rows[name].to_pylist() for name in ("id", "split", "label", "domain", "group", "duplicate_of")}
    origin = [id if mark is None else mark for id, mark in zip(columns["id"], columns["duplicate_of"], strict=True)]
    for name, values in (("class", columns["label"]), ("group", columns["group"]), ("duplicates", origin)):
        sides: dict[Any, set[str]] = {}
        for split, domain, value in zip(columns["split"], columns["domain"], values, strict=True):
            if split is not None and value is not None:
                sides.setdefault(value if name == "duplicates" else (domain, value), set()).add(split)
        found[name] = sum(len(some) > 1 for some in sides.values())
    return found


def write_split(collection: Collection, rows: pa.Table, splits: list[str | None], some: np.ndarray) -> None:
    """Set the splits of `some` of the rows, in one commit. Those that have no role, as sources leave it for what they
    learn from, become queries and gallery images both; the caller holds the lock.
    """
    if not len(some):
        return
    taken = pa.array(some)
    query, gallery = (rows[name].take(taken).to_numpy(zero_copy_only=False) for name in OWN[1:])
    neither = ~(query | gallery)
    values = [pa.array([splits[place] for place in some.tolist()], pa.string()), query | neither, gallery | neither]
    collection.update(pa.table({"id": rows["id"].take(taken), **dict(zip(OWN, values, strict=True))}))


def table_of(collection: Collection) -> pa.Table:
    """The rows with the columns of `COLUMNS`; `duplicate_of` is null where nothing was marked."""
    there = [name for name in COLUMNS if name in collection.columns]
    rows = collection.table(there)
    for name in COLUMNS:
        if name not in there:
            rows = rows.append_column(name, pa.nulls(len(rows), pa.int64()))
    return rows


def continue_split(collection: Collection) -> int:
    """Give rows that came after `lookalike split` their splits, with the options that the card keeps; how many. The
    caller holds the lock.

    A row whose unit has a split already follows it; rows that have a split keep it, whatever a new row would join.
    """
    noted = collection.card.get(ENTRY)
    if not noted:
        return 0
    rows, options = table_of(collection), Options(**noted)
    given = rows["split"].to_pylist()
    if None not in given:
        return 0
    units, wanted = units_of(rows, options.by, options.seed), splits_of(rows, options)
    classes = list(zip(rows["domain"].to_pylist(), rows["label"].to_pylist(), strict=True))
    sides: dict[Any, str] = {}
    for unit, own, split in zip(units, classes, given, strict=True):
        if split is not None and unit is not None:
            sides.setdefault(unit, split)
            if options.by == "class":
                sides.setdefault(own, split)
    chosen = [
        sides.get(own, sides.get(unit, side)) if split is None and unit is not None else None
        for unit, own, split, side in zip(units, classes, given, wanted, strict=True)
    ]
    new = np.flatnonzero([side is not None for side in chosen])
    write_split(collection, rows, chosen, new)
    return len(new)
