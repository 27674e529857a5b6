"""Colour spaces -> sRGB: ICC profiles by LittleCMS, and those that are told by numbers (CICP, Adobe RGB, gAMA, cHRM).

A phone stores Display P3, a scanner linear light, a television PQ: read as sRGB, the same thing would look different
from one camera to the next. What is sRGB within rounding is left alone, and that is measured, whatever its name.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import PIL.Image
from jaxtyping import Float32, Float64, UInt8
from PIL import ImageCms

_D65 = (0.3127, 0.3290)
_C = (0.310, 0.316)
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
_HLG, _PQ = 18, 16
_PIXELS = 2**18  # converted at once, so that memory does not grow with the image


@dataclass(frozen=True)
class Light:
    """A colour space that is told by numbers."""

    primaries: tuple[float, ...]
    """x and y of red, green, blue and white, as in `PRIMARIES`."""
    transfer: int | float
    """int: a code of H.273, table 3; those of television count as sRGB, as every viewer has it. float: a gamma."""


Color = bytes | Light
"""A colour space: the bytes of an ICC profile, or numbers."""

ADOBE_RGB = Light((0.640, 0.330, 0.210, 0.710, 0.150, 0.060, *_D65), 563 / 256)


def cicp(primaries: int, transfer: int) -> Light | None:
    """The colour space of these codes (ITU-T H.273); None for sRGB and what is not specified."""
    known = PRIMARIES.get(primaries, PRIMARIES[1])
    return Light(known, transfer) if known != PRIMARIES[1] or transfer in _CURVES else None


def chromatic(gamma: float | None, primaries: tuple[float, ...] | None) -> Light | None:
    """The colour space of a PNG's gAMA (as the exponent of light, 2.2 for most) and cHRM; None if neither is there."""
    if gamma is None and primaries is None:
        return None
    television = gamma is None or abs(gamma / 2.2 - 1) < 0.05  # libpng too takes these for sRGB
    return Light(primaries or PRIMARIES[1], 13 if television or gamma is None else gamma)


def to_srgb(pixels: UInt8[np.ndarray, "H W C"], color: Color | None) -> UInt8[np.ndarray, "H W D"]:
    """Gray (1 channel), RGB (3) or CMYK (4) in the space `color` -> gray or RGB in sRGB; D is 1 or 3."""
    channels = pixels.shape[2]
    convert = _conversion(color, channels) if color is not None else None
    if convert is None:
        return _in_blocks(pixels, _from_cmyk) if channels == 4 else pixels
    if channels > 1:
        return _in_blocks(pixels, convert)
    table = convert(np.arange(256, dtype=np.uint8)[:, None])
    if np.ptp(table.astype(int), axis=1).max() <= 2:  # neutral: gray stays gray
        table = table[:, 1:2]
    return np.take(table, pixels[:, :, 0], axis=0)


def is_srgb(color: Color | None, channels: int) -> bool:
    """Whether `to_srgb` would leave pixels of 1 or 3 channels as they are."""
    return color is None or _conversion(color, channels) is None


_Conversion = Callable[[UInt8[np.ndarray, "n C"]], UInt8[np.ndarray, "n 3"]]


