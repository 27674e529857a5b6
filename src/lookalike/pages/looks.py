"""Pages on which images of a collection are looked at, section by section; on some, what is wrong can be marked."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.core.files import write_bytes
from lookalike.core.journal import shown
from lookalike.data.collection import Collection
from lookalike.data.whereabouts import PLACE, paths_of
from lookalike.imaging.decode import decode, encode_jpeg
from lookalike.pages.render import render
from lookalike.pages.sheet import Found, fitted

MOST = 2000  # images on a page
SIDE = 192  # pixels of an image's longer side
_READ = 256  # images that are read at a time


@dataclass(frozen=True)
class Card:
    """An image of the collection, and what is said of it."""

    id: int
    words: str
    image: bytes = b""  # what follows is read from the collection
    title: str = ""
    caption: str = ""
    size: str = ""
    sha256: str = ""
    link: str | None = None


@dataclass(frozen=True)
class Section:
    """Images that belong together."""

    title: str
    words: str
    cards: Sequence[Card]


def write_looks(
    file: str, title: str, lead: str, sections: Sequence[Section], collection: Collection, marks: bool = False
) -> None:
    """Write the page; whole sections up to `MOST` images, and how many are left out. With `marks` images can be marked
    as not the same, and the page says the command that remembers it.
    """
    fits, count = list[Section](), 0
    for section in sections:
        count += len(section.cards)
        if count > MOST and fits:
            break
        fits.append(replace(section, cards=section.cards[:MOST]))
    cards = _filled(collection, [card for section in fits for card in section.cards])
    filled = [replace(section, cards=[next(cards) for _ in section.cards]) for section in fits]
    command = f"lookalike duplicates {shlex.quote(shown(str(collection.path)))}" if marks else ""
    page = render(
        "looks.html", title=shown(title), lead=lead, sections=filled, left=len(sections) - len(fits), command=command
    )
    write_bytes(file, page.encode(errors="backslashreplace"))


def _filled(collection: Collection, cards: Sequence[Card]) -> Iterator[Card]:
    """The cards with what the collection holds of them, their images small."""
    kept = [name for name in PLACE.names if name in collection.columns]
    columns = ["id", "source", "image", "width", "height", "sha256", "label", "domain", "stamp", *kept]
    for start in range(0, len(cards), _READ):
        some = cards[start : start + _READ]
        rows = collection.take(np.array([card.id for card in some], np.int64), columns).to_pylist()
        for card, row, path in zip(some, rows, paths_of(rows, collection.card), strict=True):
            label = row["label"] or Path(row["source"]).name
            yield replace(
                card,
                image=encode_jpeg(fitted(decode(row["image"], SIDE), SIDE), quality=82),
                title=shown(label),
                caption=shown(row["source"]),
                size=_size(row),
                sha256=row["sha256"].hex(),
                link=Found(b"", "", "", 0.0, path).link,
            )


def _size(row: dict[str, Any]) -> str:
    """Of the file: its pixels and, where its stamp says so, its bytes."""
    number = row["stamp"].partition("-")[0]
    kilobytes = f", {max(1, round(int(number) / 1000)):,} KB" if number.isdecimal() else ""
    return f"{row['width']} x {row['height']} px{kilobytes}"
