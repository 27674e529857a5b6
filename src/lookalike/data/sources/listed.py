"""What a source says of its images: rows in Arrow, types of further columns, and names by the million."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64
from pyarrow import types

from lookalike.data.collection import DESCRIPTION, SCHEMA
from lookalike.data.sources import Place

# No further column has a dot in its name.
_PLACE = (pa.field("place.path", pa.binary(), nullable=False), ("place.offset", pa.int64()), ("place.size", pa.int64()))
LISTED = pa.schema([SCHEMA.field("source"), *_PLACE, *map(SCHEMA.field, ("stamp", *DESCRIPTION))])
"""A row an image, its source the path or member as the source names it; further columns stand behind these."""
BATCH = 4096
"""Images that a source tells of at a time."""


@dataclass(frozen=True)
class Source:
    """An open source: iterate for its images, in batches with the columns of `LISTED` and `columns`."""

    path: str
    layout: str
    batches: Callable[[], Iterator[pa.RecordBatch]]
    columns: pa.Schema = field(default_factory=lambda: pa.schema([]))
    """Further columns."""
    unread: list[str] = field(default_factory=list)
    """Folders that could not be read, as the beginnings of images' names; known when the images are."""

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self.batches()


def place_of(row: dict[str, Any]) -> Place:
    """Where the image of a row of `LISTED` lies."""
    return Place(os.fsdecode(row["place.path"]), row["stamp"], row["place.offset"] or 0, row["place.size"])


_SAME = (
    *(types.is_null, types.is_boolean, types.is_integer, types.is_float32, types.is_float64, types.is_string),
    *(types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_date, types.is_time32),
    *(types.is_decimal128, types.is_decimal256),
)
_AS: tuple[tuple[Callable[[Any], bool], Callable[[Any], Any]], ...] = (
    (types.is_float16, lambda _: pa.float32()),
    (types.is_large_string, lambda _: pa.string()),
    (types.is_string_view, lambda _: pa.string()),
    (types.is_binary_view, lambda _: pa.binary()),
    (types.is_time64, lambda _: pa.time64("us")),  # Python's own times know no nanoseconds
    (types.is_duration, lambda _: pa.duration("us")),
    (types.is_timestamp, lambda kind: pa.timestamp("us", kind.tz)),
    (types.is_dictionary, lambda kind: stored_type(kind.value_type)),
    (lambda kind: isinstance(kind, pa.BaseExtensionType), lambda kind: stored_type(kind.storage_type)),
)
_LISTS = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)


def stored_type(kind: Any) -> Any:
    """The type in which values of type `kind` are stored and can be shown; None if they can't: a closed list."""
    if any(fits(kind) for fits in _SAME):
        return kind
    for fits, stored in _AS:
        if fits(kind):
            return stored(kind)
    if types.is_map(kind):
        parts = [kind.key_type, kind.item_type]
    else:
        parts = [part.type for part in kind] if types.is_struct(kind) else [kind.value_type] if _is_list(kind) else []
    inner = [pa.string() if types.is_null(part) else stored_type(part) for part in parts]
    if not inner or any(part is None for part in inner):
        return None
    if types.is_struct(kind):
        return pa.struct([(part.name, stored) for part, stored in zip(kind, inner, strict=True)])
    return pa.map_(*inner) if types.is_map(kind) else pa.list_(*inner)


def _is_list(kind: Any) -> bool:
    return any(fits(kind) for fits in _LISTS)


def common_type(kind: Any, into: Any) -> Any:
    """The type of a column of type `into` that takes values of `kind`; None if it can't.

    Nothing fits everywhere; whole numbers fit among fractions, and lists among lists of the same.
    """
    if kind == pa.null() or kind == into or (types.is_integer(kind) and types.is_floating(into)):
        return into
    if _is_list(kind) and _is_list(into) and kind.value_type == into.value_type:
        return into
    return kind if into == pa.null() else None


class Names:
    """Names by their position, 16 bytes for each whatever its length: first all are added, then they are looked up.

    A name is kept as 128 bits of its BLAKE2b: that two of 10^7 names share them has a chance of 10^-25.
    """

    def __init__(self) -> None:
        self._digests = bytearray()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, names: Sequence[str]) -> None:
        """Add names behind those that are there."""
        self._digests += _digests(names)
        self._length += len(names)

    def find(self, names: Sequence[str]) -> Int64[np.ndarray, "N"]:
        """The position of each name, the last of several; -1 where it is not there."""
        digests, order = self._sorted
        wanted = np.frombuffer(_digests(names), "S16")
        if not len(digests):
            return np.full(len(wanted), -1, np.int64)
        places = np.searchsorted(digests, wanted, side="right") - 1
        return np.where(digests[places] == wanted, order[places], -1).astype(np.int64)

    def repeated(self) -> tuple[int, int] | None:
        """The positions of a name that stands twice, the first such in order; None if there is none."""
        digests, order = self._sorted
        again = np.flatnonzero(digests[1:] == digests[:-1])
        if not len(again):
            return None
        first = again[np.argmin(order[again + 1])]
        return int(order[first]), int(order[first + 1])

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        digests = np.frombuffer(self._digests, "S16")
        order = np.argsort(digests, kind="stable")
        digests, self._digests = digests[order], bytearray()
        return digests, order.astype(np.int32 if self._length < 2**31 else np.int64)


def _digests(names: Sequence[str]) -> bytes:
    return b"".join(blake2b(name.encode(errors="surrogatepass"), digest_size=16).digest() for name in names)
