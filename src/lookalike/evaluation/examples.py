"""What single queries find, so that two encoders can be compared by eye."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int64

from lookalike.data.collection import Collection
from lookalike.evaluation.metrics import METRICS
from lookalike.evaluation.protocols import PROTOCOLS
from lookalike.evaluation.roles import Listed, Roles, Rows
from lookalike.evaluation.trials import Trial

MOST, FOUND = 1000, 5
DISTRACTOR = -1  # the id of a match from another collection


@dataclass(frozen=True)
class Example:
    """A query and its nearest images, best first: ids, cosines, and whether each is relevant."""

    id: int
    precision: float  # mP@5
    found: Sequence[tuple[int, float, bool]]


def examples(
    vectors: Float[np.ndarray, "N D"],
    rows: Collection | pa.Table,
    split: str = "test",
    protocol: str = "merged",
    *,
    asked: Int64[np.ndarray, "some"] | None = None,
    queries: Listed | None = None,
    gallery: Listed | None = None,
    distractors: Float[np.ndarray, "M D"] | None = None,
    only: Listed | None = None,
) -> list[Example]:
    """At most `MOST` queries of the split, at equal distances through it, and what each finds.

    Arguments, and what may be found, are as in `protocols.evaluate`; `asked` are the places, among all rows by id, of
    queries that are asked for instead.
    """
    roles = Roles.of(rows, split, queries, gallery, only=only, among_others=distractors is not None)
    images = roles.images(vectors)
    galleries = images.take(roles.is_gallery)
    if distractors is not None:
        galleries = galleries.and_distractors(distractors)
    at = np.flatnonzero(roles.is_query)
    chosen = np.zeros(len(roles.rows), bool)
    if asked is None:
        chosen[at[np.unique(np.linspace(0, len(at) - 1, min(MOST, len(at))).round().astype(np.int64))]] = True
    else:
        chosen[at] = np.isin(roles.rows[at], asked)
    taken, made, ids = images.take(chosen), [], np.append(_ids(rows), DISTRACTOR)
    for mine, places, trial in PROTOCOLS[protocol].trials(taken, galleries):
        made += list(_found(trial, taken.take(mine), galleries.id[places], ids))
    return sorted(made, key=lambda example: example.id)


def _found(
    trial: Trial, asked: Rows, gallery: Int64[np.ndarray, "G"], ids: Int64[np.ndarray, "N"]
) -> Iterator[Example]:
    for search in trial.searches(FOUND):
        precision = METRICS["mp@5"](search.hits, search.relevant)
        for i, place in enumerate(search.places):
            matches = zip(search.found[i].tolist(), search.scores[i].tolist(), search.hits[i].tolist(), strict=False)
            found = [(int(ids[gallery[row]]), score, hit) for row, score, hit in matches if row >= 0]
            yield Example(int(ids[asked.id[place]]), float(precision[i]), found)


def _ids(rows: Collection | pa.Table) -> Int64[np.ndarray, "N"]:
    """The ids of all rows, rising, in which `Roles.rows` are places."""
    table = rows if isinstance(rows, pa.Table) else rows.table(["id"])
    return np.sort(table["id"].to_numpy())
