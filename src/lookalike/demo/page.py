"""The page that the demonstration leaves: one HTML file, no network, images inside it.

`render` is a pure function of a `Page`; the command fills one and writes the text.
"""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lookalike.demo.chart import bars, curve
from lookalike.demo.style import STYLE

METRICS = {"mp@5": "mP@5", "recall@1": "recall@1", "map@100": "mAP@100"}


@dataclass(frozen=True)
class Score:
    """How one way of describing an image did on classes that no training saw."""

    name: str
    """Shown in the table and the chart."""
    numbers: int
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


def render(page: Page) -> str:
    """The page as one HTML document."""
    trained, untrained = page.scores[-1], page.scores[page.baseline]
    lead = (
        f"{page.images} drawn images of {page.products} made-up products. A small network learned from "
        f"{page.products - page.unseen} of them, starting from random numbers; everything below is measured on the "
        f"other {page.unseen}, which it has never seen. Of the five nearest images, the share that shows the same "
        f"product went from {untrained.metrics['mp@5']:.2f} before training to {trained.metrics['mp@5']:.2f} after it."
    )
    parts = [
        f"<h1>Images of the same thing, next to each other</h1><p class=lead>{lead}</p>",
        _section("How good is it?", _table(page), _chart(page.scores)),
        _section("How it learned", _curve(page.curve)),
        _section("What it finds", _examples(page.examples)),
        _section("What ran", _seconds(page.seconds)),
        _section("Now your own photos", _own(page.own)),
    ]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>lookalike: the demonstration</title><style>{STYLE}</style><main>{''.join(parts)}</main></html>\n"
    )


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{title}</h2>{''.join(parts)}</section>"


def _table(page: Page) -> str:
    base = page.scores[page.baseline].metrics
    head = "".join(f"<th>{name}</th>" for name in METRICS.values())
    rows = []
    for position, score in enumerate(page.scores):
        cells = "".join(
            f"<td>{_with_difference(score.metrics[key], base[key], position == page.baseline)}</td>" for key in METRICS
        )
        chosen = " class=chosen" if position == len(page.scores) - 1 else ""
        rows.append(f"<tr{chosen}><th scope=row>{html.escape(score.name)}</th><td>{score.numbers:,}</td>{cells}</tr>")
    return (
        "<p>Each image of an unseen product is searched among all the others. <b>mP@5</b>: how many of the first "
        "five are the same product (of as many as there are, at most five). <b>recall@1</b>: how often the very first "
        "is. <b>mAP@100</b>: the whole order of the first hundred. 1 is perfect; small figures are differences from "
        "the untrained network.</p>"
        f"<div class=scroll><table><thead><tr><th>described by</th><th>numbers an image</th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _with_difference(value: float, base: float, is_base: bool) -> str:
    if is_base:
        return f"{value:.3f}"
    change = value - base
    kind = "up" if change > 0 else "down"
    return f"{value:.3f} <small class={kind}>{change:+.3f}</small>"


def _chart(scores: Sequence[Score]) -> str:
    drawing = bars({score.name: score.per_domain for score in scores}, "mP@5 of each kind of product")
    return f"<h3>mP@5, each kind of product</h3>{drawing}"


def _curve(points: Sequence[tuple[int, float]]) -> str:
    drawing = curve(points, "mP@5 by training step")
    words = "mP@5 on the unseen products after so many training steps. Step 0 is the untrained network."
    return f"<p>{words}</p><div class=curve>{drawing}</div>"


def _examples(examples: Sequence[Example]) -> str:
    words = (
        "Left the query, then its five nearest images among all the test images, with their cosine. The queries "
        "are taken at equal distances through the list, not picked."
    )
    return f"<p>{words}</p>{''.join(_row(example) for example in examples)}"


def _row(example: Example) -> str:
    query = _figure("query", example.jpeg, f"query: {example.label}", _short(example.label))
    hits = "".join(
        _figure(
            "right" if hit.right else "wrong",
            hit.jpeg,
            hit.label,
            f"{'same' if hit.right else 'other'} · {hit.score:.2f}",
        )
        for hit in example.hits
    )
    return f"<div class=row>{query}<span class=arrow aria-hidden=true>→</span>{hits}</div>"


def _figure(kind: str, jpeg: bytes, alternative: str, caption: str) -> str:
    address = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    image = f"<img src='{address}' alt='{html.escape(alternative, quote=True)}' loading=lazy>"
    return f"<figure class={kind}>{image}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _short(label: str) -> str:
    return label.rsplit("/", 1)[-1].replace("_", " ")


def _seconds(steps: Sequence[tuple[str, str, float]]) -> str:
    rows = "".join(
        f"<tr><td class=words>{html.escape(words)}<br><code>{html.escape(command)}</code></td>"
        f"<td>{seconds:.1f} s</td></tr>"
        for command, words, seconds in steps
    )
    head = "<thead><tr><th>step and command</th><th>time</th></tr></thead>"
    total = sum(seconds for _, _, seconds in steps)
    foot = f"<tfoot><tr><th>together</th><td>{total:.0f} s</td></tr></tfoot>"
    return f"<div class=scroll><table>{head}<tbody>{rows}</tbody>{foot}</table></div>"


def _own(commands: Sequence[str]) -> str:
    text = "\n".join(html.escape(command) for command in commands)
    return (
        "<p>The same with a folder of yours: one sub-folder for each thing, a few images of it inside.</p>"
        f"<pre><code>{text}</code></pre>"
    )
