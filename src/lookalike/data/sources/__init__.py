"""Layouts that images come in: each yields rows as in `listed`, in an order that is the same every time.

A new layout is one file with `open_source(path, exclude) -> Source`, one line in `SOURCES`, and one in `layout_of`.
"""

import os
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from lookalike.core.errors import ImageError, SourceError
from lookalike.data.sources.store import Address, File, Status, copying, is_remote, located, read_remote

if TYPE_CHECKING:
    from lookalike.data.sources.listed import Source

SOURCES = {
    "folder": "lookalike.data.sources.folder",
    "table": "lookalike.data.sources.table",
    "webdataset": "lookalike.data.sources.webdataset",
    "huggingface": "lookalike.data.sources.huggingface",
    "imagefolder": "lookalike.data.sources.imagefolder",
    "parquet": "lookalike.data.sources.parquet",
    "remote": "lookalike.data.sources.remote",
    "piped": "lookalike.data.sources.piped",
}

SPLITS = ("train", "val", "test")
SPLIT_OF = {"train": "train", "validation": "val", "valid": "val", "val": "val", "dev": "val", "test": "test"}
"""What people call a split -> what it is called here."""

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")

TABLES = (".csv", ".tsv", ".tab", ".parquet", ".jsonl", ".ndjson")
_WITH_TARS = (".tar", ".json", ".jsonl", ".parquet", ".csv", ".tsv", ".txt", ".md", ".yaml", ".yml", ".py")