def _in_blocks(pixels: UInt8[np.ndarray, "H W C"], convert: _Conversion) -> UInt8[np.ndarray, "H W 3"]:
    height, width, channels = pixels.shape
    made = np.empty((height, width, 3), np.uint8)
    rows = max(1, _PIXELS // width)
    for start in range(0, height, rows):
        part = pixels[start : start + rows]
        made[start : start + rows] = convert(part.reshape(-1, channels)).reshape(-1, width, 3)
    return made


@lru_cache(maxsize=32)
def _conversion(color: Color, channels: int) -> _Conversion | None:
    """From `color` to sRGB; None where it is sRGB already, broken, or of another kind of pixels."""
    if isinstance(color, bytes):
        convert = _by_profile(color, channels)
    else:
        convert = _by_numbers(color) if channels != 4 else None
    if convert is None or channels == 4:
        return convert
    steps = np.linspace(0, 255, 256 if channels == 1 else 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(*[steps] * channels), axis=-1).reshape(-1, channels)
    return None if np.abs(convert(grid).astype(int) - grid).max() <= 2 else convert


def _by_profile(profile: bytes, channels: int) -> _Conversion | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        mode = {(1, "GRAY"): "L", (1, "RGB"): "RGB", (3, "RGB"): "RGB", (4, "CMYK"): "CMYK"}.get((channels, space))
        if mode is None:
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    shown = len(PIL.Image.new(mode, (1, 1)).getbands())

    def convert(pixels: UInt8[np.ndarray, "n C"]) -> UInt8[np.ndarray, "n 3"]:
        wide = np.ascontiguousarray(np.broadcast_to(pixels, (len(pixels), shown)))
        image = PIL.Image.frombytes(mode, (len(pixels), 1), wide.tobytes())
        made = ImageCms.applyTransform(image, transform)
        assert made is not None  # only in place is it None
        return np.asarray(made).reshape(-1, 3)

    return convert


def _from_cmyk(pixels: UInt8[np.ndarray, "n 4"]) -> UInt8[np.ndarray, "n 3"]:
    """Without a profile: what ink leaves of light, as Pillow has it."""
    return np.asarray(PIL.Image.frombytes("CMYK", (len(pixels), 1), pixels.tobytes()).convert("RGB")).reshape(-1, 3)


def _by_numbers(light: Light) -> _Conversion:
    table = _linear(np.arange(256) / 255, light.transfer).astype(np.float32)
    matrix = _matrix(light.primaries).T.astype(np.float32)
    luminance = _to_xyz(light.primaries)[1].astype(np.float32)
    codes = _encoded(np.linspace(0, 1, 2**14))

    def convert(pixels: UInt8[np.ndarray, "n C"]) -> UInt8[np.ndarray, "n 3"]:
        linear = np.broadcast_to(table[pixels], (len(pixels), 3))
        if (
            isinstance(light.transfer, int) and light.transfer == _HLG
        ):  # the system's gamma of 1.2, for a display of 1,000 cd/m2 (BT.2100)
            linear = linear * ((linear @ luminance)[:, None] ** 0.2 * (1000 / _PAPER))
        return np.take(codes, (np.clip(linear @ matrix, 0, 1) * (len(codes) - 1) + 0.5).astype(np.int32))

    return convert


def _pq(v: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """SMPTE ST 2084: code -> light, 1 for the white of paper."""
    power = v ** (1 / 78.84375)
    return (
        10_000 / _PAPER * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
    )


def _hlg(v: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """ARIB STD-B67: code -> light of the scene, 0 to 1."""
    return np.where(v <= 0.5, v * v / 3, (np.exp((v - 0.55991073) / 0.17883277) + 0.28466892) / 12)


_CURVES: dict[int, Callable[[Float64[np.ndarray, "*n"]], Float64[np.ndarray, "*n"]]] = {
    4: lambda v: v**2.2,
    5: lambda v: v**2.8,
    8: lambda v: v,
    9: lambda v: np.where(v > 0, 10 ** (2 * (v - 1)), 0),
    10: lambda v: np.where(v > 0, 10 ** (2.5 * (v - 1)), 0),
    _PQ: _pq,
    17: lambda v: 52.37 / 48 * v**2.6,
    _HLG: _hlg,
}


def _linear(v: Float64[np.ndarray, "*n"], transfer: int | float) -> Float64[np.ndarray, "*n"]:
    if isinstance(transfer, float):
        return v**transfer
    if transfer in _CURVES:
        return _CURVES[transfer](v)
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def _encoded(linear: Float64[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n"]:
    """IEC 61966-2-1."""
    v = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    codes: UInt8[np.ndarray, "*n"] = np.asarray(v * 255 + 0.5).astype(np.uint8)
    return codes


def _matrix(primaries: tuple[float, ...]) -> Float64[np.ndarray, "3 3"]:
    """Linear RGB of these primaries -> linear sRGB, white to white (Bradford's adaptation)."""
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    ours, theirs = _to_xyz(PRIMARIES[1]), _to_xyz(primaries)
    gain = (bradford @ ours.sum(axis=1)) / (bradford @ theirs.sum(axis=1))
    matrix: Float64[np.ndarray, "3 3"] = np.linalg.inv(bradford @ ours) @ np.diag(gain) @ bradford @ theirs
    return matrix


def _to_xyz(primaries: tuple[float, ...]) -> Float64[np.ndarray, "3 3"]:
    """Linear RGB -> XYZ, white at Y = 1."""
    x, y = np.array(primaries, np.float64).reshape(4, 2).T
    columns = np.stack([x, y, 1 - x - y])
    white = columns[:, 3] / y[3]
    scales: np.ndarray = np.linalg.solve(columns[:, :3], white)
    return np.asarray(columns[:, :3] * scales)


def from_lab(lab: Float32[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """CIE L* (0 to 100), a*, b* under D50 -> sRGB."""
    f = (lab[:, :, :1] + 16) / 116 + np.stack([lab[:, :, 1] / 500, 0 * lab[:, :, 1], -lab[:, :, 2] / 200], axis=2)
    xyz = np.where(f > 6 / 29, f**3, (f - 4 / 29) * (108 / 841))
    linear = xyz @ _matrix((1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.3457, 0.3585)).T  # XYZ as the primaries, D50 as white
    return _encoded(np.clip(linear, 0, 1).astype(np.float64))
