"""Files that a table names, found however their names are composed in Unicode."""

import os
import stat
import unicodedata
from functools import lru_cache
from pathlib import Path

from lookalike.data.sources import names_in, nfc, stamp_of


class Files:
    """The files below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._composed = lru_cache(64)(self._composed_names)

    def find(self, path: str) -> tuple[str, str] | None:
        """Path and stamp of the regular file that is called `path`, in any form of Unicode; None if there is none."""
        if (found := _file(os.path.join(self.root, path))) is not None or path.isascii():  # noqa: PTH118  by the million
            return found
        for form in (nfc(path), unicodedata.normalize("NFD", path)):
            if (found := _file(str(self.root / form))) is not None:
                return found
        place = Path()
        for part in Path(path).parts:  # forms that change from folder to folder
            place = place / self._composed(place).get(nfc(part), part)
        return _file(str(self.root / place))

    def names(self, folder: Path) -> list[str]:
        """Names in `folder`, which lies below the root."""
        return names_in(self.root / folder)

    def _composed_names(self, folder: Path) -> dict[str, str]:
        return {nfc(name): name for name in self.names(folder)}


def _file(path: str) -> tuple[str, str] | None:
    try:
        status = os.stat(path)  # noqa: PTH116  a path object costs more than the look
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return None
    return (path, stamp_of(path, status)) if stat.S_ISREG(status.st_mode) else None
