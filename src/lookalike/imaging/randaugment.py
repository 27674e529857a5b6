"""RandAugment (Cubuk et al., 1909.13719): some operations of a fixed list, all at one strength."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from lookalike.core.config import in_range

Pillow = Image.Image


def _enhanced(kind: Callable[[Pillow], ImageEnhance._Enhance]) -> Callable[[Pillow, float], Pillow]:
    return lambda image, by: kind(image).enhance(1 + 0.9 * by)


def _moved(image: Pillow, *matrix: float) -> Pillow:
    """Each pixel (x, y), from the middle on, comes from the matrix's (a x + b y + c, d x + e y + f); else gray."""
    (a, b, c, d, e, f), (x, y) = matrix, (image.width / 2, image.height / 2)
    data = (a, b, c + x - a * x - b * y, d, e, f + y - d * x - e * y)
    gray = (128, 128, 128)
    return image.transform(image.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR, fillcolor=gray)


def _rotated(image: Pillow, by: float) -> Pillow:
    cos, sin = math.cos(by * math.pi / 6), math.sin(by * math.pi / 6)
    return _moved(image, cos, -sin, 0.0, sin, cos, 0.0)


_SHIFT = 150 / 331  # of a side; the paper has 150 pixels of 331
OPERATIONS: dict[str, Callable[[Pillow, float], Pillow]] = {
    "identity": lambda image, _: image,
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "rotate": _rotated,
    "solarize": lambda image, by: ImageOps.solarize(image, round(256 * (1 - abs(by)))),
    "color": _enhanced(ImageEnhance.Color),
    "posterize": lambda image, by: ImageOps.posterize(image, 8 - round(4 * abs(by))),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
    "shear_x": lambda image, by: _moved(image, 1.0, 0.3 * by, 0.0, 0.0, 1.0, 0.0),
    "shear_y": lambda image, by: _moved(image, 1.0, 0.0, 0.0, 0.3 * by, 1.0, 0.0),
    "translate_x": lambda image, by: _moved(image, 1.0, 0.0, _SHIFT * by * image.width, 0.0, 1.0, 0.0),
    "translate_y": lambda image, by: _moved(image, 1.0, 0.0, 0.0, 0.0, 1.0, _SHIFT * by * image.height),
}
"""The operations of RandAugment, of an image and a strength of -1 to 1."""


@dataclass(frozen=True)
class RandAugment:
    """Some of `OPERATIONS`, each drawn evenly, at one strength and in either direction (Cubuk et al., 1909.13719).

    At strength 1: rotate by 30 degrees, shear by 0.3, translate by 45 % of a side; color, contrast, brightness and
    sharpness times 0.1 or 1.9; posterize to 4 bits; solarize all. autocontrast, equalize and identity have no strength.
    """

    count: int = 2
    """How many operations, one after the other."""
    strength: float = 0.3
    """Of each, 0 to 1: a thirtieth of the paper's magnitude."""

    def __post_init__(self) -> None:
        in_range(self, 0.0, 1.0, "strength")

    def __call__(self, rng: np.random.Generator, image: Pillow) -> Pillow:
        """After `count` operations."""
        names = list(OPERATIONS)
        for _ in range(self.count):
            operation = OPERATIONS[names[rng.integers(len(names))]]
            image = operation(image, self.strength * (1 if rng.random() < 0.5 else -1))
        return image
