"""What the samples of a TIFF mean: depth, sign, predictor, planes, colours, alpha -> 8-bit pixels."""

import numpy as np
import PIL.Image
from jaxtyping import Shaped, UInt8

from lookalike.core.errors import ImageError
from lookalike.imaging.color import from_lab
from lookalike.imaging.raster import Rows, check_size
from lookalike.imaging.segments import lines_of
from lookalike.imaging.tags import Directory

INKS = {0: 1, 1: 1, 2: 3, 3: 1, 4: 1, 5: 4, 6: 3, 8: 3, 9: 3, 10: 3}
"""Photometric interpretation -> samples of a colour."""

_WHITES = (1.0, 255.0, 65_535.0, 2.0**31 - 1, 2.0**32 - 1)


class Samples:
    """The samples of a page; `rows` gives them as 8-bit pixels."""

    def __init__(self, data: bytes, page: Directory, width: int, height: int, photometric: int) -> None:
        self._photometric, self._width, self._height, self._page = photometric, width, height, page
        self._count = page.value(277, 1)
        bits, formats = set(page.values(258)[: self._count] or (1,)), set(page.values(339)[: self._count] or (1,))
        self._bits, self._format = max(bits), max(formats) if max(formats) != 4 else 1
        self._inks = INKS[photometric]
        check_size(width, height, -(-self._count * self._bits // 8))
        if len(bits) > 1 or len(formats) > 1 or not self._is_understood() or self._count < self._inks:
            raise ImageError(
                f"The TIFF has {self._count} samples a pixel of {sorted(bits)} bits, format {sorted(formats)}, "
                f"photometric {photometric}, which is not read: save it as 8 or 16 bits."
            )
        planes = self._count if page.value(284, 1) == 2 and self._count > 1 else 1
        extra = page.values(338)
        wanted = self._inks + (1 if extra[:1] in ((1,), (2,)) and self._count > self._inks else 0)
        self._alpha = extra[0] if wanted > self._inks else 0
        self._planes = [lines_of(data, page, plane, planes, self._bits) for plane in range(min(planes, wanted))]
        self._levels = self._measured() if self._is_measured() else None

    def _is_understood(self) -> bool:
        depths = {1: range(1, 33), 2: (8, 16, 32), 3: (16, 32, 64)}
        palette = self._photometric != 3 or (self._bits <= 16 and len(self._page.values(320)) >= 3 << self._bits)
        lab = self._photometric < 8 or (self._bits in (8, 16) and self._format in (1, 2))
        return self._bits in depths.get(self._format, ()) and palette and lab and self._page.value(332, 1) == 1

    def _is_measured(self) -> bool:
        """Whether the file does not say where white is: floats, signs, 32 bits."""
        return (self._format != 1 or self._bits > 24) and self._photometric not in (3, 8, 9, 10)

    def rows(self, start: int, stop: int) -> Rows:
        """Rows of 8-bit pixels, and alpha if there is one."""
        values = self._values(start, stop)
        extra = values[:, :, self._inks] if self._alpha else None
        alpha = None if extra is None else self._light(extra)
        pixels = self._pixels(values[:, :, : self._inks])
        if alpha is not None and self._alpha == 1:  # multiplied by it already
            share = np.maximum(alpha, 1)[:, :, None].astype(np.uint32)
            pixels = np.minimum((pixels * np.uint32(255) + share // 2) // share, 255).astype(np.uint8)
        return pixels, alpha

    def _pixels(self, values: Shaped[np.ndarray, "n W I"]) -> UInt8[np.ndarray, "n W C"]:
        match self._photometric:
            case 0:
                return 255 - self._light(values)
            case 3:
                colors = np.array(self._page.values(320)[: 3 << self._bits]).reshape(3, -1)
                colors = (colors if colors.max() < 256 else colors >> 8).astype(np.uint8).T
                return np.take(colors, values[:, :, 0], axis=0)
            case 6:
                flat = PIL.Image.frombytes("YCbCr", values.shape[1::-1], self._light(values).tobytes())
                return np.asarray(flat.convert("RGB"))
            case 8 | 9 | 10:
                return from_lab(_lab(values, self._bits, self._photometric))
            case _:
                return self._light(values)

    def _light(self, values: Shaped[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n"]:
        """Samples -> 0 (black) to 255."""
        if self._levels is None:
            white = 2**self._bits - 1
            if self._bits == 8:
                return values
            if self._bits > 16:
                return np.asarray(values.astype(np.float64) * (255 / white) + 0.5).astype(np.uint8)
            return np.take(((np.arange(white + 1) * 510 + white) // (2 * white)).astype(np.uint8), values)
        black, white, void = self._levels
        light = np.where(np.isfinite(values) & (values != void), values, black).astype(np.float64)
        return np.asarray(((light - black) * (255.0 / (white - black))).clip(0, 255) + 0.5).astype(np.uint8)

    def _measured(self) -> tuple[float, float, float]:
        """Black, white, and the value that means nothing, where the file does not say what white is.

        From 0 to the usual white that the greatest value comes near to; otherwise from the least to the greatest
        value: elevations, temperatures and depths are shown as shades.
        """
        words = self._page.text(42113).split(b"\0")[0]  # GDAL
        try:
            void = float(words) if words else np.nan
        except ValueError:
            void = np.nan
        least, most = np.inf, -np.inf
        for start in range(0, self._height, 256):
            values = self._values(start, min(start + 256, self._height))[:, :, : self._inks]
            there = values[np.isfinite(values) & (values != void)]
            if there.size:
                least, most = min(least, float(there.min())), max(most, float(there.max()))
        if least > most:
            return 0.0, 1.0, void
        near = [white for white in _WHITES if white / 4 < most <= white]
        if least >= 0 and near:
            return 0.0, near[0], void
        least = least if least < 0 or void == void else 0.0
        return least, most if most > least else least + 1.0, void

    def _values(self, start: int, stop: int) -> Shaped[np.ndarray, "n W S"]:
        """The samples of some rows, of each plane that is needed."""
        each = self._count if len(self._planes) == 1 and self._page.value(284, 1) != 2 else 1
        parts = [self._unpacked(plane(start, stop), each) for plane in self._planes]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)

    def _unpacked(self, lines: UInt8[np.ndarray, "n across bytes"], each: int) -> Shaped[np.ndarray, "n W S"]:
        bits, predictor = self._bits, self._page.value(317, 1) if self._page.value(259, 1) != 1 else 1
        order, kind = self._page.order, {1: "u", 2: "i", 3: "f"}[self._format]
        rows, across, length = lines.shape
        if predictor == 3:
            sums = np.cumsum(lines.reshape(rows, across, -1, each), axis=2, dtype=np.uint8)
            lines = sums.reshape(rows, across, bits // 8, -1).swapaxes(2, 3).reshape(lines.shape)
            order = ">"
        if bits in (8, 16, 32, 64):
            values = np.ascontiguousarray(lines).view(f"{order}{kind}{bits // 8}")
            values = values.astype(values.dtype.newbyteorder("="))
        else:
            count = length * 8 // (bits * each) * each
            split = np.unpackbits(lines, axis=2)[:, :, : count * bits].reshape(rows, across, count, bits)
            values = (split @ (1 << np.arange(bits - 1, -1, -1, dtype=np.uint32))).astype(np.uint32)
        values = values.reshape(rows, across, -1, each)
        if predictor == 2:
            values = np.cumsum(values, axis=2, dtype=values.dtype)
        return values.reshape(rows, -1, each)[:, : self._width]


def _lab(values: Shaped[np.ndarray, "n W 3"], bits: int, photometric: int) -> np.ndarray:
    """L* a* b*: TIFF's own has signed a and b, ICC's an offset of half; 16 bits have 256 steps for one of 8."""
    step = 1.0 if bits == 8 else 256.0
    plain = values.astype(np.float32) / step
    top = 255.0 if bits == 8 else (65_535 / 256 if photometric == 8 else 255.0)
    half = 2.0 ** (bits - 1) / step
    chroma = plain[:, :, 1:]
    chroma = np.where(chroma >= half, chroma - 2 * half, chroma) if photometric == 8 else chroma - 128.0
    return np.concatenate([plain[:, :, :1] * (100.0 / top), chroma], axis=2).astype(np.float32)
