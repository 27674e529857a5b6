"""How encoders in memory do on rows of a collection: what training and blending ask, again and again."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from lookalike.core.shapes import Ids, Vectors
from lookalike.data.collection import Collection
from lookalike.evaluation.protocols import COLUMNS, Report, evaluate
from lookalike.vectors.rows import cached_features, filled, stored_images
from lookalike.vectors.runtime import Embedder, combine

if TYPE_CHECKING:
    from lookalike.encoders.encoder import Encoder


def measure_on(collection: Collection, split: str, given: Embedder | None) -> "Callable[[Encoder], Report] | None":
    """How an encoder does on the classes of `split`; None if it has no rows.

    Encoders whose features are those of `given`, which is in float32, share those that are stored in the collection.
    """
    rows = collection.table(COLUMNS)
    rows = rows.take(np.flatnonzero([name == split for name in rows["split"].to_pylist()]))
    if not len(rows):
        return None
    vectors_of = vectors_on(collection, rows["id"].to_numpy(), given)
    return lambda encoder: evaluate(vectors_of(encoder), rows, split=split)


def vectors_on(collection: Collection, ids: Ids, given: Embedder | None) -> "Callable[[Encoder], Vectors]":
    """Embeddings of the rows `ids`, of any encoder; see `measure_on`."""
    from_images = _from_images(collection, ids)

    @cache
    def features(mirror: bool) -> Vectors:
        assert given is not None
        opened = Collection.open(collection.path)  # as training left it, which may have added the column
        return combine(*cached_features(given, opened, ids, mirror))

    def vectors_of(encoder: "Encoder") -> Vectors:
        if given is not None and encoder.features_fingerprint == given.features_fingerprint:
            return np.asarray(encoder.project(features(encoder.config.mirror)))
        return from_images(encoder)

    return vectors_of


def _from_images(collection: Collection, ids: Ids) -> "Callable[[Encoder], Vectors]":
    """Embeddings of the rows `ids` from their images, read a batch at a time; an encoder is compiled once."""
    import jax

    embed = jax.jit(lambda encoder, images: encoder(images))

    def vectors_of(encoder: "Encoder") -> Vectors:
        images = stored_images(encoder.config, collection, ids)
        return np.concatenate([np.asarray(embed(encoder, filled(batch)))[: len(batch)] for batch in images])

    return vectors_of
