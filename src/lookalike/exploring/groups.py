"""Groups of images that are the same or nearly so, from pairs that are: without chains.

If A is like B and B like C, then A and C may be two different things. So a group is a star (Aslam, Pelekhov and Rus,
2004: the star clustering algorithm): one image, its center, and images that are each like the center. The image with
the most fellows is the first center and takes them all, then the one of those that are left, and so on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

Pairs = Int64[np.ndarray, "P 2"]
Apart = Int64[np.ndarray, "A 2"]
"""Positions, the lower first."""
_BYTES, _PIXELS, _LOOK, _VECTOR = range(4)
WHY = ("the same bytes", "the same pixels", "nearly the same look", "nearly the same vector")
_BITS = 63  # of a perceptual hash that can differ


@dataclass(frozen=True)
class Links:
    """Pairs of rows that are alike, why (places in `WHY`), and how much: 1 is the same."""

    pairs: Pairs
    why: Int64[np.ndarray, "P"]
    score: Float32[np.ndarray, "P"]


@dataclass(frozen=True)
class Member:
    """An image of a group, what it has in common with the group's center, and how much; the center itself has 1."""

    row: int
    why: str
    score: float


Group = tuple[Member, ...]
"""Members, rows rising."""


def near_links(pairs: Pairs, hashes: Int64[np.ndarray, "N"]) -> Links:
    """Of pairs that look alike: by the share of the bits of their hashes that agree."""
    bits = hashes.view(np.uint64)
    differ = np.bitwise_count(bits[pairs[:, 0]] ^ bits[pairs[:, 1]])
    return Links(pairs, np.full(len(pairs), _LOOK), (1 - differ / _BITS).astype(np.float32))


def vector_links(pairs: Pairs, cosines: Float32[np.ndarray, "P"]) -> Links:
    """Of pairs whose vectors are near, by their cosines."""
    return Links(pairs, np.full(len(pairs), _VECTOR), np.minimum(cosines, 1).astype(np.float32))


def to_centers(pairs: Pairs, count: int, most: int) -> Int64[np.ndarray, "M 2"]:
    """Pairs that are not among `pairs`, of `count` rows: where more than `most` rows hang together, the one that has
    the most fellows with all others. Where each row was compared with its `most` nearest alone, such a crowd would
    fall into several groups.
    """
    from scipy.sparse import coo_array  # here, for it takes half a second
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(pairs), bool)
    _, crowd = connected_components(coo_array((ones, (pairs[:, 0], pairs[:, 1])), (count, count)), directed=False)
    degree = np.bincount(pairs.ravel(), minlength=count)
    order = np.lexsort((-degree, crowd))  # the center of each crowd comes first
    starts = np.flatnonzero(np.diff(crowd[order], prepend=-1))
    size = np.diff(starts, append=count)
    center = np.repeat(order[starts], size)
    others = (order != center) & np.repeat(size > most, size)
    new = np.sort(np.stack([center[others], order[others]], axis=1), axis=1)
    known = np.isin(new[:, 0] * count + new[:, 1], pairs[:, 0] * count + pairs[:, 1])
    return np.asarray(new[~known])


@dataclass(frozen=True)
class Nodes:
    """Rows that hold the same pixels as one node; rows that somebody set apart from another are nodes of their own."""

    of: Int64[np.ndarray, "N"]  # the node of each row
    first: Int64[np.ndarray, "M"]  # the first row of each node, rising
    within: Links  # nodes that hold the same pixels and are not one

    @classmethod
    def by_pixels(cls, digests: Sequence[bytes], pixels: Sequence[bytes | None], apart: Apart) -> "Nodes":
        """`digests` are the SHA-256 of the files, which serve where pixels are not known."""
        single = set(apart.ravel().tolist())
        first: dict[bytes, int] = {}
        of, rows, alone = np.empty(len(digests), np.int64), list[int](), dict[bytes, list[int]]()
        for row, digest in enumerate(digests):
            key = pixels[row] or digest
            if row in single:
                alone.setdefault(key, []).append(len(rows))
            if row in single or key not in first:
                of[row] = len(rows)
                if row not in single:
                    first[key] = len(rows)
                rows.append(row)
            else:
                of[row] = first[key]
        pairs, why = list[tuple[int, int]](), list[int]()
        for key, nodes in alone.items():
            several = sorted({*nodes, *([first[key]] if key in first else [])})
            for i, one in enumerate(several):
                for other in several[i + 1 :]:
                    pairs.append((one, other))
                    why.append(_BYTES if digests[rows[one]] == digests[rows[other]] else _PIXELS)
        ends = np.array(pairs, np.int64).reshape(-1, 2)
        return cls(of, np.array(rows, np.int64), Links(ends, np.array(why, np.int64), np.ones(len(ends), np.float32)))


