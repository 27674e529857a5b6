"""Averages of weights, against NumPy by hand."""

from dataclasses import replace

import numpy as np
import pytest

from lookalike.core.errors import EncoderError
from lookalike.encoders.blend import blended, refuse_unless_alike
from lookalike.encoders.config import EncoderConfig, ProjectionConfig
from lookalike.imaging.preprocess import Preprocess
from lookalike.towers import ConvNetConfig

CONFIG = EncoderConfig(
    ConvNetConfig(widths=(8, 16), depths=(0, 0)),
    "mean",
    Preprocess(24, "squash", 24, "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
    ProjectionConfig("identity", 16, 16),
)


def test_a_mean_of_shares() -> None:
    rng = np.random.default_rng(0)
    parts = [
        {"tower.a": rng.normal(size=(3, 2)).astype("f"), "tower.b": rng.normal(size=2).astype("f")} for _ in range(3)
    ]
    found = blended(parts, (1.0, 2.0, 1.0))
    for name in parts[0]:
        expected = (parts[0][name] + 2 * parts[1][name] + parts[2][name]) / 4
        np.testing.assert_allclose(found[name], expected, rtol=1e-6)


def test_a_projection_is_that_of_who_has_it() -> None:
    untouched, tuned = {"tower.a": np.zeros(2)}, {"tower.a": np.ones(2), "projection.weight": np.full((2, 1), 5.0)}
    found = blended([untouched, tuned], (0.75, 0.25))
    np.testing.assert_allclose(found["tower.a"], [0.25, 0.25])
    np.testing.assert_array_equal(found["projection.weight"], [[5.0], [5.0]])
    np.testing.assert_array_equal(blended([untouched, tuned], (1.0, 0.0))["projection.weight"], [[5.0], [5.0]])


def test_one_tower_and_one_way_to_see() -> None:
    refuse_unless_alike({"a": CONFIG, "b": replace(CONFIG, projection=ProjectionConfig("linear", 16, 4), mirror=True)})
    other = replace(CONFIG, preprocess=replace(CONFIG.preprocess, interpolation="bicubic"))
    with pytest.raises(EncoderError, match="Weights of `a` and `b` can't be averaged: their preprocess differ"):
        refuse_unless_alike({"a": CONFIG, "b": other})