MAX_BYTES = 2**30  # largest file that is read as an image; what is larger is something else


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of an image lie: a file, a stretch of an archive, or a cell of a Parquet file. Small, and travels
    between processes.
    """

    path: str
    stamp: str  # size and time of what lies there: another stamp may be another image
    offset: int = 0  # bytes; of a Parquet file, rows
    size: int | None = None  # bytes from `offset` on; None for a whole file
    deflated: bool = False  # a zip's member that was made smaller
    border: int = 0  # pixels at each side of the image, as its file has them, that are no part of it
    column: str = ""  # of a Parquet file, in whose row `offset` the image is
    member: str = ""  # what the image is called in an archive, where its reader says so

    def read(self) -> bytes:
        """The bytes; ImageError if there are none to read, or far too many for an image."""
        most = MAX_BYTES + 1 if self.size is None else self.size
        if self.column:
            from lookalike.data.sources.cells import read_cell  # Arrow: a worker that needs none starts without it

            data = read_cell(self.path, self.stamp, self.column, self.offset)
        elif is_remote(self.path):
            data = read_remote(self.path, most, self.offset)
        else:
            try:
                with Path(self.path).open("rb") as file:
                    file.seek(self.offset)
                    data = file.read(most)
            except OSError as error:
                raise ImageError(f"The file can't be read: {error.strerror}.") from error
        if len(data) > MAX_BYTES:
            raise ImageError(f"The file is larger than {MAX_BYTES >> 20} MB.")
        if self.size is not None and len(data) < self.size:
            raise ImageError(f"The archive ends after {len(data)} of this member's {self.size} bytes.")
        return _inflated(data) if self.deflated else data


def _inflated(data: bytes) -> bytes:
    try:
        unpacked = (stream := zlib.decompressobj(-zlib.MAX_WBITS)).decompress(data, MAX_BYTES + 1)
    except zlib.error as error:
        raise ImageError("The archive's bytes of this member are not what was packed.") from error
    if len(unpacked) > MAX_BYTES:
        raise ImageError(f"The file is larger than {MAX_BYTES >> 20} MB.")
    if not stream.eof:
        raise ImageError("The archive's bytes of this member end early.")
    return unpacked


def layout_of(path: str) -> str:
    """Key of `SOURCES` for what lies at `path`; SourceError if nothing does, or nothing of a known layout."""
    if path == "-":
        return "piped"
    place = located(path)
    suffix = place.suffix.lower()
    if suffix == ".tar" and place.is_file():
        return "webdataset"
    if suffix in TABLES and place.is_file():
        return "parquet" if suffix == ".parquet" and _holds_images(place) else "table"
    if place.is_dir():
        return _folder_layout(place)
    if place.exists():
        hint = "give a folder of images, or a .csv or .parquet file with a column `path`"
        raise SourceError(f"`{path}` is no source of images that is known here.", hint=hint)
    if isinstance(place, Address):
        place.names()  # says why there is nothing
    close = get_close_matches(place.name, names_in(place.parent), 1)
    hint = f"did you mean `{place.parent / close[0]}`?" if close else "give a folder, a table or a tar file"
    raise SourceError(f"There is nothing at `{path}`.", hint=hint)


def _folder_layout(folder: File) -> str:
    names = {*names_in(folder)}
    if "dataset_dict.json" in names or {"state.json", "dataset_info.json"} <= names:
        if isinstance(folder, Address):
            raise SourceError(f"`{folder}`, which `save_to_disk` wrote, is not read in a store.", hint=copying(folder))
        return "huggingface"
    if any(metadata_in(folder)):
        return "imagefolder"
    if _all_tars(folder):
        return "webdataset"
    if parquet_in(folder):
        return "parquet"
    return "remote" if isinstance(folder, Address) else "folder"


def _holds_images(file: File) -> bool:
    from lookalike.data.sources.parquet import holds_images

    return holds_images(file)


def _all_tars(folder: File) -> bool:
    """Whether there are tar files, and beside them only files that tell of them: one image or folder more, and no."""
    names = [name for name in names_in(folder) if not name.startswith(".")]
    return any(name.endswith(".tar") for name in names) and all(name.lower().endswith(_WITH_TARS) for name in names)


def parquet_in(folder: File, depth: int = 2) -> list[str]:
    """The Parquet files in a folder, and in folders of it, by their paths in it; none if there are others than such as
    tell of them.
    """
    found, below = list[str](), list[str]()
    for name in sorted(name for name in names_in(folder) if name[0] not in "._"):
        if name.lower().endswith(".parquet"):
            found.append(name)
        elif not name.lower().endswith(_WITH_TARS):
            below.append(name)
    for name in below:
        inner = parquet_in(folder / name, depth - 1) if depth and (folder / name).is_dir() else []
        if not inner:
            return []
        found += [f"{name}/{file}" for file in inner]
    return found


def metadata_in(folder: File) -> Iterator[tuple[str, File]]:
    """Files that tell of images: in the folder itself, or in those of its folders that are called like splits."""
    names = {*names_in(folder)}
    for name in ("", *(name for name in SPLIT_OF if name in names)):
        found = next((file for file in METADATA if (folder / name / file).is_file()), None)
        if found:
            yield name, folder / name / found


def open_source(path: str, exclude: Sequence[str] = ()) -> "Source":
    """The source at `path`, without what `exclude` fits; SourceError, at once or on the way, if something is wrong."""
    source: Source = import_module(SOURCES[layout_of(path)]).open_source(path, exclude)
    return source


def names_in(folder: File) -> list[str]:
    """Names in `folder`; none if it can't be read, and SourceError if a store says so."""
    if isinstance(folder, Address):
        return folder.names()
    try:
        return os.listdir(folder)
    except OSError:
        return []


def excluded(name: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern fits the last part of the path `name`, or all of it; `*` fits slashes too."""
    return any(
        fnmatchcase(nfc(part), nfc(pattern.rstrip("/")))
        for pattern in patterns
        for part in (name, name.rpartition("/")[2])
    )


def nfc(name: str) -> str:
    """A name in the composed form of Unicode, in which the same words are the same text."""
    return unicodedata.normalize("NFC", name)


def text(name: str) -> str:
    r"""A file name as text that can be stored and shown: bytes that are not UTF-8 become `\xff`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def stamp_of(path: str, status: os.stat_result | Status) -> str:
    """The stamp of a file. One that may not be read is told apart, so that a changed permission is seen."""
    if isinstance(status, Status):
        return status.stamp
    return f"{status.st_size}-{status.st_mtime_ns}{'' if os.access(path, os.R_OK) else '-unreadable'}"


def kept(path: str) -> str:
    """A source's path as a card keeps it: from the root, or the address that it is."""
    return path.rstrip("/") if is_remote(path) else text(str(absolute(path)))


def absolute(path: str) -> File:
    """`path` from the root, without `..`, or the address that it is; a link keeps its own name."""
    return located(path) if is_remote(path) else Path(os.path.normpath(Path(path).absolute()))
