"""An encoder and a collection: columns of features and embeddings, continued where a killed process stopped.

    COLL/.work/<column>/<first id>.npz    ids, image hashes and vectors of one batch, until they are committed

A batch's file is written whole or not at all, so a killed process loses one batch. The files hold what they are
of: a row takes its vector from there only if it still lacks one and its image is the same.
"""

import shutil
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from lookalike.core.errors import CollectionError, ImageError
from lookalike.core.files import storage_errors, write_bytes
from lookalike.core.journal import progress
from lookalike.core.shapes import Ids
from lookalike.data.collection import Collection
from lookalike.vectors.runtime import Embedder, prepared

COMMIT_BYTES = 2**28
"""Vectors that wait for one commit, at most (and one batch); memory holds them three times while they are written."""


def ensure_features(embedder: Embedder, collection: Collection, mirrored: bool) -> None:
    """Fill the collection's column of features, and that of the mirror images' features if `mirrored`.

    Only rows without a value are embedded. The same call goes on where a killed one stopped.

    Raises:
        StorageError: Another process writes to the collection, or the disk refuses.
        CollectionError: A stored image can't be decoded, or the column was made by another encoder.
    """
    with collection.locked("embed"):
        _fill_features(embedder, collection, mirrored)


def ensure_embeddings(embedder: Embedder, collection: Collection) -> str:
    """Fill the collection's column of embeddings, by way of its features; returns the column's name.

    Raises: as `ensure_features`.
    """
    name = embedder.embedding_column
    with collection.locked("embed"):
        _fill_features(embedder, collection, embedder.config.mirror)
        _check_column(collection, name, embedder.fingerprint)
        missing = collection.missing(name)
        if len(missing) == 0 and name in collection.columns:
            return name
        rows = max(1, COMMIT_BYTES // (4 * embedder.config.tower.features))
        parts = [np.empty((0, embedder.dimension), np.float32)]
        for start in range(0, len(missing), rows):
            ids = missing[start : start + rows]
            features = _stored(collection, embedder.features_column, ids)
            mirrored = _stored(collection, embedder.mirrored_column, ids) if embedder.config.mirror else None
            parts.append(embedder.project(features, mirrored))
        collection.write_vectors(name, missing, np.concatenate(parts), {"fingerprint": embedder.fingerprint})
    return name


def _fill_features(embedder: Embedder, collection: Collection, mirrored: bool) -> None:
    if Collection.open(collection.path).version != collection.version:
        raise CollectionError(
            f"Another process changed `{collection.path}` after it was opened.", hint="give the same command again"
        )
    work = [Work.open(embedder, collection, embedder.features_column)]
    if mirrored:
        work.append(Work.open(embedder, collection, embedder.mirrored_column))
    total = len(np.unique(np.concatenate([part.missing for part in work])))
    if total:
        batches = _batches(work, embedder.engine.batch)
        todo = sum(len(ids) for ids, _ in batches)
        with progress("embed", "images", total, total - todo) as bar:
            for (ids, columns), images in zip(batches, _images(embedder, collection, batches), strict=True):
                for part in columns:
                    part.add(ids, embedder.features(images[:, :, ::-1] if part.mirrored else images))
                bar.advance(len(ids))
    for part in work:
        part.commit()


@dataclass
class Work:
    """What was computed for one column and is not in it yet."""

    collection: Collection
    column: str
    fingerprint: str
    mirrored: bool
    width: int
    missing: Ids
    """Rows without a value when this began, in order."""
    sha256: dict[int, bytes]
    """The image's hash of each of these rows."""
    done: dict[int, Path] = field(default_factory=dict)
    """The row's work file, for those that were computed."""
    held: int = 0
    """Bytes of vectors in the work files."""

    @classmethod
    def open(cls, embedder: Embedder, collection: Collection, column: str) -> "Work":
        """What is to be done for `column`, and what a killed process has done of it."""
        _check_column(collection, column, embedder.features_fingerprint)
        missing = collection.missing(column)
        hashes = collection.take(missing, ["sha256"])["sha256"].to_pylist()
        work = cls(
            collection,
            column,
            embedder.features_fingerprint,
            column == embedder.mirrored_column,
            embedder.config.tower.features,
            missing,
            dict(zip(missing.tolist(), hashes, strict=True)),
        )
        for file in sorted(work.directory.glob("*.npz")):
            ids, _ = work.read(file)
            work.done |= dict.fromkeys(ids.tolist(), file)
        work.held = 4 * work.width * len(work.done)
        return work

    @property
    def directory(self) -> Path:
        """Where its files lie."""
        return Path(self.collection.path) / ".work" / self.column

    def add(self, ids: Ids, vectors: Float32[np.ndarray, "B F"]) -> None:
        """Keep the vectors of one batch; commits if much has come together."""
        hashes = b"".join(self.sha256[i] for i in ids.tolist())
        buffer = BytesIO()
        np.savez(
            buffer,
            ids=ids,
            vectors=vectors,
            sha256=np.frombuffer(hashes, np.uint8).reshape(-1, 32),
            fingerprint=np.array(self.fingerprint),
        )
        file = self.directory / f"{ids[0]:012}.npz"
        write_bytes(file, buffer.getvalue())
        self.done |= dict.fromkeys(ids.tolist(), file)
        self.held += vectors.nbytes
        if self.held >= COMMIT_BYTES:
            self.commit()

    def read(self, file: Path) -> tuple[Ids, Float32[np.ndarray, "B F"]]:
        """Rows of a work file that still need their vectors and show the same image; the others are left out."""
        try:
            with np.load(BytesIO(file.read_bytes())) as data:
                ids, vectors, hashes, made_by = (data[k] for k in ("ids", "vectors", "sha256", "fingerprint"))
        except (zipfile.BadZipFile, ValueError, KeyError, EOFError):  # not ours, or damaged by the disk: made again
            return np.empty(0, np.int64), np.empty((0, self.width), np.float32)
        same = np.array(
            [self.sha256.get(i) == sha.tobytes() for i, sha in zip(ids.tolist(), hashes, strict=True)], bool
        )
        if str(made_by) != self.fingerprint:
            same[:] = False
        return ids[same], vectors[same]

    def commit(self) -> None:
        """Write what was computed into the collection, and remove the work files."""
        if self.done:
            pieces = [self.read(file) for file in sorted(set(self.done.values()))]
            ids, vectors = (np.concatenate(part) for part in zip(*pieces, strict=True))
            ids, first = np.unique(ids, return_index=True)
            self.collection.write_vectors(self.column, ids, vectors[first], {"fingerprint": self.fingerprint})
        elif self.column not in self.collection.columns:  # a collection without rows
            empty = np.empty((0, self.width), np.float32)
            self.collection.write_vectors(self.column, self.missing, empty, {"fingerprint": self.fingerprint})
        with storage_errors(self.directory):
            shutil.rmtree(self.directory, ignore_errors=True)
            if self.directory.parent.exists() and not any(self.directory.parent.iterdir()):
                self.directory.parent.rmdir()
        for i in self.done:
            del self.sha256[i]
        self.done, self.held = {}, 0


Batches = list[tuple[np.ndarray, list[Work]]]
"""Ids of the rows that go through the encoder together, and the columns that they go to."""


def _batches(work: Sequence[Work], size: int) -> Batches:
    """All batches: an image that two columns lack is decoded once for both."""
    wanted: dict[tuple[int, ...], list[int]] = {}
    for i in np.unique(np.concatenate([part.missing for part in work])).tolist():
        columns = tuple(k for k, part in enumerate(work) if i in part.sha256 and i not in part.done)
        if columns:
            wanted.setdefault(columns, []).append(i)
    return [
        (np.array(ids[start : start + size], np.int64), [work[k] for k in columns])
        for columns, ids in wanted.items()
        for start in range(0, len(ids), size)
    ]


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


def _check_column(collection: Collection, column: str, fingerprint: str) -> None:
    """CollectionError if the column holds vectors of an encoder whose fingerprint merely begins in the same way."""
    if column not in collection.columns:
        return
    made_by = (collection.schema.field(column).metadata or {}).get(b"fingerprint", b"").decode()
    if made_by != fingerprint:
        raise CollectionError(
            f"Column `{column}` of `{collection.path}` was made by another encoder ({made_by[:16] or 'unknown'}).",
            hint="make a collection of its own for this encoder: `lookalike prepare SOURCE --out NEW`",
        )
