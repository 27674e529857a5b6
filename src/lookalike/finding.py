"""The verbs of finding as functions, and an index whose queries are images.

`retrieval` knows vectors alone, so that the encoder of an index is joined to it here.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from lookalike.core.errors import CollectionError
from lookalike.core.journal import note
from lookalike.data.collection import Collection
from lookalike.places import Place, opened, path_of, several
from lookalike.retrieval.index import ExactIndex, Exclude, Matches, rows_with

if TYPE_CHECKING:
    from lookalike.data.prune import Pruned
    from lookalike.imaging.given import Given
    from lookalike.vectors.runtime import Embedder


@dataclass(frozen=True, eq=False, repr=False)
class Index(ExactIndex):
    """The vectors of a collection in memory, and the encoder that made them: queries are images, or vectors.

    >>> index = la.Index.open("photos.lookalike")
    >>> index
    Index('photos.lookalike': 12 images, 6 numbers each)
    >>> index.query("kettle.jpg", k=3)
    Matches(1 queries, 3 matches in 'photos.lookalike')
    >>> index.query(index.vectors[:2], k=3).scores.shape
    (2, 3)

    Attributes:
        collection: The images.
        column: The name of the column of vectors.
        ids: [N] of the rows that have a vector.
        vectors: [N D] float32, of length 1.
    """

    @classmethod
    def open(cls, path: str | Path, column: str | None = None) -> "Index":
        """The index over a column of the collection at `path`; see `ExactIndex.open`."""
        found = ExactIndex.open(path, column)
        return cls(found.collection, found.column, found.ids, found.vectors)

    @cached_property
    def encoder(self) -> "Embedder":
        """What made the vectors, ready for queries; loaded when the first image is asked for.

        CollectionError if the collection does not say what it is, or the vectors are not those that `search` takes.
        """
        from lookalike.commands.search import encoder_of

        encoder, _, column = encoder_of(self.collection, "")
        if column != self.column:
            raise CollectionError(
                f"`{self.column}` of `{self.collection.path}` is not of the encoder that is searched with, whose "
                f"vectors are in `{column}`.",
                hint=f"Index.open({self.collection.path!r}, {column!r}), or query with vectors",
            )
        return encoder

    def query(
        self,
        queries: Any,
        k: int = 5,
        where: str | None = None,
        exclude: Exclude = None,
        *,
        with_self: bool = False,
    ) -> Matches:
        """The k nearest rows of every query, by cosine; ties to the lower id.

        Args:
            queries: An image or several, as `Encoder.embed` takes them; or vectors, floats [Q D] or [D], from the
                encoder that made the index.
            k: How many rows to find.
            where: Condition that a row must meet (`domain = 'cars' AND price < 10`), as SQL. It is applied before the
                search, so that k rows are found if as many meet it.
            exclude: Ids that a query must not find, [Q] or [Q E]; -1 stands for none.
            with_self: Whether an image may find its own file. Unless `exclude` says what to leave out, it does not.

        Raises:
            Error: An image that can't be read, vectors of another encoder, a condition that can't be understood.
        """
        from lookalike.imaging.given import is_one

        if isinstance(queries, np.ndarray) and queries.ndim <= 2 and queries.dtype.kind == "f":
            return super().query(queries, k, where, exclude)
        images = [queries] if is_one(queries) else list(queries) if isinstance(queries, Iterable) else queries
        vectors = self.encoder.embed(images)
        if exclude is None and not with_self:
            exclude = rows_with(self.collection, [_digest(image) for image in images])
        return super().query(vectors, k, where, exclude)


def _digest(image: object) -> set[bytes]:
    """SHA-256 of an image's file, if it is one."""
    if isinstance(image, (str, PathLike)):
        image = Path(image).read_bytes()
    return {hashlib.sha256(image).digest()} if isinstance(image, (bytes, bytearray, memoryview)) else set()


def index(
    sources: Place | Sequence[Place] = (),
    out: Place = "",
    *,
    model: Place = "",
    test: float | None = None,
    exclude: Sequence[str] = (),
    retry_failed: bool = False,
) -> Index:
    """Make images searchable, or bring an index up to date, and open it.

    >>> la.index("photos", model="model")  # makes or refreshes photos.lookalike
    Index('photos.lookalike': 12 images, 6 numbers each)

    `lookalike index --help` says what the options do, and what is taken where they are not given.

    Raises:
        Error: No such source; no model, and no connection; a folder that can't be written to.
    """
    from lookalike.commands.index import Config, run

    config = Config(several(sources), fspath(out), fspath(model), test, tuple(exclude), retry_failed)
    return Index.open(run(config))


def prune(index: Place | Collection | ExactIndex, columns: Sequence[str] = (), *, dry_run: bool = False) -> "Pruned":
    """Let go of the images that are gone from their sources, and of old vectors, with their bytes.

    >>> la.prune("photos.lookalike").rows
    0

    `lookalike prune --help` says more. With `dry_run` nothing is changed, and what would go is told.

    Raises:
        Error: No collection; a column that `search` takes, or that holds no vectors; another process is writing.
    """
    from lookalike.data import prune as data

    collection = opened(index)
    pruned = data.prune(collection, columns, dry_run=dry_run)
    note(pruned.sentence(collection.path))
    return pruned


def search(
    images: "Given | Iterable[Given]" = (),
    index: Place | ExactIndex | Collection = "",
    *,
    text: str | None = None,
    k: int = 5,
    where: str | None = None,
    min_score: float = -1.0,
    with_self: bool = False,
    together: bool = False,
    unlike: "Given | Iterable[Given]" = (),
    not_: Sequence[str] = (),
    model: Place = "",
) -> Matches:
    """What is nearest to each image, or to a text, in an index; options are those of `lookalike search --help`.

    >>> found = la.search("kettle.jpg", "photos.lookalike", k=3)
    >>> [row["label"] for row in found.rows(0)]
    ['label0', ...]
    >>> la.search(["kettle.jpg", "cup.jpg"], k=3)  # in the only index here
    Matches(2 queries, 6 matches in 'photos.lookalike')

    `found.to_pandas()` is a table of all; with a model that knows words, `text="a red kettle"` searches by them.

    Images are what `Encoder.embed` takes: paths, bytes, arrays, images of Pillow, one or several. An image whose very
    file is in the index does not find itself.

    Raises:
        Error: No index; an image that can't be read; words for an encoder without a text side.
    """
    from lookalike.commands.search import Config, run

    given: dict[str, bytes] = {}
    found = Config(
        images=_named(images, "image", given),
        index=path_of(index),
        text=text,
        k=k,
        where=where,
        min_score=min_score,
        with_self=with_self,
        together=together,
        unlike=_named(unlike, "unlike", given),
        not_=(not_,) if isinstance(not_, str) else tuple(not_),
        model=fspath(model),
    )
    return run(found, given)[2]


def _named(images: "Given | Iterable[Given]", kind: str, given: dict[str, bytes]) -> tuple[str, ...]:
    """Names of images, paths as they are; `given` gets the files of those that are none."""
    from lookalike.imaging.given import file_of, is_one

    names = []
    for number, image in enumerate([cast("Given", images)] if is_one(images) else cast("Iterable[Given]", images), 1):
        names.append(fspath(image) if isinstance(image, (str, PathLike)) else f"{kind} {number}")
        if not isinstance(image, (str, PathLike)):
            given[names[-1]] = file_of(image)
    return tuple(names)
