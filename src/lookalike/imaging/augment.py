"""Changes of an image that leave it an image of the same thing: frozen values, (rng, image) -> image, pure.

A new kind: one frozen class here, and its name in `Augment`.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from lookalike.core.shapes import Image
from lookalike.imaging.resample import resize


@dataclass(frozen=True)
class Crop:
    """A random part of the image, resized to a square (Szegedy et al., 2015; sampling as torchvision does it)."""

    size: int
    """Side of the result, in pixels."""
    area: tuple[float, float] = (0.3, 1.0)
    """Smallest and largest share of the image that is kept."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Narrowest and widest part, as width / height; drawn evenly in its logarithm."""

    def __call__(self, rng: np.random.Generator, image: Image) -> UInt8[np.ndarray, "S S 3"]:
        """The part, [size size 3]."""
        left, top, width, height = map(float, _part(rng, image, self.area, self.ratio))
        return resize(image, self.size, self.size, (left, top, left + width, top + height))


@dataclass(frozen=True)
class Flip:
    """Left and right exchanged."""

    chance: float = 0.5
    """How often, 0 to 1."""

    def __call__(self, rng: np.random.Generator, image: Image) -> Image:
        """Maybe the mirror image, [H W 3]."""
        return np.ascontiguousarray(image[:, ::-1]) if rng.random() < self.chance else image


@dataclass(frozen=True)
class Erase:
    """A random rectangle replaced by noise (Zhong et al., 2017): things are seen partly covered."""

    chance: float = 0.25
    """How often, 0 to 1."""
    area: tuple[float, float] = (0.02, 0.3)
    """Smallest and largest share of the image that goes."""
    ratio: tuple[float, float] = (0.3, 3.3)
    """Narrowest and widest rectangle, as width / height."""

    def __call__(self, rng: np.random.Generator, image: Image) -> Image:
        """Maybe with a hole, [H W 3]."""
        if rng.random() >= self.chance:
            return image
        left, top, width, height = _part(rng, image, self.area, self.ratio)
        out = image.copy()
        out[top : top + height, left : left + width] = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        return out


@dataclass(frozen=True)
class Color:
    """Other light: brightness, contrast, saturation, each channel, in this order, times a factor of 1 - x to 1 + x."""

    brightness: float = 0.2
    """x of the brightness, 0 to 1."""
    contrast: float = 0.2
    """x of the distance from the image's mean gray, 0 to 1."""
    saturation: float = 0.2
    """x of the distance from each pixel's own gray, 0 to 1."""
    cast: float = 0.0
    """x of red, green and blue, each by itself: lamps and white balances that differ; 0 to 1."""

    def __call__(self, rng: np.random.Generator, image: Image) -> Image:
        """In other light, [H W 3]."""
        strengths = self.brightness, self.contrast, self.saturation
        brightness, contrast, saturation = (np.float32(1 + x * rng.uniform(-1, 1)) for x in strengths)
        # Rounded once, at the end; but clipped after each step, as if it had been stored.
        values = np.clip(image.astype(np.float32) * brightness, 0, 255)
        mean = _gray(values).mean(dtype=np.float32)
        values = np.clip(mean + contrast * (values - mean), 0, 255)
        gray = _gray(values)
        values = np.clip(gray + saturation * (values - gray), 0, 255)
        if self.cast:
            gains = np.array([1 + self.cast * rng.uniform(-1, 1) for _ in range(3)], np.float32)
            values = np.clip(values * gains, 0, 255)
        return np.asarray(values + np.float32(0.5)).astype(np.uint8)


Augment = Crop | Flip | Erase | Color


def _part(
    rng: np.random.Generator, image: Image, area: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """left, top, width, height of a random rectangle inside the image, in pixels."""
    height, width = image.shape[:2]
    for _ in range(10):
        pixels = height * width * rng.uniform(*area)
        shape = np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1])))
        part_width, part_height = round(float(np.sqrt(pixels * shape))), round(float(np.sqrt(pixels / shape)))
        if 0 < part_width <= width and 0 < part_height <= height:
            left, top = rng.integers(width - part_width + 1), rng.integers(height - part_height + 1)
            return int(left), int(top), part_width, part_height
    # A very long image: the middle, as wide or as high as the ratio allows.
    part_width = max(1, min(width, round(height * ratio[1])))
    part_height = max(1, min(height, round(width / ratio[0])))
    return (width - part_width) // 2, (height - part_height) // 2, part_width, part_height


def _gray(values: Float32[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "H W 1"]:
    """Luma as in ITU-R BT.601."""
    return (values @ np.array([0.299, 0.587, 0.114], np.float32))[:, :, None]
