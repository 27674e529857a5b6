"""What a measurement shares with training: queries like an image that was learned from, and the score without them.

Looks are those of `data.duplicates`, stored where a collection was prepared.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from lookalike.core.files import kind_of
from lookalike.data.collection import Collection
from lookalike.data.duplicates import SEEN, Alike
from lookalike.evaluation.protocols import EVERY, Report

TRAIN = "train"


def with_leakage(report: Report, collection: Collection, learned_from: Sequence[str] = ()) -> Report:
    """The report with what its queries share with rows of split `train` of the collection, and with what was learned
    from in other collections: their split `train`, or all rows if they have none.

    As it was where training and measuring are not told apart (split "all" or "train"), or looks are not stored.
    """
    if (
        report.split in (EVERY, TRAIN)
        or not _seen(collection)
        or report.per_query is None
        or report.per_query.rows is None
    ):
        return report
    here = Path(collection.path).resolve()
    others = [Collection.open(place) for place in dict.fromkeys(learned_from) if kind_of(place) == "collection"]
    others = [other for other in others if Path(other.path).resolve() != here and _seen(other)]
    own = _rows(collection)
    parts = [own, *map(_learned, others)]
    learned = np.concatenate(
        [own["split"].to_numpy(zero_copy_only=False) == TRAIN, *(np.ones(len(p), bool) for p in parts[1:])]
    )
    if not learned.any():
        return report
    queries = np.zeros(len(learned), bool)
    queries[report.per_query.rows] = True
    same, near = Alike.of(pa.concat_tables(part.select(SEEN.names) for part in parts)).between(queries, learned)
    leaked = (same | near)[report.per_query.rows]
    kept = report.per_query.where(~leaked)
    told = {
        "learned_from": [collection.path, *(other.path for other in others)],
        "same": int(same.sum()),
        "near": int(near.sum()),
        "metrics": kept.summary()["metrics"] if len(kept.label) else None,
    }
    return replace(report, leakage=told)


def _seen(collection: Collection) -> bool:
    return set(SEEN.names) <= {*collection.columns}


def _rows(collection: Collection) -> pa.Table:
    return collection.table([*SEEN.names, "split"])


def _learned(collection: Collection) -> pa.Table:
    rows = _rows(collection)
    split = rows["split"].to_numpy(zero_copy_only=False)
    return rows.filter(pa.array(split == TRAIN)) if (split == TRAIN).any() else rows
