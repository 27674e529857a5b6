import jax.numpy as jnp
import numpy as np
import pytest

from lookalike.encoders.config import ProjectionConfig
from lookalike.encoders.projection import project


@pytest.mark.parametrize("l2_normalize_input", [False, True])
def test_linear_against_numpy(l2_normalize_input: bool):
    rng = np.random.default_rng(0)
    weight, bias, x = rng.normal(size=(9, 4)), rng.normal(size=4), rng.normal(size=9) * 50
    tensors = {"projection.weight": jnp.asarray(weight, jnp.float32), "projection.bias": jnp.asarray(bias, jnp.float32)}
    (found,) = project(ProjectionConfig("linear", 9, 4, l2_normalize_input), tensors, jnp.asarray(x[None], jnp.float32))
    wanted = (x / np.linalg.norm(x) if l2_normalize_input else x) @ weight + bias
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted), rtol=1e-5, atol=1e-6)


def test_identity_is_unit_length_float32_from_half_precision_too():
    x = jnp.array([[3.0, 4.0]], jnp.bfloat16)
    (found,) = project(ProjectionConfig("identity", 2, 2), {}, x)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, [0.6, 0.8], rtol=1e-6)
