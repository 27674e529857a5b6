"""An encoder and a collection: columns of features and embeddings, continued where a killed process stopped.

    KIND_XXXXXXXX_PRECISION    a column: features, mirrored or embedding; the fingerprint; what the tower computed in
    COLL/.work/KIND_*          what is not in its column yet: records of id, image hash and vector

Each batch is appended, so a killed process loses one. A row takes its vector from a record only if it still lacks one
and its image is the same. Of rows with one image (the same bytes, cut to the same size) one is decoded and embedded,
and none if a row that has its vector shows it, gone or not. Columns without a precision in their name are from before
it was noted: one serves if it holds what the encoder gives now.

An encoder that takes a tower as it is (no projection, no mirror) has no column of embeddings: its features, brought to
length 1 where they are read, are its embeddings. They are stored as they come, since a training may need their lengths.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Int64, UInt8

from lookalike.core.errors import CollectionError, ImageError
from lookalike.core.files import storage_errors
from lookalike.core.journal import Progress
from lookalike.core.shapes import Ids
from lookalike.data.card import note_small
from lookalike.data.collection import Collection
from lookalike.vectors.runtime import Embedder, Kind, Precision, prepared

COMMIT_BYTES = 2**28  # of vectors for one commit, and one batch more; while written, memory holds them three times
SAMPLE = 4  # rows of a column without a precision that are embedded again to see which one it has


class Embedded(NamedTuple):
    """A column of embeddings, or of the features that are an encoder's embeddings, and how many of its rows are new."""

    column: str
    new: int


EXACT_COSTS = 3  # times as long as eight bits


def _continuing(embedder: Embedder, collection: Collection) -> Embedder:
    """The encoder in float32, if it is quicker to fill up the features in float32 that a training made, than to begin
    with those in the precision in which it runs: one new picture does not embed all others again.
    """
    own, exact = (len(collection.missing(embedder.column("features", p))) for p in (embedder.precision, "float32"))
    return embedder.exact() if 0 < EXACT_COSTS * exact < own else embedder


def ensure_features(embedder: Embedder, collection: Collection, mirrored: bool) -> list[str]:
    """Fill the column of features, and that of the mirror images' features if `mirrored`; returns the columns' names.

    Only rows without a value are embedded. The same call goes on where a killed one stopped. Columns in float32 serve
    every encoder, if they are whole. CollectionError if an image can't be decoded, or a column is another encoder's.
    """
    embedder = _continuing(embedder, collection)
    names = _names(embedder, collection, ("features", "mirrored") if mirrored else ("features",))
    is_done = all(_whole(embedder, collection, name) for name in names)
    if is_done and not any(_work_file(embedder, collection, name).exists() for name in names):
        return names  # of a collection that may be read-only
    with collection.locked("embed"):
        if Collection.open(collection.path).version != collection.version:
            raise CollectionError(
                f"Another process changed `{collection.path}` after it was opened.", hint="give the same command again"
            )
        work = [Work(embedder, collection, name) for name in names]
        total = len(np.unique(np.concatenate([part.missing for part in work])))
        lacking = np.unique(np.concatenate([part.lacking for part in work]))
        batches = [lacking[i : i + embedder.engine.batch] for i in range(0, len(lacking), embedder.engine.batch)]
        if batches:
            note_small(collection, embedder.config.preprocess.resize)
            with Progress("embed", "images", total, total - len(lacking)) as bar:
                for ids, images in zip(batches, _images(embedder, collection, batches), strict=True):
                    for part in work:
                        part.add(ids, images)
                    bar.advance(len(ids))
        for part in work:
            part.close()
    return names


def ensure_embeddings(embedder: Embedder, collection: Collection) -> Embedded:
    """Fill the collection's column of embeddings, by way of its features; see `ensure_features`.

    The features themselves, if they are the embeddings and no column of embeddings is there from before.
    """
    embedder = _continuing(embedder, collection)
    if embedder.is_untouched and not _made(embedder, collection, "embedding"):
        (name,) = _names(embedder, collection, ("features",))
        new = len(collection.missing(name))
        (name,) = ensure_features(embedder, collection, mirrored=False)
        return Embedded(name, new)
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


def stored_embeddings(
    embedder: Embedder, collection: Collection
) -> tuple[Int64[np.ndarray, "N"], Float32[np.ndarray, "N D"]]:
    """Ids and embeddings of unit length of all rows that are not gone; what is missing is made and stored first."""
    return read_embeddings(embedder, collection, ensure_embeddings(embedder, collection).column)


def read_embeddings(
    embedder: Embedder, collection: Collection, column: str
) -> tuple[Int64[np.ndarray, "N"], Float32[np.ndarray, "N D"]]:
    """The same of the column that `ensure_embeddings` has filled; CollectionError if rows lack a value."""
    ids, vectors = collection.vectors(column)
    return ids, embedder.project(vectors) if column.startswith("features_") else vectors


