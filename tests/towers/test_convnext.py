"""ConvNeXt: stacked blocks are scanned, computed again on the way back where asked for, and start well."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from lookalike.encoders.encoder import init_tensors
from lookalike.towers import ConvNeXtConfig
from lookalike.towers.ops import declare
from lookalike.towers.programs.jax import features

SMALL = ConvNeXtConfig(widths=(8, 12), depths=(2, 3), kernel=3)


def gradients(config: ConvNeXtConfig, tensors: dict[str, jax.Array], remat: bool) -> dict[str, jax.Array]:
    image = jnp.asarray(np.random.default_rng(0).normal(size=(1, 24, 24, 3)), jnp.float32)
    return jax.jit(jax.grad(lambda t: jnp.sin(features(config, "mean", t, image, remat=remat)).sum()))(tensors)


def test_computing_blocks_again_changes_no_slope():
    config = replace(SMALL, widths=(8,), depths=(3,))
    tensors = init_tensors(declare(config), jax.random.key(0))
    kept, again = (jax.tree.leaves(gradients(config, tensors, remat)) for remat in (False, True))
    for a, b in zip(kept, again, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(a).max()))
        assert jnp.abs(a).max() > 0


def test_what_is_compiled_does_not_grow_with_the_depth():
    def steps(config: ConvNeXtConfig) -> int:
        tensors = init_tensors(declare(config), jax.random.key(0))
        program = jax.make_jaxpr(lambda images: features(config, "mean", tensors, images))
        return str(program(jnp.zeros((1, 16, 16, 3)))).count("\n")

    assert steps(SMALL) == steps(replace(SMALL, depths=(5, 9)))


def test_stacked_kernels_start_by_the_taps_of_one():
    config = ConvNeXtConfig(widths=(400,), depths=(5,))
    start = init_tensors(declare(config), jax.random.key(0))
    kernels = np.asarray(start["stages.0.blocks.depthwise.conv.weight"])
    assert abs(float(kernels.std()) - (2 / 49) ** 0.5) < 0.003
    assert (np.asarray(start["stages.0.blocks.scale"]) == 1).all()
    assert (np.asarray(start["stages.0.blocks.depthwise.bias"]) == 0).all()
