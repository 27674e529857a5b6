"""Pure decisions about which classes and rows take part: class-disjoint splits, caps, minimum sizes.

A class is a pair (domain, label). Whether a class belongs to the test part depends on its own name and nothing
else, so adding, removing or renaming other classes never moves it; a class is never on both sides.
"""

import hashlib

import numpy as np
from jaxtyping import Bool, Int

_SPAN = 2**64


def position(domain: str | None, label: str) -> float:
    """Where the class lies in [0, 1): evenly spread over classes, the same for ever (SHA-256 of both names)."""
    name = "\0".join(["" if domain is None else domain, label]).encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") / _SPAN


def split_of(domain: str | None, label: str | None, test: float) -> str | None:
    """`test` for this share of the classes, `train` for the others; None for a row without a label.

    The share holds on average: of n classes about `test` * n +- sqrt(n * test * (1 - test)) are test classes. An exact
    share would have to move classes whenever others come. A larger `test` keeps every class of a smaller one.
    """
    if label is None:
        return None
    return "test" if position(domain, label) < test else "train"


def cap(labels: Int[np.ndarray, "N"], most: int, seed: int = 0) -> Bool[np.ndarray, "N"]:
    """True for at most `most` rows of each label, drawn without replacement from `seed`; all of a smaller one."""
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(labels))
    by_label = order[np.argsort(labels[order], kind="stable")]  # rows of a label side by side, shuffled inside
    _, starts, sizes = np.unique(labels[by_label], return_index=True, return_counts=True)
    rank = np.arange(len(labels)) - np.repeat(starts, sizes)
    kept = np.zeros(len(labels), bool)
    kept[by_label[rank < most]] = True
    return kept


def at_least(labels: Int[np.ndarray, "N"], least: int) -> Bool[np.ndarray, "N"]:
    """True for the rows whose label has `least` rows or more."""
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    return np.asarray(sizes[inverse] >= least)
