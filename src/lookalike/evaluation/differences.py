"""Reports beside each other: how far apart encoders are on the same queries, and how sure that is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from lookalike.core.errors import UsageError
from lookalike.core.journal import html_table, table
from lookalike.evaluation.bootstrap import interval, sign_test
from lookalike.evaluation.intervals import NORMAL, half_width
from lookalike.evaluation.report import PerQuery, Report


@dataclass(frozen=True, repr=False)
class Difference:
    """What one report has more than another of the same queries, means over domains, by the keys of `METRICS`.

    The 95 % interval is the value and as much on both sides as `half_width` says, over classes, paired by queries; None
    where a domain has a single class. `p` is the two-sided probability of so large a difference between encoders that
    are equally good, by the normal distribution, whose standard error the interval has.
    """

    values: Mapping[str, float]
    half_width: Mapping[str, float | None]
    p: Mapping[str, float | None]
    per_domain: Mapping[str, Mapping[str, float]]
    drawn: Mapping[str, Sequence[float]] | None = None  # low and high by draws, where those were asked for

    @classmethod
    def of(cls, one: Report, other: Report, draws: int = 0) -> "Difference":
        """`one` - `other`; UsageError if their queries are not the same."""
        a, b = one.per_query, other.per_query
        alike = (one.protocol, one.split, one.collection) == (other.protocol, other.split, other.collection)
        if a is None or b is None or not alike or not _same(a.rows, b.rows):
            raise UsageError(
                "The reports are of other queries, so that their difference says nothing of encoders.",
                hint="evaluate both on the same collection, split and protocol",
            )
        return cls.between(a, b, draws)

    @classmethod
    def between(cls, one: PerQuery, other: PerQuery, draws: int = 0) -> "Difference":
        """The same of what single queries found, which are the same ones in the same order.

        With `draws`, intervals are percentiles of as many draws of classes, and p is of as many draws of signs.
        """
        apart = {name: values - other.values[name] for name, values in one.values.items()}
        half = {name: half_width(values, one.label, one.domain) for name, values in apart.items()}
        domains = {
            domain: {name: float(each[one.domain == domain].mean()) for name, each in apart.items()}
            for domain in sorted(set(one.domain.tolist()))
        }
        values = {name: float(np.mean([means[name] for means in domains.values()])) for name in apart}
        if not draws or None in half.values():
            return cls(values, half, {name: _p(value, half[name]) for name, value in values.items()}, domains)
        drawn = {name: interval(v, one.label, one.domain, draws) for name, v in apart.items()}
        p: dict[str, float | None] = {name: sign_test(v, one.label, one.domain, draws) for name, v in apart.items()}
        return cls(values, half, p, domains, drawn)

    def interval(self, name: str) -> tuple[float, float] | None:
        """The 95 % interval of a metric, from low to high; None where a domain has a single class."""
        half = self.half_width[name]
        if half is None:
            return None
        if self.drawn is not None:
            low, high = self.drawn[name]
            return low, high
        return self.values[name] - half, self.values[name] + half

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Headers and lines: a line a domain, then the mean, its interval and its p."""
        body = [[name, *(f"{value:+.4f}" for value in values.values())] for name, values in self.per_domain.items()]
        body.append(["mean over domains", *(f"{value:+.4f}" for value in self.values.values())])
        halves = ("" if half is None else f"\N{PLUS-MINUS SIGN}{half:.4f}" for half in self.half_width.values())
        body.append(["  95 % interval", *halves])
        body.append(["  p", *("" if p is None else f"{p:.2g}" for p in self.p.values())])
        return ["difference", *self.values], body

    def table(self) -> str:
        """As text."""
        return table(*self.rows())

    def __repr__(self) -> str:
        return f"Difference({', '.join(f'{name} {value:+.4f}' for name, value in self.values.items())})"

    def _repr_html_(self) -> str:
        return html_table(*self.rows())


@dataclass(frozen=True)
class Cost:
    """What an encoder costs: bytes of a vector as float32, and milliseconds an image where any was embedded now."""

    dimension: int
    milliseconds: float | None = None

    @property
    def bytes(self) -> int:
        """Of one vector."""
        return 4 * self.dimension


@dataclass(frozen=True, repr=False)
class Comparison:
    """Several reports of the same queries, by name."""

    reports: Mapping[str, Report]
    costs: Mapping[str, Cost] = field(default_factory=dict)
    draws: int = 0  # intervals and p by so many draws instead of the closed form

    def pairs(self) -> dict[tuple[str, str], Difference]:
        """Of each two the difference, in their order: (a, b) -> a - b, where a was given before b."""
        return {(a, b): self._apart(a, b) for a, b in combinations(self.reports, 2)}

    def _apart(self, one: str, other: str) -> Difference:
        return Difference.of(self.reports[one], self.reports[other], self.draws)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Headers and lines: a line a report, and what each has more than the first, with intervals and p."""
        first, *others = self.reports
        names = [*self.reports[first].metrics]
        body = [[first, *(f"{value:.4f}" for value in self.reports[first].metrics.values()), *self._cost(first)]]
        for other in others:
            apart = self._apart(other, first)
            values = self.reports[other].metrics.values()
            body.append([other, *(f"{value:.4f}" for value in values), *self._cost(other)])
            body.append([f"  - {first}", *(_words(apart, name) for name in names), *[""] * len(self._cost(other))])
        return ["", *names, *(["numbers", "bytes", "ms an image"] if self.costs else [])], body

    def _cost(self, name: str) -> list[str]:
        if not self.costs:
            return []
        cost = self.costs[name]
        return [str(cost.dimension), str(cost.bytes), "" if cost.milliseconds is None else f"{cost.milliseconds:.1f}"]

    def table(self) -> str:
        """As text."""
        return table(*self.rows())

    def to_json(self) -> dict[str, Any]:
        """The metrics of each, and of each pair the differences a - b with 95 % interval and p; a came before b."""
        models = [
            {"name": name, "dimension": report.dimension, "metrics": dict(report.metrics)}
            for name, report in self.reports.items()
        ]
        pairs = []
        for (a, b), apart in self.pairs().items():
            for metric, value in apart.values.items():
                low, high = apart.interval(metric) or (None, None)
                told = {"a": a, "b": b, "metric": metric, "difference": value, "low": low, "high": high}
                pairs.append({**told, "p": apart.p[metric]})
        return {"models": models, "pairs": pairs}

    def __repr__(self) -> str:
        return f"Comparison of {', '.join(self.reports)}"

    def _repr_html_(self) -> str:
        return html_table(*self.rows())


def _same(one: "np.ndarray | None", other: "np.ndarray | None") -> bool:
    return one is not None and other is not None and np.array_equal(one, other)


def _p(value: float, half: float | None) -> float | None:
    if half is None:
        return None
    if half == 0:
        return 1.0 if value == 0 else 0.0
    return math.erfc(abs(value) * NORMAL / half / math.sqrt(2))


def _words(apart: Difference, name: str) -> str:
    half, p, interval = apart.half_width[name], apart.p[name], apart.interval(name)
    if apart.drawn is not None and interval is not None:
        return f"{apart.values[name]:+.4f} ({interval[0]:+.4f} to {interval[1]:+.4f}), p {p:.2g}"
    sure = "" if half is None else f" \N{PLUS-MINUS SIGN}{half:.4f}, p {p:.2g}"
    return f"{apart.values[name]:+.4f}{sure}"
