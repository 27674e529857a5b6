"""Data sets in miniature, in the layouts in which they are published."""

import io
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from lookalike.data.collection import Collection
from lookalike.data.prepare import prepare

Files = Mapping[str, bytes | str]


def picture(seed: int, format: str = "JPEG", mode: str = "RGB") -> bytes:
    """A small image of its own; `mode` is one of Pillow's: L (gray), CMYK, RGBA."""
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)
    data = io.BytesIO()
    PIL.Image.fromarray(pixels).convert(mode).save(data, format)
    return data.getvalue()


def written(root: Path, files: Files) -> Path:
    """A folder with these files."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return root


def tarred(files: Files) -> bytes:
    """A plain tar file of them."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            encoded = content.encode() if isinstance(content, str) else content
            member.size = len(encoded)
            archive.addfile(member, io.BytesIO(encoded))
    return data.getvalue()


def zipped(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip file of them."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


class Prepared:
    """A collection that was made of a data set."""

    def __init__(self, path: Path) -> None:
        self.collection = Collection.open(path)
        columns = [name for name in self.collection.columns if name != "image"]
        self.rows: dict[str, dict[str, Any]] = {
            row["source"].partition("/")[2]: row for row in self.collection.table(columns).to_pylist()
        }

    @property
    def splits(self) -> dict[str, int]:
        """split -> images"""
        return dict(Counter(row["split"] for row in self.rows.values()))

    def labels(self, split: str | None = None) -> dict[str, str]:
        """Image -> its label."""
        return {name: row["label"] for name, row in self.rows.items() if split in (None, row["split"])}

    @property
    def facts(self) -> dict[str, Any]:
        """What the card says of the data set."""
        (source,) = self.collection.card["sources"]
        return dict(source)


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[[str, Path], Prepared]:
    """Make a collection of a data set: its name, and the place of its files."""

    def make(name: str, place: Path) -> Prepared:
        out = tmp_path / f"{name}-collection"
        prepare([(name, str(place))], str(out), workers=1)
        return Prepared(out)

    return make


def matlab(**arrays: list[dict[str, Any]]) -> bytes:
    """A file of MATLAB's with these arrays of structs."""
    from scipy.io import savemat

    data = io.BytesIO()
    made = {}
    for name, entries in arrays.items():
        table = np.empty((1, len(entries)), [(field, object) for field in entries[0]])
        for i, entry in enumerate(entries):
            table[0, i] = tuple(entry.values())
        made[name] = table
    savemat(data, made)
    return data.getvalue()
