"""A public data set as a source: its files as they are published, checked against what is known of it."""

import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa

from lookalike.core.config import did_you_mean
from lookalike.core.errors import SourceError, UsageError
from lookalike.core.journal import note, table
from lookalike.data.sources import Place, excluded, nfc
from lookalike.data.sources.archive import unpacking
from lookalike.data.sources.datasets import DATASETS
from lookalike.data.sources.folder import SUFFIXES
from lookalike.data.sources.listed import BATCH, LISTED, Names, Source, listed_place
from lookalike.data.sources.once import Once
from lookalike.data.sources.store import located
from lookalike.data.sources.tree import Tree

SHOWN = 5  # names that are said of those that are missing, or too many


class Row(NamedTuple):
    """An image as a data set's lists have it."""

    path: str  # of its file, as the publisher names it
    label: str | None
    split: str | None = "train"
    is_query: bool = True
    is_gallery: bool = True
    group: str | None = None
    name: str = ""  # where several rows have one file
    more: Mapping[str, Any] = {}
    domain: str | None = None  # None: the data set's name
    place: Place | None = None  # in a file that holds others too; None: the file `path` is looked for
    border: int = 0  # pixels at each side that are no part of the image


class Count(NamedTuple):
    """How much of a split there is; None: not published, or not verified."""

    images: int | None
    classes: int | None = None


@dataclass(frozen=True)
class Dataset:
    """What is known of a data set, and how its files are read."""

    name: str
    title: str
    what: str  # in a few words
    page: str
    get: str  # how to get it, in sentences
    size: str  # of what is downloaded
    licence: str  # its name, as `core.licences` knows it
    forbids: str  # in words
    counts: Mapping[str, Count]  # split -> what is published
    marks: tuple[tuple[str, ...], ...]  # files and folders that show that it is this one: all of any of these
    rows: Callable[[Tree], Iterable[Row]]
    checksums: Mapping[str, str] = field(default_factory=dict)  # file -> "md5:...", "sha256:..."
    columns: pa.Schema = field(default_factory=lambda: pa.schema([]))  # further ones
    learn: bool = True  # False: it is there to be measured on
    nested: bool = False  # its tar files hold tar files


def dataset_of(name: str) -> Dataset:
    """The data set of this name; UsageError if none is known."""
    if name not in DATASETS:
        raise UsageError(
            f"`{name}` is no data set that is known here.{did_you_mean(name, DATASETS)}",
            hint="`lookalike prepare --list` shows those that are",
        )
    found: Dataset = import_module(DATASETS[name]).DATASET
    return found


def open_dataset(name: str, place: str, exclude: Sequence[str] = ()) -> Source:
    """The data set `name` whose files lie at `place`, a folder or an archive. Images without a file are left out.

    SourceError, at once or on the way: it is another one's place, or its lists say something impossible.
    """
    dataset = dataset_of(name)
    tree = tree_of(dataset, place)
    columns = pa.schema([*dataset.columns, ("licence", pa.string())])
    facts: dict[str, Any] = {"dataset": name, "licence": dataset.licence, "forbids": dataset.forbids}
    facts |= {"page": dataset.page, "learn": dataset.learn}

    def batches() -> Iterator[pa.RecordBatch]:
        schema, seen = pa.schema([*LISTED, *columns]), _Seen(dataset)
        for rows, places in _located(dataset, tree, exclude):
            seen.add(rows, places)
            there = [_listed(dataset, row, at) for row, at in zip(rows, places, strict=True) if at is not None]
            yield pa.RecordBatch.from_pylist(there, schema)
        facts.update(seen.facts())
        for words in seen.words():
            note(words)
        if not seen.found:
            raise SourceError(
                f"`{place}` has none of the {sum(seen.missing.values()):,} images that the lists of `{name}` name.",
                hint=f"`lookalike prepare {name} --from {shlex.quote(str(place))} --check` says which are missing",
            )

    return Source(place, name, batches, columns, facts=facts)


def tree_of(dataset: Dataset, place: str) -> Tree:
    """The files of the data set at `place`, from the folder in which its marks lie."""
    if not located(place).exists():
        raise SourceError(f"There is nothing at `{place}`.", hint=f"how to get `{dataset.name}`: {dataset.get}")
    tree = Tree(place, nested=dataset.nested)
    if (top := _top(dataset, tree)) is not None:
        return tree.below(top)
    others = (dataset_of(name) for name in DATASETS if name != dataset.name)
    like = next((other.name for other in others if _top(other, tree) is not None), None)
    wanted = " or ".join(" and ".join(f"`{mark}`" for mark in marks) for marks in dataset.marks)
    words = f"`{place}` is not `{dataset.name}`: there is no {wanted}."
    if like:
        raise SourceError(
            f"{words} It looks like `{like}`.",
            hint=f"lookalike prepare {like} --from {shlex.quote(str(place))} --out COLL",
        )
    if tree.packed:
        raise SourceError(words, hint="unpack first: " + "; ".join(map(unpacking, tree.packed[:SHOWN])))
    raise SourceError(words, hint=f"how to get it: {dataset.get}")


def _top(dataset: Dataset, tree: Tree) -> str | None:
    for first, *others in dataset.marks:
        for top in tree.tops(first):
            if all(tree.below(top).has(mark) for mark in others):
                return top
    return None


