"""lookalike duplicates: groups of images that are the same or nearly so, marked, and looked at on a page."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lookalike.commands.outcome import tell
from lookalike.core.config import in_range, option
from lookalike.core.errors import LookalikeError, UsageError
from lookalike.core.journal import note, table

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from lookalike.commands.stored import Stored
    from lookalike.data.apart import Pair
    from lookalike.data.collection import Collection
    from lookalike.data.duplicates import Close
    from lookalike.data.pixel_pairs import PixelPairs
    from lookalike.exploring.groups import Group, Links, Nodes
    from lookalike.exploring.results import Duplicates
    from lookalike.retrieval.alike import Found

_SHOWN = 20  # groups in the table
_NEAREST = 8  # images that each is compared with, where vectors are near


@dataclass(frozen=True)
class Config:
    """Find groups of images that are the same or nearly so, and mark all but the first of each.

    Two images are alike if their files or pixels are the same; or if at most 3 of the 63 bits of their perceptual
    hashes differ, or the one is among the eight whose vectors are nearest to the other's, as near as copies are, and
    the pixels of the one lie somewhere in the other, cut at the sides or mirrored: two photographs of one thing are no
    duplicates. Copies of some of the images say how near vectors must be. All images of a group are like one of them,
    so that no chain joins two things. Without vectors the looks alone are asked.

    Column `duplicate_of` gets the id of the first image of the group: `--where "duplicate_of IS NULL"` takes one of
    each. What is marked as not the same never comes back, in whatever collection and under whatever name: it is
    remembered by what the files hold, in COLL/not-same.json.
    """

    collection: str = option(positional=True, metavar="COLL")
    """The collection or index."""
    model: str = option(default="", metavar="MODEL")
    """Look at this model's vectors: a directory, a short name of `lookalike pull --list`, or ORG/NAME on the Hub.
    Unless given, LOOKALIKE_MODEL, then those that the collection has."""
    cosine: float | None = option(default=None, metavar="C")
    """From which cosine on vectors count as the same, instead of what is measured."""
    not_same: tuple[int, ...] = option(default=(), metavar="ID")
    """Remember that these images are not the same, each two of them."""
    not_same_from: str = option(default="", metavar="FILE")
    """The same of what the page wrote, of another collection's not-same.json, or of a file with ids, a set a line."""
    json: str | None = option(default=None, metavar="FILE", writes=True)
    """Write the groups to this file; `-` writes them to stdout instead of the table."""
    html: str | None = option(default=None, metavar="FILE", writes=True)
    """Write a page with the groups side by side, on which what is not the same can be marked."""

    def __post_init__(self) -> None:
        in_range(self, -1.0, 1.0, "cosine")


def main(config: Config) -> None:
    """Find, mark, and print or write the groups."""
    found = run(config)
    tell(found.to_json(), _table(found), config.json)


def run(config: Config) -> "Duplicates":
    """Find and mark: the groups."""
    from lookalike.commands.stored import Stored, opened, which_vectors, wrote
    from lookalike.data.apart import read_apart, rows_apart, write_apart
    from lookalike.data.duplicates import MARK, mark
    from lookalike.exploring.groups import firsts, groups_of
    from lookalike.exploring.results import Duplicates

    said = _said(config, opened(config.collection))
    which = which_vectors(config.collection, config.model)
    if which is None:
        note(
            f"`{config.collection}` has no vectors, so that looks alone are compared; "
            f"`lookalike index {shlex.quote(config.collection)}` adds them"
        )
    with opened(config.collection).locked("duplicates"):
        collection = opened(config.collection)
        apart = read_apart(config.collection) | said
        if said:
            write_apart(config.collection, apart)
            note(f"remembered as not the same: {len(said):,} pairs of images")
        rows = _rows(collection)
        told_apart = rows_apart(rows["sha256"], apart)
        nodes, looks, pixels = _by_looks(collection, rows, told_apart)
        by_vector, close = None, None
        if which is not None:
            stored = Stored(collection, which)
            by_vector, close = _by_vectors(stored, rows, nodes, pixels, told_apart, config.cosine)
        digests = rows["sha256"].to_pylist()
        groups = groups_of(digests, nodes, [looks, *([by_vector] if by_vector else [])], told_apart)
        if MARK.names[0] not in collection.columns:
            collection.add_columns(MARK)
        collection.update_card({"duplicates": mark(collection, close, firsts(groups, len(rows)))})
        ids = rows["id"].to_pylist()
        if config.html is not None:
            _write_page(config, collection, ids, groups)
            wrote(config.html)
    others = sum(len(group) - 1 for group in groups)
    note(f"{others:,} of {len(rows):,} images are the same or nearly so as an earlier one: `duplicate_of` says which")
    return Duplicates(
        tuple(tuple(ids[member.row] for member in group) for group in groups),
        tuple(_weakest(group) for group in groups),
        None if close is None else close.told["cosine"],
    )


