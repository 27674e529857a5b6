"""Changes of an image that leave it an image of the same thing: frozen values, (rng, image) -> image, pure.

Images are Pillow's, in mode RGB, at every step: its C functions take four bytes a pixel, and bringing an array to that
and back takes as long as resizing it. Colours are sRGB values as they are stored.

A new kind: one frozen class here, and its name in `Augment`.
"""

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from lookalike.imaging.randaugment import RandAugment
from lookalike.imaging.resample import Filter

Pillow = Image.Image
_GRAY = (0.299, 0.587, 0.114)  # luma as in ITU-R BT.601


@dataclass(frozen=True)
class Crop:
    """A random part of the image, resized to a square (Szegedy et al., 2015; sampling as torchvision does it)."""

    size: int
    """Side of the result, in pixels."""
    area: tuple[float, float] = (0.3, 1.0)
    """Smallest and largest share of the image that is kept."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Narrowest and widest part, as width / height; drawn evenly in its logarithm."""
    interpolation: Filter = "bilinear"
    """How it is resampled, with antialias; bicubic takes half as long again."""

    def __call__(self, rng: np.random.Generator, image: Pillow) -> Pillow:
        """The part, `size` x `size`."""
        left, top, width, height = map(float, _part(rng, image, self.area, self.ratio))
        kind = Image.Resampling[self.interpolation.upper()]
        return image.resize((self.size, self.size), kind, box=(left, top, left + width, top + height))


@dataclass(frozen=True)
class Flip:
    """Left and right exchanged."""

    chance: float = 0.5
    """How often, 0 to 1."""

    def __call__(self, rng: np.random.Generator, image: Pillow) -> Pillow:
        """Maybe the mirror image."""
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < self.chance else image


@dataclass(frozen=True)
class Erase:
    """A random rectangle replaced by noise (Zhong et al., 2017): things are seen partly covered."""

    chance: float = 0.25
    """How often, 0 to 1."""
    area: tuple[float, float] = (0.02, 0.3)
    """Smallest and largest share of the image that goes."""
    ratio: tuple[float, float] = (0.3, 3.3)
    """Narrowest and widest rectangle, as width / height."""

    def __call__(self, rng: np.random.Generator, image: Pillow) -> Pillow:
        """Maybe with a hole."""
        if rng.random() >= self.chance:
            return image
        left, top, width, height = _part(rng, image, self.area, self.ratio)
        out = image.copy()
        out.paste(Image.frombytes("RGB", (width, height), rng.bytes(3 * width * height)), (left, top))
        return out


@dataclass(frozen=True)
class Color:
    """Other light: brightness, contrast, saturation, each channel, in this order, times a factor of 1 - x to 1 + x.

    All four are one affine map of a pixel's colour, which is rounded and clipped once.
    """

    brightness: float = 0.2
    """x of the brightness, 0 to 1."""
    contrast: float = 0.2
    """x of the distance from the image's mean gray, 0 to 1."""
    saturation: float = 0.2
    """x of the distance from each pixel's own gray, 0 to 1."""
    cast: float = 0.0
    """x of red, green and blue, each by itself: lamps and white balances that differ; 0 to 1."""

    def __call__(self, rng: np.random.Generator, image: Pillow) -> Pillow:
        """In other light."""
        strengths = self.brightness, self.contrast, self.saturation
        brightness, contrast, saturation = (1 + x * rng.uniform(-1, 1) for x in strengths)
        gains = [1 + self.cast * rng.uniform(-1, 1) if self.cast else 1.0 for _ in range(3)]
        offset = brightness * (1 - contrast) * _mean_gray(image) if self.contrast else 0.0
        matrix: list[float] = []  # of plain numbers: arrays of twelve take longer than the pixels of a small image
        for channel, gain in enumerate(gains):
            row = [(1 - saturation) * share + saturation * (other == channel) for other, share in enumerate(_GRAY)]
            matrix += [*(gain * brightness * contrast * value for value in row), gain * offset]
        return image.convert("RGB", tuple(matrix))


@dataclass(frozen=True)
class Gray:
    """Without colours (Chen et al., 2002.05709)."""

    chance: float = 0.2
    """How often, 0 to 1."""

    def __call__(self, rng: np.random.Generator, image: Pillow) -> Pillow:
        """Maybe gray."""
        return image.convert("L").convert("RGB") if rng.random() < self.chance else image


