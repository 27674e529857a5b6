"""Pure decisions about which classes are for training and which for the test: class-disjoint splits.

A class is a pair (domain, label). Whether a class belongs to the test part depends on its own name and nothing
else, so adding, removing or renaming other classes never moves it; a class is never on both sides.
"""

import hashlib

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
