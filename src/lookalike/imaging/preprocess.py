"""One image to the square that a tower takes: the one definition for training, embedding, search and export.

The host resizes and crops in 8 bits, as the published image processors do, so that a stored vector and a query are
made from the same pixels wherever they are computed. Normalising, `(x / 255 - mean) / std`, happens in the graph.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int64, UInt8
from PIL import Image as Pillow

from lookalike.core.errors import EncoderError
from lookalike.core.shapes import Image

_FILTERS = {
    "nearest": Pillow.Resampling.NEAREST,
    "bilinear": Pillow.Resampling.BILINEAR,
    "bicubic": Pillow.Resampling.BICUBIC,
    "lanczos": Pillow.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Preprocess:
    """How an image of any size becomes `size` x `size` pixels, and what the tower subtracts and divides by."""

    size: int
    """Side of the square, in pixels."""
    mode: Literal["crop", "squash", "pad"]
    """Which side becomes `resize` long, before the middle `size` x `size` is taken. crop: the shorter one, and black
    around it if that is not enough. squash: both, whatever the shape. pad: the longer one, and `fill` around it."""
    resize: int
    """Length of that side in pixels; in the modes squash and pad at least `size`, and mostly equal to it."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"]
    """The resampling filter."""
    mean: tuple[float, float, float]
    """Subtracted from red, green and blue after division by 255."""
    std: tuple[float, float, float]
    """Divides red, green and blue after that."""
    antialias: bool = True
    """Widen the filter when shrinking. False reproduces towers that were trained on tensors resized without it."""
    rounding: Literal["floor", "even"] = "floor"
    """Where the middle is when it falls between two pixels: floor as in transformers, half to even as in torchvision
    (and so OpenCLIP)."""
    fill: tuple[int, int, int] = (0, 0, 0)
    """Red, green and blue, 0 to 255, of what `pad` adds."""

    def __post_init__(self) -> None:
        if self.size < 1 or self.resize < 1:
            raise EncoderError(f"Preprocessing to {self.size} px by way of {self.resize} px is not possible.")
        if self.mode != "crop" and self.resize < self.size:
            raise EncoderError(
                f"Mode {self.mode} gives {self.size} px only from as many, and `resize` is {self.resize}."
            )
        if not self.antialias and self.interpolation not in ("bilinear", "bicubic"):
            raise EncoderError(f"With the filter {self.interpolation} there is no choice of antialiasing.")
        if min(self.std) <= 0:
            raise EncoderError(f"`std` must be positive, and is {self.std}.")

    def __call__(self, image: Image) -> UInt8[np.ndarray, "S S 3"]:
        """The image as the tower takes it, in 8 bits.

        Args:
            image: RGB pixels of any height and width.

        Returns:
            RGB pixels, `size` high and wide.
        """
        height, width = self._resized(*image.shape[:2])
        top, bottom, row = self._window(height)
        left, right, column = self._window(width)
        part = self._resample(image, (height, width), (top, bottom), (left, right))
        if part.shape[:2] == (self.size, self.size):
            return part
        square = np.full((self.size, self.size, 3), self.fill if self.mode == "pad" else (0, 0, 0), np.uint8)
        square[row : row + part.shape[0], column : column + part.shape[1]] = part
        return square

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the whole image after resizing."""
        short, long = min(height, width), max(height, width)
        if self.mode == "squash":
            return self.resize, self.resize
        if self.mode == "crop":  # both published families cut the longer side off, they do not round it
            scaled = int(self.resize * long / short)
            return (scaled, self.resize) if width <= height else (self.resize, scaled)
        ratio = long / self.resize
        return max(1, round(height / ratio)), max(1, round(width / ratio))

    def _window(self, length: int) -> tuple[int, int, int]:
        """First and last (exclusive) resized pixel that is seen along one side, and where it lies in the square."""
        spare = length - self.size
        if self.mode == "pad" and spare < 0:
            start = -(-spare // 2)
        elif self.rounding == "floor":
            start = spare // 2
        else:
            start = round(spare / 2) if spare >= 0 else -(-spare // 2)
        return max(0, start), min(length, start + self.size), max(0, -start)

    def _resample(
        self, image: Image, whole: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
    ) -> UInt8[np.ndarray, "h w 3"]:
        """The window (`rows`, `columns`) of the image resized to `whole`.

        A strip one pixel high becomes millions of pixels wide, so beyond 64:1 only the window is computed. Pillow keeps
        the corners of that window in single precision, which moves a value by 1 here and there; everyday images
        are resized whole, and equal the image processors' to the bit.
        """
        if not self.antialias:
            return _sampled(image, whole, rows, columns, self.interpolation == "bicubic")
        source = Pillow.fromarray(image)
        if max(whole) <= 64 * min(whole):
            resized = source.resize((whole[1], whole[0]), _FILTERS[self.interpolation])
            return np.asarray(resized, np.uint8)[slice(*rows), slice(*columns)]
        scale_y, scale_x = image.shape[0] / whole[0], image.shape[1] / whole[1]
        right, bottom = min(columns[1] * scale_x, image.shape[1]), min(rows[1] * scale_y, image.shape[0])
        box = (columns[0] * scale_x, rows[0] * scale_y, right, bottom)
        size = (columns[1] - columns[0], rows[1] - rows[0])
        return np.asarray(source.resize(size, _FILTERS[self.interpolation], box=box), np.uint8)


def _sampled(
    image: Image, whole: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int], cubic: bool
) -> UInt8[np.ndarray, "h w 3"]:
    """Interpolation at the pixel centres without antialiasing, as torch's `interpolate(align_corners=False)` does."""
    at_y, weight_y = _taps(image.shape[0], whole[0], rows, cubic)
    at_x, weight_x = _taps(image.shape[1], whole[1], columns, cubic)
    lines = np.einsum("htwc,ht->hwc", image[at_y].astype(np.float32), weight_y)
    pixels = np.einsum("hwtc,wt->hwc", lines[:, at_x], weight_x)
    result: UInt8[np.ndarray, "h w 3"] = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
    return result


def _taps(
    length: int, whole: int, window: tuple[int, int], cubic: bool
) -> tuple[Int64[np.ndarray, "n t"], Float[np.ndarray, "n t"]]:
    """Which source pixels (2, or 4 for `cubic`) make each pixel of the window, and their weights."""
    centre = (np.arange(*window) + 0.5) * (length / whole) - 0.5
    if not cubic:
        centre = np.clip(centre, 0, None)
    first = np.floor(centre).astype(np.int64) - (1 if cubic else 0)
    taps = first[:, None] + np.arange(4 if cubic else 2)
    distance = np.abs(centre[:, None] - taps)
    if cubic:  # Keys' kernel with a = -0.75
        near = (1.25 * distance - 2.25) * distance**2 + 1
        far = -0.75 * (((distance - 5) * distance + 8) * distance - 4)
        weight = np.where(distance <= 1, near, far)
    else:
        weight = 1 - distance
    return np.clip(taps, 0, length - 1), weight.astype(np.float32)
