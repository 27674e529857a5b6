"""lookalike map: all images on one page, like things beside each other, that pans and zooms without a server."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lookalike.core.config import in_range, option
from lookalike.core.errors import CollectionError, UsageError
from lookalike.core.files import json_text, write_json
from lookalike.core.journal import note

if TYPE_CHECKING:
    from lookalike.data.collection import Collection
    from lookalike.exploring.results import Map


@dataclass(frozen=True)
class Config:
    """Lay all images out on a plane (PaCMAP), and write one HTML file on which they are looked at.

    The page needs no network and no server: drag, wheel, pinch, or arrows, + and - move through it; far away images are
    points, colored by domain or label, near by they are thumbnails. Neighbors on the map are neighbors among the
    vectors; distances between far places say little.

    Columns `map_x` and `map_y` get the places, from -1 to 1: `--where "map_x < -0.5 AND map_y > 0"`. Needs
    `pip install 'lookalike[explore]'`.
    """

    collection: str = option(positional=True, metavar="COLL")
    """The collection or index."""
    model: str = option(default="", metavar="MODEL")
    """Look at this model's vectors: a directory, a short name of `lookalike pull --list`, or ORG/NAME on the Hub.
    Unless given, LOOKALIKE_MODEL, then those that the collection has."""
    html: str = option(default="", metavar="FILE", writes=True)
    """Where the page is written; unless given, map.html in the current folder."""
    color: str = option(default="", metavar="COLUMN")
    """Color by this column; unless given, by domain, or by label where there is one domain."""
    thumbs: int = 0
    """Pixels of a thumbnail's side; 0: 64, and 32 of more than 20,000 images."""
    seed: int = 0
    """Another number, another layout."""
    json: str | None = option(default=None, metavar="FILE", writes=True)
    """Write ids and places to this file; `-` writes them to stdout."""

    def __post_init__(self) -> None:
        in_range(self, 0.0, 256.0, "thumbs")
        in_range(self, 0.0, 2.0**32 - 1, "seed")  # what the layout takes


def main(config: Config) -> None:
    """Lay out, and write the page."""
    found = run(config)
    if config.json is not None and config.json != "-":
        write_json(config.json, found.to_json())
    if config.json == "-":
        print(json_text(found.to_json(), None))


def run(config: Config) -> "Map":
    """Lay out and mark: the places."""
    import pyarrow as pa

    from lookalike.commands.stored import Stored, opened, stored_vectors, wrote
    from lookalike.data.made import check_made, write_made
    from lookalike.exploring.plane import FEWEST, along_curve, plane_of
    from lookalike.exploring.results import Map
    from lookalike.pages.map import write_map

    collection = opened(config.collection)
    check_made(collection, "map", ("map_x", "map_y"))
    color = _color(config, collection)
    which = stored_vectors(config.collection, config.model, "map").which
    with opened(config.collection).locked("map"):
        stored = Stored(opened(config.collection), which)
        if len(stored.ids) < FEWEST:
            raise CollectionError(
                f"`{config.collection}` holds {len(stored.ids):,} images; a map needs {FEWEST} or more.",
                hint=f"`lookalike search IMAGE -i {shlex.quote(config.collection)}` shows so few",
            )
        stored.refuse_equal()
        note(f"lays out {len(stored.ids):,} images")
        places = plane_of(stored.vectors, config.seed)
        columns = {"map_x": pa.array(places[:, 0]), "map_y": pa.array(places[:, 1])}
        write_made(stored.collection, "map", stored.ids, columns)
        page = config.html or "map.html"
        title = f"Map of {Path(config.collection).name}"
        write_map(page, title, stored.collection, stored.ids, places, along_curve(places), color, config.thumbs)
    wrote(page)
    return Map(stored.ids, places)


def _color(config: Config, collection: "Collection") -> str:
    """The column to color by."""
    if config.color:
        collection.table([config.color], "id < 0")  # an unknown column is refused before the work
        if config.color == "image":
            raise UsageError("`--color image` is no column of words or numbers.", hint="--color label")
        return config.color
    domains = {*collection.table(["domain"])["domain"].to_pylist()}
    return "domain" if len(domains) > 1 else "label"
