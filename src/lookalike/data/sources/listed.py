"""What a source says of its images, in Arrow: a row an image."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from lookalike.data.sources import Place

LISTED = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),  # the path or member, as the source names it
        pa.field("place.path", pa.binary(), nullable=False),  # no further column has a dot in its name
        pa.field("place.offset", pa.int64()),
        pa.field("place.size", pa.int64()),
        pa.field("stamp", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("domain", pa.string()),
        pa.field("split", pa.string()),
        pa.field("group", pa.string()),
        pa.field("is_query", pa.bool_(), nullable=False),
        pa.field("is_gallery", pa.bool_(), nullable=False),
    ]
)
"""What a source says of its images, a row an image; its further columns stand behind these."""

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
