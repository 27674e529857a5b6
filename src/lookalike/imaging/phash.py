"""What an image looks like in 64 bits: nearly the same image has nearly the same bits. No model, no learning."""

from functools import cache

import numpy as np
import PIL.Image
from jaxtyping import Float32, UInt8

_SIDE = 32  # pixels to which an image is brought first, whatever its shape


def phash(image: UInt8[np.ndarray, "H W C"]) -> int:
    """The perceptual hash of a gray or RGB image, as a signed 64-bit number (Zauner, 2010, "Implementation and
    Benchmarking of Perceptual Image Hash Functions", section 3.2.1).

    The 64 lowest frequencies of a discrete cosine transform of 32 x 32 gray pixels, without the mean: a bit for each
    that lies above their median. The first bit, the mean's, is 0.
    """
    gray = PIL.Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).convert("L")
    pixels = np.asarray(gray.resize((_SIDE, _SIDE), PIL.Image.Resampling.BILINEAR, reducing_gap=2.0), np.float32)
    waves = _waves()
    low = (waves @ pixels @ waves.T).ravel()
    low[np.abs(low) < 1.0] = 0.0  # rounding: a blank image has no bits, and not those of its noise
    bits = low > np.median(low[1:])
    bits[0] = False
    return int(np.packbits(bits).view(">i8")[0])


@cache
def _waves() -> Float32[np.ndarray, "8 32"]:
    """The first eight rows of the DCT-II of 32 values."""
    wave, place = np.arange(8)[:, None], np.arange(_SIDE)[None]
    return np.cos(np.pi * wave * (2 * place + 1) / (2 * _SIDE)).astype(np.float32)
