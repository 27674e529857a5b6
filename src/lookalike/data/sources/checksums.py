"""Files as they were published: their checksums, compared with those that are known of a data set."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from lookalike.core.journal import Progress, table
from lookalike.data.sources.store import File, located
from lookalike.data.sources.tree import DEPTH, folders

_PIECE = 1 << 20  # bytes that are read at a time
_MB = 10**6


class Compared(NamedTuple):
    """A published file, where it lies, and its checksum there; `place` is None where it is not."""

    name: str
    expected: str  # "md5:...", "sha256:..."
    place: File | None
    found: str = ""
    unread: str = ""  # why it could not be read

    @property
    def is_wrong(self) -> bool:
        """Whether the file is there and is not the one that was published."""
        return self.place is not None and self.found != self.expected

    def __str__(self) -> str:
        if self.place is None:
            return "not compared: not there"
        if self.unread:
            return f"can't be read: {self.unread}"
        return f"wrong: found {self.found}, expected {self.expected}" if self.is_wrong else "right"


def compare(checksums: Mapping[str, str], place: str) -> list[Compared]:
    """Each of these files with its checksum at `place`: the file itself, or a folder with it, at most two deeper.

    A file that lies in several folders comes several times. Files are read once, a piece at a time.
    """
    lying = {name: _lying(name, located(place)) for name in checksums}
    total, read, compared = sum(path.stat().st_size for paths in lying.values() for path in paths), 0, []
    with Progress("check", "MB", total // _MB) as bar:

        def tell(size: int) -> None:
            nonlocal read
            read += size
            bar.advance(read // _MB - bar.done)

        for name, expected in checksums.items():
            for path in lying[name]:
                try:
                    found = _checksum(path, expected.partition(":")[0], tell)
                    compared.append(Compared(name, expected, path, found))
                except OSError as error:
                    compared.append(Compared(name, expected, path, unread=str(error.strerror)))
            if not lying[name]:
                compared.append(Compared(name, expected, None))
    return compared


def told(compared: Sequence[Compared]) -> str:
    """A line for each, as text."""
    return table(["file", "checksum"], [[one.place or one.name, str(one)] for one in compared])


def _checksum(path: File, kind: str, tell: Callable[[int], None]) -> str:
    made = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            made.update(piece)
            tell(len(piece))
    return f"{kind}:{made.hexdigest()}"


def _lying(name: str, place: File) -> list[File]:
    if not place.is_dir():
        return [place] if place.name == name and place.is_file() else []
    places = (place / folder / name for folder in ("", *folders(place, DEPTH)))
    return [path for path in places if path.is_file()]
