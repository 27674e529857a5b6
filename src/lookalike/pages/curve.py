"""Curves over steps, as what an inline SVG needs: points in pixels and labelled ticks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, LEFT = 640, 160, 64  # pixels of the plot, and where it begins
MOST = 400  # points; of more, means of neighbours are drawn


@dataclass(frozen=True)
class Curve:
    """A line, drawn from the left: y grows downwards."""

    title: str
    points: str  # "x,y x,y"
    across: Sequence[tuple[float, str]]  # x and label
    up: Sequence[tuple[float, str]]  # y and label
    base: float | None  # y of a level to compare with
    last: str  # the last value


def curve(title: str, values: Sequence[tuple[int, float]], base: float | None = None) -> Curve:
    """The line through (step, value); `base` is a level that is drawn across. At least one value is needed."""
    drawn = _thinned(values)
    heights = [value for _, value in drawn] + ([] if base is None else [base])
    ups, across = ticks(min(heights), max(heights)), ticks(0.0, float(max(values[-1][0], 1)))
    low, high, end = min(heights + ups), max(heights + ups), max(drawn[-1][0], 1)

    def x(step: int | float) -> float:
        return round(LEFT + WIDTH * step / end, 1)

    def y(value: float) -> float:
        return round(10 + HEIGHT * (high - value) / (high - low), 1)

    return Curve(
        title,
        " ".join(f"{x(step)},{y(value)}" for step, value in drawn),
        [(x(step), f"{step:,.0f}") for step in across if step <= end and step == round(step)],
        [(y(value), f"{value:.4g}") for value in ups],
        None if base is None else y(base),
        f"{values[-1][1]:.4g}",
    )


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers around `low` to `high`: multiples of 1, 2 or 5 times a power of ten."""
    span = high - low
    if span < 1e-9 * max(1.0, abs(low), abs(high)):  # flat, but for rounding
        span = abs(high) if abs(high) > 1e-9 else 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 12) for i in range(first, max(last, first + 1) + 1)]


def _thinned(values: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Means of as many neighbours as leave `MOST` points; a mean stands at its last step."""
    each = -(-len(values) // MOST)
    parts = [values[i : i + each] for i in range(0, len(values), each)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]
