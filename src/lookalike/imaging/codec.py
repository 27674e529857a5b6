"""Pillow's decoders: opened by name of the format, loaded whole or refused, and what C libraries say is caught."""

import io
import os
import re
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import PIL.Image

from lookalike.core.errors import ImageError
from lookalike.imaging.color import Color
from lookalike.imaging.raster import Raster, Rows

# Python keeps warning filters per process, and so is stderr; without the lock, threads could leave each other's behind.
_shared = threading.Lock()
_TORN = re.compile(rb"^Fax\w*Decode")  # libtiff goes on after these, with rows that are torn
_LIBTIFF = re.compile(
    rb"^(tempfile\.tif|MissingRequired|EstimateStrip\w*|_?TIFF\w*|\w*(Fax|LZW|ZIP|JPEG|Pack|LZMA|ZSTD|WebP)\w*): "
)


def open_as(kind: str, data: bytes) -> PIL.Image.Image:
    """The header of `data`, a file of this format."""
    try:
        with _quiet():
            return PIL.Image.open(io.BytesIO(data), formats=[kind])
    except PIL.Image.DecompressionBombError as error:
        raise ImageError("The image claims more pixels than are read.") from error
    except Exception as error:
        raise ImageError(f"The head of the {kind} image is damaged or truncated ({reason(error)}).") from error


def load(image: PIL.Image.Image) -> PIL.Image.Image:
    """Decode the first frame; an image that ends early is refused, not filled up with gray."""
    width, height = image.size  # before a draft is carried out this is already the reduced size
    said: list[bytes] = []
    try:
        if image.format == "JPEG":  # the usual one, and its library is silent
            image.load()
        else:
            with _quiet(), _stderr_of_c(said):
                image.load()
    except Exception as error:  # noqa: BLE001  whatever it is, the image is refused
        words = reason(error)
    else:
        words = next((line.decode("ascii", "replace") for line in said if _TORN.match(line)), "")
    if words:
        raise ImageError(
            f"The {image.format} image is damaged or truncated: "
            f"not all of its {width:,} x {height:,} pixels could be decoded ({words[:120]})."
        )
    return image


def from_pillow(
    image: PIL.Image.Image,
    color: Color | None = None,
    orientation: int = 1,
    white: float | None = None,
    frame: tuple[int, int, int, int] | None = None,
) -> Raster:
    """A decoded image of any mode.

    Args:
        image: Decoded.
        color: None: sRGB.
        orientation: As EXIF counts.
        white: Of modes with more than 8 bits; None: the usual white that is not below the greatest value.
        frame: left, top, right, bottom of the part that is there; the rest is transparent.
    """
    width, height = image.size
    frame = None if frame in (None, (0, 0, width, height)) else frame
    layered = frame is not None or image.has_transparency_data
    deep = image.mode.startswith("I") or image.mode == "F"
    if white is None and deep:
        white = 65_535.0 if image.mode.startswith("I;16") else usual_white(np.asarray(image))
    top = white or 255.0

    def rows(start: int, stop: int) -> Rows:
        part = image.crop((0, start, width, stop))
        if deep:
            values = np.nan_to_num(np.asarray(part).astype(np.float32), posinf=0.0, neginf=0.0)
            return (values.clip(0, top) * (255.0 / top) + 0.5).astype(np.uint8)[:, :, None], None
        if layered:
            pixels = np.asarray(part.convert("RGBA"))
            alpha = pixels[:, :, 3]
            if frame is not None:
                alpha = np.zeros_like(alpha)
                box = np.s_[max(0, frame[1] - start) : max(0, frame[3] - start), frame[0] : frame[2]]
                alpha[box] = pixels[:, :, 3][box]
            return pixels[:, :, :3], alpha
        if image.mode not in ("L", "RGB", "CMYK"):
            part = part.convert("L" if image.mode == "1" else "RGB")
        pixels = np.asarray(part)
        return (pixels[:, :, None] if pixels.ndim == 2 else pixels), None

    return Raster(width, height, rows, color, orientation)


def usual_white(values: np.ndarray) -> float:
    """The smallest usual white that is not below the greatest value."""
    peak = float(np.nanmax(np.where(np.isfinite(values), values, 0)))
    return min([white for white in (1.0, 255.0, 65_535.0) if peak <= white] or [peak])


def reason(error: BaseException) -> str:
    """The codec's own words on one line."""
    return " ".join(str(error).split())[:120] or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back Pillow's warnings on strange metadata: the image is read or refused, and that is said once."""
    with _shared, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _stderr_of_c(said: list[bytes]) -> Iterator[None]:
    """Put the lines that libtiff writes to stderr into `said`; those of others go on to stderr."""
    try:
        before = os.dup(2)
    except OSError:  # closed
        yield
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            for line in file.read().splitlines(keepends=True):
                if _LIBTIFF.match(line):
                    said.append(line.strip())
                else:
                    os.write(2, line)
