"""Pages of queries and what is found for them: those that changed between two encoders, and those that find least."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lookalike.core.files import write_bytes
from lookalike.data.collection import Collection
from lookalike.imaging.decode import decode, encode_jpeg
from lookalike.pages.render import render
from lookalike.pages.sheet import fitted

SIDE = 160  # pixels of an image
FEW = 8  # queries of each kind that are shown

Found = Mapping[str, Any]  # `id`, `precision`, and `found`: id, score and whether it is right of each match
Table = tuple[Sequence[str], Sequence[Sequence[str]]]


@dataclass(frozen=True)
class Picture:
    """An image, small, and what it is of; no image where it is of another collection."""

    jpeg: bytes | None
    label: str
    domain: str

    @property
    def name(self) -> str:
        """The label without its domain, for narrow places."""
        return self.label.removeprefix(f"{self.domain}/")


@dataclass(frozen=True)
class Hit:
    """A match: its image, its cosine with the query, and whether it shows the same thing."""

    picture: Picture
    score: float
    right: bool


@dataclass(frozen=True)
class Answer:
    """What one encoder finds for a query."""

    name: str
    precision: float  # mP@5
    hits: Sequence[Hit]


@dataclass(frozen=True)
class Asked:
    """A query, and the answers of one encoder or of several."""

    picture: Picture
    answers: Sequence[Answer]


class Pictures:
    """The images of a collection, read when they are shown, each once."""

    def __init__(self, collection: Collection) -> None:
        self._collection, self._seen = collection, {-1: Picture(None, "distractor", "")}

    def asked(self, queries: Sequence[Sequence[Found]], names: Sequence[str]) -> list[Asked]:
        """Queries as they are shown; each is told once for each of the encoders `names`."""
        self._read(sorted({i for some in queries for one in some for i in (one["id"], *(m[0] for m in one["found"]))}))
        return [
            Asked(
                self._seen[some[0]["id"]],
                [
                    Answer(
                        name, one["precision"], [Hit(self._seen[i], score, right) for i, score, right in one["found"]]
                    )
                    for name, one in zip(names, some, strict=True)
                ],
            )
            for some in queries
        ]

    def _read(self, ids: Sequence[int]) -> None:
        new = [i for i in ids if i not in self._seen]
        if not new:
            return
        rows = self._collection.take(np.array(new, np.int64), ["image", "label", "domain"]).to_pylist()
        for i, row in zip(new, rows, strict=True):
            jpeg = encode_jpeg(fitted(decode(row["image"]), SIDE), quality=80)
            self._seen[i] = Picture(jpeg, row["label"] or "no label", row["domain"] or "")


@dataclass(frozen=True)
class Changed:
    """The queries whose mP@5 differs most between two encoders."""

    before: str
    after: str
    n_queries: int  # that were looked at
    n_better: int
    n_worse: int
    better: Sequence[Asked]
    worse: Sequence[Asked]

    @classmethod
    def of(
        cls, before: str, after: str, pairs: Sequence[tuple[Found, Found]], n_queries: int, pictures: Pictures
    ) -> "Changed":
        """Of pairs of what both find for a query, whose precisions differ."""

        def gain(pair: tuple[Found, Found]) -> float:
            return float(pair[1]["precision"] - pair[0]["precision"])

        better = sorted((pair for pair in pairs if gain(pair) > 0), key=lambda pair: -gain(pair))
        worse = sorted((pair for pair in pairs if gain(pair) < 0), key=gain)
        shown = [pictures.asked(some[:FEW], (before, after)) for some in (better, worse)]
        return cls(before, after, n_queries, len(better), len(worse), *shown)


def write_changed(file: str, collection: str, table: Table, sections: Sequence[Changed]) -> None:
    """The page of a comparison: its table, and the queries that changed."""
    title = " and ".join([sections[0].before, *(section.after for section in sections)])
    page = render("changed.html", title=title, collection=collection, table=table, sections=sections)
    write_bytes(file, page.encode())


def write_worst(file: str, title: str, words: str, domains: Mapping[str, Sequence[Asked]]) -> None:
    """The page of the queries that find least in each domain."""
    write_bytes(file, render("worst.html", title=title, words=words, domains=domains).encode())
