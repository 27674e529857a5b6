"""Tokens times weights, against products of NumPy in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lookalike.core.mesh import make_mesh, place, put_batch
from lookalike.towers.programs.products import merged


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("count", [1, 8])
def test_gradients_are_summed_in_float32(devices, dtype, count):
    """Whatever the tokens are in, and on however many devices."""
    rng, mesh = np.random.default_rng(0), make_mesh(devices[:count])
    weight = rng.normal(size=(32, 24)).astype(np.float32)
    x, along = (rng.normal(size=(16, 9, width)).astype(dtype) for width in (32, 24))  # what is rounded is so for both

    def loss(weight: jax.Array, x: jax.Array, along: jax.Array) -> jax.Array:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            y = jax.vmap(lambda one: merged(one, weight))(x)
        return (y * along).astype(jnp.float32).sum()

    own, back = jax.jit(jax.grad(loss, (0, 1)))(place(weight, mesh), *put_batch((x, along), mesh))
    assert (own.dtype, back.dtype) == (jnp.float32, dtype)
    wide, of_x = along.astype(np.float64), x.astype(np.float64)
    np.testing.assert_allclose(own, np.einsum("bpf,bpo->fo", of_x, wide), atol=2e-5)
    rounded = weight.astype(dtype).astype(np.float64)
    np.testing.assert_allclose(np.asarray(back).astype(np.float64), wide @ rounded.T, rtol=1e-2, atol=5e-2)


def test_weights_of_each_image():
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(3, 5, 4)).astype(np.float32), rng.normal(size=(3, 4, 6)).astype(np.float32)
    for axes in ((0, 0), (None, 0), (0, None)):
        parts = [part if axis == 0 else part[0] for part, axis in zip((x, weight), axes, strict=True)]
        found = jax.vmap(merged, axes)(*map(jnp.asarray, parts))
        np.testing.assert_allclose(found, np.matmul(*parts), atol=1e-5)
