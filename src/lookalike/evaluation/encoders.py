"""How encoders in memory do on rows of a collection: what training and blending ask, again and again."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from lookalike.core.shapes import Ids, Vectors
from lookalike.data.collection import Collection
from lookalike.evaluation.protocols import evaluate
from lookalike.evaluation.report import Report
from lookalike.evaluation.roles import COLUMNS
from lookalike.vectors.rows import cached_features, made_features
from lookalike.vectors.runtime import Embedder, combine

if TYPE_CHECKING:
    from lookalike.encoders.encoder import Encoder


def measure_on(collection: Collection, split: str, given: Embedder | None) -> "Callable[[Encoder], Report] | None":
    """How an encoder does on the classes of `split`; None if it has no rows.

    Encoders that have the tower of `given`, which is in float32, share the features that are stored in the collection.
    """
    rows = collection.table(COLUMNS)
    rows = rows.take(np.flatnonzero([name == split for name in rows["split"].to_pylist()]))
    if not len(rows):
        return None
    vectors_of = vectors_on(collection, rows["id"].to_numpy(), given)
    return lambda encoder: evaluate(vectors_of(encoder), rows, split=split)


def vectors_on(collection: Collection, ids: Ids, given: Embedder | None) -> "Callable[[Encoder], Vectors]":
    """Embeddings of the rows `ids`, of any encoder; see `measure_on`."""

    @cache
    def stored(embedder: Embedder, mirror: bool) -> Vectors:
        opened = Collection.open(collection.path)  # as training left it, which may have added the column
        return combine(*cached_features(embedder, opened, ids, mirror))

    embedders = {given.features_fingerprint: given} if given else {}
    latest: dict[tuple[str, bool], Vectors] = {}  # of the tower asked last; the next may share it

    def vectors_of(encoder: "Encoder") -> Vectors:
        config, own = encoder.config, encoder.features_fingerprint
        if given is not None and own not in embedders:
            alike = replace(encoder, config=replace(config, zooms=given.config.zooms))
            if alike.features_fingerprint == given.features_fingerprint:
                embedders[own] = Embedder.of(encoder)
        if own in embedders:
            return np.asarray(encoder.project(stored(embedders[own], config.mirror)))
        if (own, config.mirror) not in latest:
            latest.clear()
            latest[own, config.mirror] = combine(*made_features(encoder, collection, ids, config.mirror).swapaxes(0, 1))
        return np.asarray(encoder.project(latest[own, config.mirror]))

    return vectors_of
