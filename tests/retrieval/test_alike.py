"""What is nearly the same, as a loop over all pairs finds it."""

import numpy as np
import pytest

from lookalike.core.shapes import l2_normalize
from lookalike.retrieval import alike
from lookalike.retrieval.alike import first_alike, like_any, nearest_pairs


def clustered(rows: int, seed: int = 0) -> np.ndarray:
    """Rows of length 1: many lie near to one of a few, in any order; some are equal, and one is zero."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(rows // 4 + 1, 16))
    found = centers[rng.integers(0, len(centers), rows)] + rng.normal(size=(rows, 16)) * rng.choice(
        [0, 0.1, 1], (rows, 1)
    )
    found[rows // 2] = 0
    return l2_normalize(found)


@pytest.mark.parametrize("least", [-0.5, 0.6, 0.97, 0.999, 1.5])
@pytest.mark.parametrize("rows", [1, 2, 150])
def test_the_first_before_each_is_that_of_a_loop(monkeypatch: pytest.MonkeyPatch, rows: int, least: float) -> None:
    monkeypatch.setattr(alike, "_BLOCK", 16)
    monkeypatch.setattr(alike, "_STEP", 40)
    vectors = clustered(rows)
    expected = []
    for i in range(rows):
        like = [j for j in range(i) if float(vectors[i].astype(np.float64) @ vectors[j]) >= least]
        expected.append(like[0] if like else -1)
    assert first_alike(vectors, least).tolist() == expected


@pytest.mark.parametrize("least", [-1.5, 0.6, 0.97, 1.5])
@pytest.mark.parametrize(("rows", "most"), [(1, 3), (2, 3), (150, 1), (150, 5)])
def test_pairs_of_the_nearest_are_those_of_a_loop(
    monkeypatch: pytest.MonkeyPatch, rows: int, most: int, least: float
) -> None:
    monkeypatch.setattr(alike, "_STEP", 40)
    vectors = l2_normalize(np.random.default_rng(rows).normal(size=(rows, 5)))
    cosines = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    expected = set()
    for i in range(rows):
        order = sorted((j for j in range(rows) if j != i), key=lambda j: -cosines[i, j])[:most]
        expected |= {(min(i, j), max(i, j)) for j in order if cosines[i, j] >= least}
    found = nearest_pairs(vectors, least, most)
    assert found.pairs.tolist() == sorted(map(list, expected))
    np.testing.assert_allclose(found.cosines, [cosines[i, j] for i, j in found.pairs], atol=1e-5)


def test_like_any_is_that_of_a_loop() -> None:
    vectors, others = clustered(60), clustered(30, 1)
    others[:10] = vectors[20:30]
    expected = [any(float(v.astype(np.float64) @ o) >= 0.97 for o in others) for v in vectors]
    assert any(expected)
    assert like_any(vectors, others, 0.97).tolist() == expected
    assert not like_any(vectors, others[:0], 0.97).any()


def test_what_is_not_finite_is_refused() -> None:
    vectors = clustered(30)
    vectors[3, 3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        first_alike(vectors, 0.9)
