"""Numbers as a document for programs and a table for people."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped

from lookalike.core.journal import table


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    `metrics` are unweighted means over domains, `metrics_by_query` means over queries; both, and the values of
    `per_domain` beside its `n_queries`, have the keys of `metrics.METRICS`.
    """

    metrics: Mapping[str, float]
    metrics_by_query: Mapping[str, float]
    per_domain: Mapping[str, Mapping[str, float | int]]
    n_queries: int
    """Queries that count."""
    n_skipped: int
    """Queries left out because the gallery holds no relevant image."""
    protocol: str
    split: str
    definition: Mapping[str, str]
    """What each number means, in words."""
    model: str | None
    """Fingerprint of the encoder; None for vectors made by anyone."""
    collection: str | None
    """Fingerprint of the collection; None for a table."""

    def to_json(self) -> dict[str, Any]:
        """The report as what `json` writes."""
        return asdict(self)

    def table(self) -> str:
        """A line a domain, then both means."""
        rows = [(name, values, f"{values['n_queries']:,}") for name, values in self.per_domain.items()]
        rows.append(("mean over domains", self.metrics, ""))
        rows.append(("mean over queries", self.metrics_by_query, f"{self.n_queries:,}"))
        cells = [[name, *(f"{values[m]:.4f}" for m in self.metrics), queries] for name, values, queries in rows]
        lines = table(["domain", *self.metrics, "queries"], cells)
        if self.n_skipped:
            lines += f"\n{self.n_skipped:,} queries without a relevant image in the gallery are left out"
        return lines


def summarize(
    per_query: Mapping[str, Float64[np.ndarray, "Q"]], domains: Shaped[np.ndarray, "Q"]
) -> tuple[dict[str, float], dict[str, float], dict[str, dict[str, float | int]]]:
    """Means over domains, means over queries, and means per domain with its number of queries."""
    per_domain: dict[str, dict[str, float | int]] = {}
    for domain in sorted(set(domains.tolist())):
        mine = domains == domain
        per_domain[domain] = {name: float(values[mine].mean()) for name, values in per_query.items()}
        per_domain[domain]["n_queries"] = int(mine.sum())
    by_domain = {name: float(np.mean([values[name] for values in per_domain.values()])) for name in per_query}
    by_query = {name: float(values.mean()) for name, values in per_query.items()}
    return by_domain, by_query, per_domain
