"""Images as a program has them: paths, bytes, arrays, images of Pillow's -> uint8 [H W 3], upright, sRGB, on white."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from lookalike.core.errors import ImageError, SourceError
from lookalike.core.shapes import Image
from lookalike.imaging.decode import decode, upright
from lookalike.imaging.raster import Raster, from_pillow
from lookalike.imaging.tiff import exif

Given = str | Path | bytes | bytearray | memoryview | io.BufferedIOBase | np.ndarray | PIL.Image.Image
"""What `pixels_of` takes; anything else with `__array__`, as a tensor of torch on the CPU, counts as an array."""


def is_one(images: object) -> bool:
    """Whether this is a single image, and no iterable of them: 2 or 3 axes are one, 4 are a batch."""
    if isinstance(images, (str, Path, bytes, bytearray, memoryview, io.BufferedIOBase, PIL.Image.Image)):
        return True
    return hasattr(images, "__array__") and getattr(images, "ndim", 0) in (2, 3)


def pixels_of(item: object, at_least: int | None = None) -> Image:
    """The pixels of one image; a large JPEG may come reduced, as `decode` says.

    Arrays are [H W], [H W 1], [H W 3] or [H W 4]: gray, RGB or RGB with alpha, uint8 or floats from 0 to 1.

    Raises:
        SourceError: A file can't be read.
        ImageError: It is no image, or a damaged one; a thing of another kind, an array of another form.
    """
    if isinstance(item, PIL.Image.Image):
        return _of_pillow(item)
    if hasattr(item, "__array__") and not isinstance(item, (str, Path)):
        return _of_array(item)
    if isinstance(item, io.BufferedIOBase):
        item = item.read()
    if isinstance(item, (bytes, bytearray, memoryview)):
        return _decoded(bytes(item), f"{len(item):,} bytes", at_least)
    if not isinstance(item, (str, Path)):
        raise ImageError(
            f"An image is a {type(item).__module__}.{type(item).__qualname__}; expected a path, bytes, an array or an "
            "image of Pillow.",
            hint="embed([image, ...])",
        )
    if "://" in str(item):
        raise SourceError(f"`{item}` is an address, and images are read from files.", hint="download it first")
    try:
        data = Path(item).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte
        raise SourceError(
            f"`{item}` can't be read: {getattr(error, 'strerror', error)}.", hint="give the path of an image file"
        ) from error
    return _decoded(data, str(item), at_least)


def file_of(item: object) -> bytes:
    """The bytes of an image as a file has them: as they are where it is one, else its pixels as PNG."""
    if isinstance(item, io.BufferedIOBase):
        item = item.read()
    if isinstance(item, (bytes, bytearray, memoryview)):
        return bytes(item)
    made = io.BytesIO()
    PIL.Image.fromarray(pixels_of(item)).save(made, "PNG", compress_level=1)
    return made.getvalue()


def _decoded(data: bytes, name: str, at_least: int | None) -> Image:
    try:
        return decode(data, at_least)
    except ImageError as error:
        raise ImageError(f"`{name}`: {error.message}", hint=error.hint) from error


def _of_pillow(image: PIL.Image.Image) -> Image:
    try:
        image.load()
    except OSError as error:
        raise ImageError(f"The image of Pillow can't be loaded: {error}.") from error
    if 0 in image.size:
        raise ImageError(f"An image of Pillow has no pixels: {image.width} x {image.height}.")
    turned, light = exif(image.info.get("exif", b""))
    return upright(from_pillow(image, image.info.get("icc_profile") or light, turned))


def _of_array(item: Any) -> Image:
    values = np.asarray(item)
    pixels = values[:, :, None] if values.ndim == 2 else values
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or 0 in pixels.shape:
        turned = pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4)
        raise ImageError(
            f"An image is {values.dtype} {list(values.shape)}; expected [H W], [H W 1], [H W 3] or [H W 4].",
            hint="colours come last: numpy.moveaxis(x, 0, -1)" if turned else "one image an item: embed([image, ...])",
        )
    if pixels.dtype.kind == "f":
        if not (pixels.min() >= 0 and pixels.max() <= 1):  # NaN is not
            raise ImageError(
                f"An image of {values.dtype} has values from {pixels.min():g} to {pixels.max():g}; expected 0 to 1.",
                hint="x / 255; of what was normalised for a tower, give the image before",
            )
        pixels = (pixels * 255 + 0.5).astype(np.uint8)
    elif pixels.dtype == np.uint8:
        pixels = pixels.copy()  # what is given back is nobody else's
    else:
        raise ImageError(
            f"An image is {values.dtype}; expected uint8, or floats from 0 to 1.", hint="x.astype(numpy.uint8)"
        )
    height, width, channels = pixels.shape
    solid, alpha = (pixels[:, :, :3], pixels[:, :, 3]) if channels == 4 else (pixels, None)
    return upright(Raster(width, height, lambda a, b: (solid[a:b], None if alpha is None else alpha[a:b]), whole=True))
