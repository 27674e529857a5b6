"""Files whose bytes are in a collection already, or that a listing shows twice: found before anything is decoded.

Only files of one size can be the same, and a listing tells sizes for nothing. Of new files whose size stands twice, two
small pieces are compared, and what agrees in them too is read whole. A row of the collection has no pieces to compare:
a new file of its size is read whole. So where nothing stands twice, next to nothing is read.

Files alone are compared, not members of archives, cells of Parquet files or what lies in a store.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int64

from lookalike.core.journal import Progress
from lookalike.core.machine import cores
from lookalike.data.collection import Collection
from lookalike.data.duplicates import SEEN
from lookalike.data.sources import MAX_BYTES
from lookalike.data.sources.listed import Listing
from lookalike.data.sources.store import is_remote

_PIECE = 4096  # bytes at either end of a file: headers are alike, what ends a picture hardly ever

Digest = Callable[[str], bytes | None]
Sizes = Int64[np.ndarray, "N"]
Mask = Bool[np.ndarray, "N"]


@dataclass(frozen=True)
class Again:
    """Files that need not be decoded: their places in the listing. A digest is the SHA-256 of a file's bytes."""

    copies: dict[int, bytes]  # their digests
    firsts: dict[int, bytes]  # the new files that others are copies of, each before those
    rows: dict[bytes, int]  # the rows, by digest, that others are copies of


def find_again(listing: Listing, new: Mask, collection: Collection) -> Again:
    """Among the `new` images of the listing, those whose bytes the collection has, or an earlier new one."""
    sizes = np.concatenate([np.empty(0, np.int64), *(_file_sizes(rows) for _, rows in listing.batches())])
    sizes[~new | (sizes > MAX_BYTES)] = -1
    rows, theirs = _rows_of_size(collection, np.unique(sizes[sizes >= 0]))
    as_row = (sizes >= 0) & np.isin(sizes, theirs)
    ends, digests = dict[int, bytes](), dict[int, bytes]()
    _digest(listing, _repeated(sizes) & ~as_row, _of_ends, ends)
    alike, numbers = np.full(len(sizes), -1, np.int64), dict[bytes, int]()
    for place, one in ends.items():
        alike[place] = numbers.setdefault(one, len(numbers))
    _digest(listing, as_row | _repeated(alike), _of_all, digests)
    copies, first = dict[int, bytes](), dict[bytes, int]()
    for place, digest in sorted(digests.items()):
        if digest in rows or digest in first:
            copies[place] = digest
        else:
            first[digest] = place
    wanted = set(copies.values())
    firsts = {place: digest for digest, place in first.items() if digest in wanted}
    return Again(copies, firsts, {digest: rows[digest] for digest in wanted & rows.keys()})


def _sizes(stamps: pa.Array) -> Sizes:
    """The size in bytes that a file's stamp begins with; -1 of what has another stamp."""
    told = pc.struct_field(pc.extract_regex(stamps, r"^(?P<size>\d{1,18})-\d+$"), "size")
    return np.asarray(pc.fill_null(told.cast(pa.int64()), -1).to_numpy(zero_copy_only=False), np.int64)


def _file_sizes(listed: pa.RecordBatch) -> Sizes:
    """The sizes of what is a whole file on a disk of ours, and nothing but the image; -1 of all else."""
    sizes = _sizes(listed["stamp"]).copy()
    whole = pc.and_(pc.is_null(listed["place.size"]), pc.equal(pc.fill_null(listed["place.column"], ""), ""))
    whole = pc.and_(whole, pc.equal(pc.fill_null(listed["place.border"], 0), 0))
    sizes[~whole.to_numpy(zero_copy_only=False)] = -1
    sizes[[is_remote(os.fsdecode(path)) for path in listed["place.path"].to_pylist()]] = -1
    return sizes


def _repeated(values: Sizes) -> Mask:
    """Where a value stands that is at least 0 and there twice."""
    told, count = np.unique(values[values >= 0], return_counts=True)
    return np.isin(values, told[count > 1])


def _rows_of_size(collection: Collection, sizes: Sizes) -> tuple[dict[bytes, int], Int64[np.ndarray, "S"]]:
    """The rows, gone or not, whose files had one of these sizes: SHA-256 to id; and the sizes that there are."""
    rows, found = dict[bytes, int](), [np.empty(0, np.int64)]
    if len(sizes):
        for batch in collection.scan(["id", "stamp", "sha256", *SEEN.names], batch_rows=2**14, gone=True):
            theirs = _sizes(batch["stamp"])
            seen = pc.and_(*(pc.is_valid(batch[name]) for name in SEEN.names))  # not in collections of long ago
            fits = np.isin(theirs, sizes) & seen.to_numpy(zero_copy_only=False)
            some = batch.filter(pa.array(fits))
            rows |= dict(zip(some["sha256"].to_pylist(), some["id"].to_pylist(), strict=True))
            found.append(np.unique(theirs[fits]))
    return rows, np.unique(np.concatenate(found))


def _digest(listing: Listing, which: Mask, digest: Digest, into: dict[int, bytes]) -> None:
    """Put the digests of these files, by their places, `into`; what can't be read has none, and fails later."""
    if not which.any():
        return
    with (
        Progress("compare", "files of one size", int(which.sum()), patience=2.0) as bar,
        ThreadPoolExecutor(cores()) as threads,
    ):
        for places, paths in _paths(listing, which):
            for place, found in zip(places, threads.map(digest, paths), strict=True):
                if found is not None:
                    into[place] = found
                bar.advance()


def _paths(listing: Listing, which: Mask) -> Iterator[tuple[list[int], list[str]]]:
    for start, listed in listing.batches():
        places = np.flatnonzero(which[start : start + len(listed)])
        paths = listed["place.path"].take(pa.array(places)).to_pylist()
        yield (start + places).tolist(), [os.fsdecode(path) for path in paths]


def _of_ends(path: str) -> bytes | None:
    """A digest of a file's size, its first bytes and its last."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  ten million of them: a Path costs as much as this
            size = os.fstat(file.fileno()).st_size
            first = file.read(_PIECE)
            file.seek(max(0, size - _PIECE))
            return hashlib.blake2b(first + file.read(_PIECE) + str(size).encode(), digest_size=16).digest()
    except OSError:
        return None


def _of_all(path: str) -> bytes | None:
    """The SHA-256 of a file."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None