def _rows(collection: "Collection") -> "pa.Table":
    """What is looked at of each image; of a collection from before hashes were kept, without them."""
    import pyarrow as pa

    from lookalike.data.duplicates import SEEN

    if new := [field for field in SEEN if field.name not in collection.columns]:
        collection.add_columns(pa.schema(new))
    return collection.table(["id", "sha256", "label", "domain", "split", *SEEN.names])


def _by_looks(collection: "Collection", rows: "pa.Table", apart: "np.ndarray") -> "tuple[Nodes, Links, PixelPairs]":
    """What holds the same pixels, which of these look alike, and what knows their pixels."""
    import numpy as np
    import pyarrow as pa

    from lookalike.data.duplicates import near_pairs
    from lookalike.data.pixel_pairs import PixelPairs
    from lookalike.exploring.groups import Nodes, near_links

    nodes = Nodes.by_pixels(rows["sha256"].to_pylist(), rows["pixels"].to_pylist(), apart)
    hashes = rows["phash"].take(pa.array(nodes.first))
    known = np.flatnonzero(hashes.is_valid().to_numpy())
    own = np.zeros(len(nodes.first), np.int64)
    own[known] = hashes.take(pa.array(known)).to_numpy().astype(np.int64)
    pairs = known[near_pairs(own[known])]
    pixels = PixelPairs(collection, rows["id"].to_numpy()[nodes.first])
    return nodes, near_links(pairs[pixels.same(pairs)], own), pixels


def _by_vectors(
    stored: "Stored", rows: "pa.Table", nodes: "Nodes", pixels: "PixelPairs", apart: "np.ndarray", asked: float | None
) -> "tuple[Links | None, Close | None]":
    """Which of the nodes have vectors as near as copies have, and what the card tells of it."""
    import numpy as np

    from lookalike.data.duplicates import Alike, Close
    from lookalike.exploring.groups import vector_links
    from lookalike.retrieval.alike import alike_pairs

    if stored.are_equal:
        note(f"all vectors in `{stored.which.column}` are equal, and are not asked: looks alone are compared")
        return None, None
    alone = Alike.of(rows, apart).first(len(rows)) < 0
    bar = {"cosine": asked, "copies": None} if asked is not None else _bar(stored, alone)
    first, learned_too = np.full(len(rows), -1), np.zeros(len(rows), bool)
    links = None
    if bar["cosine"] is not None:
        vectors = stored.vectors[nodes.first]
        # The user's word counts, whatever the pixels.
        found = _confirmed(vectors, bar["cosine"], pixels) if asked is None else alike_pairs(vectors, asked)
        links = vector_links(found.pairs, found.cosines)
        ends = nodes.first[found.pairs]
        count = len(rows)
        keep = ~np.isin(ends[:, 0] * count + ends[:, 1], apart[:, 0] * count + apart[:, 1])
        first = np.full(count, count)
        np.minimum.at(first, ends[keep, 1], ends[keep, 0])
        first = np.where(first == count, -1, first)
        learned = rows["split"].to_numpy(zero_copy_only=False) == "train"
        for one, other in (ends[keep].T, ends[keep].T[::-1]):
            learned_too[one[~learned[one] & learned[other]]] = True
    told = {
        **bar,
        "by_groups": True,
        "model": stored.which.model,
        "fingerprint": _made_by(stored),
        "column": stored.which.column,
    }
    return links, Close(first, learned_too, told)


def _confirmed(vectors: "np.ndarray", least: float, pixels: "PixelPairs") -> "Found":
    """Pairs of near vectors that show the same pixels, as two photographs of one thing do not."""
    import numpy as np

    from lookalike.exploring.groups import to_centers
    from lookalike.retrieval.alike import Found, nearest_pairs

    near = nearest_pairs(vectors, least, _NEAREST)
    same = pixels.same(near.pairs)
    pairs, cosines = near.pairs[same], near.cosines[same]
    more = to_centers(pairs, len(vectors), _NEAREST)
    nearness = np.einsum("pd,pd->p", vectors[more[:, 0]], vectors[more[:, 1]])
    more, nearness = more[nearness >= least], nearness[nearness >= least]
    same = pixels.same(more)
    return Found(np.concatenate([pairs, more[same]]), np.concatenate([cosines, nearness[same]]))


