"""What a run measures its encoders by."""

from dataclasses import replace

import jax
import numpy as np

from lookalike.data.collection import Collection
from lookalike.encoders.config import ProjectionConfig
from lookalike.encoders.encoder import Encoder
from lookalike.evaluation import encoders
from lookalike.evaluation.encoders import vectors_on


def test_a_tower_looks_at_images_once_for_all_its_projections(made, monkeypatch):
    """A stage may change the projection alone, and looking is what takes time; another tower looks again."""
    collection, ids, looked = Collection.open(made.collection), np.arange(20), []
    plain = encoders.made_features
    monkeypatch.setattr(encoders, "made_features", lambda *given: looked.append(given[0]) or plain(*given))
    config = replace(
        Encoder.load(made.model).config, projection=ProjectionConfig("linear", made.features.shape[1], 4), mirror=True
    )
    first, other = (Encoder.init(config, jax.random.key(seed)) for seed in (1, 2))
    second = replace(first, tensors={**first.tensors, "projection.weight": other.tensors["projection.weight"]})
    vectors_of = vectors_on(collection, ids, None)
    for encoder, looks in ((first, 1), (second, 1), (other, 2), (first, 3)):
        found = vectors_of(encoder)
        assert len(looked) == looks
        alone = vectors_on(collection, ids, None)(encoder)
        looked.pop()
        np.testing.assert_allclose(found, alone, atol=1e-6)
