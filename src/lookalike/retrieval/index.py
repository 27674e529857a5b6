"""Open a collection's vectors for search; query -> Matches."""

import base64
import shlex
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Float32, Int64

from lookalike.core.errors import CollectionError, UsageError
from lookalike.core.journal import frame_of
from lookalike.core.shapes import Ids, l2_normalize
from lookalike.data.collection import SCHEMA, Collection, is_vector
from lookalike.data.duplicates import MARK, SEEN
from lookalike.data.made import is_made
from lookalike.data.whereabouts import PLACE, paths_of
from lookalike.retrieval.exact import knn

Exclude = Int64[np.ndarray, "Q"] | Int64[np.ndarray, "Q E"] | None
_SHOWN = 20  # queries that a notebook shows


@dataclass(frozen=True, eq=False, repr=False)
class Matches:
    """What queries found, best first: k places a query, or as many as rows that meet the condition.

    A place without a match (more are excluded) has id -1 and score -inf. The length is the number of queries.

    >>> found = la.search("kettle.jpg", "photos.lookalike", k=2)
    >>> found.ids.shape, found.scores.dtype, len(found.images(0))
    ((1, 2), dtype('float32'), 2)
    >>> found.to_arrow().column_names[:4]
    ['query', 'rank', 'id', 'score']
    """

    ids: Int64[np.ndarray, "Q k"]
    scores: Float32[np.ndarray, "Q k"]  # cosine, -1 to 1
    collection: Collection

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, query: int) -> list[dict[str, Any]]:
        """The matches of one query: id, score, path, source, label, domain, and the further columns of the source.

        `path` is the file of the image as `open` takes it, ARCHIVE!MEMBER, or an address in a store; None if the
        collection does not know. Nobody looks whether it is still there.
        """
        schema = self.collection.schema
        ours = {*SCHEMA.names, *SEEN.names, *MARK.names, *PLACE.names, "path"}
        added = [field.name for field in schema if not (field.name in ours or is_vector(field) or is_made(field))]
        kept = [name for name in PLACE.names if name in schema.names]
        rows = self._take(query, ["id", "source", "label", "domain", *kept, *added])
        paths = paths_of(rows, self.collection.card)
        return [
            {"id": row["id"], "score": float(score), "path": path}
            | {name: value for name, value in row.items() if name not in ("id", "place")}
            for score, path, row in zip(self.scores[query], paths, rows, strict=False)
        ]

    def __repr__(self) -> str:
        found = int((self.ids >= 0).sum())
        return f"Matches({len(self):,} queries, {found:,} matches in {self.collection.path!r})"

    def to_arrow(self) -> pa.Table:
        """A row a match, in the order of queries: `query` (its number), `rank` (from 1), and what `rows` tells."""
        rows = (enumerate(self.rows(query), 1) for query in range(len(self)))
        return pa.Table.from_pylist(
            [{"query": query, "rank": rank, **row} for query, some in enumerate(rows) for rank, row in some]
        )

    def to_pandas(self) -> Any:
        """The same as a pandas DataFrame; pandas must be installed."""
        return frame_of(self.to_arrow())

    def _repr_html_(self) -> str:
        """The matches as images, for notebooks: a line a query, of twenty at most."""
        lines = []
        for query in range(min(len(self), _SHOWN)):
            pairs = zip(self.images(query), self.rows(query), strict=True)
            cells = "".join(_cell(image, row) for image, row in pairs) or "<td>no match</td>"
            lines.append(f"<tr><th>{query}</th>{cells}</tr>")
        more = f"<p>and {len(self) - _SHOWN:,} queries more</p>" if len(self) > _SHOWN else ""
        return f"<table>{''.join(lines)}</table>{more}"

    def images(self, query: int) -> list[bytes]:
        """The stored images of the matches of one query."""
        return [row["image"] for row in self._take(query, ["image"])]

    def _take(self, query: int, columns: list[str]) -> list[dict[str, Any]]:
        ids = self.ids[query]
        return list(self.collection.take(ids[ids >= 0], columns).to_pylist())


def _cell(image: bytes, row: dict[str, Any]) -> str:
    name, path = (escape(str(row[key] or "")) for key in ("label", "path"))
    data = base64.b64encode(image).decode()
    return (
        f'<td><img src="data:image/jpeg;base64,{data}" alt="{name}" title="{path}" style="max-height: 8em">'
        f"<br>{row['score']:.3f} {name}</td>"
    )


