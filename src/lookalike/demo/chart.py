"""Two small charts as SVG text: grouped bars and a curve. Values lie between 0 and 1."""

import html
from collections.abc import Mapping, Sequence

_COLORS = ("var(--series-1)", "var(--series-2)", "var(--series-3)")  # told apart by lightness too, for the color-blind
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def bars(series: Mapping[str, Mapping[str, float]], label: str) -> str:
    """Horizontal bars: one group for each key of the inner mappings, one bar for each series, with its number."""
    if len(series) > len(_COLORS):
        raise ValueError(f"bars has colors for {len(_COLORS)} series, not for {len(series)}")
    groups = list(next(iter(series.values())))
    bar, gap, left, width = 16.0, 18.0, 110.0, 560.0
    block = bar * len(series) + gap
    height = block * len(groups) + 24
    marks = []
    for tick in _TICKS:
        x = left + width * tick
        marks += [_line(x, 0.0, x, height - 20), _text(x, height - 4, f"{tick:g}", "middle")]
    for row, group in enumerate(groups):
        top = row * block + gap / 2
        marks.append(_text(left - 10, top + bar * len(series) / 2 + 4, group, "end"))
        for position, (name, values) in enumerate(series.items()):
            value, y = values[group], top + position * bar
            title = html.escape(f"{name}, {group}: {value:.3f}")
            marks.append(
                f"<rect x='{left:.0f}' y='{y + 1:.0f}' width='{max(width * value, 1):.1f}' height='{bar - 2:.0f}' "
                f"rx='2' style='fill:{_COLORS[position]}'><title>{title}</title></rect>"
            )
            marks.append(_text(left + width * value + 6, y + bar - 4, f"{value:.2f}", "start", "value"))
    legend = "".join(
        f"<span><i style='background:{_COLORS[i]}'></i>{html.escape(n)}</span>" for i, n in enumerate(series)
    )
    return f"<p class=legend>{legend}</p>{_svg(left + width + 40, height, label, marks)}"


def curve(points: Sequence[tuple[int, float]], label: str) -> str:
    """A line through (step, value), each point with its number."""
    left, width, height = 44.0, 640.0, 200.0
    last = max(step for step, _ in points) or 1
    xs = [left + width * step / last for step, _ in points]
    ys = [10 + height * (1 - value) for _, value in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    marks = []
    for tick in _TICKS:
        y = 10 + height * (1 - tick)
        marks += [_line(left, y, left + width, y), _text(left - 8, y + 4, f"{tick:g}", "end")]
    marks.append(f"<polyline points='{path}'/>")
    for (step, value), x, y in zip(points, xs, ys, strict=True):
        marks.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='4'><title>step {step}: {value:.3f}</title></circle>")
        marks += [_text(x, height + 28, str(step), "middle"), _text(x, y - 9, f"{value:.2f}", "middle", "value")]
    return _svg(left + width + 24, height + 36, label, marks)


def _svg(width: float, height: float, label: str, marks: Sequence[str]) -> str:
    return (
        f"<svg viewBox='0 0 {width:.0f} {height:.0f}' role=img aria-label='{html.escape(label)}'>{''.join(marks)}</svg>"
    )


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f"<line x1='{x1:.0f}' y1='{y1:.0f}' x2='{x2:.0f}' y2='{y2:.0f}' class=grid />"


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' class='{kind}'>{html.escape(text)}</text>"
