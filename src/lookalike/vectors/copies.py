"""From which cosine on an encoder says that two images of a collection are nearly the same, measured on its own images.

Copies are made of some of them: encoded anew at half the quality, and without a tenth of their width and height. 95 %
of these copies have at least that cosine with what they were made of. Copies at half the size are not among them: the
perceptual hash finds those, and a tower that they leave without detail would draw the bar down to images that are
different.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from lookalike.core.journal import Progress
from lookalike.core.shapes import Ids, Image
from lookalike.data.collection import Collection
from lookalike.imaging.decode import QUALITY, decode, encode_jpeg
from lookalike.vectors.runtime import Embedder

SAMPLE = 128  # images that are copied
OTHERS = 2000  # images that are compared with each other
REACHED = 0.95  # share of the copies with at least that cosine
RARE = 0.999999  # share of the pairs of different images that lie below it
_ROUNDING = 1e-5  # of a cosine
_LOW_QUALITY, _CUT = 50, 0.05  # of the width and of the height, at each side


class Bar(NamedTuple):
    """The cosine from which on images are nearly the same: None where the encoder can't tell copies."""

    cosine: float | None
    copies: float  # the median cosine of copies with their images
    others: float  # what nearly all pairs of different images stay below


def copies(image: Image) -> list[bytes]:
    """The copies of an image, as JPEG: at a low quality; without its border."""
    y, x = (round(_CUT * side) for side in image.shape[:2])
    cut = np.ascontiguousarray(image[y : image.shape[0] - y, x : image.shape[1] - x])
    return [encode_jpeg(image, _LOW_QUALITY), encode_jpeg(cut, QUALITY)]


def bar_of(embedder: Embedder, collection: Collection, ids: Ids, vectors: Float32[np.ndarray, "N D"]) -> Bar:
    """The bar for the encoder's embeddings `vectors` of the rows `ids`, none of which look alike.

    It lies where `REACHED` of the copies are, and never below what `RARE` of the pairs of different images stay below.
    Each image's nearest is no such pair, for it may be a copy. Where pairs come as near as half of the copies, copies
    can't be told.
    """
    reached, median = levels_of_copies(embedder, collection, ids, vectors)
    below = rarely_reached(vectors)
    return Bar(max(reached, below) if below < median - _ROUNDING else None, median, below)


def levels_of_copies(
    embedder: Embedder, collection: Collection, ids: Ids, vectors: Float32[np.ndarray, "N D"]
) -> tuple[float, float]:
    """The cosine with their images that `REACHED` of the copies of some of these images have, and their median."""
    places, step = _spread(len(ids), SAMPLE), max(1, embedder.engine.batch // 2)  # an image has two copies
    cosines = list[np.ndarray]()
    with Progress("calibrate", "images", len(places)) as bar:
        for some in (places[i : i + step] for i in range(0, len(places), step)):
            stored = collection.take(ids[some], ["image"])["image"].to_pylist()
            made = embedder.embed([copy for data in stored for copy in copies(decode(data))])
            cosines.append(np.einsum("nd,nd->n", made, vectors[some].repeat(2, axis=0)))
            bar.advance(len(some))
    reached, median = np.quantile(np.concatenate(cosines), [1 - REACHED, 0.5], method="lower").tolist()
    return reached, median


def rarely_reached(vectors: Float32[np.ndarray, "N D"], share: float = RARE) -> float:
    """The cosine that `share` of the pairs of rows stay below, each row's nearest left out."""
    others = vectors[_spread(len(vectors), OTHERS)]
    pairs = others @ others.T
    np.fill_diagonal(pairs, -1)
    pairs[np.arange(len(pairs)), pairs.argmax(axis=1)] = -1
    return float(np.quantile(pairs, share, method="lower"))


def _spread(count: int, most: int) -> np.ndarray:
    return np.linspace(0, count - 1, min(count, most)).astype(int)
