"""Where the images of a collection lie: kept relative to their source, so that one that moved takes its images along.

    place    FILE below the source, ../FILE beside a source that is a file; else from the root, or an address
    path     the same as it can be opened: from the root; an address as it is

Behind the file of an image that is a part of one, in an archive or a table of images, stand a `!` and its name there:
tar!member. A place is bytes, since names need not be UTF-8. Nobody looks whether the file is still there.
"""

import os
from typing import Any

import pyarrow as pa

from lookalike.data.sources.store import is_remote

PLACE = pa.schema([("place", pa.binary())])
"""The column. It is null in rows from before it was kept."""


def kept_place(file: bytes, member: str | None, root: str) -> bytes:
    """What a row keeps of a file, as the source at `root` names it, and of the member of it that the image is."""
    whole = file if is_remote(os.fsdecode(file)) else os.path.abspath(file)  # noqa: PTH100  of a name in bytes
    place = whole if member is None else whole + b"!" + os.fsencode(member)
    for folder, before in ((root, b""), (root.rpartition("/")[0], b"../")):
        start = folder.rstrip("/").encode() + b"/"
        if place.startswith(start):
            return before + place[len(start) :]
    return place


def whole_path(place: bytes, root: str) -> str:
    """The path of what is kept as `place`; bytes that are not UTF-8 as Python's own functions of files take them."""
    named = os.fsdecode(place)
    if named.startswith("/") or is_remote(named):
        return named
    folder = root.rpartition("/")[0] if named.startswith("../") else root
    return f"{folder.rstrip('/')}/{named.removeprefix('../')}"


def paths_of(rows: list[dict[str, Any]], card: dict[str, Any]) -> list[str | None]:
    """The path of each row, by its `place` and `source`, and by its source's path in the collection's card; None: not
    known.
    """
    roots = {entry["name"]: entry["path"] for entry in card.get("sources", [])}
    found: list[str | None] = []
    for row in rows:
        place, root = row.get("place"), roots.get(row["source"].partition("/")[0])
        found.append(None if place is None or root is None else whole_path(place, root))
    return found
