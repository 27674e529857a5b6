"""Which names stand in lists for the first time, and with which label they stood there before; 16 bytes a name."""

from collections.abc import Sequence

import numpy as np

from lookalike.data.sources.listed import names_digested


class Once:
    """Names and labels that were told, by 64 bits of their BLAKE2b.

    That two of 5 million names share these has a chance of 10^-6; the later of the two would be left out.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[np.ndarray, np.ndarray]] = []  # names in their order, labels; each longer than the next

    def look(self, names: Sequence[str], labels: Sequence[str | None]) -> list[bool | None]:
        """Of each name: True if it is new, False if it was told with this label, None if with another one."""
        said = [f"{label is None}{label}" for label in labels]
        keys, said_of = (np.frombuffer(names_digested(words, 8), np.uint64) for words in (names, said))
        known: dict[int, int] = {}
        for run, labels_of in self._runs:
            places = np.minimum(np.searchsorted(run, keys), len(run) - 1)
            there = run[places] == keys
            known |= zip(keys[there].tolist(), labels_of[places[there]].tolist(), strict=True)
        told: list[bool | None] = []
        new: dict[int, int] = {}
        for key, label in zip(keys.tolist(), said_of.tolist(), strict=True):
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
