"""Files by the names that a publisher gave them: in a folder, in archives that lie there, or in one archive.

An archive at `train/images_000.tar` with a member `0/1/2/x.jpg` or `train/0/1/2/x.jpg` has `train/0/1/2/x.jpg`; one at
`train.zip` with `0.jpg` or `train/0.jpg` has `train/0.jpg`. Memory: 60 bytes a member.
"""

import os
from array import array
from collections.abc import Iterator, Sequence
from copy import copy
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import PurePosixPath

from lookalike.core.errors import ImageError, SourceError
from lookalike.data.sources import Place, names_in, nfc, text
from lookalike.data.sources.archive import SUFFIXES, members_of, packed, unpacking
from lookalike.data.sources.beside import Below
from lookalike.data.sources.folder import SUFFIXES as PICTURES
from lookalike.data.sources.listed import Names
from lookalike.data.sources.store import Address, File, located

DEPTH = 2  # folders below the place in which archives are looked for


class Tree:
    """What lies at `place`, a folder or an archive, on the disk or in a store.

    `nested`: tar files in tar files are looked into.
    """

    def __init__(self, place: str, *, nested: bool = False) -> None:
        self.place, self.prefix, self._nested = place, "", nested
        self._root = located(place)
        self._folder = Below(self._root) if self._root.is_dir() else None
        if self._folder and isinstance(self._root, Address):
            self._root.load()
        if self._folder is None and not place.lower().endswith(SUFFIXES):
            hint = f"unpack it, and give the folder: {unpacking(self._root.name)}" if packed(place) else ""
            raise SourceError(f"`{place}` is neither a folder nor a .tar or .zip file.", hint=hint)

    def below(self, prefix: str) -> "Tree":
        """The same, with names that are relative to the folder `prefix`."""
        other = copy(self)
        other.prefix = (
            os.path.normpath(f"{self.prefix}/{prefix}").lstrip("/").removeprefix("./") if prefix else self.prefix
        )
        return other

    def find(self, names: Sequence[str]) -> list[Place | None]:
        """Where each of these files lies; None for what is nowhere."""
        whole = [self._whole(name) for name in names]
        found: list[Place | None] = [None] * len(names)
        if self._folder is not None:
            for i, name in enumerate(whole):
                if (there := self._folder.find(name)) is not None:
                    path, _, _, stamp = there
                    found[i] = Place(path, stamp)
        if self.archives:
            absent = [i for i, place in enumerate(found) if place is None]
            for i, at in zip(absent, self._members.find([whole[i] for i in absent]), strict=True):
                found[i] = self._members.place(at, whole[i]) if at >= 0 else None
        return found

    def has(self, name: str) -> bool:
        """Whether there is a file, or a folder, of this name; with `*` in it, a file that it fits."""
        if self._folder is not None and _there(self._root / self.prefix, name):
            return True
        return bool(self.archives) and self._members.has(self._whole(name))

    def read(self, name: str) -> bytes:
        """The bytes of a file; SourceError if there is none."""
        (place,) = self.find([name])
        if place is None:
            raise SourceError(f"`{self.place}` has no `{self._whole(name)}`.")
        try:
            return place.read()
        except ImageError as error:
            raise SourceError(f"`{self._whole(name)}` of `{self.place}`: {error.message}") from error

    def names(self, under: str = "") -> Iterator[str]:
        """The files below the folder `under`, in the order of names: those of the folder, then those of archives.

        What was unpacked beside its archive stands once.
        """
        whole = self._whole(under) if under else self.prefix
        start = f"{self.prefix}/" if self.prefix else ""
        if self._folder is not None:
            for name in _walk(self._root, whole):
                yield name.removeprefix(start)
        for name in self._members.under(whole) if self.archives else ():
            if self._folder is None or self._folder.find(name) is None:
                yield name.removeprefix(start)

    def tops(self, mark: str) -> list[str]:
        """The folders, the shallowest first, below which there is a file `mark`; "" is the place itself."""
        found = ["."] if self.has(mark) else []
        if self._folder is not None:
            found += [folder for folder in folders(self._root, DEPTH) if _there(self._root / folder, mark)]
        if self.archives:
            found += self._members.above(mark)
        return sorted({"" if folder == "." else folder for folder in found}, key=lambda top: (top.count("/"), top))

    @cached_property
    def archives(self) -> list[tuple[str, File]]:
        """The archives, each with the folder that it lies in, relative to the place."""
        if self._folder is None:
            return [("", self._root)]
        found = []
        for folder in ("", *folders(self._root, DEPTH)):
            for name in sorted(names_in(self._root / folder)):
                if name.lower().endswith(SUFFIXES) and (self._root / folder / name).is_file():
                    found.append((folder, self._root / folder / name))
        return found

    @cached_property
    def packed(self) -> list[str]:
        """Archives that have to be unpacked first."""
        if self._folder is None:
            return []
        names = [
            f"{folder}/{n}".lstrip("/")
            for folder in ("", *folders(self._root, 1))
            for n in names_in(self._root / folder)
        ]
        return sorted(name for name in names if packed(name))

    @cached_property
    def _members(self) -> "_Members":
        return _Members(self.archives, self._nested)

    def _whole(self, name: str) -> str:
        name = os.path.normpath(name)
        return f"{self.prefix}/{name}" if self.prefix else name


