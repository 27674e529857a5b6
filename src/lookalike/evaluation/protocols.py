"""Who is searched in what: which rows are queries, what their gallery is, and what must not count as found."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Float32, Int64

from lookalike.core.arrays import l2_normalize
from lookalike.core.errors import CollectionError, UsageError
from lookalike.data.collection import Collection
from lookalike.evaluation.metrics import DEFINITIONS, DEPTH, per_query
from lookalike.evaluation.report import Report, summarize
from lookalike.search.exact import knn

Protocol = Literal["merged", "separate"]
Codes = Int64[np.ndarray, "N"]
Queries = Int64[np.ndarray, "Q"]
Gallery = Int64[np.ndarray, "G"]

COLUMNS = ("id", "label", "domain", "split", "group", "is_query", "is_gallery")
EVERY = "all"
"""The split that takes every row, whatever split it is in."""
NO_DOMAIN = "none"
BARRED = 2**21
"""Numbers in the lists of what queries must not find, and of what they find, that are held at a time (16 MiB)."""

_INDEX = {"merged": "one index of all domains", "separate": "an index for each domain"}


def evaluate(
    vectors: Float[np.ndarray, "N D"],
    rows: Collection | pa.Table,
    split: str = "test",
    protocol: Protocol = "merged",
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
        protocol: "merged" searches one index of all domains, "separate" each domain in its own.
        model: Fingerprint of what made the vectors, for the report.

    Returns:
        Metrics of `metrics.DEFINITIONS`: means over domains, over queries, and per domain.

    Raises:
        UsageError: The number of vectors is not that of the rows, a number is not finite, the split or the protocol
            is unknown, or no query has a relevant image.
        CollectionError: A needed column is missing.
    """
    if protocol not in get_args(Protocol):
        raise UsageError(f"Unknown protocol `{protocol}`.", hint=f"protocols: {', '.join(get_args(Protocol))}")
    table = rows if isinstance(rows, pa.Table) else rows.table([c for c in COLUMNS if c in rows.columns])
    roles = Roles.of(table, split)
    directions = l2_normalize_rows(checked_vectors(vectors, roles.total), roles.rows)
    relevant = roles.relevant()
    queries = np.flatnonzero(roles.is_query & (relevant > 0))
    if len(queries) == 0:
        raise UsageError(
            f"No query of split `{split}` has a relevant image in the gallery, so there is nothing to measure.",
            hint="a label needs two images at least, of different groups",
        )
    hits = _all_hits(directions, roles, queries, protocol)
    domains = np.asarray(roles.names)[roles.domain[queries]]
    by_domain, by_query, per_domain = summarize(per_query(hits, relevant[queries]), domains)
    return Report(
        metrics=by_domain,
        metrics_by_query=by_query,
        per_domain=per_domain,
        n_queries=len(queries),
        n_skipped=int(np.count_nonzero(roles.is_query)) - len(queries),
        protocol=protocol,
        split=split,
        definition=_definition(protocol, roles),
        model=model,
        collection=None if isinstance(rows, pa.Table) else rows.fingerprint,
    )


@dataclass(frozen=True)
class Roles:
    """The rows that take part, rising by id, and what each is in it; arrays are over these rows."""

    rows: Codes
    """Positions in the order of ids of the whole table."""
    label: Codes
    """One number for each (domain, label); -1 without a label."""
    domain: Codes
    """Position in `names`."""
    group: Codes
    """One number for each (domain, group); -1 without a group."""
    is_query: Bool[np.ndarray, "N"]
    is_gallery: Bool[np.ndarray, "N"]
    names: tuple[str, ...]
    total: int
    """Rows of the whole table."""

    @classmethod
    def of(cls, table: pa.Table, split: str) -> "Roles":
        """The rows of `table` that are in `split` and have a role."""
        for name in ("id", "label"):
            if name not in table.column_names:
                raise CollectionError(f"The table has no column `{name}`; it has {', '.join(table.column_names)}.")
        table = table.sort_by("id")
        lists = {name: table[name].to_pylist() for name in COLUMNS[1:] if name in table.column_names}
        nothing, everything = [None] * len(table), [True] * len(table)
        splits = lists.get("split", nothing)
        roles = [np.array(lists.get(name, everything), bool) for name in ("is_query", "is_gallery")]
        inside = np.array([split in (EVERY, name) for name in splits], bool)
        if not inside.any():
            raise _unknown_split(split, splits)
        kept = np.flatnonzero(inside & (roles[0] | roles[1]))
        if not roles[0][kept].any() or not roles[1][kept].any():
            missing = "query (`is_query`)" if not roles[0][kept].any() else "gallery image (`is_gallery`)"
            raise UsageError(f"Split `{split}` has {np.count_nonzero(inside)} rows, and none of them is a {missing}.")
        domains = [NO_DOMAIN if name is None else name for name in (lists.get("domain", nothing)[i] for i in kept)]
        names = tuple(sorted(set(domains)))
        return cls(
            rows=kept,
            label=_codes(domains, [lists["label"][i] for i in kept]),
            domain=np.searchsorted(names, domains).astype(np.int64),
            group=_codes(domains, [lists.get("group", nothing)[i] for i in kept]),
            is_query=roles[0][kept],
            is_gallery=roles[1][kept],
            names=names,
            total=len(table),
        )

    def relevant(self) -> Codes:
        """For every row, how many gallery rows have its label, itself and its group left out; 0 without a label."""
        there = self.is_gallery & (self.label >= 0)
        count = np.bincount(self.label[there], minlength=self.label.max(initial=0) + 1)
        grouped = there & (self.group >= 0)
        # Rows of one group may have several labels: count (group, label) pairs.
        width = int(self.label.max(initial=0)) + 1
        pairs, sizes = np.unique(self.group[grouped] * width + self.label[grouped], return_counts=True)
        own = np.where(self.group >= 0, self.group * width + self.label, -1)
        at = np.minimum(np.searchsorted(pairs, own), max(len(pairs) - 1, 0))
        same = np.where(pairs[at] == own, sizes[at], 0) if len(pairs) else np.zeros(len(own), np.int64)
        alone = self.is_gallery & (self.group < 0)  # who has no group leaves out itself alone
        left = count[np.maximum(self.label, 0)] - same - alone
        return np.where(self.label >= 0, left, 0).astype(np.int64)