def embeddings_of(embedder: Embedder, collection: Collection, preferred: str) -> str:
    """The collection's column of this encoder's embeddings, in whatever precision; its own where there is none."""
    made = _made(embedder, collection, "embedding")
    if embedder.is_untouched:
        made += _made(embedder, collection, "features")
    return preferred if preferred in made else next(iter(made), embedder.embedding_column)


def _made(embedder: Embedder, collection: Collection, kind: Kind) -> list[str]:
    """The columns that there are of such vectors of this encoder, the one to prefer first."""
    order = dict.fromkeys(["float32", embedder.precision, *get_args(Precision), None])
    return [name for precision in order if (name := embedder.column(kind, precision)) in collection.columns]


def precision_of(column: str) -> Precision | None:
    """What the vectors of a column were computed in; None: it is from before that was noted."""
    return next((precision for precision in get_args(Precision) if column.endswith(f"_{precision}")), None)


def _names(embedder: Embedder, collection: Collection, kinds: Sequence[Kind]) -> list[str]:
    """The columns of these kinds, all of one precision: float32 where they are whole, else what the encoder runs in."""
    exact = [embedder.column(kind, "float32") for kind in kinds]
    if all(_whole(embedder, collection, name) for name in exact):
        return exact
    return [_own(embedder, collection, kind) for kind in kinds]


def _own(embedder: Embedder, collection: Collection, kind: Kind) -> str:
    """The encoder's own column; or that from before precision was noted, if it holds what the encoder gives now."""
    own, before = embedder.column(kind, embedder.precision), embedder.column(kind, None)
    if own in collection.columns or before not in collection.columns:
        return own
    ids = collection.table(["id"], f"`{before}` IS NOT NULL")["id"].to_numpy()
    if len(ids) == 0:
        return before
    some = ids[np.linspace(0, len(ids) - 1, min(len(ids), SAMPLE)).astype(int)]
    known = _stored(collection, before, some)
    now = embedder.vectors(next(_images(embedder, collection, [some])), kind)
    return before if np.abs(now - known).max() <= 1e-3 * np.abs(known).max() else own


def _whole(embedder: Embedder, collection: Collection, column: str) -> bool:
    """Whether no row lacks a value; CollectionError if it is of another encoder whose fingerprint begins alike."""
    if column not in collection.columns:
        return False
    made_by = (collection.schema.field(column).metadata or {}).get(b"fingerprint", b"").decode()
    if made_by != (embedder.fingerprint if column.startswith("embedding") else embedder.features_fingerprint):
        raise CollectionError(
            f"Column `{column}` of `{collection.path}` was made by another encoder ({made_by[:16] or 'unknown'}).",
            hint="make a collection of its own for this encoder: `lookalike prepare SOURCE --out NEW`",
        )
    return len(collection.missing(column)) == 0