@runtime_checkable
class Index(Protocol):
    """The vectors of a collection, ready to be searched; `Index.open` gives the index that looks at all of them."""

    @staticmethod
    def open(path: str | Path, column: str | None = None) -> "ExactIndex":
        """The exact index over a column of the collection at `path`."""
        return ExactIndex.open(path, column)

    def query(
        self, vectors: Float[np.ndarray, "Q D"], k: int, where: str | None = None, exclude: Exclude = None
    ) -> Matches:
        """The k nearest rows of every vector. An approximate index may miss some."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class ExactIndex:
    """All vectors of a collection, in memory: an `Index` that misses nothing."""

    collection: Collection
    column: str  # of the vectors; its name tells the encoder that made them
    ids: Ids
    vectors: Float32[np.ndarray, "N D"]  # at unit length

    @classmethod
    def open(cls, path: str | Path, column: str | None = None) -> "ExactIndex":
        """The index over a column; without a name, the one noted in the card, or the only one of embeddings, or of
        features where no embeddings are: brought to length 1, they are those of an untouched tower.

        Rows without a vector, or with one that is not finite, are left out: `len(collection) - len(index)` of them.
        CollectionError if it is no collection, or lacks the column, or no row has a vector yet.
        """
        collection = Collection.open(path)
        column = column or _column(collection)
        ids, vectors = collection.vectors(column, partial=True)
        with np.errstate(over="ignore"):
            lengths = np.einsum("nd,nd->n", vectors, vectors)
        if not (np.abs(lengths - 1) < 1e-5).all():  # else they are as an encoder made them
            vectors = l2_normalize(vectors)
            finite = np.isfinite(vectors.sum(axis=1))
            ids, vectors = ids[finite], vectors[finite]
        if len(collection) and not len(ids):
            raise CollectionError(
                f"No row of `{path}` has a value in `{column}`.", hint=f"lookalike index {shlex.quote(str(path))}"
            )
        return cls(collection, column, ids, vectors)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Index({self.collection.path!r}: {len(self):,} images, {self.vectors.shape[1]} numbers each)"

    def query(self, vectors: Any, k: int, where: str | None = None, exclude: Exclude = None) -> Matches:
        """The k nearest rows of every vector, by cosine; ties to the lower id.

        Args:
            vectors: Of the queries [Q D], or of one [D], from the encoder that made the column; any length.
            k: How many rows to find.
            where: Condition that a row must meet (`domain = 'cars' AND price < 10`). It is applied before the
                search, so that k rows are found if as many meet it; CollectionError if it can't be understood.
            exclude: Ids that a query must not find; -1 stands for none.
        """
        width = self.vectors.shape[1]
        if not isinstance(vectors, np.ndarray):
            raise UsageError(
                f"Queries are vectors, and this is a {type(vectors).__qualname__}.",
                hint="lookalike.search(IMAGE, index) embeds images first, as the index's own model does",
            )
        if vectors.ndim == 1:
            vectors = vectors[None]
        if vectors.ndim != 2:
            raise UsageError(f"The queries have the shape {list(vectors.shape)}; expected [Q, {width}], one a row.")
        if vectors.shape[1] != width:
            raise UsageError(
                f"The queries have {vectors.shape[1]} numbers each, and `{self.column}` has {width}: "
                "they come from another encoder."
            )
        if not np.isfinite(vectors).all():
            raise UsageError("The queries hold a number that is not finite.")
        known, gallery = self.ids, self.vectors
        if where is not None:
            meet = np.isin(known, self.collection.table(["id"], where)["id"].to_numpy())
            known, gallery = known[meet], gallery[meet]
        known = np.append(known, -1)  # which is at -1, too
        if exclude is not None:  # ids to rows of the gallery
            places = np.searchsorted(known[:-1], exclude)
            exclude = np.where(known[places] == exclude, places, -1)
        scores, rows = knn(l2_normalize(vectors), gallery, k, exclude, largest=1.0)
        cosines = np.where(rows >= 0, scores.clip(-1, 1), scores)  # rounding leads beyond 1
        return Matches(known[rows], cosines, self.collection)


def rows_with(collection: Collection, digests: Sequence[AbstractSet[bytes]]) -> Int64[np.ndarray, "Q E"] | None:
    """Ids of the rows whose files have one of a query's SHA-256, as `query` excludes them; None: there are none.

    -1 fills the lines of queries that have fewer than others.
    """
    table = collection.table(["id", "sha256"])
    wanted = pa.array(sorted({digest for some in digests for digest in some}), pa.binary(32))
    table = table.filter(pc.is_in(table["sha256"], wanted))
    known = list(zip(table["id"].to_pylist(), table["sha256"].to_pylist(), strict=True))
    own = [[id for id, digest in known if digest in some] for some in digests]
    most = max(map(len, own), default=0)
    return np.array([ids + [-1] * (most - len(ids)) for ids in own], np.int64) if most else None


def _column(collection: Collection) -> str:
    """The column to search: the card's, or the only embeddings that there are, or the only features."""
    noted: str | None = collection.card.get("model", {}).get("column")
    if noted is not None:
        return noted
    made = [name for name in collection.columns if name.startswith("embedding_")]
    made = made or [name for name in collection.columns if name.startswith("features_")]  # of a tower as it is
    if len(made) == 1:
        return made[0]
    path, several = collection.path, f"embeddings of {len(made)} encoders, and none is noted as the one to search with"
    raise CollectionError(
        f"`{path}` has {several if made else 'no embeddings to search'}.",
        hint=f"lookalike index {shlex.quote(str(path))}",
    )
