"""One HTML file of all images on a plane: thumbnails in atlases, places and names beside them, and what moves it.

Each atlas is a WebP image with as many thumbnails as it holds, in the order of a curve through the plane: what is seen
at one time lies in few of them, and only these are decoded by the browser.
"""

import base64
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import PIL.Image
from jaxtyping import Float32, Int64

from lookalike.core.files import json_text, write_bytes
from lookalike.core.journal import Progress, shown
from lookalike.core.machine import cores
from lookalike.core.shapes import Ids, Image
from lookalike.data.collection import Collection
from lookalike.imaging.decode import decode
from lookalike.pages.points import COLORS, PALETTE
from lookalike.pages.render import render

SIDE, QUALITY = 2048, 60  # pixels of an atlas's side; of WebP
MANY, LARGE, SMALL = 20_000, 64, 32  # images from which on thumbnails are small; pixels of a thumbnail's side
_READ = 512  # images that are read at a time


def write_map(
    file: str,
    title: str,
    collection: Collection,
    ids: Ids,
    places: Float32[np.ndarray, "N 2"],
    order: Int64[np.ndarray, "N"],
    color: str,
    side: int = 0,
) -> None:
    """Write the page of the rows `ids` at their places, the thumbnails in `order`; `color` is a column."""
    side = side or (LARGE if len(ids) <= MANY else SMALL)
    rows = collection.table([*dict.fromkeys(["id", "source", "label", color])])
    values = ["none" if value is None else shown(str(value)) for value in rows[color].take(order).to_pylist()]
    largest = [name for name, _ in Counter(values).most_common(COLORS)]
    number = {name: place for place, name in enumerate(largest)}
    groups = np.array([number.get(value, COLORS) for value in values], np.uint8)
    legend = [(name, int((groups == place).sum())) for name, place in number.items()]
    if (others := int((groups == COLORS).sum())) > 0:
        legend.append(("all others", others))
    names = [shown(name) for name in rows["source"].take(order).to_pylist()]
    labels = ["" if label is None else shown(label) for label in rows["label"].take(order).to_pylist()]
    told = {"side": side, "atlas": SIDE, "names": names, "labels": labels, "ids": ids[order].tolist()}
    atlases = _atlases(collection, ids[order], side)
    page = render(
        "map.html",
        title=shown(title),
        images=len(ids),
        color=color,
        legend=legend,
        palette=PALETTE,
        places=_text(places[order].astype("<f4").tobytes()),
        groups=_text(groups.tobytes()),
        atlases=[_text(atlas) for atlas in atlases],
        told=json_text(told, None).replace("<", "\\u003c"),
    )
    write_bytes(file, page.encode())


def _atlases(collection: Collection, ids: Ids, side: int) -> Iterator[bytes]:
    """Atlases of the images, row by row, as WebP."""
    across = SIDE // side
    each = across * across
    with Progress("draw", "images", len(ids)) as bar, ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(ids), each):
            part = ids[start : start + each]
            height = -(-len(part) // across) * side
            canvas = np.zeros((height, across * side, 3), np.uint8)
            for first in range(0, len(part), _READ):
                some = part[first : first + _READ]
                for place, image in enumerate(
                    pool.map(partial(_thumbnail, side=side), _images(collection, some)), first
                ):
                    y, x = divmod(place, across)
                    canvas[y * side : (y + 1) * side, x * side : (x + 1) * side] = image
                bar.advance(len(some))
            data = io.BytesIO()
            PIL.Image.fromarray(canvas).save(data, "WEBP", quality=QUALITY, method=2)
            yield data.getvalue()


def _images(collection: Collection, ids: Ids) -> Sequence[bytes]:
    images: list[bytes] = collection.take(ids, ["image"])["image"].to_pylist()
    return images


def _thumbnail(data: bytes, side: int) -> Image:
    """The middle of an image as a square."""
    image = PIL.Image.fromarray(decode(data, side))
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    box = (left, top, left + short, top + short)
    found: Image = np.asarray(image.resize((side, side), PIL.Image.Resampling.BOX, box))
    return found


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
