"""An encoder and a collection: columns of features and embeddings, continued where a killed process stopped.

    KIND_XXXXXXXX_PRECISION    a column: features, mirrored or embedding; the fingerprint; what the tower computed in
    COLL/.work/KIND_*          what is not in its column yet: records of id, image hash and vector

Each batch is appended, so a killed process loses one. A row takes its vector from a record only if it still lacks one
and its image is the same. Columns without a precision in their name are from before it was noted: one serves if it
holds what the encoder gives now.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from lookalike.core.errors import CollectionError, ImageError
from lookalike.core.files import storage_errors
from lookalike.core.journal import progress
from lookalike.core.shapes import Ids
from lookalike.data.card import note_small
from lookalike.data.collection import Collection
from lookalike.vectors.runtime import Embedder, Kind, Precision, prepared

COMMIT_BYTES = 2**28
"""Vectors that wait for one commit, at most (and one batch); memory holds them three times while they are written."""

SAMPLE = 4
"""Rows of a column without a precision that are embedded again to see which one it has."""


class Embedded(NamedTuple):
    """A column of embeddings, and how many of its rows are new."""

    column: str
    new: int


def ensure_features(embedder: Embedder, collection: Collection, mirrored: bool) -> list[str]:
    """Fill the collection's column of features, and that of the mirror images' features if `mirrored`.

    Only rows without a value are embedded. The same call goes on where a killed one stopped. Columns in float32 serve
    every encoder, if they are whole.

    Returns:
        The names of the columns.

    Raises:
        StorageError: Another process writes to the collection, or the disk refuses.
        CollectionError: A stored image can't be decoded, or the column was made by another encoder.
    """
    names = _names(embedder, collection, ("features", "mirrored") if mirrored else ("features",))
    is_done = all(_whole(embedder, collection, name) for name in names)
    if not is_done or any(
        _work_file(embedder, collection, name).exists() for name in names
    ):  # else it may be read-only
        with collection.locked("embed"):
            _fill_features(embedder, collection, names)
    return names


def ensure_embeddings(embedder: Embedder, collection: Collection) -> Embedded:
    """Fill the collection's column of embeddings, by way of its features.

    Raises: as `ensure_features`.
    """
    (name,) = _names(embedder, collection, ("embedding",))
    if _whole(embedder, collection, name):
        return Embedded(name, 0)
    features = ensure_features(embedder, collection, embedder.config.mirror)
    if features[0].endswith("_float32"):  # whoever asked
        name = embedder.column("embedding", "float32")
    with collection.locked("embed"):
        missing = collection.missing(name)
        rows = max(1, COMMIT_BYTES // (4 * embedder.config.tower.features))
        parts = [np.empty((0, embedder.dimension), np.float32)]
        for start in range(0, len(missing), rows):
            stored = (_stored(collection, column, missing[start : start + rows]) for column in features)
            parts.append(embedder.project(*stored))
        collection.write_vectors(name, missing, np.concatenate(parts), {"fingerprint": embedder.fingerprint})
    return Embedded(name, len(missing))


def _names(embedder: Embedder, collection: Collection, kinds: Sequence[Kind]) -> list[str]:
    """The columns of these kinds, all of one precision: float32 where they are whole, else what the encoder runs in."""
    exact = [embedder.column(kind, "float32") for kind in kinds]
    if all(_whole(embedder, collection, name) for name in exact):
        return exact
    return [_own(embedder, collection, kind) for kind in kinds]


def embeddings_of(embedder: Embedder, collection: Collection, preferred: str) -> str:
    """The collection's column of this encoder's embeddings, in whatever precision; its own where there is none."""
    order = dict.fromkeys(["float32", embedder.precision, *get_args(Precision), None])
    made = [name for precision in order if (name := embedder.column("embedding", precision)) in collection.columns]
    return preferred if preferred in made else next(iter(made), embedder.embedding_column)


def precision_of(column: str) -> Precision | None:
    """What the vectors of a column were computed in; None: it is from before that was noted."""
    return next((precision for precision in get_args(Precision) if column.endswith(f"_{precision}")), None)


def _own(embedder: Embedder, collection: Collection, kind: Kind) -> str:
    """The encoder's own column; or that from before precision was noted, if it holds what the encoder gives now."""
    own, before = embedder.column(kind, embedder.precision), embedder.column(kind, None)
    if own in collection.columns or before not in collection.columns:
        return own
    ids = collection.table(["id"], f"`{before}` IS NOT NULL")["id"].to_numpy()
    some = ids[np.linspace(0, len(ids) - 1, min(len(ids), SAMPLE)).astype(int)]
    if len(some) == 0:
        return before
    known, now = (
        _stored(collection, before, some),
        embedder.vectors(next(_images(embedder, collection, [(some, [])])), kind),
    )
    return before if np.abs(now - known).max() <= 1e-3 * np.abs(known).max() else own


def _whole(embedder: Embedder, collection: Collection, column: str) -> bool:
    """Whether no row lacks a value.

    CollectionError if it is of another encoder, whose fingerprint merely begins in the same way.
    """
    if column not in collection.columns:
        return False
    made_by = (collection.schema.field(column).metadata or {}).get(b"fingerprint", b"").decode()
    if made_by != (embedder.fingerprint if column.startswith("embedding") else embedder.features_fingerprint):
        raise CollectionError(
            f"Column `{column}` of `{collection.path}` was made by another encoder ({made_by[:16] or 'unknown'}).",
            hint="make a collection of its own for this encoder: `lookalike prepare SOURCE --out NEW`",
        )
    return len(collection.missing(column)) == 0


