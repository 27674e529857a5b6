"""Who is searched in what: the protocols, and the measurement."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

from lookalike.core.errors import UsageError
from lookalike.data.collection import Collection
from lookalike.evaluation.metrics import METRICS, Metrics
from lookalike.evaluation.report import PerQuery, Report
from lookalike.evaluation.roles import Codes, Listed, Roles, Rows
from lookalike.evaluation.trials import First, Same, Searcher, Trial

DISTRACTORS = "distractors"  # what the table of confusions calls their domain


def evaluate(
    vectors: Float[np.ndarray, "N D"],
    rows: Collection | pa.Table,
    split: str = "test",
    protocol: str = "merged",
    *,
    model: str | None = None,
    metrics: Metrics = METRICS,
    queries: Listed | None = None,
    gallery: Listed | None = None,
    distractors: Float[np.ndarray, "M D"] | None = None,
    only: Listed | None = None,
    searcher: Callable[[np.ndarray], Searcher] | None = None,
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
        metrics: What is measured; see `metrics_of`.
        queries: Ids of the queries, in the place of `is_query`.
        gallery: Ids of the gallery rows, in the place of `is_gallery`.
        distractors: Vectors of further gallery rows, relevant to nothing.
        only: Ids of the rows that take part, of those of the split.
        searcher: What makes a search of a gallery's vectors; unless given, it is exact.

    Raises:
        UsageError: The number of vectors is not that of the rows, a number is not finite, the split or the protocol
            is unknown, a listed id is unknown or in another split, or no query has a relevant image.
        CollectionError: A needed column is missing.
    """
    roles = Roles.of(rows, split, queries, gallery, only=only, among_others=distractors is not None)
    images = roles.images(vectors)
    galleries = images.take(roles.is_gallery)
    return report(
        images.take(roles.is_query),
        galleries if distractors is None else galleries.and_distractors(distractors),
        roles.names,
        protocol,
        {
            "relevant": "gallery images of the query's domain and label (n_q of them), "
            "itself and its group left out by id",
            "n_skipped": "queries with n_q = 0, which are left out",
        },
        metrics=metrics,
        searcher=searcher,
        split=split,
        model=model,
        collection=None if isinstance(rows, pa.Table) else rows.fingerprint,
    )


@dataclass(frozen=True)
class Protocol:
    """How queries and gallery rows are divided into trials."""

    words: str  # what is searched
    part: Callable[[Rows], Codes]  # the trial of each row, as a number

    def trials(self, queries: Rows, gallery: Rows) -> Iterator[tuple[Bool[np.ndarray, "Q"], Codes, Trial]]:
        """Which queries are in it, where its gallery rows stand in `gallery`, and the trial, one after the other.

        Distractors, which have no domain, are in every gallery.
        """
        for part in sorted(set(self.part(queries).tolist())):  # np.unique would import numpy.ma
            mine = self.part(queries) == part
            theirs = (self.part(gallery) == part) | (gallery.domain < 0)
            q, g = queries.take(mine), gallery.take(theirs)
            excluded = (Same(q.id, g.id), Same(q.group, g.group))
            yield mine, np.flatnonzero(theirs), Trial(q.vectors, g.vectors, Same(q.label, g.label), excluded)


PROTOCOLS = {
    "merged": Protocol("one index of all domains", lambda rows: np.zeros_like(rows.domain)),
    "separate": Protocol("an index for each domain", lambda rows: rows.domain),
}


def report(
    queries: Rows,
    gallery: Rows,
    names: tuple[str, ...],
    protocol: str,
    words: Mapping[str, str],
    *,
    metrics: Metrics = METRICS,
    searcher: Callable[[np.ndarray], Searcher] | None = None,
    **facts: Any,
) -> Report:
    """What the trials of `protocol` find; `words` go into the definition, `facts` are further fields of the report."""
    if protocol not in PROTOCOLS:
        raise UsageError(f"Unknown protocol `{protocol}`.", hint=f"protocols: {', '.join(PROTOCOLS)}")
    relevant, values = np.zeros(len(queries.label), np.int64), {name: np.zeros(len(queries.label)) for name in metrics}
    first = First.nothing(len(queries.label))
    for mine, places, trial in PROTOCOLS[protocol].trials(queries, gallery):
        if searcher is not None:
            trial = replace(trial, search=searcher(trial.gallery))
        relevant[mine], found, best = trial.found(metrics)
        first.put(mine, replace(best, row=np.append(places, -1)[best.row]))
        for name in metrics:
            values[name][mine] = found[name]
    counted = relevant > 0
    if not counted.any():
        if (queries.label < 0).all():
            raise UsageError(
                f"No query of split `{facts['split']}` has a label: nothing says what is right.",
                hint="a folder for each thing, or a column `label`, gives labels to `lookalike prepare`",
            )
        raise UsageError(
            f"No query of split `{facts['split']}` has a relevant image in the gallery: there is nothing to measure.",
            hint="a label needs two images at least, of different groups",
        )
    first, domain = first.take(counted), queries.domain[counted]
    per_query = PerQuery(
        {name: values[name][counted] for name in metrics},
        np.asarray(names)[domain],
        queries.label[counted],
        queries.id[counted],
        replace(first, row=gallery.id[first.row]),
    )
    return Report(
        **per_query.summary(),
        per_query=per_query,
        n_queries=int(counted.sum()),
        n_skipped=int((~counted).sum()),
        n_ties=int(first.tied.sum()),
        protocol=protocol,
        dimension=queries.vectors.shape[1],
        one_class=_of_one_class(queries.take(counted), gallery, names),
        confusion=_confusion(domain, gallery.domain[first.row], first.hit, names),
        definition=_definition(metrics, protocol, gallery, words),
        **facts,
    )


def _of_one_class(queries: Rows, gallery: Rows, names: Sequence[str]) -> list[str]:
    """The domains of queries in which all gallery images are of one class."""
    classes: dict[int, set[int]] = {}
    for domain, label in zip(gallery.domain.tolist(), gallery.label.tolist(), strict=True):
        classes.setdefault(domain, set()).add(label)
    return [names[domain] for domain in sorted(set(queries.domain.tolist())) if len(classes[domain]) == 1]


def _definition(metrics: Metrics, protocol: str, gallery: Rows, words: Mapping[str, str]) -> dict[str, str]:
    away = int((gallery.domain < 0).sum())
    return {
        **{name: metric.words for name, metric in metrics.items()},
        "metrics": "unweighted mean over domains of the mean over a domain's queries",
        "metrics_by_query": "mean over queries",
        "half_width": "half of the 95 % interval over classes, drawn with all their queries, in each domain on its own",
        **words,
        "similarity": "cosine (vectors brought to unit length), float32, exact; ties to the lower id",
        "index": f"{PROTOCOLS[protocol].words}, {len(gallery.label):,} gallery images"
        + (f", {away:,} of them distractors of another collection" if away else ""),
    }


def _confusion(
    asked: Codes, found: Codes, right: Bool[np.ndarray, "Q"], names: tuple[str, ...]
) -> dict[str, dict[str, int]]:
    """Of the queries whose first match is wrong: domain of the query -> domain of the match -> how many."""
    counts = np.zeros((len(names), len(names) + 1), np.int64)
    np.add.at(counts, (asked[~right], found[~right]), 1)  # distractors, at -1, are in the last column
    columns = (*names, DISTRACTORS)
    return {
        name: {columns[at]: int(line[at]) for at in np.flatnonzero(line)}
        for name, line in zip(names, counts, strict=True)
        if line.any()
    }