def _all_hits(
    directions: Float32[np.ndarray, "N D"], roles: Roles, queries: Queries, protocol: Protocol
) -> Bool[np.ndarray, "Q k"]:
    """`_hits` of every query, in the one index or in that of its domain."""
    hits = np.zeros((len(queries), DEPTH), bool)
    for domain in np.unique(roles.domain[queries]) if protocol == "separate" else (None,):
        here = np.ones(len(roles.rows), bool) if domain is None else roles.domain == domain
        mine = here[queries]
        hits[mine] = _hits(directions, roles, queries[mine], np.flatnonzero(roles.is_gallery & here))
    return hits


def _hits(
    directions: Float32[np.ndarray, "N D"], roles: Roles, queries: Queries, gallery: Gallery
) -> Bool[np.ndarray, "Q k"]:
    """Which of the first matches of the rows `queries`, searched in the rows `gallery`, are relevant."""
    hits = np.zeros((len(queries), DEPTH), bool)
    gallery_vectors = directions[gallery]
    for places, excluded in _excluded(roles, queries, gallery):
        _, found = knn(directions[queries[places]], gallery_vectors, DEPTH, excluded)
        labels = np.where(found >= 0, roles.label[gallery[found]], -1)
        hits[places, : found.shape[1]] = labels == roles.label[queries[places], None]
    return hits


def _excluded(roles: Roles, queries: Queries, gallery: Gallery) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places in `queries` [some], and the places in `gallery` of each and its group [some, E], filled up with -1.

    Some queries at a time, so that the lists and the matches stay within `BARRED` numbers (or one query).
    """
    place = np.full(len(roles.rows), -1, np.int64)
    place[gallery] = np.arange(len(gallery))
    order = np.argsort(roles.group[gallery], kind="stable")
    groups = roles.group[gallery][order]
    own = roles.group[queries]
    start, stop = np.searchsorted(groups, own), np.searchsorted(groups, own, side="right")
    size = np.where(own >= 0, stop - start, 0)
    largest_first = np.argsort(-size, kind="stable")
    done = 0
    while done < len(queries):
        width = int(size[largest_first[done]])
        mine = np.sort(largest_first[done : done + max(1, BARRED // max(width + 1, DEPTH))])
        within = np.arange(width)
        entries = np.minimum(start[mine, None] + within, len(order) - 1)
        others = np.where(within < size[mine, None], order[entries], -1)
        yield mine, np.concatenate([place[queries[mine], None], others], axis=1)
        done += len(mine)


def _codes(domains: list[str], names: list[str | None]) -> Codes:
    """A number for each (domain, name); -1 where there is no name."""
    known: dict[tuple[str, str], int] = {}
    codes = [
        -1 if name is None else known.setdefault((domain, name), len(known))
        for domain, name in zip(domains, names, strict=True)
    ]
    return np.array(codes, np.int64)


def checked_vectors(vectors: np.ndarray, count: int) -> np.ndarray:
    """`vectors` if they are a matrix of `count` rows; else UsageError."""
    if vectors.ndim != 2 or len(vectors) != count:
        raise UsageError(
            f"There are {count:,} rows, and the vectors have the shape {list(vectors.shape)}.",
            hint="row i of the vectors must belong to the i-th row by id, all splits included",
        )
    return vectors


def l2_normalize_rows(vectors: np.ndarray, rows: Codes) -> Float32[np.ndarray, "N D"]:
    """Those rows, at unit length (zeros stay); UsageError if a number is not finite."""
    found = np.empty((len(rows), vectors.shape[1]), np.float32)
    for first in range(0, len(rows), 4096):
        some = rows[first : first + 4096]
        piece = vectors[some]
        bad = ~np.isfinite(piece).all(axis=1)
        if bad.any():
            raise UsageError(f"Row {some[np.argmax(bad)]} of the vectors holds a number that is not finite.")
        found[first : first + 4096] = l2_normalize(piece)
    return found


def _unknown_split(split: str, splits: list[Any]) -> UsageError:
    counts = Counter(splits)
    found = [f"`{name}` {count:,}" for name, count in sorted(counts.items(), key=str) if name is not None]
    if None in counts:
        found.append(f"no split {counts[None]:,}")
    return UsageError(
        f"No row is in split `{split}`; rows per split: {', '.join(found) or 'there are no rows'}.",
        hint=f"`--split {EVERY}` takes every row",
    )


def _definition(protocol: Protocol, roles: Roles) -> Mapping[str, str]:
    return {
        **DEFINITIONS,
        "metrics": "unweighted mean over domains of the mean over a domain's queries",
        "metrics_by_query": "mean over queries",
        "relevant": "gallery images of the query's domain and label (n_q of them), itself and its group left out by id",
        "n_skipped": "queries with n_q = 0, which are left out",
        "similarity": "cosine (vectors brought to unit length), float32, exact; ties to the lower id",
        "index": index_words(protocol, roles),
    }


def index_words(protocol: Protocol, roles: Roles) -> str:
    """What is searched, in words."""
    return f"{_INDEX[protocol]}, {np.count_nonzero(roles.is_gallery):,} gallery images"
