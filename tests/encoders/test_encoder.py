"""The encoder as one thing: shapes, mirror, names of its tensors, save and load, one compilation."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, below, tensor_shapes
from lookalike.encoders.encoder import Encoder
from lookalike.imaging.preprocess import Preprocess
from lookalike.towers import (
    ConvNetConfig,
    ConvNeXtConfig,
    EfficientNetConfig,
    MobileNetV2Config,
    MobileNetV4Config,
    ResNetConfig,
    SwinConfig,
    Tower,
    ViTConfig,
)
from lookalike.towers.inverted import Stage, Universal
from lookalike.towers.ops import operations
from lookalike.towers.programs.jax import features

TOWERS: list[Tower] = [
    ViTConfig(size=16, patch=8, width=12, layers=2, heads=3, hidden=20, activation="gelu", head=10),
    ViTConfig(16, 8, 12, 2, 3, 20, "gelu", registers=2, layer_scale=True, rope="counted", pool_heads=2),
    MobileNetV2Config(multiplier=0.35),
    ConvNetConfig(widths=(8, 16), depths=(0, 1)),
    EfficientNetConfig((Stage("fused", 1, 3, 2, 4, 8), Stage("depthwise", 1, 3, 2, 4, 16, 0.25)), stem=8, features=24),
    ConvNeXtConfig(widths=(8, 16), depths=(2, 1)),
    SwinConfig(1, 8, depths=(2, 1), heads=(2, 2), windows=(2, 2), shifts=(1, 1)),
    ResNetConfig((1, 1), (8, 16), bottleneck=True, stem=8),
    MobileNetV4Config((Universal("universal", 1, 3, 5, 2, 2, 8),), stem=8, features=16),
    ViTConfig(16, 8, 12, 2, 3, 20, "swiglu", rope="scaled", rope_grid=4, norm_attention=True, norm_mlp=True),
    SwinConfig(2, 8, depths=(2, 1), heads=(2, 2), windows=(2, 2), shifts=(1, 0), trained_windows=(3, 3)),
]


def new(tower: Tower, mirror: bool = False) -> Encoder:
    prepare = Preprocess(16, "crop", 18, "bicubic", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    pooling = "class" if isinstance(tower, ViTConfig) else "mean"
    config = EncoderConfig(tower, pooling, prepare, ProjectionConfig("linear", tower.features, 6), mirror)
    return Encoder.init(config, jax.random.key(0))


@pytest.mark.parametrize("tower", TOWERS)
def test_tensors_are_those_of_the_table_and_survive_the_disk(tmp_path: Path, tower: Tower):
    encoder = new(tower)
    tensors = encoder.tensors
    assert {name: t.shape for name, t in tensors.items()} == tensor_shapes(encoder.config)
    assert {t.dtype for t in tensors.values()} == {np.dtype(np.float32)}
    encoder.save(tmp_path / "m", {"name": "m"})
    again = Encoder.load(tmp_path / "m")
    assert again.config == encoder.config
    assert again.fingerprint == encoder.fingerprint
    assert all(np.array_equal(t, tensors[name]) for name, t in again.tensors.items())
    assert jax.tree.structure(again) == jax.tree.structure(encoder)
    assert operations(tower, encoder.config.preprocess.size) > 0  # what it costs is known


@jax.jit
def both(encoder: Encoder, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    return encoder.features(images), encoder(images)


def test_features_and_embeddings():
    encoder = new(TOWERS[0])
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    features, embedding = both(encoder, jnp.asarray(images))
    assert features.shape == (3, 10)
    assert embedding.shape == (3, 6)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(encoder.project(features), embedding, atol=1e-6)
    pixels = (images / 255 - np.array([0.5, 0.4, 0.3])) / np.array([0.2, 0.3, 0.4])
    np.testing.assert_allclose(encoder.normalise(images), pixels, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tower", TOWERS[:4], ids=lambda tower: type(tower).__name__)
def test_features_with_zooms_are_the_mean_with_those_of_the_enlarged_center(tower):
    plain = new(tower)
    encoder = dataclasses.replace(plain, config=dataclasses.replace(plain.config, zooms=(0.75, 0.5)))
    size = encoder.config.preprocess.size
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    views = [images.astype(np.float32)]
    for part in (round(0.75 * size), round(0.5 * size)):
        start = (size - part) // 2
        center = views[0][:, start : start + part, start : start + part]
        views.append(np.asarray(jax.image.resize(center, images.shape, "linear", antialias=False)))
    config, tensors = plain.config, below("tower", plain.tensors)
    mean, std = (np.array(part, np.float32) for part in (config.preprocess.mean, config.preprocess.std))
    run = jax.jit(lambda x: features(tower, config.pooling, tensors, x, "float32", False))
    alone = [np.asarray(run((view / 255 - mean) / std)) for view in views]
    np.testing.assert_allclose(jax.jit(Encoder.features)(encoder, images), np.mean(alone, axis=0), atol=1e-5)
    assert np.abs(alone[0] - alone[2]).max() > 1e-3
    assert encoder.features_fingerprint != plain.features_fingerprint


@pytest.mark.parametrize("zooms", [(1.0,), (0.0,), (0.5, -1.0)])
def test_zooms_are_shares_of_the_side(zooms):
    with pytest.raises(EncoderError, match="shares of the side"):
        dataclasses.replace(new(TOWERS[0]).config, zooms=zooms)


def test_mirror_is_the_mean_of_both_ways_to_look():
    encoder = new(TOWERS[3], mirror=True)
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    features, embedding = both(encoder, jnp.asarray(images))
    mirrored, same = both(encoder, jnp.asarray(images[:, :, ::-1].copy()))
    np.testing.assert_allclose(embedding, encoder.project((features + mirrored) / 2), atol=1e-6)
    np.testing.assert_allclose(embedding, same, atol=1e-6)
    assert np.abs(features - mirrored).max() > 1e-3


def test_it_compiles_once_per_shape_and_gives_an_image_the_same_vector_in_any_batch():
    encoder, compiled = new(TOWERS[3]), []

    @jax.jit
    def embed(encoder: Encoder, images: jax.Array) -> jax.Array:
        compiled.append(images.shape)
        return encoder(images)

    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    first, second = embed(encoder, jnp.asarray(images)), embed(encoder, jnp.asarray(images[::-1].copy()))
    assert compiled == [(8, 16, 16, 3)]
    np.testing.assert_allclose(first, second[::-1], atol=1e-5)  # vectors of length 1; sums may run in another order


def test_wrong_parts_are_refused():
    encoder = new(TOWERS[0])
    tensors = dict(encoder.tensors)
    del tensors["tower.position"]
    with pytest.raises(EncoderError, match=r"`tower\.position` is missing"):
        Encoder.from_parts(encoder.config, tensors)


def test_parameters_are_every_array_and_the_config_is_none_of_them():
    encoder = new(TOWERS[1])
    assert len(jax.tree.leaves(encoder)) == len(tensor_shapes(encoder.config))
    other = dataclasses.replace(encoder.config, mirror=True)
    assert jax.tree.structure(encoder) != jax.tree.structure(Encoder.from_parts(other, encoder.tensors))
