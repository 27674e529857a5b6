r"""A folder of images; the path of each image, and nothing else, says what it is.

    FOLDER/image                     no label; the domain is FOLDER's name
    FOLDER/label/image               the domain is FOLDER's name
    FOLDER/domain/label/image
    FOLDER/domain/label/.../image    deeper folders belong to the label

So a subfolder with both images and folders is a label for the ones and a domain for the others, and adding images
never changes what others are. Labels and domains are in the composed form of Unicode (NFC): a name is one class
wherever its folder was made. A name that is not UTF-8 is written with backslashes (`\xff`), and still found.
"""

import os
import shlex
import stat
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from lookalike.core.errors import SourceError
from lookalike.core.journal import note
from lookalike.data.sources import METADATA, absolute, excluded, names_in, nfc, stamp_of, text
from lookalike.data.sources.listed import BATCH, LISTED, Source
from lookalike.imaging.decode import HEAD, kind_of

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".hif", ".jxl", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".orf", ".rw2", ".raf", ".pef", ".srw"),
    *(".x3f", ".3fr", ".fff", ".iiq", ".mrw", ".dcr", ".kdc", ".erf", ".rwl", ".mos"),
)
_NOT_OURS = frozenset(
    (
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@__thumb", "@tmp", "@sharebin"),
        *("$recycle.bin", "recycler", "system volume information", "found.000", "lost+found", "__macosx"),
        *("network trash folder", "temporary items"),
    )
)
"""Folders that systems and their trash keep among the user's: Synology, QNAP, Windows, Linux, macOS."""


def open_source(path: str, exclude: Sequence[str] = ()) -> Source:
    """The folder at `path` as a source."""
    unread: list[str] = []

    def batches() -> Iterator[pa.RecordBatch]:
        rows = _rows(path, exclude, unread)
        while some := list(islice(rows, BATCH)):
            yield pa.RecordBatch.from_pylist(some, LISTED)

    return Source(path, "folder", batches, unread=unread)


def _rows(root: str, exclude: Sequence[str], unread: list[str]) -> Iterator[dict[str, Any]]:
    name = nfc(text(absolute(root).name or "root"))
    found = left_out = 0
    for path, status, parts in _walk(root, (), frozenset(), exclude, unread):
        if not is_image(path, status):
            left_out += 1
            if parts[-1] in METADATA:
                note(f"`{text(path)}` is not read: its folder is a source of its own")
            continue
        found += 1
        yield row_of(name, parts, path, status)
    if left_out:
        note(f"files of `{root}` that are not images, left out: {left_out:,}")
    if not found:
        hint = "images lie in it, or in label/ or domain/label/ folders inside it: .jpg, .png, .webp and the like"
        if any(name.lower().endswith(".parquet") for name in names_in(Path(root))):
            hint = f"a table is one file: name each, `lookalike prepare {shlex.quote(root)}/*.parquet --out COLL`"
        raise SourceError(f"`{root}` holds no images.", hint=hint)


def row_of(name: str, parts: Sequence[str], path: str, status: os.stat_result | None) -> dict[str, Any]:
    """A row of `LISTED` for the image at `path`; `name` is the folder's, `parts` the way from there, `status` None
    where it can't be told.
    """
    *folders, _ = (text(part) for part in parts)
    return {
        "source": "/".join(map(text, parts)),
        "place.path": os.fsencode(path),
        "stamp": "unreadable" if status is None else stamp_of(path, status),
        "label": nfc(folders[min(len(folders), 2) - 1]) if folders else None,
        "domain": nfc(folders[0]) if len(folders) >= 2 else name,
        "is_query": True,
        "is_gallery": True,
    }


def _walk(
    folder: str, parts: tuple[str, ...], above: frozenset[tuple[int, int]], exclude: Sequence[str], unread: list[str]
) -> Iterator[tuple[str, os.stat_result | None, tuple[str, ...]]]:
    """Files below `folder` in the order of names, status (None: unknown), path from the root; `above`: its parents."""
    try:
        status = Path(folder).stat()
        with os.scandir(folder) as entries:  # kept are names alone, of which a folder may have a million
            names = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    except OSError as error:
        if not parts:
            raise SourceError(f"The folder `{text(folder)}` can't be read: {error.strerror}.") from error
        note(f"left out `{text(folder)}`, which can't be read ({error.strerror}); images known from there stay")
        unread.append("/".join(map(text, parts)) + "/")
        return
    here = above | {(status.st_dev, status.st_ino)}
    for name, is_folder in names:
        below, path = (*parts, name), os.path.join(folder, name)  # noqa: PTH118  a Path takes three times as long
        if name.startswith(".") or excluded(text("/".join(below)), exclude):
            continue
        try:
            known: os.stat_result | None = os.stat(path)  # noqa: PTH116
        except OSError:  # a link that leads nowhere or to itself, or what has just gone
            known = None
        if not (stat.S_ISDIR(known.st_mode) if known else is_folder):
            yield path, known, below
        elif name.lower() in _NOT_OURS:
            note(f"left out `{text(path)}`, which the system keeps for itself")
        elif known and (known.st_dev, known.st_ino) in here:
            note(f"left out `{text(path)}`, a link to a folder that it lies in")
        else:
            yield from _walk(path, below, here, exclude, unread)


def is_image(path: str, status: os.stat_result | None) -> bool:
    """By suffix, else by the first bytes; what claims to be an image and can't be read is told in the errors table."""
    known = path.lower().endswith(SUFFIXES)
    if status is None:
        return known
    if known or not stat.S_ISREG(status.st_mode):  # reading a pipe or a socket might not end
        return stat.S_ISREG(status.st_mode)
    try:
        with Path(path).open("rb") as file:
            return kind_of(file.read(HEAD)) is not None
    except OSError:
        return False
