"""Images that somebody has said are not the same, remembered by what their files hold, in COLL/not-same.json.

{"not_same": [[SHA-256, SHA-256], ...]}    in hex, each pair once and in order

Ids and paths may change: an image that is prepared anew, here or in another collection, is still the same file.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from lookalike.core.errors import UsageError
from lookalike.core.files import read_json, write_json

NAME = "not-same.json"
_KEY = "not_same"

Pair = tuple[str, str]  # SHA-256 in hex, the lesser first
Pairs = Int64[np.ndarray, "P 2"]
Apart = Int64[np.ndarray, "A 2"]
"""Positions of rows, the lower first."""


def read_apart(collection: str | Path) -> set[Pair]:
    """The pairs that the collection at this path remembers; none if nobody said so yet."""
    path = Path(collection) / NAME
    return pairs_in(read_json(path), path) if path.exists() else set()


def pairs_in(document: Any, path: str | Path) -> set[Pair]:
    """The pairs of a document of this form; UsageError if it is another one."""
    found = document.get(_KEY) if isinstance(document, dict) else None
    if not isinstance(found, list) or not all(_is_pair(pair) for pair in found):
        raise UsageError(f"`{path}` does not hold pairs of SHA-256 under `{_KEY}`.", hint=f"move `{path}` away")
    return {ordered(*pair) for pair in found}


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(one, str) and len(one) == 64 for one in pair)


def write_apart(collection: str | Path, pairs: Iterable[Pair]) -> None:
    """Remember these pairs, and no others; the caller holds the lock."""
    write_json(Path(collection) / NAME, {_KEY: sorted(map(list, pairs))})


def ordered(one: str, other: str) -> Pair:
    """The pair, the lesser first."""
    return (one, other) if one <= other else (other, one)


def all_pairs(digests: Sequence[str]) -> set[Pair]:
    """Each two of these images."""
    return {ordered(*pair) for pair in combinations(digests, 2)}


def rows_apart(sha256: pa.ChunkedArray, pairs: Iterable[Pair]) -> Apart:
    """The same as positions of rows, the lower first, each once and in order: of all rows that hold these files."""
    wanted = {bytes.fromhex(one) for pair in pairs for one in pair}
    if not wanted:
        return np.zeros((0, 2), np.int64)
    at: dict[bytes, list[int]] = {}
    for row, digest in enumerate(sha256.to_pylist()):
        if digest in wanted:
            at.setdefault(digest, []).append(row)
    found = {
        (min(a, b), max(a, b))
        for one, other in pairs
        for a in at.get(bytes.fromhex(one), ())
        for b in at.get(bytes.fromhex(other), ())
        if a != b
    }
    return np.array(sorted(found), np.int64).reshape(-1, 2)


def without(pairs: Pairs, apart: Apart) -> Int64[np.ndarray, "M 2"]:
    """Those of `pairs`, the lower row first, that are not among `apart`."""
    if not len(apart) or not len(pairs):
        return pairs
    count = int(max(pairs.max(), apart.max())) + 1
    left: Pairs = pairs[~np.isin(pairs[:, 0] * count + pairs[:, 1], apart[:, 0] * count + apart[:, 1])]
    return left
