r"""A folder of images; the path of each image, and nothing else, says what it is.

    FOLDER/image                     no label; the domain is FOLDER's name
    FOLDER/label/image               the domain is FOLDER's name
    FOLDER/domain/label/image
    FOLDER/domain/label/.../image    deeper folders belong to the label

So a subfolder with both images and folders is a label for the ones and a domain for the others, and adding
images never changes what others are.

A file is an image by its suffix, or by its first bytes if the suffix is not an image's; other files are left
out, with a note. Names that begin with a dot are left out. Links are followed, except one that leads back to a
folder it lies in. A name that is not UTF-8 is written with backslashes (`\xff`), and the file is still found.
"""

import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lookalike.core.errors import SourceError
from lookalike.core.journal import note
from lookalike.data.sources import Place, Source, SourceRow, absolute, stamp_of, text
from lookalike.imaging.formats import HEAD, kind_of

SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "webp", "gif", "bmp", "tif", "tiff"),
        *("avif", "heic", "heif", "ppm", "pgm", "pbm", "pnm"),
    )
)


def open_source(path: str) -> Source:
    """The folder at `path` as a source."""
    return Source(path=path, layout="folder", rows=partial(_rows, path))


def _rows(root: str) -> Iterator[SourceRow]:
    name = absolute(root).name or "root"
    found, left_out = 0, 0
    for entry, parts in _walk(root, (), frozenset()):
        if not _is_image(entry):
            left_out += 1
            continue
        found += 1
        *folders, _ = parts
        yield SourceRow(
            source=text("/".join(parts)),
            place=Place(entry.path, _stamp(entry)),
            label=text(folders[min(len(folders), 2) - 1]) if folders else None,
            domain=text(folders[0] if len(folders) >= 2 else name),
        )
    if left_out:
        note(f"files of `{root}` that are not images, left out: {left_out:,}")
    if not found:
        raise SourceError(
            f"`{root}` holds no images.",
            hint="images lie in it, or in label/ or domain/label/ folders inside it: .jpg, .png, .webp and the like",
        )


def _walk(
    folder: str, parts: tuple[str, ...], above: frozenset[tuple[int, int]]
) -> Iterator[tuple["os.DirEntry[str]", tuple[str, ...]]]:
    """Files below `folder` with their path from the root, in the order of names; `above`: the folders around it."""
    try:
        status = Path(folder).stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise SourceError(f"The folder `{text(folder)}` can't be read: {error.strerror}.") from error
    here = above | {(status.st_dev, status.st_ino)}
    for entry in entries:
        if entry.name.startswith("."):
            continue
        below = (*parts, entry.name)
        if not _is_folder(entry):
            yield entry, below
        elif (identity := _identity(entry)) in here:
            note(f"left out `{text(entry.path)}`, a link to a folder that it lies in")
        elif identity is not None:
            yield from _walk(entry.path, below, here)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _identity(entry: "os.DirEntry[str]") -> tuple[int, int]:
    status = entry.stat()
    return status.st_dev, status.st_ino


def _is_image(entry: "os.DirEntry[str]") -> bool:
    """By suffix, else by the first bytes. A pipe or a socket is never one: reading it might not end."""
    known = Path(entry.name).suffix.lower() in SUFFIXES
    try:
        if not stat.S_ISREG(entry.stat().st_mode):
            return False
        if known:
            return True
        with Path(entry.path).open("rb") as file:
            return kind_of(file.read(HEAD)) is not None
    except OSError:  # what claims to be an image and can't be read is told in the errors table
        return known


def _stamp(entry: "os.DirEntry[str]") -> str:
    try:
        status = entry.stat()
    except OSError:
        return "unreadable"
    return stamp_of(entry.path, status)
