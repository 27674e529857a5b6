"""A tower cut in two at any of its places is the same tower: features, and the slopes of what is behind the cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lookalike.encoders.encoder import init_tensors
from lookalike.towers import ConvNeXtConfig, MobileNetV2Config, SwinConfig, ViTConfig
from lookalike.towers.ops import declare, halves, places
from lookalike.towers.programs.halves import behind, front
from lookalike.towers.programs.jax import features

TOWERS = {
    "vit": ViTConfig(32, 8, 16, 4, 2, 32, "gelu"),
    "siglip": ViTConfig(32, 8, 16, 3, 2, 32, "gelu", class_token=False, positions="patches", pool_heads=2),
    "swin": SwinConfig(1, 8, (2, 3), (2, 2), (2, 2), (1, 1)),
    "convnext": ConvNeXtConfig((8, 16), (2, 1)),
    "mobilenet": MobileNetV2Config(multiplier=0.25),
}


def cut(tower, tensors, place):
    """By the names and lengths that `halves` gives, in plain slices."""
    front_shapes, back_shapes = halves(tower, place)
    stacked = {name for name, tensor in declare(tower).items() if tensor.blocks}
    early = {n: tensors[n][: s[0]] if n in stacked else tensors[n] for n, s in front_shapes.items()}
    late = {n: tensors[n][-s[0] :] if n in stacked else tensors[n] for n, s in back_shapes.items()}
    return early, late


@pytest.mark.parametrize("name", TOWERS)
def test_both_halves_are_the_whole(name):
    tower = TOWERS[name]
    pooling, count = tower.poolings[-1], places(tower)
    tensors = init_tensors(declare(tower), jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    whole = np.asarray(jax.jit(lambda t, x: features(tower, pooling, t, x))(tensors, x))
    for place in sorted({1, count // 2, count - 1, count}):
        early, late = cut(tower, tensors, place)
        assert sum(t.size for t in [*early.values(), *late.values()]) == sum(t.size for t in tensors.values())
        both = jax.jit(lambda a, b, x: behind(tower, pooling, b, front(tower, a, x, place), place, 32))  # noqa: B023
        np.testing.assert_allclose(both(early, late, x), whole, rtol=1e-4, atol=1e-4)


def test_slopes_behind_the_cut_are_those_of_the_whole():
    tower = TOWERS["vit"]
    tensors = init_tensors(declare(tower), jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    early, late = cut(tower, tensors, 3)  # two of four blocks are behind it
    map_ = front(tower, early, x, 3)
    whole = jax.jit(jax.grad(lambda t: jnp.sum(features(tower, "class", t, x) ** 2)))(tensors)
    half = jax.jit(jax.grad(lambda t: jnp.sum(behind(tower, "class", t, map_, 3, 32) ** 2)))(late)
    assert half["blocks.mlp.up.weight"].shape == (2, 16, 32)
    for name, slope in half.items():
        expected = whole[name][-len(slope) :] if name.startswith("blocks.") else whole[name]
        np.testing.assert_allclose(slope, expected, rtol=1e-3, atol=1e-5, err_msg=name)
