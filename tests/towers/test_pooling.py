import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lookalike.towers.modules.pooling import pool

TOKENS = np.random.default_rng(0).uniform(0, 6, (7, 5)).astype(np.float32)


def test_against_numpy():
    tokens = jnp.asarray(TOKENS)
    np.testing.assert_array_equal(pool(tokens, "class"), TOKENS[0])
    np.testing.assert_allclose(pool(tokens, "mean"), TOKENS.mean(0), rtol=1e-6)
    np.testing.assert_allclose(pool(tokens, "gem"), (TOKENS.astype(np.float64) ** 3).mean(0) ** (1 / 3), rtol=1e-5)


@given(arrays(np.float32, (4, 3), elements=st.floats(0, 100, width=32)))
@settings(max_examples=50, deadline=None)
def test_gem_lies_between_mean_and_maximum(tokens: np.ndarray):
    mean, gem = (np.asarray(pool(jnp.asarray(tokens), kind)) for kind in ("mean", "gem"))
    assert (gem >= mean * 0.9999 - 1e-5).all()
    assert (gem <= tokens.max(0) * 1.0001 + 1e-5).all()


def test_half_precision_is_averaged_in_single():
    many = jnp.full((4096, 2), 1.01, jnp.bfloat16)
    assert pool(many, "mean").dtype == jnp.bfloat16
    np.testing.assert_allclose(pool(many, "mean").astype(jnp.float32), np.float32(jnp.bfloat16(1.01)), rtol=1e-6)
