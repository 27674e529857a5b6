"""Colour spaces -> sRGB: ICC profiles by LittleCMS, and those that are told by numbers (CICP, Adobe RGB, gAMA, cHRM).

A phone stores Display P3, a scanner linear light, a television PQ: read as sRGB, the same thing would look different
from one camera to the next. What is sRGB within rounding is left alone, and that is measured, whatever its name.
"""

import io
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import PIL.Image
from jaxtyping import Float64, UInt8

_D65, _C = (0.3127, 0.3290), (0.310, 0.316)
PRIMARIES = {  # ITU-T H.273, table 2: x and y of red, green, blue and white
    1: (0.640, 0.330, 0.300, 0.600, 0.150, 0.060, *_D65),
    4: (0.670, 0.330, 0.210, 0.710, 0.140, 0.080, *_C),
    5: (0.640, 0.330, 0.290, 0.600, 0.150, 0.060, *_D65),
    6: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *_D65),
    7: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *_D65),
    8: (0.681, 0.319, 0.243, 0.692, 0.145, 0.049, *_C),
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *_D65),
    10: (1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1 / 3, 1 / 3),
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351),
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *_D65),
    22: (0.630, 0.340, 0.295, 0.605, 0.155, 0.077, *_D65),
}

_PAPER = 203.0  # cd/m2 of white in PQ and HLG (ITU-R BT.2408); brighter light is clipped to it
# ITU-T H.273, table 3: a gamma, or a name
_CURVES: dict[int, float | str] = {4: 2.2, 5: 2.8, 8: 1.0, 9: "log 2", 10: "log 2.5", 16: "PQ", 17: "DCI", 18: "HLG"}
_PIXELS = 2**18  # converted at once, so that memory does not grow with the image


class Light(NamedTuple):
    """A colour space that is told by numbers."""

    primaries: tuple[float, ...]  # x and y of red, green, blue and white, as in `PRIMARIES`
    transfer: float | str  # a gamma, or a curve by name; those of television count as sRGB, as every viewer has it


Color = bytes | Light  # a colour space: the bytes of an ICC profile, or numbers

ADOBE_RGB = Light((0.640, 0.330, 0.210, 0.710, 0.150, 0.060, *_D65), 563 / 256)


def cicp(primaries: int, transfer: int) -> Light:
    """The colour space of these codes (ITU-T H.273); sRGB where they specify nothing."""
    return Light(PRIMARIES.get(primaries, PRIMARIES[1]), _CURVES.get(transfer, "sRGB"))


def chromatic(gamma: float | None, primaries: tuple[float, ...] | None) -> Light:
    """The colour space of a PNG's gAMA (as the exponent of light, 2.2 for most) and cHRM, where they are there."""
    television = gamma is None or abs(gamma / 2.2 - 1) < 0.05  # libpng too takes these for sRGB
    return Light(primaries or PRIMARIES[1], "sRGB" if television or gamma is None else gamma)


def to_srgb(pixels: UInt8[np.ndarray, "H W C"], color: Color | None) -> UInt8[np.ndarray, "H W D"]:
    """Gray, RGB, Lab or CMYK in the space `color` -> gray or RGB in sRGB; what is sRGB already is the same array."""
    height, width, channels = pixels.shape
    if (convert := _conversion(color, channels)) is None:
        return pixels
    if channels == 1:
        table = convert(np.arange(256, dtype=np.uint8)[:, None])
        if np.ptp(table.astype(int), axis=1).max() <= 2:  # neutral: gray stays gray
            table = table[:, 1:2]
        return np.take(table, pixels[:, :, 0], axis=0)
    made = np.empty((height, width, 3), np.uint8)
    rows = max(1, _PIXELS // width)
    for start in range(0, height, rows):
        part = pixels[start : start + rows]
        made[start : start + rows] = convert(part.reshape(-1, channels)).reshape(-1, width, 3)
    return made


_Conversion = Callable[[UInt8[np.ndarray, "n C"]], UInt8[np.ndarray, "n 3"]]


@lru_cache(maxsize=32)
def _conversion(color: Color | None, channels: int) -> _Conversion | None:
    """From `color` to sRGB; None where it is sRGB already, broken, or of another kind of pixels."""
    convert: _Conversion | None = None
    if isinstance(color, bytes):
        convert = _by_profile(color, channels)
    elif color is not None and channels < 4:
        convert = _by_numbers(color)
    if channels == 4:  # without a profile: what ink leaves of light, as Pillow has it
        return convert or _by_pillow("CMYK", lambda image: image.convert("RGB"))
    steps = np.linspace(0, 255, 256 if channels == 1 else 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(*[steps] * channels), axis=-1).reshape(-1, channels)
    return None if convert is None or np.abs(convert(grid).astype(int) - grid).max() <= 2 else convert


def _by_profile(profile: bytes, channels: int) -> _Conversion | None:
    from PIL import ImageCms  # LittleCMS: few images need it, and every start would wait for it

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        modes = {(1, "GRAY"): "L", (1, "RGB"): "RGB", (3, "RGB"): "RGB", (3, "Lab"): "LAB", (4, "CMYK"): "CMYK"}
        mode = modes[channels, space]
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, KeyError):
        return None
    return _by_pillow(mode, lambda image: ImageCms.applyTransform(image, transform))


