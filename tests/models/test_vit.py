"""The ViT against a slow NumPy transcription (the published layouts have their own parity tests in weights/)."""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from likeness.models.config import EncoderConfig, ProjectionConfig, Tensors, ViTConfig, tensor_shapes
from likeness.models.encoder import Encoder
from likeness.models.preprocess import Preprocess

SMALL = ViTConfig(size=24, patch=8, width=12, layers=2, heads=3, hidden=20, activation="gelu", eps=1e-3)


def parts(tower: ViTConfig, pooling: Any = "class") -> tuple[EncoderConfig, Tensors]:
    prepare = Preprocess(tower.size, "crop", tower.size, "bicubic", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    config = EncoderConfig(tower, pooling, prepare, ProjectionConfig("identity", tower.features, tower.features))
    rng = np.random.default_rng(0)
    return config, {n: (rng.normal(size=s) * 0.5).astype(np.float32) for n, s in tensor_shapes(config).items()}


def slow(config: EncoderConfig, tensors: Tensors, image: np.ndarray) -> np.ndarray:
    """Dosovitskiy et al. (2021), equations 1 to 4, with CLIP's norm in front and projection behind; float64."""
    c: Any = config.tower
    t = {name.removeprefix("tower."): tensor.astype(np.float64) for name, tensor in tensors.items()}

    def norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + c.eps) * weight + bias

    pixels = (image / 255 - np.array(config.preprocess.mean)) / np.array(config.preprocess.std)
    tokens = [t["class_token"]]
    for top in range(0, c.size, c.patch):
        for left in range(0, c.size, c.patch):
            patch = pixels[top : top + c.patch, left : left + c.patch].ravel() @ t["patch.weight"]
            tokens.append(patch + t["patch.bias"] if c.patch_bias else patch)
    x = np.stack(tokens) + t["position"]
    x = norm(x, t["norm_pre.weight"], t["norm_pre.bias"]) if c.norm_pre else x
    for i in range(c.layers):
        b = {name.removeprefix("blocks."): array[i] for name, array in t.items() if name.startswith("blocks.")}
        qkv = norm(x, b["norm1.weight"], b["norm1.bias"]) @ b["attention.qkv.weight"] + b["attention.qkv.bias"]
        q, k, v = np.split(qkv, 3, axis=1)
        seen, size = np.zeros_like(x), c.width // c.heads
        for at in (slice(h * size, (h + 1) * size) for h in range(c.heads)):
            weights = np.exp(q[:, at] @ k[:, at].T / math.sqrt(size))
            seen[:, at] = weights / weights.sum(1, keepdims=True) @ v[:, at]
        x = x + seen @ b["attention.out.weight"] + b["attention.out.bias"]
        y = norm(x, b["norm2.weight"], b["norm2.bias"]) @ b["mlp.up.weight"] + b["mlp.up.bias"]
        exact = np.vectorize(lambda v: v * 0.5 * (1 + math.erf(v / math.sqrt(2))))
        y = exact(y) if c.activation == "gelu" else y / (1 + np.exp(-1.702 * y))
        x = x + y @ b["mlp.down.weight"] + b["mlp.down.bias"]
    x = norm(x, t["norm_post.weight"], t["norm_post.bias"])
    pooled = x[0] if config.pooling == "class" else x[1:].mean(0)
    return pooled @ t["head.weight"] if c.head else pooled


@pytest.mark.parametrize(
    ("change", "pooling"),
    [
        ({}, "class"),
        ({"activation": "quick_gelu", "head": 7, "patch_bias": True}, "class"),
        ({"norm_pre": False, "head": 5, "size": 16, "heads": 1}, "mean"),
    ],
)
def test_features_equal_the_slow_transcription(change: dict[str, Any], pooling: str):
    config, tensors = parts(dataclasses.replace(SMALL, **change), pooling)
    size = config.preprocess.size
    images = np.random.default_rng(1).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    found = eqx.filter_jit(Encoder.features)(Encoder.from_parts(config, tensors), jnp.asarray(images))
    np.testing.assert_allclose(found, [slow(config, tensors, image) for image in images], rtol=2e-4, atol=2e-5)


def test_blocks_are_compiled_once_however_many_there_are():
    sizes = []
    for layers in (2, 9):
        config, tensors = parts(dataclasses.replace(SMALL, layers=layers))
        images = jnp.zeros((1, 24, 24, 3), jnp.uint8)
        program = jax.make_jaxpr(lambda e, x: e.features(x))(Encoder.from_parts(config, tensors), images)
        sizes.append(str(program).count("dot_general"))
    assert sizes[0] == sizes[1]


def test_bfloat16_stays_near_and_gives_float32():
    config, tensors = parts(dataclasses.replace(SMALL, head=16))
    images = jnp.asarray(np.random.default_rng(1).integers(0, 256, (2, 24, 24, 3), dtype=np.uint8))
    run = eqx.filter_jit(Encoder.__call__)
    whole, half = (run(Encoder.from_parts(config, tensors, dtype), images) for dtype in ("float32", "bfloat16"))
    assert whole.dtype == half.dtype == jnp.float32
    assert 0.99 < float((whole * half).sum(axis=1).min()) < 0.999999