class Work:
    """What was computed for one column and is not in it yet."""

    def __init__(self, embedder: Embedder, collection: Collection, column: str) -> None:
        """Goes on with what a killed process has done, and with what rows of the same images have."""
        self._embedder, self._collection, self._column = embedder, collection, column
        self.missing = collection.missing(column)  # in order
        images = _images_of(collection.take(self.missing, _IMAGE))
        self._sha256 = images.view(np.uint8).reshape(-1, images.itemsize)[:, :32]
        _, first, which = np.unique(images, return_index=True, return_inverse=True)
        self._first = first[which]  # of the rows that are missing: the place of the first with the same image
        self._width = embedder.config.tower.features
        self._record = np.dtype([("id", "<i8"), ("sha256", np.uint8, (32,)), ("vector", "<f4", (self._width,))])
        self._file = _work_file(embedder, collection, column)
        with storage_errors(self._file):
            self._file.parent.mkdir(exist_ok=True)
            self._file.touch()
            os.truncate(self._file, self._file.stat().st_size // self._record.itemsize * self._record.itemsize)
        if column in collection.columns:
            self._take_known(images)
        self.lacking = self.missing[np.setdiff1d(self._first, self._read()[0])]  # what is to be embedded

    def _take_known(self, images: np.ndarray) -> None:
        """Records of the rows whose images other rows have vectors of."""
        wanted = np.unique(self._first)
        by_image = dict(zip(images[wanted].tolist(), wanted.tolist(), strict=True))
        bytes_of = pa.array([image[:32] for image in by_image], pa.binary(32))
        lacking, found = set(self.missing.tolist()), dict[int, int]()  # place -> id of the row that has it
        for batch in self._collection.scan(["id", *_IMAGE], gone=True):
            some = batch.filter(pc.is_in(batch["sha256"], bytes_of))
            for id, image in zip(some["id"].to_pylist(), _images_of(some).tolist(), strict=True):
                if id not in lacking and image in by_image:
                    found.setdefault(by_image[image], id)
        places, ids = np.array(sorted(found.items()), np.int64).reshape(-1, 2).T
        for start in range(0, len(places), self._rows()):
            part = slice(start, start + self._rows())
            column = self._collection.take(ids[part], [self._column])[self._column].combine_chunks()
            has = column.is_valid().to_numpy(zero_copy_only=False)  # a row that is gone may have none
            vectors = column.drop_null().flatten().to_numpy().reshape(-1, self._width)
            self._append(places[part][has], vectors)

    def _rows(self) -> int:
        """How many vectors are written at once."""
        return max(1, COMMIT_BYTES // (4 * self._width))

    def add(self, ids: Ids, images: UInt8[np.ndarray, "B S S 3"]) -> None:
        """Keep the vectors of the rows `ids`, in order, that are lacking; commits if much has come together."""
        first, last = np.searchsorted(self.lacking, (ids[0], ids[-1] + 1))
        if first == last:
            return
        own = self.lacking[first:last]
        kind: Kind = "mirrored" if self._column.startswith("mirrored") else "features"
        vectors = self._embedder.vectors(images[np.searchsorted(ids, own)], kind)
        if self._append(np.searchsorted(self.missing, own), vectors) >= COMMIT_BYTES:
            self.commit()

    def _append(self, places: Int64[np.ndarray, "B"], vectors: Float32[np.ndarray, "B F"]) -> int:
        """Keep the vectors of these places in `missing`; the size of the file, in bytes."""
        records = np.empty(len(places), self._record)
        records["id"], records["sha256"] = self.missing[places], self._sha256[places]
        records["vector"] = vectors
        with storage_errors(self._file), self._file.open("ab") as file:
            file.write(records.tobytes())
            file.flush()
            os.fsync(file.fileno())
            return file.tell()

    def _read(self) -> tuple[Int64[np.ndarray, "R"], Float32[np.ndarray, "S F"], Int64[np.ndarray, "R"]]:
        """Places in `missing`, rising, of rows whose images are those of records; the records' vectors, and which of
        them is whose.
        """
        records = np.fromfile(self._file, self._record)
        records = records[np.isin(records["id"], self.missing)]
        places = np.searchsorted(self.missing, records["id"])
        same = (self._sha256[places] == records["sha256"]).all(axis=1)
        record = np.full(len(self.missing), -1)  # of the first row of each image
        record[self._first[places[same]]] = np.flatnonzero(same)
        which = record[self._first]
        return np.flatnonzero(which >= 0), records["vector"], which[which >= 0]

    def commit(self) -> None:
        """Write what was computed into the collection, and empty the file."""
        places, vectors, which = self._read()
        metadata, rows = {"fingerprint": self._embedder.features_fingerprint}, self._rows()
        # One at least, if there is no column: a collection without rows gets it, too.
        for start in range(0, len(places) or (self._column not in self._collection.columns), rows):
            ids, part = self.missing[places[start : start + rows]], which[start : start + rows]
            self._collection.write_vectors(self._column, ids, vectors[part], metadata)
        with storage_errors(self._file):
            os.truncate(self._file, 0)

    def close(self) -> None:
        """Commit, and remove the file and what versions before left beside it."""
        self.commit()
        with storage_errors(self._file):
            self._file.unlink()
            for left in self._file.parent.glob("*/"):
                shutil.rmtree(left)
            if not any(self._file.parent.iterdir()):
                self._file.parent.rmdir()


_IMAGE = ["sha256", "width", "height"]
"""Columns that tell an image: the bytes of its file, and its size, from which a border may have been cut off."""


def _images_of(rows: pa.Table | pa.RecordBatch) -> np.ndarray:
    """What tells the image of each row, as one value of 40 bytes."""
    told = np.empty(len(rows), np.dtype([("sha256", np.uint8, (32,)), ("width", "<i4"), ("height", "<i4")]))
    told["sha256"] = np.frombuffer(b"".join(rows["sha256"].to_pylist()), np.uint8).reshape(-1, 32)
    told["width"], told["height"] = rows["width"].to_numpy(), rows["height"].to_numpy()
    return told.view(f"V{told.itemsize}")


def _work_file(embedder: Embedder, collection: Collection, column: str) -> Path:
    kind = column.partition("_")[0]
    return Path(collection.path) / ".work" / f"{kind}_{embedder.features_fingerprint}_{embedder.precision}"


def _images(embedder: Embedder, collection: Collection, batches: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """The images [B S S 3] of batches of row ids, as the tower takes them."""

    def decode(row: tuple[int, bytes]) -> UInt8[np.ndarray, "S S 3"]:
        try:
            return embedder.decode(row[1])
        except ImageError as error:
            raise CollectionError(
                f"The stored image of row {row[0]} of `{collection.path}` can't be decoded: {error.message}",
                hint="make the collection again: `lookalike prepare SOURCE --out NEW`",
            ) from error

    stored = (
        list(zip(ids.tolist(), collection.take(ids, ["image"])["image"].to_pylist(), strict=True)) for ids in batches
    )
    yield from map(np.stack, prepared(stored, decode))


def _stored(collection: Collection, column: str, ids: Ids) -> Float32[np.ndarray, "M F"]:
    values = collection.take(ids, [column])[column].combine_chunks()
    rows: Float32[np.ndarray, "M F"] = values.flatten().to_numpy().reshape(len(ids), -1)
    return rows
