"""What a measurement shares with training: queries like an image that was learned from, and the score without them.

Looks are those of `data.duplicates`, stored where a collection was prepared; so are the embeddings, where that was done
with a model.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.core.files import kind_of
from lookalike.core.journal import note
from lookalike.core.shapes import l2_normalize
from lookalike.data.collection import Collection
from lookalike.data.duplicates import SEEN, Alike, Mask
from lookalike.evaluation.report import PerQuery, Report
from lookalike.evaluation.roles import EVERY
from lookalike.retrieval.alike import like_any

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
    parts = [_rows(place) for place in (collection, *others)]
    learned = np.concatenate([_train(parts[0]), *map(_learned, parts[1:])])
    if not learned.any():
        return report
    queries = np.zeros(len(learned), bool)
    queries[report.per_query.rows] = True
    same, near = Alike.of(pa.concat_tables(part.select(SEEN.names) for part in parts)).between(queries, learned)
    leaked = (same | near)[report.per_query.rows]
    told = {
        "learned_from": [collection.path, *(other.path for other in others)],
        "same": int(same.sum()),
        "near": int(near.sum()),
        "metrics": _metrics(report.per_query.where(~leaked)),
        "embedding": _by_embedding(report.per_query, leaked, collection, others),
    }
    return replace(report, leakage=told)


def _metrics(kept: PerQuery) -> dict[str, float] | None:
    return kept.summary()["metrics"] if len(kept.label) else None


def _by_embedding(
    queries: PerQuery, leaked: Mask, collection: Collection, others: Sequence[Collection]
) -> dict[str, Any] | None:
    """What the embeddings add that `prepare --model` marked by, in any of these collections; None where there are none.

    Nothing is embedded for it: what has no vectors is left out, and a note says how to make them.
    """
    places = [collection, *others]
    if (told := (collection.card.get("duplicates") or {}).get("embedding") or {}).get("by_groups"):
        return _by_groups(queries, leaked, collection, told)
    marks = [(place.card.get("duplicates") or {}).get("embedding") or {} for place in places]
    marks = [by for by in marks if by.get("column") in collection.columns and not by.get("by_groups")]
    by = next((by for by in marks if by["cosine"] is not None), None)
    if by is None:
        return None
    whole = [by["column"] in place.columns and not len(place.missing(by["column"])) for place in places]
    for place, is_whole in zip(places, whole, strict=True):
        if not is_whole:
            note(
                f"`{place.path}` lacks embeddings of `{by['model']}`, by which images that are alike were marked, and "
                "what queries share with it is told by looks alone: "
                f"`lookalike embed {shlex.quote(place.path)} --model {shlex.quote(by['model'])}`"
            )
    if not whole[0]:
        return None
    own = _directions(collection, by["column"])
    mine = own[queries.rows]
    alike = like_any(mine, own[_train(_rows(collection))], by["cosine"])
    for other in (place for place, is_whole in zip(others, whole[1:], strict=True) if is_whole):
        alike |= like_any(mine, _directions(other, by["column"])[_learned(_rows(other))], by["cosine"])
    return {
        "queries": int((alike & ~leaked).sum()),
        "metrics": _metrics(queries.where(~(alike | leaked))),
        **{name: by[name] for name in ("cosine", "model", "column")},
    }


def _by_groups(queries: PerQuery, leaked: Mask, collection: Collection, told: Mapping[str, Any]) -> dict[str, Any]:
    """The same of `lookalike duplicates`, which looks at pixels too: by the groups that it marked."""
    rows = collection.table(["id", "duplicate_of", "split"])
    groups = pc.coalesce(rows["duplicate_of"], rows["id"]).to_numpy()
    alike = np.isin(groups[queries.rows], groups[_train(rows)])
    return {
        "queries": int((alike & ~leaked).sum()),
        "metrics": _metrics(queries.where(~(alike | leaked))),
        **{name: told[name] for name in ("cosine", "model", "column")},
    }


def _directions(collection: Collection, column: str) -> np.ndarray:
    """The vectors of a column at unit length: that of an encoder as it was published holds its features as they are."""
    found: np.ndarray = l2_normalize(collection.vectors(column)[1])
    return found


def _seen(collection: Collection) -> bool:
    return set(SEEN.names) <= {*collection.columns}


def _rows(collection: Collection) -> pa.Table:
    return collection.table([*SEEN.names, "split"])


def _train(rows: pa.Table) -> Mask:
    mask: Mask = rows["split"].to_numpy(zero_copy_only=False) == TRAIN
    return mask


def _learned(rows: pa.Table) -> Mask:
    """Which rows of another collection were learned from: its split `train`, or all if it has none."""
    train = _train(rows)
    return train if train.any() else np.ones(len(rows), bool)
