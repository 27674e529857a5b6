"""What an evaluation found: single queries, their means and intervals, as a document and as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64, Shaped

from lookalike.core.journal import frame_of, html_table, table
from lookalike.evaluation.intervals import half_width
from lookalike.evaluation.roles import Codes
from lookalike.evaluation.trials import First

if TYPE_CHECKING:
    from lookalike.evaluation.differences import Difference

_ASKED = ("dimension", "n_ties", "confusion", "calibration", "bootstrap", "curve", "approximate")


@dataclass(frozen=True)
class PerQuery:
    """What the queries that count found: by the keys of `METRICS`, one value each."""

    values: Mapping[str, Float64[np.ndarray, "Q"]]
    domain: Shaped[np.ndarray, "Q"]  # its name
    label: Codes  # a number for each (domain, label)
    rows: Codes | None = None  # the queries' places among all rows by id
    first: First | None = None  # the first match of each; its rows are places as well, -1 for a distractor

    def summary(self) -> dict[str, Any]:
        """The means and intervals of a `Report`, as its fields."""
        per_domain: dict[str, dict[str, float | int]] = {}
        sure: dict[str, dict[str, float | None]] = {}
        for domain in sorted(set(self.domain.tolist())):
            mine = self.domain == domain
            per_domain[domain] = {name: float(values[mine].mean()) for name, values in self.values.items()}
            per_domain[domain]["n_queries"] = int(mine.sum())
            sure[domain] = self.only(domain).sure()
        return {
            "metrics": {name: float(np.mean([values[name] for values in per_domain.values()])) for name in self.values},
            "half_width": self.sure(),
            "metrics_by_query": {name: float(values.mean()) for name, values in self.values.items()},
            "per_domain": per_domain,
            "half_width_per_domain": sure,
        }

    def only(self, domain: str) -> "PerQuery":
        """The queries of one domain."""
        return self.where(self.domain == domain)

    def where(self, mask: Bool[np.ndarray, "Q"]) -> "PerQuery":
        """Those of the mask."""
        rows = None if self.rows is None else self.rows[mask]
        first = None if self.first is None else self.first.take(mask)
        values = {name: value[mask] for name, value in self.values.items()}
        return PerQuery(values, self.domain[mask], self.label[mask], rows, first)

    def sure(self) -> dict[str, float | None]:
        """Half of the 95 % interval of each mean over domains."""
        return {name: half_width(values, self.label, self.domain) for name, values in self.values.items()}


@dataclass(frozen=True, repr=False)
class Report:
    """What an evaluation found.

    `metrics` are unweighted means over domains, `metrics_by_query` means over queries; both, and the values of
    `per_domain` beside its `n_queries`, have the keys of `metrics.METRICS`. 95 % intervals are a value and as much on
    both sides of it as `half_width` and `half_width_per_domain` say; None where there is a single class.

    >>> report = la.evaluate("model", "photos.coll", split="all")
    >>> [*report.per_domain], report.to_arrow().num_rows
    (['domain0', 'domain1'], 3)
    >>> difference = report - la.evaluate("other", "photos.coll", split="all")
    >>> sorted(difference.values) == sorted(report.metrics)
    True
    """

    metrics: Mapping[str, float]
    half_width: Mapping[str, float | None]
    metrics_by_query: Mapping[str, float]
    per_domain: Mapping[str, Mapping[str, float | int]]
    half_width_per_domain: Mapping[str, Mapping[str, float | None]]
    n_queries: int  # that count
    n_skipped: int  # queries left out because the gallery holds no relevant image
    protocol: str
    split: str
    definition: Mapping[str, str]  # what each number means, in words
    model: str | None  # fingerprint of the encoder; None for vectors made by anyone
    collection: str | None  # fingerprint of the collection; None for a table
    one_class: Sequence[str] = ()  # domains whose gallery is of one class
    leakage: Mapping[str, Any] | None = None  # what its queries share with training; see `leakage.with_leakage`
    dimension: int | None = None  # numbers of a vector
    n_ties: int | None = None  # queries in which ids decided what mP@5 counts; see `trials.First`
    confusion: Mapping[str, Mapping[str, int]] | None = None
    """Of queries whose first match is wrong: domain of the query -> domain of the match -> how many."""
    calibration: Mapping[str, Any] | None = None  # see `calibration.calibrate`
    bootstrap: Mapping[str, Any] | None = None  # see `bootstrap.intervals`
    curve: Sequence[Mapping[str, Any]] | None = None  # see `curve.curve`
    approximate: Mapping[str, Any] | None = None  # what a search that was not exact missed
    per_query: PerQuery | None = field(default=None, repr=False)  # what it was made from

    def to_json(self) -> dict[str, Any]:
        """The report as what `json` writes, without single queries; what was not asked for is left out."""
        return {
            name: value
            for name, value in vars(self).items()
            if name != "per_query" and (value is not None or name not in _ASKED)
        }

    def __sub__(self, other: "Report") -> "Difference":
        """What this one has more than `other`, of the same queries; UsageError if they are not the same."""
        from lookalike.evaluation.differences import Difference

        return Difference.of(self, other)

    def __repr__(self) -> str:
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in self.metrics.items())
        return f"Report({metrics}; {self.n_queries:,} queries of split {self.split!r})"

    def _repr_html_(self) -> str:
        return html_table(*self.rows())

    def to_arrow(self) -> pa.Table:
        """A row a domain, then their mean, as columns `domain`, the metrics and `n_queries`."""
        rows = [{"domain": name, **values} for name, values in self.per_domain.items()]
        return pa.Table.from_pylist([*rows, {"domain": None, **self.metrics, "n_queries": self.n_queries}])

    def to_pandas(self) -> Any:
        """The same as a pandas DataFrame; pandas must be installed."""
        return frame_of(self.to_arrow())

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Headers and lines of the table: a line a domain, then both means."""
        rows = [(name, values, f"{values['n_queries']:,}") for name, values in self.per_domain.items()]
        rows.append(("mean over domains", self.metrics, ""))
        cells = [[name, *(f"{values[m]:.4f}" for m in self.metrics), queries] for name, values, queries in rows]
        sure = ["" if half is None else f"\N{PLUS-MINUS SIGN}{half:.4f}" for half in self.half_width.values()]
        cells.append(["  95 % interval", *sure, ""])
        means = (f"{value:.4f}" for value in self.metrics_by_query.values())
        cells.append(["mean over queries", *means, f"{self.n_queries:,}"])
        return ["domain", *self.metrics, "queries"], cells

    def table(self) -> str:
        """The same as text, and what is to be said beside it."""
        lines = table(*self.rows())
        if self.n_skipped:
            lines += f"\n{self.n_skipped:,} queries without a relevant image in the gallery are left out"
        if self.n_ties:
            lines += (
                f"\n{self.n_ties:,} queries ({self.n_ties / self.n_queries:.1%}): the last match that mP@5 counts and "
                "the next one have the same score, and the lower id came first"
            )
        if self.one_class:
            lines += f"\n{_told_of_one_class(self.one_class, self.protocol)}"
        if single := self._of_one_class():
            lines += f"\nno 95 % interval: a single class of queries in {', '.join(single)}"
        if self.leakage is not None:
            lines += f"\n{self._leaked(self.leakage)}"
        return lines

    def _of_one_class(self) -> list[str]:
        """The domains whose queries are of one class, for which there is no interval."""
        return [name for name, half in self.half_width_per_domain.items() if None in half.values()]

    def _leaked(self, leakage: Mapping[str, Any]) -> str:
        same, near, more = leakage["same"], leakage["near"], leakage["embedding"]
        places = ", ".join(f"`{place}`" for place in leakage["learned_from"])
        words = f"no query looks like an image to learn from of {places}"
        if same + near:
            words = f"{same:,} queries are the same as an image to learn from of {places}, {near:,} nearly so"
            words += f"; without them: {_scores(leakage['metrics'])}"
        if more and more["queries"]:
            by = more["model"] or more["column"]
            words += f"\n{more['queries']:,} more are nearly so by the embeddings of `{by}` (cosine "
            words += f"{more['cosine']:.3f} or more); without these either: {_scores(more['metrics'])}"
        return words


def _told_of_one_class(domains: Sequence[str], protocol: str) -> str:
    words = "it measures nothing: every match is right, whatever the vectors"
    if protocol == "merged":
        words = "it measures nothing but whether the domain is told from others"
    return f"one class alone: {', '.join(domains)}; {words}"


def _scores(metrics: Mapping[str, float] | None) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()) if metrics else "nothing is left"
