"""Members of archives, read where they lie: plain tar files, tar files in these, zip files. Nothing is unpacked.

So a member's name is never a path that is written to: `../x` is a name that nobody asks for.
"""

import io
import os
import shlex
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lookalike.core.errors import SourceError

SUFFIXES = (".tar", ".zip")
_PACKED = (".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar", ".gz")
_HEADER = 30  # bytes of a zip's local header before the member's name; two lengths are in its last four


class Member(NamedTuple):
    """A file in an archive, and the stretch of the archive in which its bytes lie."""

    name: str
    offset: int
    size: int
    deflated: bool = False
    link: str = ""  # of a hard link: the member whose bytes are meant


def members_of(path: Path, *, nested: bool = False) -> Iterator[Member]:
    """Members of the archive at `path`, in its order; `nested`: those of tar files in it too, below their names.

    SourceError if it can't be read, ends early, or is of a kind that has to be unpacked.
    """
    try:
        if path.name.lower().endswith(".zip"):
            yield from _zipped(path)
            return
        with path.open("rb") as file:
            yield from _tarred(file, 0, nested)
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


def _tarred(file: "io.BufferedReader[Any]", base: int, nested: bool) -> Iterator[Member]:
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all, 1 KB each
            name = os.path.normpath(member.name)
            if nested and member.isreg() and name.endswith(".tar"):
                stretch = io.BufferedReader(_Stretch(file.fileno(), base + member.offset_data, member.size))
                for inner in _tarred(stretch, base + member.offset_data, nested=False):
                    yield inner._replace(name=os.path.normpath(f"{name[:-4]}/{inner.name}"))
            elif member.isreg():
                yield Member(name, base + member.offset_data, member.size)
            elif member.islnk():
                yield Member(name, 0, 0, link=os.path.normpath(member.linkname))


class _Stretch(io.RawIOBase):
    """A part of a file as a file of its own, which leaves the position of the whole alone."""

    def __init__(self, number: int, start: int, size: int) -> None:
        self._number, self._start, self._size, self._at = number, start, size, 0

    def fileno(self) -> int:
        return self._number

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = max(min(len(buffer), self._size - self._at), 0)
        data = os.pread(self._number, wanted, self._start + self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _zipped(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
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
