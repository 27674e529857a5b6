"""The members of a tar file, found in one pass over its headers; no image is read."""

import os
import tarfile
import unicodedata
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from lookalike.core.errors import SourceError
from lookalike.data.sources import nfc
from lookalike.data.sources.names import Names


class Members:
    """Every regular file in the uncompressed tar at `path`, at 32 bytes each; the last of two members counts.

    The stamp of an image holds the tar's own time, since the times inside are often all the same.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._names, self._composed = Names(), Names()
        self._at, offsets, sizes = array("q"), array("q"), array("q")
        links: dict[int, str] = {}
        for member in _members(path):
            name = os.path.normpath(member.name)
            if not unicodedata.is_normalized("NFC", name):
                self._composed.add([nfc(name)])
                self._at.append(len(self._names))
            if member.islnk():
                links[len(self._names)] = os.path.normpath(member.linkname)
            self._names.add([name])
            offsets.append(member.offset_data)
            sizes.append(member.size)
        self._changed = path.stat().st_mtime_ns
        self._offsets, self._sizes = (np.array(values, np.int64) for values in (offsets, sizes))
        for link, target in zip(links, self.find(list(links.values())), strict=True):
            self._offsets[link], self._sizes[link] = self._offsets[target], self._sizes[target]

    def find(self, names: Sequence[str]) -> Int64[np.ndarray, "N"]:
        """The position of each of these members, -1 where there is none.

        A name that is not there as it is written is looked for in the composed form of Unicode (NFC).
        """
        found = self._names.find(names)
        for absent in np.flatnonzero(found < 0).tolist():
            composed = [nfc(names[absent])]
            found[absent] = self._names.find(composed)[0]
            if found[absent] < 0 and (place := self._composed.find(composed)[0]) >= 0:
                found[absent] = self._at[place]
        return found

    def place(self, member: int) -> tuple[str, int, int, str]:
        """Path, offset, size and stamp of the member at this position."""
        size = int(self._sizes[member])
        return str(self.path), int(self._offsets[member]), size, f"{size}-{self._changed}"

    def names(self) -> Iterator[str]:
        """The members' names, read again."""
        return (os.path.normpath(member.name) for member in _members(self.path))


def _members(path: Path) -> Iterator[tarfile.TarInfo]:
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all, 1 KB each
                if member.isreg() or member.islnk():
                    yield member
    except (tarfile.TarError, OSError) as error:
        raise SourceError(
            f"`{path}` can't be read as a tar file: {error}.", hint="it must be a plain, uncompressed tar"
        ) from error
