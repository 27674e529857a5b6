"""Which names stand in lists for the first time, and with which label they stood there before; 16 bytes a name."""

import hashlib
from collections.abc import Sequence

import numpy as np


class Once:
    """Names and labels that were told, by 64 bits of their BLAKE2b.

    That two of 5 million names share these has a chance of 10^-6; the later of the two would be left out.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[np.ndarray, np.ndarray]] = []  # names in their order, labels; each longer than the next

    def look(self, names: Sequence[str], labels: Sequence[str | None]) -> list[bool | None]:
        """Of each name: True if it is new, False if it was told with this label, None if with another one."""
        keys, said = _digests(names), _digests([f"{label is None}{label}" for label in labels])
        known: dict[int, int] = {}
        for run, labels_of in self._runs:
            places = np.minimum(np.searchsorted(run, keys), len(run) - 1)
            there = run[places] == keys
            known |= zip(keys[there].tolist(), labels_of[places[there]].tolist(), strict=True)
        told: list[bool | None] = []
        new: dict[int, int] = {}
        for key, label in zip(keys.tolist(), said.tolist(), strict=True):
            before = known.get(key, new.get(key))
            if before is None:
                new[key] = label
            told.append(True if before is None else (False if before == label else None))
        self._keep(new)
        return told

    def _keep(self, new: dict[int, int]) -> None:
        if not new:
            return
        names, labels = np.array(list(new), np.uint64), np.array(list(new.values()), np.uint64)
        order = np.argsort(names)
        self._runs.append((names[order], labels[order]))
        while len(self._runs) > 1 and len(self._runs[-2][0]) <= 2 * len(self._runs[-1][0]):
            (a, said_a), (b, said_b) = self._runs[-2:]
            names = np.concatenate([a, b])
            order = np.argsort(names)
            self._runs[-2:] = [(names[order], np.concatenate([said_a, said_b])[order])]


def _digests(words: Sequence[str]) -> np.ndarray:
    data = b"".join(hashlib.blake2b(word.encode(errors="surrogatepass"), digest_size=8).digest() for word in words)
    return np.frombuffer(data, np.uint64)
