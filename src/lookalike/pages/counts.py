"""What a collection is made of, as a picture: a bar for each domain, cut by splits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lookalike.pages.render import render

Counts = Mapping[str, Mapping[str, int]]  # domain -> split -> images


@dataclass(frozen=True)
class Part:
    """A piece of a bar."""

    split: str
    images: int
    width: float  # in percent of the longest bar


@dataclass(frozen=True)
class Bar:
    """A domain."""

    domain: str
    images: int
    classes: int
    share: float  # of all images, in percent
    parts: Sequence[Part]


def write_counts(title: str, counts: Counts, classes: Mapping[str, int], file: str) -> None:
    """The page: domains from the largest to the smallest."""
    from lookalike.core.files import write_bytes

    bars = bars_of(counts, classes)
    splits = sorted({part.split for bar in bars for part in bar.parts})
    page = render("counts.html", title=title, bars=bars, splits=splits, images=sum(bar.images for bar in bars))
    write_bytes(file, page.encode())


def bars_of(counts: Counts, classes: Mapping[str, int]) -> list[Bar]:
    """Bars whose lengths are to each other as the numbers of images."""
    sizes = {domain: sum(splits.values()) for domain, splits in counts.items()}
    longest, total = max(sizes.values(), default=1), max(sum(sizes.values()), 1)
    return [
        Bar(
            domain,
            sizes[domain],
            classes.get(domain, 0),
            100 * sizes[domain] / total,
            [Part(split, n, round(100 * n / longest, 3)) for split, n in sorted(counts[domain].items())],
        )
        for domain in sorted(sizes, key=lambda name: (-sizes[name], name))
    ]
