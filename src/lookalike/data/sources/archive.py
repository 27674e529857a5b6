"""Members of archives, read where they lie: plain tar files, tar files in these, zip files. Nothing is unpacked.

So a member's name is never a path that is written to: `../x` is a name that nobody asks for.
"""

import io
import os
import shlex
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from lookalike.core.errors import SourceError
from lookalike.data.sources.store import BLOCK, Address, File, Stretch

SUFFIXES = (".tar", ".zip")
_PACKED = (".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar", ".gz")
_HEADER = 30  # bytes of a zip's local header before the member's name; two lengths are in its last four

Pieces = Callable[[int, int], "io.BufferedReader[Any]"]  # start and size of a stretch -> a file


class Member(NamedTuple):
    """A file in an archive, and the stretch of the archive in which its bytes lie."""

    name: str
    offset: int
    size: int
    deflated: bool = False
    link: str = ""  # of a hard link: the member whose bytes are meant


def members_of(path: File, *, nested: bool = False) -> Iterator[Member]:
    """Members of the archive at `path`, in its order; `nested`: those of tar files in it too, below their names.

    SourceError if it can't be read, ends early, or is of a kind that has to be unpacked.
    """
    yield from _kept(path, path.stat().stamp, nested) if isinstance(path, Address) else _members_of(path, nested)


@lru_cache(4)
def _kept(path: Address, _stamp: str, nested: bool) -> list[Member]:
    """Members of an archive in a store, which is asked once for them: 250 bytes a member."""
    return list(_members_of(path, nested))


def _members_of(path: File, nested: bool) -> Iterator[Member]:
    try:
        if path.name.lower().endswith(".zip"):
            yield from _zipped(path)
            return
        with path.open("rb") as file:
            yield from _tarred(file, _pieces(file) if nested else None)
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError) as error:
        raise SourceError(
            f"`{path}` can't be read as a {path.suffix.lower()[1:]} file: {error}.",
            hint="download it again if it is not whole; a tar file must be a plain, uncompressed one",
        ) from error


def packed(name: str) -> bool:
    """Whether a file of this name is an archive that can only be read from its start, and so has to be unpacked."""
    return name.lower().endswith(_PACKED)


def unpacking(name: str) -> str:
    """The command that unpacks an archive of this name."""
    tools = {".rar": "unrar x", ".7z": "7z x"}
    if name.lower().endswith(".gz") and not name.lower().endswith(".tar.gz"):
        return f"gunzip {shlex.quote(name)}"
    return f"{tools.get(Path(name).suffix.lower(), 'tar -xf')} {shlex.quote(name)}"


def _tarred(file: "io.BufferedReader[Any]", pieces: Pieces | None, base: int = 0) -> Iterator[Member]:
    """`pieces`: for the tar files in it, which are looked into; None: they are not."""
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all, 1 KB each
            name = os.path.normpath(member.name)
            if pieces and member.isreg() and name.endswith(".tar"):
                stretch = pieces(base + member.offset_data, member.size)
                for inner in _tarred(stretch, None, base + member.offset_data):
                    yield inner._replace(name=os.path.normpath(f"{name[:-4]}/{inner.name}"))
            elif member.isreg():
                yield Member(name, base + member.offset_data, member.size)
            elif member.islnk():
                yield Member(name, 0, 0, link=os.path.normpath(member.linkname))


def _pieces(file: Any) -> Pieces:
    """What opens a stretch of an open file as a file of its own, which leaves the position of the whole alone."""
    if isinstance(file.raw, Stretch):
        return lambda start, size: io.BufferedReader(Stretch(file.raw.read_at, start, size), BLOCK)
    return lambda start, size: io.BufferedReader(Stretch(partial(os.pread, file.fileno()), start, size))


def _zipped(path: File) -> Iterator[Member]:
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        size = path.stat().st_size
        for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
            if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
                continue
            if info.flag_bits & 1:
                raise SourceError(
                    f"`{path}` asks for a password.",
                    hint=f"unpack it: unzip -P PASSWORD {path.name}, and give the folder",
                )
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise SourceError(
                    f"`{info.filename}` in `{path}` is packed in a way that can only be read from its start.",
                    hint=f"unpack it: unzip {path.name}, and give the folder",
                )
            file.seek(info.header_offset)
            header = file.read(_HEADER)
            begin = info.header_offset + _HEADER + sum(int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
            if len(header) < _HEADER or begin + info.compress_size > size:
                raise SourceError(f"`{path}` ends within `{info.filename}`.", hint="download it again")
            deflated = info.compress_type == zipfile.ZIP_DEFLATED
            yield Member(os.path.normpath(info.filename), begin, info.compress_size, deflated)
