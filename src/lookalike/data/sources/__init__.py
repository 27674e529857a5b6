"""Layouts that images come in: each yields `SourceRow`s, in an order that is the same every time.

    folder  images in a directory, its subdirectories naming domains and labels
    table   a CSV or Parquet file with a column `path`

A new layout is one file with `open_source(path) -> Source`, one line in `SOURCES`, and one in `layout_of`.
`tar` finds members for a table; `listing` makes several sources one.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from lookalike.core.errors import ImageError, SourceError

SOURCES = {
    "folder": "lookalike.data.sources.folder",
    "table": "lookalike.data.sources.table",
}

SPLITS = ("train", "val", "test")

MAX_BYTES = 2**30
"""Largest file that is read as an image; what is larger is something else."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of an image lie: a file, or a stretch of a tar file. Small, and travels between processes."""

    path: str
    stamp: str
    """Size and time of what lies there: another stamp may be another image."""
    offset: int = 0
    size: int | None = None
    """Bytes from `offset` on; None for a whole file."""

    def read(self) -> bytes:
        """The bytes; ImageError if there are none to read, or far too many for an image."""
        try:
            with Path(self.path).open("rb") as file:
                file.seek(self.offset)
                data = file.read(MAX_BYTES + 1 if self.size is None else self.size)
        except OSError as error:
            raise ImageError(f"The file can't be read: {error.strerror}.") from error
        if len(data) > MAX_BYTES:
            raise ImageError(f"The file is larger than {MAX_BYTES >> 20} MB.")
        if self.size is not None and len(data) < self.size:
            raise ImageError(f"The tar file ends after {len(data)} of this member's {self.size} bytes.")
        return data


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One image as its source describes it."""

    source: str
    """The path or member, as the source names it."""
    place: Place
    label: str | None = None
    domain: str | None = None
    split: str | None = None
    is_query: bool = True
    is_gallery: bool = True
    group: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    """Values of the further columns."""


@dataclass(frozen=True)
class Source:
    """An open source: iterate for its rows."""

    path: str
    layout: str
    rows: Callable[[], Iterator[SourceRow]]
    columns: dict[str, Any] = field(default_factory=dict)
    """Further columns: name -> Arrow type."""

    def __iter__(self) -> Iterator[SourceRow]:
        return self.rows()


def layout_of(path: str) -> str:
    """Key of `SOURCES` for what lies at `path`; SourceError if nothing does, or nothing of a known layout."""
    place = Path(path)
    if place.is_dir():
        return "folder"
    if place.suffix.lower() in (".csv", ".parquet") and place.is_file():
        return "table"
    if not place.exists():
        names = [p.name for p in place.parent.iterdir()] if place.parent.is_dir() else []
        close = get_close_matches(place.name, names, 1)
        raise SourceError(
            f"There is nothing at `{path}`.",
            hint=f"did you mean `{place.with_name(close[0])}`?" if close else "give a folder, a CSV or a Parquet file",
        )
    hint = "give a folder of images, or a .csv or .parquet file with a column `path`"
    if place.suffix.lower() == ".tar":
        hint = f"give the table beside it, `{place.with_suffix('.csv')}`, whose column `path` names members of the tar"
    raise SourceError(f"`{path}` is no source of images that is known here.", hint=hint)


def open_source(path: str) -> Source:
    """The source at `path`, checked as far as that goes without reading images; SourceError says what is wrong."""
    layout = layout_of(path)
    source: Source = import_module(SOURCES[layout]).open_source(path)
    return source


def text(name: str) -> str:
    r"""A file name as text that can be stored and shown: bytes that are not UTF-8 become `\xff`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def stamp_of(path: str, status: os.stat_result) -> str:
    """The stamp of a file. One that may not be read is told apart, so that a changed permission is seen."""
    return f"{status.st_size}-{status.st_mtime_ns}{'' if os.access(path, os.R_OK) else '-unreadable'}"


def absolute(path: str) -> Path:
    """`path` from the root, without `..`; a link keeps its own name."""
    return Path(os.path.normpath(Path(path).absolute()))
