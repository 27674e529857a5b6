"""Where the images of a table lie: in the tar file beside it, else as files; no image is read."""

import os
import stat
import unicodedata
from array import array
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from lookalike.data.sources import names_in, nfc, stamp_of
from lookalike.data.sources.archive import members_of
from lookalike.data.sources.listed import Names
from lookalike.data.sources.store import Address, File, is_remote

Found = tuple[str, int | None, int | None, str]  # path, offset, size, stamp; no offset and size for a whole file


class Below:
    """Files below a folder, in any form of Unicode; one in a store is listed as soon as a file is looked for."""

    def __init__(self, root: File) -> None:
        self.root, self._root = root, str(root)  # no Path: it is joined by the million
        self._composed = lru_cache(64)(lambda folder: {nfc(name): name for name in names_in(folder)})

    def find(self, path: str) -> Found | None:
        """Where the file `path` lies, which is relative to the folder, or begins at the root, or is an address; None if
        it is nowhere.
        """
        if isinstance(self.root, Address):
            self.root.load()
        whole = path if path.startswith("/") or is_remote(path) else f"{self._root}/{path}"
        if (found := self._regular(whole)) is not None or path.isascii():
            return found
        for form in (nfc(path), unicodedata.normalize("NFD", path)):
            if (found := self._regular(str(self.root / form))) is not None:
                return found
        place = self.root
        for part in Path(path).parts:  # forms that change from folder to folder
            place = place / self._composed(place).get(nfc(part), part)
        return self._regular(str(place))

    def _regular(self, path: str) -> Found | None:
        """The file at this path, or at this address: one below the folder was listed, another is asked for."""
        if is_remote(path):
            address = (self.root if isinstance(self.root, Address) else Address(path)) / path
            status = address.look()
            return (address.url, None, None, status.stamp) if status else None
        return _regular(path) if isinstance(self.root, Path) else None


class Beside:
    """What a table names: members of the tar of its name, then files relative to it, in any form of Unicode."""

    def __init__(self, table: File) -> None:
        self._root, tar = table.parent, table.with_suffix(".tar")
        self._tar = Members(tar) if tar.is_file() else None
        self._file = Below(self._root).find

    def find(self, paths: Sequence[str]) -> list[Found | None]:
        """Where each of `paths` lies; None for what is nowhere."""
        if (tar := self._tar) is None:
            return [self._file(path) for path in paths]
        members = tar.find([os.path.normpath(path) for path in paths]).tolist()
        return [tar.place(m) if m >= 0 else self._file(path) for path, m in zip(paths, members, strict=True)]

    def missing(self, path: str) -> tuple[str, str]:
        """What is missing where nothing is called `path`, and a hint."""
        what, rule = f"there is no file `{path}`", f"paths are relative to `{self._root}`"
        folder = (self._root / path).parent
        there = names_in(folder) if folder.is_dir() else ()
        names = [str(Path(os.path.normpath(path)).parent / name) for name in there]
        if (tar := self._tar) is not None:
            what, rule = f"`{tar.path}` has no member `{path}`, and {what}", f"`path` names members of `{tar.path}`"
            names = [*tar.names(), *names]
        slashed = path.replace("\\", "/")
        if slashed != path and self.find([slashed])[0] is not None:
            return what, f"write it with slashes: `{slashed}`"
        close = get_close_matches(os.path.normpath(path), names, 1)
        return what, f"did you mean `{close[0]}`?" if close else rule


def _regular(path: str) -> Found | None:
    try:
        status = os.stat(path)  # noqa: PTH116  a path object costs more than the look
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return None
    return (path, None, None, stamp_of(path, status)) if stat.S_ISREG(status.st_mode) else None


class Members:
    """Every regular file in the uncompressed tar at `path`, at 32 bytes each; the last of two members counts."""

    def __init__(self, path: File) -> None:
        self.path = path
        self._names, offsets, sizes = Names(), array("q"), array("q")
        links: dict[int, str] = {}
        for member in members_of(path):
            if member.link:
                links[len(self._names)] = member.link
            self._names.add([member.name])
            offsets.append(member.offset)
            sizes.append(member.size)
        self._changed = path.stat().st_mtime_ns  # for all: the times inside are often the same
        self._offsets, self._sizes = (np.array(values, np.int64) for values in (offsets, sizes))
        # In order, since a target may be a link.
        for link, target in zip(links, self.find(list(links.values())), strict=True):
            self._offsets[link], self._sizes[link] = self._offsets[target], self._sizes[target]

    def find(self, names: Sequence[str]) -> Int64[np.ndarray, "N"]:
        """The position of each of these members, in composed form (NFC) if not as it is written; -1 for none."""
        found = self._names.find(names)
        if len(absent := np.flatnonzero(found < 0)):
            found[absent] = self._composed.find([nfc(names[i]) for i in absent.tolist()])
        return found

    @cached_property
    def _composed(self) -> Names:
        names = Names()
        for name in self.names():
            names.add([nfc(name)])
        return names

    def place(self, member: int) -> tuple[str, int, int, str]:
        """Path, offset, size and stamp of the member at this position."""
        size = int(self._sizes[member])
        return str(self.path), int(self._offsets[member]), size, f"{size}-{self._changed}"

    def names(self) -> Iterator[str]:
        """The members' names, read again."""
        return (member.name for member in members_of(self.path))
