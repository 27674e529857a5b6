"""What single queries find, so that two encoders can be compared by eye."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from lookalike.data.collection import Collection
from lookalike.evaluation.metrics import METRICS
from lookalike.evaluation.protocols import Roles
from lookalike.evaluation.trials import Same, Trial

MOST, FOUND = 1000, 5


@dataclass(frozen=True)
class Example:
    """A query and its nearest images, best first: ids, cosines, and whether each is relevant."""

    id: int
    precision: float  # mP@5
    found: Sequence[tuple[int, float, bool]]


def examples(vectors: Float[np.ndarray, "N D"], rows: Collection | pa.Table, split: str = "test") -> list[Example]:
    """At most `MOST` queries of the split, at equal distances through it, and what each finds.

    Arguments, and what may be found, are as in `protocols.evaluate`, in one index of all domains.
    """
    roles = Roles.of(rows, split)
    images = roles.images(vectors)
    gallery = images.take(roles.is_gallery)
    at = np.flatnonzero(roles.is_query)
    chosen = np.zeros(len(roles.rows), bool)
    chosen[at[np.unique(np.linspace(0, len(at) - 1, min(MOST, len(at))).round().astype(np.int64))]] = True
    queries = images.take(chosen)
    same = Same(queries.label, gallery.label)
    trial = Trial(
        queries.vectors, gallery.vectors, same, (Same(queries.id, gallery.id), Same(queries.group, gallery.group))
    )
    ids, made = _ids(rows), []
    for search in trial.searches(FOUND):
        precision = METRICS["mp@5"](search.hits, search.relevant)
        for i, place in enumerate(search.places):
            matches = zip(search.found[i].tolist(), search.scores[i].tolist(), search.hits[i].tolist(), strict=False)
            found = [(int(ids[gallery.id[row]]), score, hit) for row, score, hit in matches if row >= 0]
            made.append(Example(int(ids[queries.id[place]]), float(precision[i]), found))
    return sorted(made, key=lambda example: example.id)


def _ids(rows: Collection | pa.Table) -> Any:
    """The ids of all rows, rising, in which `Roles.rows` are places."""
    table = rows if isinstance(rows, pa.Table) else rows.table(["id"])
    return np.sort(table["id"].to_numpy())