def groups_of(digests: Sequence[bytes], nodes: Nodes, links: Sequence[Links], apart: Apart) -> list[Group]:
    """Groups of at least two rows, the largest first; `links` are between nodes, `apart` between rows.

    No group holds two rows that are apart. All rows of a node are in one group.
    """
    every = [nodes.within, *links]
    pairs = np.concatenate([part.pairs for part in every])
    why, score = (np.concatenate([getattr(part, name) for part in every]) for name in ("why", "score"))
    stars = _stars(len(nodes.first), pairs, why, score, nodes.of[apart] if len(apart) else apart)
    members = np.argsort(nodes.of, kind="stable")
    starts = np.searchsorted(nodes.of[members], np.arange(len(nodes.first) + 1))
    large = np.flatnonzero(np.diff(starts) > 1)
    in_stars = {node for star in stars for node, _, _ in star}
    stars += [[(node, _BYTES, 1.0)] for node in large.tolist() if node not in in_stars]
    found = []
    for star in stars:
        center = int(nodes.first[star[0][0]])
        group = []
        for node, reason, value in star:
            for row in members[starts[node] : starts[node + 1]].tolist():
                if node == star[0][0]:
                    reason = _BYTES if digests[row] == digests[center] else _PIXELS
                group.append(Member(row, "" if row == center else WHY[reason], 1.0 if row == center else value))
        found.append(tuple(sorted(group, key=lambda member: member.row)))
    return sorted(found, key=lambda group: (-len(group), group[0].row))


def _stars(count: int, pairs: Pairs, why: Any, score: Any, apart: Apart) -> list[list[tuple[int, int, float]]]:
    """The center of each star with reason and score, then its others, in the order in which it took them."""
    ends = np.concatenate([pairs, pairs[:, ::-1]])
    reasons, values = np.tile(why, 2), np.tile(score, 2)
    order = np.lexsort((ends[:, 1], -values, reasons, ends[:, 0]))  # what is surer first
    ends, reasons, values = ends[order], reasons[order], values[order]
    starts = np.searchsorted(ends[:, 0], np.arange(count + 1))
    degree = np.diff(starts)
    against: dict[int, set[int]] = {}
    for one, other in apart.tolist():
        against.setdefault(one, set()).add(other)
        against.setdefault(other, set()).add(one)
    taken, found = np.zeros(count, bool), []
    linked = np.flatnonzero(degree)
    for node in linked[np.argsort(-degree[linked], kind="stable")].tolist():
        if taken[node]:
            continue
        star, refused = [(node, _BYTES, 1.0)], set(against.get(node, ()))
        taken[node] = True
        for place in range(starts[node], starts[node + 1]):
            other = int(ends[place, 1])
            if not taken[other] and other not in refused:
                star.append((other, int(reasons[place]), float(values[place])))
                refused |= against.get(other, set())
                taken[other] = True
        if len(star) > 1:
            found.append(star)
        else:
            taken[node] = False  # another one may take it
    return found


def firsts(groups: Sequence[Group], count: int) -> Int64[np.ndarray, "N"]:
    """The first row of the group of each of `count` rows; -1 for the first itself and for rows in none."""
    first = np.full(count, -1, np.int64)
    for group in groups:
        for member in group[1:]:
            first[member.row] = group[0].row
    return first
