import jax.numpy as jnp
import numpy as np
import pytest

from lookalike.encoders.config import EncoderConfig, ProjectionConfig
from lookalike.encoders.encoder import Encoder
from lookalike.imaging.preprocess import Preprocess
from lookalike.towers import ViTConfig


def encoder(tensors: dict[str, np.ndarray], *projection: object) -> Encoder:
    """Of the projection alone."""
    tower = ViTConfig(size=16, patch=8, width=12, layers=1, heads=3, hidden=20, activation="gelu", head=projection[1])
    prepare = Preprocess(16, "crop", 16, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return Encoder(EncoderConfig(tower, "class", prepare, ProjectionConfig(*projection)), tensors)


@pytest.mark.parametrize("l2_normalize_input", [False, True])
def test_linear_against_numpy(l2_normalize_input: bool):
    rng = np.random.default_rng(0)
    weight, bias, x = rng.normal(size=(9, 4)), rng.normal(size=4), rng.normal(size=9) * 50
    tensors = {"projection.weight": jnp.asarray(weight, jnp.float32), "projection.bias": jnp.asarray(bias, jnp.float32)}
    (found,) = encoder(tensors, "linear", 9, 4, l2_normalize_input).project(np.asarray(x[None], np.float32))
    wanted = (x / np.linalg.norm(x) if l2_normalize_input else x) @ weight + bias
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted), rtol=1e-5, atol=1e-6)


def test_identity_is_unit_length_float32_from_half_precision_too():
    (found,) = encoder({}, "identity", 2, 2).project(jnp.array([[3.0, 4.0]], jnp.bfloat16))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, [0.6, 0.8], rtol=1e-6)