@dataclass(frozen=True)
class Blur:
    """Out of focus: a Gaussian (Chen et al., 2002.05709), as three box filters (Pillow's)."""

    chance: float = 0.5
    """How often, 0 to 1."""
    sigma: tuple[float, float] = (0.0005, 0.009)
    """Least and greatest standard deviation, as a share of the shorter side: 0.1 to 2 pixels of 224."""

    def __call__(self, rng: np.random.Generator, image: Pillow) -> Pillow:
        """Maybe blurred."""
        if rng.random() >= self.chance:
            return image
        return image.filter(ImageFilter.GaussianBlur(rng.uniform(*self.sigma) * min(image.size)))


@dataclass(frozen=True)
class Jpeg:
    """Compressed once more, chroma at half its size: what photographs have behind them that were sent on."""

    chance: float = 0.5
    """How often, 0 to 1."""
    quality: tuple[int, int] = (30, 90)
    """Least and greatest quality, libjpeg's 1 (worst) to 95."""

    def __call__(self, rng: np.random.Generator, image: Pillow) -> Pillow:
        """Maybe with the traces of compression."""
        if rng.random() >= self.chance:
            return image
        low, high = self.quality
        image.save(file := io.BytesIO(), "JPEG", quality=int(rng.integers(low, high + 1)), subsampling="4:2:0")
        return Image.open(file).convert("RGB")


@dataclass(frozen=True)
class Background:
    """A veil of another image, so blurred that only its colours are left: the same thing in other surroundings."""

    chance: float = 0.25
    """How often, 0 to 1."""
    share: tuple[float, float] = (0.1, 0.4)
    """Least and greatest share of the other image."""

    def __call__(self, rng: np.random.Generator, image: Pillow, other: Pillow) -> Pillow:
        """Maybe mixed with `other`, reduced to 4 x 4 colours and enlarged again."""
        if rng.random() >= self.chance:
            return image
        coarse = other.resize((4, 4), Image.Resampling.BOX).resize(image.size, Image.Resampling.BICUBIC)
        return Image.blend(image, coarse, float(rng.uniform(*self.share)))


Augment = Crop | Flip | Erase | Color | Gray | Blur | Jpeg | Background | RandAugment


@dataclass(frozen=True)
class View:
    """One way to see an image: `size` pixels square, after these changes, in their order.

    What they leave at another size is cut square and resized.
    """

    size: int
    """Side, in pixels."""
    augments: tuple[Augment, ...] = ()
    """The changes."""

    @property
    def at_least(self) -> int:
        """Shorter side, in pixels, from which on the smallest crop need not be enlarged."""
        crops = [augment for augment in self.augments if isinstance(augment, Crop)]
        shares = [crop.area[0] * min(crop.ratio[0], 1 / crop.ratio[1]) for crop in crops]
        return int(np.ceil(self.size / min([1.0, *np.sqrt(shares)])))

    def __call__(self, rng: np.random.Generator, image: Pillow, other: Pillow) -> Pillow:
        """`size` x `size`; `other` is what `Background` takes."""
        for augment in self.augments:
            image = augment(rng, image, other) if isinstance(augment, Background) else augment(rng, image)
        if image.size == (self.size, self.size):
            return image
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        return image.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box)


def multi_crop(
    size: int,
    small: int,
    count: int,
    augments: tuple[Augment, ...],
    area: tuple[float, float] = (0.14, 1.0),
    small_area: tuple[float, float] = (0.05, 0.14),
) -> tuple[View, ...]:
    """Two views of `size` pixels and `count` of `small` ones, of small parts of the image (SwAV, 2006.09882, 3.3)."""
    large, little = (View(s, (Crop(s, a), *augments)) for s, a in ((size, area), (small, small_area)))
    return (large,) * 2 + (little,) * count


def _mean_gray(image: Pillow) -> float:
    """Of a grid of pixels: all of them would take as long as a third of the change of colour."""
    pixels = np.asarray(image.resize((32, 32), Image.Resampling.NEAREST), np.float64)
    return float(pixels.mean(axis=(0, 1)) @ np.array(_GRAY))


def _part(
    rng: np.random.Generator, image: Pillow, area: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """left, top, width, height of a random rectangle inside the image, in pixels."""
    width, height = image.size
    for _ in range(10):
        pixels = height * width * rng.uniform(*area)
        shape = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        part_width, part_height = round(math.sqrt(pixels * shape)), round(math.sqrt(pixels / shape))
        if 0 < part_width <= width and 0 < part_height <= height:
            left, top = rng.integers(width - part_width + 1), rng.integers(height - part_height + 1)
            return int(left), int(top), part_width, part_height
    # A very long image: the middle, as wide or as high as the ratio allows.
    part_width = max(1, min(width, round(height * ratio[1])))
    part_height = max(1, min(height, round(width / ratio[0])))
    return (width - part_width) // 2, (height - part_height) // 2, part_width, part_height
