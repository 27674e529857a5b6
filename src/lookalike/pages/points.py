"""Images as points on a plane, colored by group: an inline SVG that needs no script."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

SIDE, MARGIN = 720, 12  # pixels of the drawing
MOST = 20_000  # points that are drawn; of more, at equal distances through the rows
PALETTE = (
    *("#3b7dd8", "#d1603d", "#3f9b62", "#a45cc4", "#c79a1b", "#d0487f", "#2f9fa8", "#8a6d4b", "#6f7fe0", "#7a9a2a"),
    *("#b8574f", "#8b9098"),
)
"""Colors of the largest groups; the last one is of all others."""
COLORS = len(PALETTE) - 1


@dataclass(frozen=True)
class Points:
    """Points of one color; `path` draws each as a line without length, which its round ends make a dot."""

    name: str
    color: str
    count: int
    path: str


def points(places: Float[np.ndarray, "N 2"], groups: Sequence[str]) -> list[Points]:
    """The images at `places`, from -1 to 1 both ways, y downwards, by groups, the largest first."""
    counts = Counter(groups)
    largest = [name for name, _ in counts.most_common(COLORS)]
    number = {name: at for at, name in enumerate(largest)}
    code = np.array([number.get(name, COLORS) for name in groups])
    drawn = np.unique(np.linspace(0, len(groups) - 1, min(len(groups), MOST)).astype(np.int64))
    pixels = np.round(MARGIN + (SIDE - 2 * MARGIN) * (np.asarray(places, np.float64) + 1) / 2, 1)
    made = []
    for at, color in enumerate(PALETTE):
        name = largest[at] if at < len(largest) else "all others"
        mine = drawn[code[drawn] == at]
        if len(mine):
            path = "".join(f"M{x:g} {y:g}h0" for x, y in pixels[mine].tolist())
            made.append(Points(name, color, int((code == at).sum()), path))
    return made
