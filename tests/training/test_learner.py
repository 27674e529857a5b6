"""What learns and what stays, against slices and products written out by hand."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lookalike.core.errors import UsageError
from lookalike.encoders.config import EncoderConfig, ProjectionConfig
from lookalike.encoders.encoder import Encoder
from lookalike.imaging.preprocess import Preprocess
from lookalike.towers import MobileNetV2Config, ViTConfig
from lookalike.training.config import Trained
from lookalike.training.learner import decays, divide

PREPROCESS = Preprocess(16, "squash", 16, "bilinear", (0.5,) * 3, (0.5,) * 3)


def encoder(tower, pooling):
    config = EncoderConfig(tower, pooling, PREPROCESS, ProjectionConfig("identity", tower.features, tower.features))
    return Encoder.init(config, jax.random.key(0))


@pytest.fixture(scope="module")
def vit():
    return encoder(ViTConfig(16, 8, 12, 4, 3, 20, "gelu"), "class")


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype(np.uint8))


@pytest.mark.parametrize("trained", [Trained(), Trained(blocks=2), Trained(blocks=1, lora=2), Trained(lora=3)])
def test_before_a_step_it_is_the_encoder(vit, images, trained):
    division = divide(vit, trained)
    found = jax.jit(division.features)(division.learned, division.fixed, images)
    np.testing.assert_allclose(found, jax.jit(Encoder.features)(vit, images), rtol=1e-4, atol=1e-5)
    merged = division.merged(division.learned, division.fixed)
    assert set(merged) == set(vit.tensors)
    for name, tensor in merged.items():
        np.testing.assert_array_equal(tensor, vit.tensors[name])


def test_the_last_blocks_learn_and_the_map_before_them_is_the_same(vit, images):
    division = divide(vit, Trained(blocks=2))
    assert division.place == 3  # behind the tokens and two blocks
    assert division.learned["tower.blocks.mlp.up.weight"].shape == (2, 12, 20)
    assert set(division.learned) == {n for n in vit.tensors if n.startswith(("tower.blocks.", "tower.norm_post"))}
    maps = jax.jit(division.maps)(division.fixed.front, images)
    found = jax.jit(division.features_of_maps)(division.learned, division.fixed._replace(front={}), maps)
    np.testing.assert_allclose(found, jax.jit(Encoder.features)(vit, images), rtol=1e-4, atol=1e-5)
    moved = division.merged(jax.tree.map(lambda x: x + 1, division.learned), division.fixed)
    up, before = moved["tower.blocks.mlp.up.weight"], vit.tensors["tower.blocks.mlp.up.weight"]
    np.testing.assert_array_equal(up[:2], before[:2])
    np.testing.assert_array_equal(up[2:], before[2:] + 1)
    np.testing.assert_array_equal(moved["tower.patch.weight"], vit.tensors["tower.patch.weight"])


def test_no_gradient_reaches_what_stays(vit, images):
    division = divide(vit, Trained(blocks=1))

    def loss(fixed):
        return jnp.sum(division.features(division.learned, fixed, images) ** 2)

    gradient = jax.jit(jax.grad(loss))(division.fixed)
    assert all(float(jnp.abs(g).max()) == 0 for g in gradient.front.values())


def test_layers_have_rates_of_their_own(vit):
    factors = divide(vit, Trained(layer_decay=0.5)).factors
    assert factors["tower.norm_post.weight"] == 1.0
    np.testing.assert_allclose(factors["tower.blocks.mlp.up.weight"], [0.5**4, 0.5**3, 0.5**2, 0.5])
    assert factors["tower.patch.weight"] == pytest.approx(0.5**5)
    late = divide(vit, Trained(blocks=2, layer_decay=0.5)).factors
    np.testing.assert_allclose(late["tower.blocks.mlp.up.weight"], [0.5**2, 0.5])
    rules = divide(vit, Trained(rules=("tower.blocks.*=3", "tower.position=0"))).factors
    np.testing.assert_allclose(rules["tower.blocks.mlp.up.weight"], [3.0] * 4)
    assert "tower.position" not in rules
    assert rules["tower.class_token"] == 1.0


def test_low_rank_adds_a_product(vit):
    division = divide(vit, Trained(lora=2))
    name = "tower.blocks.attention.qkv.weight"
    assert {n for n in division.learned if n.startswith(name)} == {f"{name}.lora_a", f"{name}.lora_b"}
    assert f"{name}.lora_a" in decays(vit.config)
    assert not any("norm" in n or "bias" in n for n in division.learned)
    b = jnp.ones((4, 2, 36))
    merged = division.merged({**division.learned, f"{name}.lora_b": b}, division.fixed)
    for block in range(4):
        product = np.asarray(division.learned[f"{name}.lora_a"][block]) @ np.ones((2, 36), np.float32)
        np.testing.assert_allclose(merged[name][block], np.asarray(vit.tensors[name][block]) + product, rtol=1e-5)


def test_kernels_of_one_tap_are_matrices_too(images):
    tower = encoder(MobileNetV2Config(multiplier=0.25), "mean")
    division = divide(tower, Trained(blocks=3, lora=2))
    assert "tower.blocks.16.project.conv.weight.lora_a" in division.learned
    assert not any("depthwise" in name for name in division.learned)
    found = jax.jit(division.features)(division.learned, division.fixed, images)
    np.testing.assert_allclose(found, jax.jit(Encoder.features)(tower, images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("trained", "message"),
    [
        (Trained(blocks=0), "Nothing of the tower learns in this stage."),
        (Trained(rules=("*=0",)), "Nothing of the tower learns in this stage."),
        (Trained(rules=("tower.nowhere=1",)), "No tensor of the tower is called `tower.nowhere`."),
        (Trained(lora=1, rules=("tower.blocks.*.weight=0", "tower.patch*=0")), "No matrix of the tower learns"),
    ],
)
def test_what_can_not_be_trained(vit, trained, message):
    with pytest.raises(UsageError, match=message.replace("*", ".")):
        divide(vit, replace(trained))
