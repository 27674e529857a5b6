"""Whether an export computes what the encoder computes: drawn images through the very lines that its README shows."""

import contextlib
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64
from PIL import Image as Pillow
from PIL import ImageDraw

from lookalike.core.errors import EncoderError
from lookalike.core.machine import silence_onnx
from lookalike.core.shapes import Image, Vectors

SIZES = ((131, 97), (480, 640), (30, 300), (301, 77), (683, 1024), (224, 225))
"""Height and width of the images, in pixels: small and large, wide and high, up to ten to one; none is square."""

LEAST, LEAST_INT8 = 0.9999, 0.995
"""The smallest cosine that passes unless the caller says another."""

_TIE = 1e-9  # squared distance below which two vectors count as one


class Parity(NamedTuple):
    """How near an export is to its encoder."""

    minimum: float  # the smallest cosine between the export's vector of an image and the encoder's
    different: float  # the largest between the encoder's vectors of two images: what `minimum` must be told from
    # Whether a vector of the export is nearer to the encoder's of another image: of an encoder that finds all images
    # alike, no cosine tells a wrong export from a right one, and this does.
    mixed: bool


@cache
def drawn_images() -> tuple[np.ndarray, ...]:
    """Drawn images of `SIZES`, each of another kind: gradients of colour, fine stripes, hard edges, letters, noise."""
    return tuple(_drawn(np.random.default_rng(i), height, width) for i, (height, width) in enumerate(SIZES))


def by_lines(code: str, directory: Path) -> Vectors:
    """The vectors of the drawn images by the function `embed` that the lines of a README define, run in `directory`."""
    names: dict[str, Callable[[str], np.ndarray]] = {}
    silence_onnx()  # the lines may import it
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(directory), warnings.catch_warnings():
        for kind in (DeprecationWarning, FutureWarning):  # what a library announces for its later versions
            warnings.simplefilter("ignore", kind)
        exec(compile(code, "README.md", "exec"), names)
        path, found = f"{scratch}/image.png", list[np.ndarray]()  # a PNG keeps every pixel
        for image in drawn_images():
            Pillow.fromarray(image).save(path)
            found.append(np.asarray(names["embed"](path), np.float32).reshape(-1))
    return np.stack(found)


def compare(found: Float32[np.ndarray, "M E"], expected: Vectors) -> Parity:
    """Of an export's vectors and the encoder's, row by row; EncoderError for another shape, or what is not finite."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        raise EncoderError(
            f"The export gives vectors of shape {list(found.shape)}, of whose values {np.isfinite(found).sum()} are "
            f"finite; expected {list(expected.shape)}, all finite.",
            hint="nothing was kept; please report this as a bug of ours",
        )
    # By distances: a vector of another length is another answer than the encoder's, whatever its direction.
    apart, others = _squares(found, expected), ~np.eye(len(expected), dtype=bool)
    own, different = apart.diagonal(), _squares(expected, expected)[others].min(initial=4)
    mixed = (apart + _TIE < own[:, None])[others].any()
    return Parity(float(1 - own.max() / 2), float(1 - different / 2), bool(mixed))


def _squares(one: Vectors, other: Vectors) -> Float64[np.ndarray, "N M"]:
    """Squared distances of every vector from every other, not by inner products, which lose small ones."""
    apart = one[:, None].astype(np.float64) - other[None].astype(np.float64)
    return (apart * apart).sum(axis=2)  # type: ignore[no-any-return]


def refuse(parity: Parity, target: str, least: float | None, int8: bool) -> None:
    """EncoderError if the export is further away than `least` allows; None: than the usual one, in no image."""
    wanted = least if least is not None else LEAST_INT8 if int8 else LEAST
    if (low := parity.minimum < wanted) or (least is None and parity.mixed):
        mixed = "yet one of its vectors is nearer to the encoder's of another image"
        fault = f"expected at least {wanted:g}" if low else mixed
        raise EncoderError(
            f"The {target} export differs from the encoder: its smallest cosine over {len(SIZES)} images is "
            f"{parity.minimum:.6f}, {fault}.",
            hint=f"nothing was kept; `--min-cosine {max(parity.minimum - 1e-4, -1):.4f}` takes it as it is",
        )


def _drawn(rng: np.random.Generator, height: int, width: int) -> Image:
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    angle, wave = rng.uniform(0, np.pi), rng.uniform(0.02, 0.9)
    along = np.cos(angle) * x + np.sin(angle) * y
    gradient = (x / width)[..., None] * rng.uniform(-200, 200, 3) + (y / height)[..., None] * rng.uniform(-200, 200, 3)
    stripes = 60 * np.sin(wave * along)[..., None] * rng.uniform(-1, 1, 3)
    noise = rng.normal(0, rng.uniform(2, 25), (height, width, 3))
    canvas = Pillow.fromarray(np.clip(rng.uniform(60, 200, 3) + gradient + stripes + noise, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    for _ in range(8):
        left, top = rng.integers(0, width), rng.integers(0, height)
        right, bottom = left + rng.integers(1, width), top + rng.integers(1, height)
        color = tuple(int(c) for c in rng.integers(0, 256, 3))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((int(left), int(top), int(right), int(bottom)), fill=color if rng.random() < 0.5 else None, outline=color)
    draw.text((width // 5, height // 3), "lookalike 64", fill=(255, 255, 255), stroke_fill=(0, 0, 0), stroke_width=1)
    return np.asarray(canvas, np.uint8)