def _fill_features(embedder: Embedder, collection: Collection, names: Sequence[str]) -> None:
    if Collection.open(collection.path).version != collection.version:
        raise CollectionError(
            f"Another process changed `{collection.path}` after it was opened.", hint="give the same command again"
        )
    work = [Work(embedder, collection, name) for name in names]
    batches = _batches(work, embedder.engine.batch)
    total = len(np.unique(np.concatenate([part.missing for part in work])))
    if batches:
        note_small(collection, embedder.config.preprocess.resize)
        with progress("embed", "images", total, total - sum(len(ids) for ids, _ in batches)) as bar:
            for (ids, columns), images in zip(batches, _images(embedder, collection, batches), strict=True):
                for part in columns:
                    part.add(ids, embedder.vectors(images, part.kind))
                bar.advance(len(ids))
    for part in work:
        part.commit()
        part.close()


class Work:
    """What was computed for one column and is not in it yet."""

    def __init__(self, embedder: Embedder, collection: Collection, column: str) -> None:
        """What is to be done for `column`, and what a killed process has done of it."""
        self.kind: Kind = "mirrored" if column.startswith("mirrored") else "features"
        self._collection, self._column, self._fingerprint = collection, column, embedder.features_fingerprint
        self.missing = collection.missing(column)
        """Rows without a value when this began, in order."""
        hashes = collection.take(self.missing, ["sha256"])["sha256"].to_pylist()
        self._sha256 = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 32)
        width = embedder.config.tower.features
        self._record = np.dtype([("id", "<i8"), ("sha256", np.uint8, (32,)), ("vector", "<f4", (width,))])
        self._file = _work_file(embedder, collection, column)
        with storage_errors(self._file):
            self._file.parent.mkdir(exist_ok=True)
            self._file.touch()
            os.truncate(self._file, self._file.stat().st_size // self._record.itemsize * self._record.itemsize)
        self.is_done = np.zeros(len(self.missing), bool)
        self.is_done[self._read()[0]] = True

    def add(self, ids: Ids, vectors: Float32[np.ndarray, "B F"]) -> None:
        """Keep the vectors of one batch; commits if much has come together."""
        places = np.searchsorted(self.missing, ids)
        records = np.empty(len(ids), self._record)
        records["id"], records["sha256"], records["vector"] = ids, self._sha256[places], vectors
        with storage_errors(self._file), self._file.open("ab") as file:
            file.write(records.tobytes())
            file.flush()
            os.fsync(file.fileno())
            held = file.tell()
        self.is_done[places] = True
        if held >= COMMIT_BYTES:
            self.commit()

    def _read(self) -> tuple[Int64[np.ndarray, "R"], Float32[np.ndarray, "R F"]]:
        """Places in `missing`, rising, and vectors of the records whose rows still show the same image."""
        records = np.fromfile(self._file, self._record)
        records = records[np.isin(records["id"], self.missing)]
        places = np.searchsorted(self.missing, records["id"])
        same = (self._sha256[places] == records["sha256"]).all(axis=1)
        places, first = np.unique(places[same], return_index=True)
        return places, records["vector"][same][first]

    def commit(self) -> None:
        """Write what was computed into the collection, and empty the file."""
        places, vectors = self._read()
        if len(places) or self._column not in self._collection.columns:  # a collection without rows gets its columns
            metadata = {"fingerprint": self._fingerprint}
            self._collection.write_vectors(self._column, self.missing[places], vectors, metadata)
        with storage_errors(self._file):
            os.truncate(self._file, 0)

    def close(self) -> None:
        """Remove the file, and what versions before left beside it."""
        with storage_errors(self._file):
            self._file.unlink()
            for left in self._file.parent.glob("*/"):
                shutil.rmtree(left)
            if not any(self._file.parent.iterdir()):
                self._file.parent.rmdir()


def _work_file(embedder: Embedder, collection: Collection, column: str) -> Path:
    kind = column.partition("_")[0]
    return Path(collection.path) / ".work" / f"{kind}_{embedder.features_fingerprint}_{embedder.precision}"


Batches = Sequence[tuple[np.ndarray, list[Work]]]
"""Ids of the rows that go through the encoder together, and the columns that they go to."""


def _batches(work: Sequence[Work], size: int) -> Batches:
    """All batches; what two columns lack is decoded once for both."""
    lacking = [part.missing[~part.is_done] for part in work]
    every = np.unique(np.concatenate(lacking))
    wanted = np.stack([np.isin(every, ids) for ids in lacking])
    batches = []
    for pattern in np.unique(wanted, axis=1).T[::-1]:
        ids = every[(wanted == pattern[:, None]).all(axis=0)]
        columns = [part for part, is_wanted in zip(work, pattern, strict=True) if is_wanted]
        batches += [(ids[start : start + size], columns) for start in range(0, len(ids), size)]
    return batches


def _images(embedder: Embedder, collection: Collection, batches: Batches) -> Iterator[UInt8[np.ndarray, "B S S 3"]]:
    def decode(row: tuple[int, bytes]) -> UInt8[np.ndarray, "S S 3"]:
        try:
            return embedder.decode(row[1])
        except ImageError as error:
            raise CollectionError(
                f"The stored image of row {row[0]} of `{collection.path}` can't be decoded: {error.message}",
                hint="make the collection again: `lookalike prepare SOURCE --out NEW`",
            ) from error

    stored = (
        list(zip(ids.tolist(), collection.take(ids, ["image"])["image"].to_pylist(), strict=True)) for ids, _ in batches
    )
    yield from prepared(stored, decode)


def _stored(collection: Collection, column: str, ids: Ids) -> Float32[np.ndarray, "M F"]:
    values = collection.take(ids, [column])[column].combine_chunks()
    rows: Float32[np.ndarray, "M F"] = values.flatten().to_numpy().reshape(len(ids), -1)
    return rows
