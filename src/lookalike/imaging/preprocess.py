"""One image to the square that a tower takes: the one definition for training, embedding, search and export.

The host resizes and crops in 8 bits, as the published image processors do, so that a stored vector and a query are
made from the same pixels wherever they are computed. Normalising, `(x / 255 - mean) / std`, happens in the graph.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from lookalike.core.errors import EncoderError
from lookalike.core.shapes import Image
from lookalike.imaging.resample import NUMPY, Arithmetic, Filter, resize, sample


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
    interpolation: Filter
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
        """The image, RGB of any height and width, as the tower takes it: `size` high and wide, in 8 bits."""
        height, width = (int(side) for side in self.resized(*image.shape[:2]))
        y, x = (int(self.start(side)) for side in (height, width))
        rows, columns = (max(0, y), min(height, y + self.size)), (max(0, x), min(width, x + self.size))
        part = self._resample(image, (height, width), rows, columns)
        if part.shape[:2] == (self.size, self.size):
            return part
        row, column = max(0, -y), max(0, -x)
        square = np.full((self.size, self.size, 3), self.fill if self.mode == "pad" else (0, 0, 0), np.uint8)
        square[row : row + part.shape[0], column : column + part.shape[1]] = part
        return square

    def resized(self, height: Any, width: Any, xp: Arithmetic = NUMPY) -> tuple[Any, Any]:
        """Height and width of the whole image after resizing; whole numbers, or what stands for them in a program."""
        if self.mode == "squash":
            return self.resize, self.resize
        upright = width <= height
        if self.mode == "crop":  # both published families cut the longer side off, they do not round it
            longer = self.resize * height // width, self.resize * width // height
            return xp.where(upright, longer[0], self.resize), xp.where(upright, self.resize, longer[1])
        ratio = xp.double(xp.where(upright, height, width)) / self.resize
        rows, columns = (xp.whole(xp.round(xp.double(side) / ratio)) for side in (height, width))
        return xp.where(rows < 1, 1, rows), xp.where(columns < 1, 1, columns)

    def start(self, resized: Any, xp: Arithmetic = NUMPY) -> Any:
        """Where the square begins along a side of `resized` pixels; negative where it begins before it.

        Nothing negative is divided: graphs round that toward zero.
        """
        before, after = ((resized + self.size + odd) // 2 - self.size for odd in (0, 1))
        if self.mode != "pad" and self.rounding == "floor":
            return before
        middle = before if self.rounding == "floor" else xp.where(before // 2 * 2 == before, before, after)
        return xp.where(resized < self.size, after, middle)

    def _resample(
        self, image: Image, whole: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
    ) -> UInt8[np.ndarray, "h w 3"]:
        """The window (`rows`, `columns`) of the image resized to `whole`."""
        if not self.antialias:
            return sample(image, whole, rows, columns, self.interpolation)
        if max(whole) <= 64 * min(whole):
            return resize(image, *whole, interpolation=self.interpolation)[slice(*rows), slice(*columns)]
        # A strip one pixel high becomes millions of pixels wide, so only the window is computed. Pillow keeps its
        # corners in single precision, which moves a value by 1 here and there; everyday images are exact.
        scale_y, scale_x = image.shape[0] / whole[0], image.shape[1] / whole[1]
        right, bottom = min(columns[1] * scale_x, image.shape[1]), min(rows[1] * scale_y, image.shape[0])
        box = (columns[0] * scale_x, rows[0] * scale_y, right, bottom)
        return resize(image, rows[1] - rows[0], columns[1] - columns[0], box, self.interpolation)
