"""Which pairs of stored images show the same pixels: each image is decoded once, all cores compare.

In threads: decoding and products leave Python's lock, and there is nothing to send and nobody to end.
"""

import numpy as np
from jaxtyping import Bool, Int64

from lookalike.core.errors import ImageError
from lookalike.core.journal import Progress, note
from lookalike.core.shapes import Ids
from lookalike.core.threads import in_threads
from lookalike.data.collection import Collection
from lookalike.imaging.overlap import SIDE, Small, are_copies, small_stored

_READ, _DECODED = 512, 16  # images that are read at a time, and that a thread decodes of them
_COMPARED = 2048  # pairs that a thread compares at a time


class PixelPairs:
    """Images of a collection, to be compared with each other.

    Memory: a KiB for each image that is in a pair, and what is read at a time.
    """

    def __init__(self, collection: Collection, ids: Ids) -> None:
        """Pairs are positions in `ids`."""
        self._collection, self._ids = collection, ids
        # Pages of zeros take no memory before they are written.
        self._pieces = np.zeros((len(ids), SIDE, SIDE), np.uint8)
        self._known = np.zeros(len(ids), bool)

    def same(self, pairs: Int64[np.ndarray, "P 2"]) -> Bool[np.ndarray, "P"]:
        """Which pairs show the same pixels. An image that can't be decoded shows those of none, which is said."""
        rows = np.unique(pairs)
        self._read(rows[~self._known[rows]])
        same = np.zeros(len(pairs), bool)
        some = [slice(start, start + _COMPARED) for start in range(0, len(pairs), _COMPARED)]
        with Progress("compare", "pairs", len(pairs), patience=2.0) as bar, in_threads() as apply:
            for part, found in zip(some, apply(lambda part: are_copies(*self._of(pairs[part])), some), strict=True):
                same[part] = found
                bar.advance(len(found))
        return same

    def _of(self, pairs: Int64[np.ndarray, "P 2"]) -> tuple[np.ndarray, np.ndarray]:
        """The images of some pairs, and these pairs as positions among them."""
        rows, places = np.unique(pairs, return_inverse=True)
        return self._pieces[rows], places.reshape(-1, 2)

    def _read(self, rows: Int64[np.ndarray, "M"]) -> None:
        """Decode images; a damaged one stays blank, and so is like nothing."""
        damaged = list[tuple[int, str]]()
        with Progress("look at", "images", len(rows), patience=2.0) as bar, in_threads() as apply:
            for start in range(0, len(rows), _READ):
                some = rows[start : start + _READ]
                files = self._collection.take(self._ids[some], ["image"])["image"].to_pylist()
                parts = [files[first : first + _DECODED] for first in range(0, len(files), _DECODED)]
                found = (image for part in apply(_decoded, parts) for image in part)
                for row, image in zip(some.tolist(), found, strict=True):
                    if isinstance(image, str):
                        damaged.append((row, image))
                    else:
                        self._pieces[row] = image
                bar.advance(len(some))
        self._known[rows] = True
        if damaged:
            row, why = damaged[0]
            note(
                f"{len(damaged):,} images of `{self._collection.path}` could not be decoded, and are compared with "
                f"none; first that of id {self._ids[row]}: {why}"
            )


def _decoded(files: list[bytes]) -> list[Small | str]:
    """Images, or why there is none."""
    found = list[Small | str]()
    for data in files:
        try:
            found.append(small_stored(data))
        except ImageError as error:
            found.append(error.message)
    return found
