"""Layouts that images come in: each yields rows as in `listed`, in an order that is the same every time.

A new layout is one file with `open_source(path, exclude) -> Source`, one line in `SOURCES`, and one in `layout_of`.
"""

import os
import shlex
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
from lookalike.data.sources.remote import is_remote, read_remote

if TYPE_CHECKING:
    from lookalike.data.sources.listed import Source

SOURCES = {
    "folder": "lookalike.data.sources.folder",
    "table": "lookalike.data.sources.table",
    "webdataset": "lookalike.data.sources.webdataset",
    "huggingface": "lookalike.data.sources.huggingface",
    "imagefolder": "lookalike.data.sources.imagefolder",
    "remote": "lookalike.data.sources.remote",
}

SPLITS = ("train", "val", "test")
SPLIT_OF = {"train": "train", "validation": "val", "valid": "val", "val": "val", "dev": "val", "test": "test"}
"""What people call a split -> what it is called here."""

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")

_WITH_TARS = (".tar", ".json", ".jsonl", ".parquet", ".csv", ".tsv", ".txt", ".md", ".yaml", ".yml")

MAX_BYTES = 2**30  # largest file that is read as an image; what is larger is something else


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of an image lie: a file, or a stretch of an archive. Small, and travels between processes."""

    path: str
    stamp: str  # size and time of what lies there: another stamp may be another image
    offset: int = 0
    size: int | None = None  # bytes from `offset` on; None for a whole file
    deflated: bool = False  # a zip's member that was made smaller
    border: int = 0  # pixels at each side of the image, as its file has them, that are no part of it

    def read(self) -> bytes:
        """The bytes; ImageError if there are none to read, or far too many for an image."""
        if is_remote(self.path):
            data = read_remote(self.path, MAX_BYTES + 1)
        else:
            try:
                with Path(self.path).open("rb") as file:
                    file.seek(self.offset)
                    data = file.read(MAX_BYTES + 1 if self.size is None else self.size)
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
    if is_remote(path):
        return "remote"
    place = Path(path)
    if place.is_dir():
        if (place / "dataset_dict.json").is_file() or {"state.json", "dataset_info.json"} <= {*names_in(place)}:
            return "huggingface"
        if any(metadata_in(place)):
            return "imagefolder"
        return "webdataset" if _all_tars(place) else "folder"
    if place.suffix.lower() == ".tar" and place.is_file():
        return "webdataset"
    if place.suffix.lower() in (".csv", ".parquet", ".jsonl", ".ndjson") and place.is_file():
        return "table"
    if place.exists():
        raise SourceError(f"`{path}` is no source of images that is known here.", hint=_remedy(place))
    close = get_close_matches(place.name, names_in(place.parent), 1)
    hint = f"did you mean `{place.with_name(close[0])}`?" if close else "give a folder, a table or a tar file"
    raise SourceError(f"There is nothing at `{path}`.", hint=hint)


def _all_tars(folder: Path) -> bool:
    """Whether there are tar files, and beside them only files that tell of them: one image or folder more, and no."""
    names = [name for name in names_in(folder) if not name.startswith(".")]
    return any(name.endswith(".tar") for name in names) and all(name.lower().endswith(_WITH_TARS) for name in names)


def metadata_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files that tell of images: in the folder itself, or in those of its folders that are called like splits."""
    for name in ("", *SPLIT_OF):
        found = next((file for file in METADATA if (folder / name / file).is_file()), None)
        if found:
            yield name, folder / name / found


def _remedy(place: Path) -> str:
    csv = str(place.with_suffix(".csv"))
    match place.suffix.lower():
        case ".tsv" | ".tab":
            code = (
                f"import csv; csv.writer(open({csv!r}, 'w', newline='')).writerows("
                f"csv.reader(open({str(place)!r}, newline=''), delimiter='\\t'))"
            )
            return f"write it with commas: python -c {shlex.quote(code)}"
    return "give a folder of images, or a .csv or .parquet file with a column `path`"


def open_source(path: str, exclude: Sequence[str] = ()) -> "Source":
    """The source at `path`, without what `exclude` fits; SourceError, at once or on the way, if something is wrong."""
    source: Source = import_module(SOURCES[layout_of(path)]).open_source(path, exclude)
    return source


def names_in(folder: Path) -> list[str]:
    """Names in `folder`; none if it can't be read."""
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


def stamp_of(path: str, status: os.stat_result) -> str:
    """The stamp of a file. One that may not be read is told apart, so that a changed permission is seen."""
    return f"{status.st_size}-{status.st_mtime_ns}{'' if os.access(path, os.R_OK) else '-unreadable'}"


def kept(path: str) -> str:
    """A source's path as a card keeps it: from the root, or the address that it is."""
    return path.rstrip("/") if is_remote(path) else text(str(absolute(path)))


def absolute(path: str) -> Path:
    """`path` from the root, without `..`; a link keeps its own name."""
    return Path(os.path.normpath(Path(path).absolute()))