def _by_pillow(mode: str, change: Callable[[PIL.Image.Image], PIL.Image.Image | None]) -> _Conversion:
    """`change` of an image of that mode; gray becomes all its bands."""
    bands = PIL.Image.getmodebands(mode)

    def convert(pixels: UInt8[np.ndarray, "n C"]) -> UInt8[np.ndarray, "n 3"]:
        wide = np.ascontiguousarray(np.broadcast_to(pixels, (len(pixels), bands)))
        return np.asarray(change(PIL.Image.frombytes(mode, (len(pixels), 1), wide.tobytes()))).reshape(-1, 3)

    return convert


def _by_numbers(light: Light) -> _Conversion:
    table = _linear(np.arange(256) / 255, light.transfer).astype(np.float32)
    ours, theirs = _to_xyz(PRIMARIES[1]), _to_xyz(light.primaries)
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    gain = (bradford @ ours.sum(axis=1)) / (bradford @ theirs.sum(axis=1))  # white to white
    matrix = (np.linalg.inv(bradford @ ours) @ np.diag(gain) @ bradford @ theirs).T.astype(np.float32)
    luminance = theirs[1].astype(np.float32)
    v = np.linspace(0, 1, 2**14)  # IEC 61966-2-1
    codes = (np.where(v <= 0.0031308, v * 12.92, 1.055 * v ** (1 / 2.4) - 0.055) * 255 + 0.5).astype(np.uint8)

    def convert(pixels: UInt8[np.ndarray, "n C"]) -> UInt8[np.ndarray, "n 3"]:
        linear = np.broadcast_to(table[pixels], (len(pixels), 3))
        if light.transfer == "HLG":  # the system's gamma of 1.2, for a display of 1,000 cd/m2 (BT.2100)
            linear = linear * ((linear @ luminance)[:, None] ** 0.2 * (1000 / _PAPER))
        places = np.clip(linear @ matrix, 0, 1) * (len(codes) - 1) + 0.5
        return np.asarray(np.take(codes, places.astype(np.int32)))

    return convert


def _linear(v: Float64[np.ndarray, " n"], transfer: float | str) -> Float64[np.ndarray, " n"]:
    """Codes 0 to 1 -> light, 1 for white; for HLG light of the scene."""
    match transfer:
        case float():
            return np.asarray(v**transfer)
        case "log 2" | "log 2.5":
            return np.where(v > 0, 10 ** (float(transfer[4:]) * (v - 1)), 0)
        case "PQ":  # SMPTE ST 2084
            power = v ** (1 / 78.84375)
            light = np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
            return 10_000 / _PAPER * light ** (1 / 0.1593017578125)
        case "DCI":
            return 52.37 / 48 * v**2.6
        case "HLG":  # ARIB STD-B67
            return np.where(v <= 0.5, v * v / 3, (np.exp((v - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        case _:
            return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def _to_xyz(primaries: tuple[float, ...]) -> Float64[np.ndarray, "3 3"]:
    """Linear RGB -> XYZ, white at Y = 1."""
    x, y = np.array(primaries, np.float64).reshape(4, 2).T
    columns = np.stack([x, y, 1 - x - y])
    return np.asarray(columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3] / y[3]))
