"""Images that are the same or nearly the same: found by what they look like, marked, never taken away.

Two images are the same if their stored pixels are, and nearly the same if at most `NEAR` of the 63 bits of their
perceptual hashes differ, or if an encoder's embeddings say so, where `prepare` was given one. The column `duplicate_of`
has the id of the first image that an image is so like, if there is one before it. What somebody has said is not the
same (`apart.py`) never counts.
"""

import itertools
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int64

from lookalike.core.journal import note
from lookalike.data.apart import Apart, read_apart, rows_apart, without
from lookalike.data.collection import Collection

SEEN = pa.schema([("pixels", pa.binary(16)), ("phash", pa.int64())])
"""Columns that conversion fills."""
MARK = pa.schema([("duplicate_of", pa.int64())])
NEAR = 3
_LEAST = 8  # bits of a hash that says something
_MOST = 2000  # images that share a piece of their hashes, of which all pairs are looked at

Hashes = Int64[np.ndarray, "N"]
Pairs = Int64[np.ndarray, "P 2"]
Mask = Bool[np.ndarray, "N"]


def near_pairs(hashes: Hashes, most: int = NEAR) -> Pairs:
    """All pairs of rows whose hashes differ in at most `most` bits, the lower row first, each once and in order.

    Of hashes cut into `most` + 1 pieces such two share a piece (the pigeonhole principle), so that only rows that share
    one are compared; of more than 2,000 that share one each is compared with the 2,000 behind it. Hashes with fewer
    than eight bits, as of a blank image, say nothing and have no pairs.
    """
    bits = np.ascontiguousarray(hashes).view(np.uint64)
    told = np.flatnonzero(np.bitwise_count(bits) >= _LEAST)
    edges = np.linspace(0, 64, most + 2).astype(int).tolist()
    found = [np.zeros((0, 2), np.int64)]
    for low, high in itertools.pairwise(edges):
        piece = (bits[told] >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        by_piece = np.argsort(piece, kind="stable")
        order, piece = told[by_piece], piece[by_piece]
        at = np.arange(len(order))
        for behind in range(1, _MOST + 1):
            at = at[at + behind < len(order)]
            at = at[piece[at] == piece[at + behind]]  # a row without a fellow so far behind has none further
            if not len(at):
                break
            one, other = order[at], order[at + behind]
            near = np.bitwise_count(bits[one] ^ bits[other]) <= most
            found.append(np.stack([one[near], other[near]], axis=1))
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def same_pairs(pixels: Sequence[bytes | None], apart: Apart | None = None) -> Pairs:
    """Rows whose pixels are the same, each with the first of them that is not `apart` from it."""
    first: dict[bytes, int] = {}
    found = [(first.setdefault(one, row), row) for row, one in enumerate(pixels) if one is not None]
    told = {(one, other) for one, other in (() if apart is None else apart.tolist()) if pixels[one] == pixels[other]}
    if told:
        moved = {other for _, other in told}
        alike = {pixels[row]: [i for i, one in enumerate(pixels) if one == pixels[row]] for row in moved}
        for place, (_, row) in enumerate(found):
            if row in moved:
                fits = (i for i in alike[pixels[row]] if i < row and (i, row) not in told)
                found[place] = (next(fits, row), row)
    return np.array([pair for pair in found if pair[0] != pair[1]], np.int64).reshape(-1, 2)


@dataclass(frozen=True)
class Alike:
    """Rows that are the same, and rows that are nearly the same, as pairs of positions."""

    same: Pairs
    near: Int64[np.ndarray, "M 2"]

    @classmethod
    def of(cls, rows: pa.Table, apart: Apart | None = None) -> "Alike":
        """Of rows with the columns of `SEEN`; those that have no values there, and pairs that are `apart`, are not
        alike.
        """
        known = np.flatnonzero(rows["phash"].is_valid().to_numpy())
        hashes = rows["phash"].take(pa.array(known)).to_numpy().astype(np.int64)
        near = known[near_pairs(hashes)]
        return cls(same_pairs(rows["pixels"].to_pylist(), apart), near if apart is None else without(near, apart))

    def first(self, count: int) -> Int64[np.ndarray, "N"]:
        """The first row that each of `count` rows is like; -1 for those that are like none before them."""
        found = np.full(count, count, np.int64)
        for pairs in (self.same, self.near):
            np.minimum.at(found, pairs[:, 1], pairs[:, 0])
        return np.where(found == count, -1, found)

    def between(self, one: Mask, other: Mask) -> tuple[Mask, Mask]:
        """Which rows of `one` are the same as one of `other`, and which nearly so and not the same."""
        found = []
        for pairs in (self.same, self.near):
            hit = np.zeros(len(one), bool)
            for a, b in (pairs.T, pairs.T[::-1]):
                hit[a[one[a] & other[b]]] = True
            found.append(hit)
        return found[0], found[1] & ~found[0]


@dataclass(frozen=True)
class Close:
    """Rows that are alike by an encoder's embeddings, in the order of ids."""

    first: Int64[np.ndarray, "N"]  # the first row before each that it is like; -1: none
    learned_too: Mask  # rows of other splits that are like one of split `train`
    told: Mapping[str, Any]  # which encoder, and from which cosine on


def mark(
    collection: Collection, close: Close | None = None, groups: Int64[np.ndarray, "N"] | None = None
) -> dict[str, Any]:
    """Fill `duplicate_of`, and tell what was found, for the card: how many images are like an earlier one, how many
    are so with another label, and how many of each split are like one that is there to learn from; by how they look,
    and under `embedding` what `close` adds to that. `groups` are the rows to mark each with (-1: none), where they are
    known; else it is the first that an image is like.
    """
    rows = collection.table(["id", "sha256", "label", "domain", "split", "pixels", "phash", "duplicate_of"])
    ids, alike = rows["id"].to_numpy(), Alike.of(rows, rows_apart(rows["sha256"], read_apart(collection.path)))
    looks = alike.first(len(rows))
    by_embedding = np.full(len(rows), -1) if close is None else close.first
    first = np.where((looks < 0) | (by_embedding < 0), np.maximum(looks, by_embedding), np.minimum(looks, by_embedding))
    first = first if groups is None else groups
    marks = np.where(first < 0, -1, ids[first])
    changed = np.flatnonzero(marks != pc.fill_null(rows["duplicate_of"], -1).to_numpy())
    told_of = pa.array(marks[changed], pa.int64(), mask=marks[changed] < 0)
    collection.update(pa.table({"id": ids[changed], "duplicate_of": told_of}))
    same = np.zeros(len(rows), bool)
    same[alike.same[:, 1]] = True
    label = np.array([repr(pair) for pair in zip(rows["domain"].to_pylist(), rows["label"].to_pylist(), strict=True)])
    split = np.array([name or "" for name in rows["split"].to_pylist()])
    told: dict[str, Any] = {
        "same": int(same.sum()),
        "near": int(((looks >= 0) & ~same).sum()),
        "of_another_label": int((label != label[looks])[looks >= 0].sum()),
    }
    leaked, leaked_too = {}, {}
    for name in sorted({*split.tolist()} - {"", "train"}):
        mine = split == name
        once, nearly = alike.between(mine, split == "train")
        leaked[name] = {"same": int(once.sum()), "near": int(nearly.sum()), "images": int(mine.sum())}
        if close is not None:
            leaked_too[name] = int((close.learned_too & mine & ~once & ~nearly).sum())
    told |= {"bits": NEAR, "learned_too": leaked, "of": collection.fingerprint}
    if close is None:
        return told
    only = (by_embedding >= 0) & (looks < 0)
    other = int((label != label[by_embedding])[only].sum())
    found = {"images": int(only.sum()), "of_another_label": other, "learned_too": leaked_too}
    return {**told, "embedding": {**found, **close.told}}


def note_lost(before: Mapping[str, Any], collection: Collection) -> None:
    """Say so if what the card `before` tells of duplicates by embeddings is no longer marked: the images changed."""
    told, now = ((card.get("duplicates") or {}).get("embedding") for card in (before, collection.card))
    if told and not now:
        note(
            f"`{collection.path}` has changed, and near duplicates by embeddings are no longer marked: "
            f"`lookalike prepare SOURCE --out {shlex.quote(collection.path)} "
            f"--model {shlex.quote(told['model'])}` marks them again"
        )
