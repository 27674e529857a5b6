"""The page that the demonstration leaves, one HTML file, and the plain baseline that it compares with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from lookalike.core.shapes import Image
from lookalike.pages.render import render
from lookalike.pages.report import Hit

METRICS = {"mp@5": "mP@5", "recall@1": "recall@1", "map@100": "mAP@100"}


@dataclass(frozen=True)
class Score:
    """How one way of describing an image did on classes that no training saw."""

    name: str
    dimension: int
    metrics: Mapping[str, float]  # unweighted mean over domains, keys of `METRICS`
    per_domain: Mapping[str, float]  # mP@5


@dataclass(frozen=True)
class Example:
    """A query and its nearest images, best first."""

    jpeg: bytes
    label: str
    hits: Sequence[Hit]


@dataclass(frozen=True)
class Page:
    """All that the page tells."""

    images: int
    products: int
    unseen: int  # products that only the test sees
    scores: Sequence[Score]  # of a plain way, the untrained tower, and the trained encoder
    curve: Sequence[tuple[int, float]]  # (step, mP@5 on unseen products) as training went
    examples: Sequence[Example]
    seconds: Sequence[tuple[str, str, float]]  # (command, what it did, seconds) in order
    own: Sequence[str]  # the commands that do the same with one's own photos
    chosen_on: bool = False  # whether the settings of the training were chosen on these very products


def to_html(page: Page) -> str:
    """The page as one HTML document."""
    return render("demo.html", page=page, metrics=METRICS)


def histogram(image: Image) -> Float32[np.ndarray, "64"]:
    """The square roots of the shares of 4 x 4 x 4 colors in `image`: a vector of unit length.

    Swain & Ballard, "Color Indexing" (1991), compare such counts by their intersection; the square root turns the
    comparison into a cosine (the Bhattacharyya coefficient), so that it is searched like any embedding.
    """
    counts = np.bincount((image // 64 @ np.array([16, 4, 1])).ravel(), minlength=64)
    shares: np.ndarray = np.sqrt(counts / counts.sum()).astype(np.float32)
    return shares
