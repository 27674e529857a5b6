"""The page that the demonstration leaves: one HTML file, no network, images inside it.

`to_html` is a pure function of a `Page`; the command fills one and writes the text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lookalike.pages.render import render

METRICS = {"mp@5": "mP@5", "recall@1": "recall@1", "map@100": "mAP@100"}


@dataclass(frozen=True)
class Score:
    """How one way of describing an image did on classes that no training saw."""

    name: str
    """Shown in the table and the chart."""
    dimension: int
    """Numbers an image."""
    metrics: Mapping[str, float]
    """Unweighted mean over domains, keys of `METRICS`."""
    per_domain: Mapping[str, float]
    """mP@5 of each domain."""


@dataclass(frozen=True)
class Hit:
    """An image that a search returned."""

    jpeg: bytes
    label: str
    score: float
    """Cosine, -1 to 1."""
    right: bool
    """Whether it shows the same product as the query."""


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
    unseen: int
    """Products that only the test sees."""
    scores: Sequence[Score]
    """From the plainest way to the trained encoder; differences are shown from `baseline`."""
    baseline: int
    """Position in `scores` of the untrained tower."""
    curve: Sequence[tuple[int, float]]
    """(step, mP@5 on unseen products) as training went."""
    examples: Sequence[Example]
    seconds: Sequence[tuple[str, str, float]]
    """(command, what it did, seconds) in order."""
    own: Sequence[str]
    """The commands that do the same with one's own photos."""


def to_html(page: Page) -> str:
    """The page as one HTML document."""
    return render("demo.html", page=page, metrics=METRICS)