def _located(dataset: Dataset, tree: Tree, exclude: Sequence[str]) -> Iterator[tuple[list[Row], list[Place | None]]]:
    """Rows and where their files lie, a batch at a time; what the lists name twice stands once."""
    rows, once = (row for row in dataset.rows(tree) if not (exclude and excluded(row.path, exclude))), Once()
    while some := list(islice(rows, BATCH)):
        names = [row.name or row.path for row in some]
        told = once.look(names, [row.label for row in some])
        if None in told:
            raise _two_labels(dataset, tree, some[told.index(None)])
        some = [row for row, new in zip(some, told, strict=True) if new]
        found = iter(tree.find([row.path for row in some if row.place is None]))
        yield some, [next(found) if row.place is None else row.place for row in some]


def _two_labels(dataset: Dataset, tree: Tree, one: Row) -> SourceError:
    same = (row for row in dataset.rows(tree) if (row.name, row.path) == (one.name, one.path))
    labels = " and ".join(dict.fromkeys(f"`{row.label}`" for row in same))
    return SourceError(
        f"The lists of `{dataset.name}` give `{one.name or one.path}` two labels: {labels}.",
        hint=f"download them again, or leave it out: --exclude {one.path}",
    )


def _listed(dataset: Dataset, row: Row, place: Place) -> dict[str, Any]:
    told: dict[str, Any] = {**listed_place(place), "place.border": row.border, "source": row.name or row.path}
    told |= {"domain": row.domain or dataset.name, "label": None if row.label is None else nfc(row.label)}
    told |= {"split": row.split, "group": row.group, "is_query": row.is_query, "is_gallery": row.is_gallery}
    return {**told, "licence": dataset.licence, **row.more}


class _Seen:
    """What of a data set is there."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.found, self.missing = Counter[str](), Counter[str]()  # split -> images
        self.lost: list[str] = []  # the first names of those without a file
        self._classes: dict[str, set[tuple[str | None, str]]] = {}

    def add(self, rows: Sequence[Row], places: Sequence[Place | None]) -> None:
        for row, place in zip(rows, places, strict=True):
            split = row.split or "none"
            if place is None:
                self.missing[split] += 1
                self.lost += [row.path] if len(self.lost) < SHOWN else []
                continue
            self.found[split] += 1
            if row.label is not None:
                self._classes.setdefault(split, set()).add((row.domain, row.label))

    @property
    def splits(self) -> list[str]:
        return list(dict.fromkeys((*self.dataset.counts, *self.found, *self.missing)))

    def counts(self, split: str) -> Count:
        """What is there of a split."""
        return Count(self.found[split], len(self._classes.get(split, ())))

    def facts(self) -> dict[str, Any]:
        """For the card: split -> images and classes that are there, and images that are not."""
        return {
            "found": {split: self.counts(split)._asdict() for split in self.splits},
            "missing": dict(self.missing),
        }

    def words(self) -> Iterator[str]:
        """What differs from what is published, in sentences."""
        name, missing = self.dataset.name, sum(self.missing.values())
        if missing:
            total = missing + sum(self.found.values())
            yield (
                f"{name}: {missing:,} of {total:,} images that its lists name have no file, and are left out; "
                f"`--check` names them"
            )
        for split, expected in self.dataset.counts.items():
            for what, mine, theirs in zip(("images", "classes"), self.counts(split), expected, strict=True):
                if theirs is not None and mine != theirs and mine:
                    yield f"{name}: split {split} has {mine:,} {what}, and {theirs:,} are published"


class Checked(NamedTuple):
    """What a place has of a data set."""

    whole: bool
    text: str


def check(name: str, place: str) -> Checked:
    """What is missing at `place`, what differs from what is published, and which images no list names."""
    dataset = dataset_of(name)
    tree, seen, listed = tree_of(dataset, place), _Seen(dataset), Names()
    for rows, places in _located(dataset, tree, ()):
        seen.add(rows, places)
        listed.add([os.path.normpath(row.path) for row in rows])
    extra, first = 0, list[str]()
    names = (name for name in tree.names() if is_picture(name))
    while some := list(islice(names, BATCH)):
        unknown = [one for one, at in zip(some, listed.find(some).tolist(), strict=True) if at < 0]
        extra += len(unknown)
        first += unknown[: SHOWN - len(first)]
    body = []
    for split in seen.splits:
        mine, theirs = seen.counts(split), dataset.counts.get(split, Count(None))
        known = ["?" if value is None else value for value in theirs]
        body.append([split, mine.images, known[0], seen.missing[split], mine.classes, known[1]])
    lines = [table(["split", "images", "published", "missing", "classes", "published"], body)]
    if seen.lost:
        lines.append(f"missing: {_some(seen.lost, sum(seen.missing.values()))}")
    if extra:
        lines.append(f"in no list: {_some(first, extra)}")
    return Checked(not seen.missing, "\n".join(lines))


def _some(names: Sequence[str], count: int) -> str:
    more = f" and {count - len(names):,} more" if count > len(names) else ""
    return ", ".join(names) + more


def is_picture(name: str) -> bool:
    """Whether a file of this name is an image; `._1.jpg` is what macOS keeps beside one."""
    return name.lower().endswith(SUFFIXES) and not name.rpartition("/")[2].startswith(".")
