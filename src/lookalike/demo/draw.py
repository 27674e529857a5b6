"""Draws the images of the offline demonstration: products that nobody makes, as many as wanted.

Six kinds of thing are the domains. Products of a kind share a few palettes, patterns and emblems, so that telling
them apart takes more than their colours; two thirds of the products are for training, the rest are never seen.
"""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from lookalike.core.files import storage_errors, write_bytes
from lookalike.demo.art import Product, invent, print_art
from lookalike.demo.plush import draw_plush
from lookalike.demo.scene import photograph
from lookalike.demo.shapes import View, draw_book, draw_bottle, draw_carton, draw_mug, draw_sign

SIZE = 160
"""Side of an image in pixels."""

COLUMNS = ("path", "label", "domain", "split", "is_query", "is_gallery", "group")

KINDS: dict[str, Callable[[Product, Image.Image, View], Image.Image]] = {
    "cartons": draw_carton,
    "bottles": draw_bottle,
    "mugs": draw_mug,
    "books": draw_book,
    "signs": draw_sign,
    "plush": draw_plush,
}
"""Kind of product (the domain) to the function that draws one from a side."""


def draw(out: Path, seed: int = 0, products: int = 60, views: int = 8) -> Path:
    """Draw made-up products under changing view, light, background and occlusion; deterministic in `seed`.

    Args:
        out: directory that gets `images/KIND/NAME-VIEW.jpg` and `products.csv`.
        seed: of everything; the first products and views stay the same when more are asked for.
        products: how many, spread evenly over `KINDS`.
        views: images of each product.

    Returns:
        The CSV file (columns `COLUMNS`, paths relative to it). No product is in both splits.

    Raises:
        StorageError: if the disk refuses.
    """
    rows: list[tuple[str, ...]] = []
    for product, split in catalogue(seed, products):
        art, role = print_art(product), str(split == "test").lower()
        folder = out / "images" / product.kind
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        for view in range(views):
            image = drawn(product, art, np.random.default_rng([seed, view, *product.name.encode()]))
            file = folder / f"{product.name}-{view + 1:02}.jpg"
            with storage_errors(file):
                file.write_bytes(_jpeg(image))
            name, label = file.relative_to(out).as_posix(), f"{product.kind}/{product.name}"
            rows.append((name, label, product.kind, split, role, role, ""))
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([COLUMNS, *rows])
    write_bytes(out / "products.csv", table.getvalue().encode())
    return out / "products.csv"


def catalogue(seed: int, products: int) -> list[tuple[Product, str]]:
    """The products and their splits, kinds in turn; every third of a kind is for testing. Names are unique."""
    kinds, found, names = list(KINDS), [], set[str]()
    rng = np.random.default_rng(seed)
    for i in range(products):
        kind = i % len(kinds)
        product = invent(kinds[kind], rng)
        while product.name in names:
            product = invent(kinds[kind], rng)
        names.add(product.name)
        found.append((product, "test" if i // len(kinds) % 3 == kind % 3 else "train"))
    return found


def drawn(product: Product, art: Image.Image, rng: np.random.Generator, size: int = SIZE) -> Image.Image:
    """One image of a product: RGB, size x size; `art` is `print_art(product)`."""
    view = View(
        yaw=float(np.clip(rng.normal(0, 0.42), -0.85, 0.85)),
        pitch=float(rng.uniform(0.02, 0.5)),
        light=float(rng.uniform(-1, 1)),
    )
    return photograph(KINDS[product.kind](product, art, view), size, rng)


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
