"""Names by the million: 16 bytes for each, whatever its length, in which all others are looked up."""

from collections.abc import Iterable
from functools import cached_property
from hashlib import blake2b

import numpy as np
from jaxtyping import Int64


class Names:
    """Names by their position: first all are added, then they are looked up.

    A name is kept as 128 bits of its BLAKE2b: that two of 10^7 names share them has a chance of 10^-25.
    """

    def __init__(self) -> None:
        self._digests = bytearray()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, names: Iterable[str]) -> None:
        """Add names behind those that are there."""
        before = len(self._digests)
        self._digests += _digests(names)
        self._length += (len(self._digests) - before) // 16

    def find(self, names: Iterable[str]) -> Int64[np.ndarray, "N"]:
        """The position of each name, the last of several; -1 where it is not there."""
        digests, order = self._sorted
        wanted = np.frombuffer(_digests(names), "S16")
        if not len(digests):
            return np.full(len(wanted), -1, np.int64)
        places = np.searchsorted(digests, wanted, side="right") - 1
        return np.where(digests[places] == wanted, order[places], -1).astype(np.int64)

    def repeated(self) -> tuple[int, int] | None:
        """The positions of a name that stands twice, the first such in order; None if there is none."""
        digests, order = self._sorted
        again = np.flatnonzero(digests[1:] == digests[:-1])
        if not len(again):
            return None
        first = again[np.argmin(order[again + 1])]
        return int(order[first]), int(order[first + 1])

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        digests = np.frombuffer(self._digests, "S16")
        order = np.argsort(digests, kind="stable")
        digests = digests[order]
        self._digests = bytearray()
        return digests, order.astype(np.int32 if self._length < 2**31 else np.int64)


def _digests(names: Iterable[str]) -> bytes:
    return b"".join(blake2b(name.encode(errors="surrogatepass"), digest_size=16).digest() for name in names)
