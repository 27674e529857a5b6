"""Amazon Berkeley Objects (Collins et al., 2022): the catalogue images, or the benchmark of views."""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from lookalike.core.errors import SourceError
from lookalike.core.journal import note
from lookalike.data.sources.dataset import Count, Dataset, Row
from lookalike.data.sources.lists import read_csv, text_of
from lookalike.data.sources.tree import Tree

IMAGES = "images/metadata/images.csv.gz"
LISTINGS = "listings/metadata"
BENCHMARK = "benchmarks/abo-mvr.csv.xz"
COLUMNS = pa.schema([("product_type", pa.string()), ("image_type", pa.string())])


def rows(tree: Tree) -> Iterator[Row]:
    """The benchmark's rows where abo-mvr.csv.xz is there, else the catalogue: they name classes in their own ways."""
    yield from _benchmark(tree) if tree.has(BENCHMARK) else _catalogue(tree)


def _catalogue(tree: Tree) -> Iterator[Row]:
    """images.csv.gz: image_id,height,width,path. The class is the item_id of the listings that show an image.

    Listings of several countries name one item. An image that several items show, such as a table of sizes or the same
    phone case for another phone, would teach that they differ: it has no label, nor has one that no listing shows.
    """
    items, kinds = _items(tree)
    folder = "images/original" if tree.has("images/original") else "images/small"
    shared = 0
    for image, path in read_csv(tree, IMAGES, "image_id", "path"):
        item = items.get(image)
        shared += item == ""
        yield Row(f"{folder}/{path}", item or None, more={"product_type": kinds.get(item or "")})
    if shared:
        note(f"abo: {shared:,} images are shown for several items, and have no label")


def _items(tree: Tree) -> tuple[dict[str, str], dict[str, str]]:
    """Image -> its item, "" if there are several; item -> its product type."""
    items, kinds = dict[str, str](), dict[str, str]()
    for name in tree.names(LISTINGS):
        if not name.endswith(".json.gz"):
            continue
        for number, line in enumerate(text_of(tree, name).split("\n"), 1):
            if not line.strip():
                continue
            try:
                told = json.loads(line)
                item, images = str(told["item_id"]), [told.get("main_image_id"), *(told.get("other_image_id") or ())]
            except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
                raise SourceError(
                    f"`{name}` of `{tree.place}`, line {number}: no listing in JSON with an `item_id`."
                ) from error
            if kind := _first(told.get("product_type")):
                kinds.setdefault(item, kind)
            for image in filter(None, images):
                items[image] = item if items.get(image, item) == item else ""
    return items, kinds


def _first(values: Any) -> str | None:
    """The first of texts, or of objects with a `value`."""
    first = values[0] if isinstance(values, list) and values else values
    first = first.get("value") if isinstance(first, dict) else first
    return first if isinstance(first, str) else None


def _benchmark(tree: Tree) -> Iterator[Row]:
    """Catalogue images lie below images/small/. Renders lie where the list says, if they do."""
    columns = ("path", "class_id", "image_type", "split_set")
    for path, label, kind, split in read_csv(tree, BENCHMARK, *columns):
        place = path if kind == "render" else f"images/small/{path}"
        known = next((name for name in ("train", "val", "test") if split.startswith(name)), None)
        roles = not split.endswith("target"), not split.endswith("query")
        yield Row(place, label, known, *roles, more={"image_type": kind})


DATASET = Dataset(
    name="abo",
    title="Amazon Berkeley Objects",
    what="products of a catalogue, each from several sides",
    page="https://amazon-berkeley-objects.s3.amazonaws.com/index.html",
    get="abo-listings.tar and abo-images-small.tar (or -original) from its page; for the benchmark the latter "
    "and benchmarks/abo-mvr.csv.xz",
    size="not said",
    licence="cc-by-4.0",
    forbids="nothing that CC BY allows; Amazon.com is to be named",
    counts={"train": Count(None)},
    marks=((IMAGES, f"{LISTINGS}/listings_0.json.gz"), (BENCHMARK, "images/small")),
    rows=rows,
    columns=COLUMNS,
)
