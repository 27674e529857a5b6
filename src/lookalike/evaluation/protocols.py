"""Who is searched in what: which rows are queries, what is their gallery, what must not be found; and the report."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Float32, Float64, Int64, Shaped

from lookalike.core.errors import CollectionError, UsageError
from lookalike.core.journal import html_table, table
from lookalike.core.shapes import l2_normalize
from lookalike.data.collection import Collection
from lookalike.evaluation.intervals import half_width
from lookalike.evaluation.metrics import METRICS
from lookalike.evaluation.trials import Same, Trial

if TYPE_CHECKING:
    from lookalike.evaluation.differences import Difference

Codes = Int64[np.ndarray, "N"]

COLUMNS = ("id", "label", "domain", "split", "group", "is_query", "is_gallery")
EVERY = "all"  # the split that takes every row, whatever split it is in
NO_DOMAIN = "none"


@dataclass(frozen=True)
class PerQuery:
    """What the queries that count found: by the keys of `METRICS`, one value each."""

    values: Mapping[str, Float64[np.ndarray, "Q"]]
    domain: Shaped[np.ndarray, "Q"]  # its name
    label: Codes  # a number for each (domain, label)
    rows: Codes | None = None  # the queries' places among all rows by id

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
        return PerQuery({name: v[mask] for name, v in self.values.items()}, self.domain[mask], self.label[mask], rows)

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
    one_class: list[str] = field(default_factory=list)  # domains whose gallery is of one class
    leakage: Mapping[str, Any] | None = None  # what its queries share with training; see `leakage.with_leakage`
    per_query: PerQuery | None = field(default=None, repr=False)  # what it was made from

    def to_json(self) -> dict[str, Any]:
        """The report as what `json` writes, without single queries."""
        return {name: value for name, value in vars(self).items() if name != "per_query"}

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
        return self.to_arrow().to_pandas()

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
        if self.one_class:
            lines += f"\n{_told_of_one_class(self.one_class, self.protocol)}"
        if self.leakage is not None:
            lines += f"\n{self._leaked(self.leakage)}"
        return lines

    def _leaked(self, leakage: Mapping[str, Any]) -> str:
        same, near, more = leakage["same"], leakage["near"], leakage["embedding"]
        places = ", ".join(f"`{place}`" for place in leakage["learned_from"])
        words = f"no query looks like an image to learn from of {places}"
        if same + near:
            words = f"{same:,} queries are the same as an image to learn from of {places}, {near:,} nearly so"
            words += f"; without them: {_scores(leakage['metrics'])}"
        if more and more["queries"]:
            words += f"\n{more['queries']:,} more are nearly so by the embeddings of `{more['model']}` (cosine "
            words += f"{more['cosine']:.3f} or more); without these either: {_scores(more['metrics'])}"
        return words


def _scores(metrics: Mapping[str, float] | None) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()) if metrics else "nothing is left"


def evaluate(
    vectors: Float[np.ndarray, "N D"],
    rows: Collection | pa.Table,
    split: str = "test",
    protocol: str = "merged",
    *,
    model: str | None = None,
) -> Report:
    """How well the vectors bring images of one label together.

    Every query of the split is searched, by cosine, among the gallery rows of the split. Relevant is what has the
    query's domain and label. The query itself and the rows of its group are left out of its gallery by id; rows
    without a label are never relevant, and their queries are left out.

    Args:
        vectors: Row i belongs to the i-th row by id. They are brought to unit length here.
        rows: A collection, or a table with the columns `id` and `label` and, if it has them, `domain`, `split`,
            `group`, `is_query`, `is_gallery`.
        split: Which rows take part; "all" takes every row.
        protocol: A key of `PROTOCOLS`: "merged" searches one index of all domains, "separate" each domain in its own.
        model: Fingerprint of what made the vectors, for the report.

    Raises:
        UsageError: The number of vectors is not that of the rows, a number is not finite, the split or the protocol
            is unknown, or no query has a relevant image.
        CollectionError: A needed column is missing.
    """
    roles = Roles.of(rows, split)
    images = roles.images(vectors)
    return report(
        images.take(roles.is_query),
        images.take(roles.is_gallery),
        roles.names,
        protocol,
        {
            "relevant": "gallery images of the query's domain and label (n_q of them), "
            "itself and its group left out by id",
            "n_skipped": "queries with n_q = 0, which are left out",
        },
        split=split,
        model=model,
        collection=None if isinstance(rows, pa.Table) else rows.fingerprint,
    )


@dataclass(frozen=True)
class Rows:
    """Queries, or a gallery: vectors of length 1, and for each a number of its label, domain, group and id, or -1."""

    vectors: Float32[np.ndarray, "N D"]
    label: Codes
    domain: Codes
    group: Codes
    id: Codes

    def take(self, mask: Bool[np.ndarray, "N"]) -> "Rows":
        """Those of `mask`; without a copy, if they are all."""
        return self if mask.all() else Rows(*(getattr(self, each.name)[mask] for each in fields(self)))


@dataclass(frozen=True)
class Protocol:
    """How queries and gallery rows are divided into trials."""

    words: str  # what is searched
    part: Callable[[Rows], Codes]  # the trial of each row, as a number

    def trials(self, queries: Rows, gallery: Rows) -> Iterator[tuple[Bool[np.ndarray, "Q"], Trial]]:
        """Which of the queries are in it, and the trial, one after the other."""
        for part in sorted(set(self.part(queries).tolist())):  # np.unique would import numpy.ma
            mine = self.part(queries) == part
            q, g = queries.take(mine), gallery.take(self.part(gallery) == part)
            excluded = (Same(q.id, g.id), Same(q.group, g.group))
            yield mine, Trial(q.vectors, g.vectors, Same(q.label, g.label), excluded)


PROTOCOLS = {
    "merged": Protocol("one index of all domains", lambda rows: np.zeros_like(rows.domain)),
    "separate": Protocol("an index for each domain", lambda rows: rows.domain),
}


def report(
    queries: Rows, gallery: Rows, names: tuple[str, ...], protocol: str, words: Mapping[str, str], **facts: Any
) -> Report:
    """What the trials of `protocol` find; `words` go into the definition, `facts` are further fields of the report."""
    if protocol not in PROTOCOLS:
        raise UsageError(f"Unknown protocol `{protocol}`.", hint=f"protocols: {', '.join(PROTOCOLS)}")
    relevant, values = np.zeros(len(queries.label), np.int64), {name: np.zeros(len(queries.label)) for name in METRICS}
    for mine, trial in PROTOCOLS[protocol].trials(queries, gallery):
        relevant[mine], found = trial.measure()
        for name in METRICS:
            values[name][mine] = found[name]
    counted = relevant > 0
    if not counted.any():
        raise UsageError(
            f"No query of split `{facts['split']}` has a relevant image in the gallery: there is nothing to measure.",
            hint="a label needs two images at least, of different groups",
        )
    found_by = {name: values[name][counted] for name in METRICS}
    domains = np.asarray(names)[queries.domain[counted]]
    per_query = PerQuery(found_by, domains, queries.label[counted], queries.id[counted])
    definition = {
        **{name: metric.words for name, metric in METRICS.items()},
        "metrics": "unweighted mean over domains of the mean over a domain's queries",
        "metrics_by_query": "mean over queries",
        "half_width": "half of the 95 % interval over classes, drawn with all their queries, in each domain on its own",
        **words,
        "similarity": "cosine (vectors brought to unit length), float32, exact; ties to the lower id",
        "index": f"{PROTOCOLS[protocol].words}, {len(gallery.label):,} gallery images",
    }
    return Report(
        **per_query.summary(),
        per_query=per_query,
        n_queries=int(counted.sum()),
        n_skipped=int((~counted).sum()),
        protocol=protocol,
        definition=definition,
        one_class=_of_one_class(queries.take(counted), gallery, names),
        **facts,
    )


def _of_one_class(queries: Rows, gallery: Rows, names: Sequence[str]) -> list[str]:
    """The domains of queries in which all gallery images are of one class."""
    classes: dict[int, set[int]] = {}
    for domain, label in zip(gallery.domain.tolist(), gallery.label.tolist(), strict=True):
        classes.setdefault(domain, set()).add(label)
    return [names[domain] for domain in sorted(set(queries.domain.tolist())) if len(classes[domain]) == 1]


def _told_of_one_class(domains: Sequence[str], protocol: str) -> str:
    words = "every match is right, whatever the vectors"
    if protocol == "merged":
        words = "what is measured there is whether it is told from other domains"
    return f"one class alone: {', '.join(domains)}; {words}"


def _refuse_one_class(roles: "Roles", split: str) -> None:
    """UsageError if no query can find anything wrong: the gallery is of one class."""
    gallery, queries = (set(roles.label[mask].tolist()) for mask in (roles.is_gallery, roles.is_query))
    if len(gallery) == 1 and gallery <= queries - {-1}:
        more = f"`--split {EVERY}` takes every row; " if split != EVERY else ""
        raise UsageError(
            f"Split `{split}` has one class: every match is right, whatever the vectors.",
            hint=f"{more}a larger `--test` of `lookalike prepare` or `index` keeps more classes back to be measured on",
        )


@dataclass(frozen=True)
class Roles:
    """The rows that take part, rising by id, and what each is in it; arrays are over these rows."""

    rows: Codes  # positions in the order of ids of the whole table
    label: Codes  # one number for each (domain, label); -1 without a label
    labels: list[str | None]
    domain: Codes  # position in `names`
    group: Codes  # one number for each (domain, group); -1 without a group
    is_query: Bool[np.ndarray, "N"]
    is_gallery: Bool[np.ndarray, "N"]
    names: tuple[str, ...]
    total: int  # rows of the whole table

    @classmethod
    def of(cls, rows: Collection | pa.Table, split: str) -> "Roles":
        """The rows that are in `split` and have a role."""
        table = rows if isinstance(rows, pa.Table) else rows.table([c for c in COLUMNS if c in rows.columns])
        for name in ("id", "label"):
            if name not in table.column_names:
                raise CollectionError(f"The table has no column `{name}`; it has {', '.join(table.column_names)}.")
        table = table.sort_by("id")
        lists = {name: table[name].to_pylist() for name in COLUMNS[1:] if name in table.column_names}
        nothing, everything = [None] * len(table), [True] * len(table)
        splits = lists.get("split", nothing)
        is_query, is_gallery = (np.array(lists.get(name, everything), bool) for name in ("is_query", "is_gallery"))
        inside = np.array([split in (EVERY, name) for name in splits], bool)
        if not inside.any():
            counts = Counter("no split" if name is None else f"`{name}`" for name in splits)
            found = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "there are no rows"
            raise UsageError(
                f"No row is in split `{split}`; rows per split: {found}.", hint=f"`--split {EVERY}` takes every row"
            )
        for role, missing in ((is_query, "query (`is_query`)"), (is_gallery, "gallery image (`is_gallery`)")):
            if not role[inside].any():
                raise UsageError(f"Split `{split}` has {inside.sum()} rows, and none of them is a {missing}.")
        kept = np.flatnonzero(inside & (is_query | is_gallery))
        domains = [NO_DOMAIN if name is None else name for name in (lists.get("domain", nothing)[i] for i in kept)]
        names = tuple(sorted(set(domains)))
        labels = [lists["label"][i] for i in kept]
        roles = cls(
            rows=kept,
            label=_codes(domains, labels),
            labels=labels,
            domain=np.searchsorted(names, domains).astype(np.int64),
            group=_codes(domains, [lists.get("group", nothing)[i] for i in kept]),
            is_query=is_query[kept],
            is_gallery=is_gallery[kept],
            names=names,
            total=len(table),
        )
        _refuse_one_class(roles, split)
        return roles

    def images(self, vectors: np.ndarray) -> Rows:
        """These rows with their vectors, at unit length, of all vectors by id; UsageError if those do not fit."""
        if vectors.ndim != 2 or len(vectors) != self.total:
            raise UsageError(
                f"There are {self.total:,} rows, and the vectors have the shape {list(vectors.shape)}.",
                hint="row i of the vectors must belong to the i-th row by id, all splits included",
            )
        kept = vectors if len(self.rows) == self.total else vectors[self.rows]
        return Rows(directions(kept, self.rows), self.label, self.domain, self.group, self.rows)


def directions(vectors: np.ndarray, rows: Codes) -> Float32[np.ndarray, "N D"]:
    """Vectors at unit length (zeros stay); UsageError names the row, of `rows`, whose numbers are not finite."""
    found = l2_normalize(vectors)
    bad = ~np.isfinite(found.sum(axis=1))
    if bad.any():
        raise UsageError(f"Row {rows[np.argmax(bad)]} of the vectors holds a number that is not finite.")
    return found


def _codes(domains: list[str], names: list[str | None]) -> Codes:
    """A number for each (domain, name); -1 where there is no name."""
    known: dict[tuple[str, str], int] = {}
    codes = [
        -1 if name is None else known.setdefault((domain, name), len(known))
        for domain, name in zip(domains, names, strict=True)
    ]
    return np.array(codes, np.int64)