def _there(folder: File, name: str) -> bool:
    return (folder / name).exists() or ("*" in name and any(True for _ in folder.glob(name)))


def _walk(root: File, folder: str) -> Iterator[str]:
    """The files below a folder of `root`, relative to this, in the order of names."""
    if isinstance(root, Address):
        yield from (os.path.normpath(f"{folder}/{name}").lstrip("/") for name, _ in (root / folder).walk())
        return
    for place, folders, files in os.walk(root / folder):
        folders.sort()
        relative = os.path.relpath(place, root)
        yield from (os.path.normpath(f"{relative}/{file}") for file in sorted(files))


def _inside(folder: File) -> list[str]:
    """The folders in a folder, in the order of names."""
    if isinstance(folder, Address):
        return sorted(name for name in folder.names() if (folder / name).is_dir())
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())


def folders(place: File, depth: int) -> Iterator[str]:
    """Folders below `place`, relative to it, the shallowest first."""
    level = [""]
    for _ in range(depth):
        level = [
            f"{folder}/{name}".lstrip("/")
            for folder in level
            for name in _inside(place / folder)
            if not name.startswith(".")
        ]
        yield from level


class _Members:
    """The members of several archives by their names in the tree: each has two, with the archive's own and without."""

    def __init__(self, archives: Sequence[tuple[str, File]], nested: bool) -> None:
        self._archives, self._nested, self._names, self._told = archives, nested, Names(), list[str]()
        self._folders = set[str]()  # to read a million headers again for a name that is not there takes minutes
        self._archive, self._offset, self._size, self._deflated = array("i"), array("q"), array("q"), array("b")
        self._is_within = array("b")  # whether the member's own name begins with the folder that the archive lies in
        self._both_same = array("b")
        for number, (folder, path) in enumerate(archives):
            for member in members_of(path, nested=nested):
                if member.link or member.name.startswith(("../", "/")):
                    continue
                both = [nfc(name) for name in _named(folder, path, member.name)]
                self._names.add(both)
                for parent in both:
                    while (parent := parent.rpartition("/")[0]) and parent not in self._folders:
                        self._folders.add(parent)
                if not member.name.lower().endswith(PICTURES):
                    self._told += both
                for values, value in (
                    (self._archive, number),
                    (self._offset, member.offset),
                    (self._size, member.size),
                    (self._deflated, member.deflated),
                    (self._is_within, bool(folder) and member.name.startswith(f"{PurePosixPath(folder).name}/")),
                    (self._both_same, both[0] == both[1]),
                ):
                    values.append(value)
        self._stamp = [path.stat().st_mtime_ns for _, path in archives]

    def find(self, names: Sequence[str]) -> list[int]:
        """Where each is among both names of all members; -1: nowhere."""
        return [int(at) for at in self._names.find([nfc(name) for name in names])]

    def place(self, at: int, name: str) -> Place:
        """Where the member lies that is found at `at` as `name`, whose own name is what `_named` made that of."""
        at, is_stemmed = at // 2, bool(at % 2) and not self._both_same[at // 2]
        (folder, path), size = self._archives[self._archive[at]], self._size[at]
        member = name[len(folder) + 1 :] if folder else name
        member = member[len(text(path.stem)) + 1 :] if is_stemmed else member
        member = f"{PurePosixPath(folder).name}/{member}" if self._is_within[at] else member
        stamp = f"{size}-{self._stamp[self._archive[at]]}"
        return Place(str(path), stamp, self._offset[at], size, bool(self._deflated[at]), member=member)

    def has(self, name: str) -> bool:
        if "*" in name:
            folder = name.partition("*")[0].rpartition("/")[0]
            return any(fnmatchcase(member, name) for member in self.under(folder))
        return self.find([name])[0] >= 0 or nfc(name) in self._folders

    def above(self, mark: str) -> list[str]:
        """The folders below which `mark` lies, which is a list and no image."""
        parts = mark.count("/") + 1
        split = (name.split("/") for name in self._told)
        return ["/".join(way[:-parts]) for way in split if fnmatchcase("/".join(way[-parts:]), mark)]

    def under(self, folder: str) -> Iterator[str]:
        """Names below a folder, in the archives' order."""
        for place, path in self._archives:
            for member in members_of(path, nested=self._nested):
                for name in dict.fromkeys(_named(place, path, member.name)):
                    if not member.link and (not folder or name.startswith(f"{folder}/")):
                        yield name
                        break


def _named(folder: str, path: File, member: str) -> tuple[str, str]:
    """What a member of the archive at `path`, which lies in `folder`, is called in the tree."""
    last = PurePosixPath(folder).name
    inside = member.removeprefix(f"{last}/") if last else member
    plain = f"{folder}/{inside}" if folder else inside
    stem = text(path.stem)
    if inside.startswith(f"{stem}/"):
        return plain, plain
    return plain, f"{folder}/{stem}/{inside}" if folder else f"{stem}/{inside}"
