"""Whether two images show the same pixels, or nearly so: encoded anew, cut at the sides, mirrored. No model."""

import itertools

import numpy as np
import PIL.Image
from jaxtyping import Float32, UInt8
from numpy.lib.stride_tricks import sliding_window_view

SIDE = 32  # pixels to which an image is brought, whatever its shape
SAME = 0.93
"""Least overlap of an image with a copy. Of 150 photographs cut by up to 15 % of each side, a third of them mirrored,
and encoded anew at quality 40, none had less than .955; of the 57 pairs whose vectors (ViT-Tiny) were nearest among
3,349 different ones 46 had less."""
ROUGHLY = 0.5
_SIDES = range(SIDE, 25, -1)  # what a cut may have left of them: four fifths at least

Small = Float32[np.ndarray, "32 32"]


def small(image: UInt8[np.ndarray, "H W C"]) -> Small:
    """The image as gray pixels for `overlap`."""
    gray = PIL.Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).convert("L")
    return np.asarray(gray.resize((SIDE, SIDE), PIL.Image.Resampling.BILINEAR, reducing_gap=2.0), np.float32)


def is_copy(one: Small, other: Small) -> bool:
    """Whether the overlap of two images is `SAME` or more.

    What differs already in 8 x 8 pixels is told at once: of 600 copies, cut and mirrored as above, two in three hundred
    have less than `ROUGHLY` there, and two thirds of the nearest pairs of others do.
    """
    rough = max(_correlation(_rough(each), _rough(other)) for each in (one, one[:, ::-1]))
    return rough >= ROUGHLY and overlap(one, other, SAME) >= SAME


def _rough(image: np.ndarray) -> np.ndarray:
    found: np.ndarray = image.reshape(8, SIDE // 8, 8, SIDE // 8).mean(axis=(1, 3))
    return found


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one - one.mean(), other - other.mean()
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float((one * other).sum()) / length if length > 1 else 0.0


def overlap(one: Small, other: Small, enough: float = 1.0) -> float:
    """The largest normalized cross-correlation of one image with a part of the other, or with a part of its mirror
    image: 1 if that part is the image, about 0 of two images that have nothing in common; 0 where one is blank.

    A part has four fifths of each side at least (Lewis, 1995, "Fast Normalized Cross-Correlation", eq. 2). The first
    part that reaches `enough` is taken.
    """
    pairs = ((one, other), (one[:, ::-1], other), (other, one), (other[:, ::-1], one))
    best = 0.0
    for part, whole in pairs:
        best = max(best, _inside(part, whole, enough))
        if best >= enough:
            break
    return best


def _inside(part: np.ndarray, whole: np.ndarray, enough: float = 1.0) -> float:
    """The largest correlation of `part`, made smaller, with what lies below it anywhere in `whole`."""
    best = 0.0
    image = PIL.Image.fromarray(np.ascontiguousarray(part))
    for height, width in sorted(itertools.product(_SIDES, _SIDES), key=lambda size: -size[0] * size[1]):
        shrunk = np.asarray(image.resize((width, height), PIL.Image.Resampling.BILINEAR))
        shrunk = shrunk - shrunk.mean()
        windows = sliding_window_view(whole, (height, width)).reshape(-1, height * width)
        windows = windows - windows.mean(axis=1, keepdims=True)
        length = np.linalg.norm(shrunk) * np.linalg.norm(windows, axis=1)
        scores = np.divide(windows @ shrunk.ravel(), length, out=np.zeros(len(windows), np.float32), where=length > 1)
        best = max(best, float(scores.max()))
        if best >= enough:
            break
    return best