def _bar(stored: "Stored", alone: "np.ndarray") -> dict[str, Any]:
    """The cosine from which on pairs are looked at: where copies are."""
    from lookalike.vectors.copies import levels_of_copies, rarely_reached

    if alone.sum() < 2:
        return {"cosine": None, "copies": None}
    ids, vectors = stored.ids[alone], stored.vectors[alone]
    try:
        reached, median = levels_of_copies(stored.embedder, stored.collection, ids, vectors)
    except LookalikeError as error:
        note(
            f"{error.message} How near copies come can't be measured: "
            "the nearest pairs are looked at, about as many as there are images"
        )
        return {"cosine": rarely_reached(vectors, max(0.0, 1 - 2 / len(vectors))), "copies": None}
    note(
        f"each image is compared with the {_NEAREST} nearest whose vectors have a cosine of {reached:.4f} or more: "
        f"95 % of copies have that, half of them {median:.4f}"
    )
    return {"cosine": reached, "copies": median}


def _made_by(stored: "Stored") -> str:
    field = stored.collection.schema.field(stored.which.column)
    made_by: bytes = (field.metadata or {}).get(b"fingerprint", b"")
    return made_by.decode()


def _said(config: Config, collection: "Collection") -> "set[Pair]":
    """The pairs that are now said not to be the same."""
    from lookalike.data.apart import all_pairs

    found = set[Any]()
    if config.not_same:
        found |= all_pairs(_digests(collection, config.not_same))
    if config.not_same_from:
        found |= _from_file(config.not_same_from, collection)
    return found


def _from_file(file: str, collection: "Collection") -> "set[Pair]":
    """The pairs of a file: hashes as JSON, or lines of ids."""
    import json

    from lookalike.data.apart import all_pairs, pairs_in

    if not Path(file).is_file():
        raise UsageError(f"There is no file `{file}`.", hint="the page that `--html` makes writes one")
    text = Path(file).read_text(encoding="utf-8", errors="replace")
    if text.lstrip().startswith("{"):
        try:
            return pairs_in(json.loads(text), file)
        except ValueError as error:
            raise UsageError(f"`{file}` is not valid JSON: {error}.", hint="the page writes it anew") from error
    found = set[Any]()
    for number, line in enumerate(text.splitlines(), 1):
        words = [word for word in re.split(r"[\s,;]+", line.partition("#")[0]) if word]
        if not all(re.fullmatch(r"[0-9]{1,18}", word) for word in words):
            raise UsageError(f"Line {number} of `{file}` holds something that is no id.", hint="12 57, a set a line")
        if words:
            found |= all_pairs(_digests(collection, [int(word) for word in words]))
    return found


def _digests(collection: "Collection", ids: Any) -> list[str]:
    import numpy as np

    if len(set(ids)) < 2:
        raise UsageError(
            f"One image alone is not the same as itself: {', '.join(map(str, ids))}.", hint="--not-same ID ID ..."
        )
    taken = collection.take(np.array(sorted(set(ids)), np.int64), ["sha256"])
    return [digest.hex() for digest in taken["sha256"].to_pylist()]


def _weakest(group: "Group") -> str:
    from lookalike.exploring.groups import WHY

    return max((member.why for member in group if member.why), key=WHY.index)


def _table(found: "Duplicates") -> str:
    if not found.groups:
        return "no two images are alike"
    rows = [
        [len(group), ", ".join(map(str, group[:8])) + (", ..." if len(group) > 8 else ""), why]
        for group, why in zip(found.groups[:_SHOWN], found.why, strict=False)
    ]
    left = len(found.groups) - len(rows)
    return table(["images", "ids", "why"], rows) + (f"\n\nand {left:,} groups more: --json FILE" if left else "")


def _write_page(config: Config, collection: "Collection", ids: list[int], groups: "list[Group]") -> None:
    from lookalike.pages.looks import Card, Section, write_looks

    sections = []
    for number, group in enumerate(groups, 1):
        cards = [
            Card(ids[m.row], f"{m.why}, {m.score:.3f}" if m.why else "the others are compared with it") for m in group
        ]
        sections.append(Section(f"Group {number}: {len(group)} images", _weakest(group), cards))
    title = f"Duplicates in {Path(config.collection).name}"
    lead = f"Groups of images that are the same or nearly so, the largest first: {len(groups):,}."
    write_looks(config.html or "", title, lead, sections, collection, marks=True)
