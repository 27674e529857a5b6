"""The ViT against a slow NumPy transcription (the published layouts have their own parity tests in weights/)."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lookalike.encoders.config import EncoderConfig, ProjectionConfig, Tensors, tensor_shapes
from lookalike.encoders.encoder import Encoder
from lookalike.imaging.preprocess import Preprocess
from lookalike.towers import ViTConfig

SMALL = ViTConfig(size=24, patch=8, width=12, layers=2, heads=3, hidden=20, activation="gelu", eps=1e-3)
SIGLIP = {"class_token": False, "positions": "patches", "activation": "gelu_tanh", "norm_pre": False}
ROPE = {"positions": "none", "norm_pre": False}


def parts(tower: ViTConfig, pooling: Any = "class") -> tuple[EncoderConfig, Tensors]:
    prepare = Preprocess(tower.size, "crop", tower.size, "bicubic", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    config = EncoderConfig(tower, pooling, prepare, ProjectionConfig("identity", tower.features, tower.features))
    rng = np.random.default_rng(0)
    return config, {n: (rng.normal(size=s) * 0.5).astype(np.float32) for n, s in tensor_shapes(config).items()}


def norm(x: np.ndarray, t: Tensors, name: str, eps: float) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(x.var(-1, keepdims=True) + eps) * t[f"{name}.weight"] + t[f"{name}.bias"]


def activated(y: np.ndarray, kind: str) -> np.ndarray:
    match kind:
        case "gelu":
            return np.vectorize(lambda v: v * 0.5 * (1 + math.erf(v / math.sqrt(2))))(y)
        case "gelu_tanh":
            return 0.5 * y * (1 + np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
        case "quick_gelu":
            return y / (1 + np.exp(-1.702 * y))
    gate, value = np.split(y, 2, axis=1)
    return gate / (1 + np.exp(-gate)) * value


def attended(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int) -> np.ndarray:
    seen, size = np.zeros_like(q), q.shape[1] // heads
    for at in (slice(h * size, (h + 1) * size) for h in range(heads)):
        weights = np.exp(q[:, at] @ k[:, at].T / math.sqrt(size))
        seen[:, at] = weights / weights.sum(1, keepdims=True) @ v[:, at]
    return seen


def turned(x: np.ndarray, c: ViTConfig) -> np.ndarray:
    """Rotary positions one number at a time: number i with number i + half, by the row, then by the column."""
    size, result = c.width // c.heads, x.copy()
    for patch in range(c.grid**2):
        for axis, place in enumerate(divmod(patch, c.grid)):
            counted = place + (1 if c.class_token else 0)
            by = counted if c.rope == "counted" else 2 * math.pi * ((2 * place + 1) / c.grid - 1)
            for i in range(size // 4):
                angle = by / c.rope_theta ** (4 * i / size)
                for head in range(c.heads):
                    a = head * size + axis * (size // 4) + i
                    u, v = x[c.prefix + patch, a], x[c.prefix + patch, a + size // 2]
                    result[c.prefix + patch, a] = u * math.cos(angle) - v * math.sin(angle)
                    result[c.prefix + patch, a + size // 2] = v * math.cos(angle) + u * math.sin(angle)
    return result


def slow(config: EncoderConfig, tensors: Tensors, image: np.ndarray) -> np.ndarray:
    """Dosovitskiy et al. (2021), equations 1 to 4, with every option of `ViTConfig`; float64."""
    c: Any = config.tower
    t = {name.removeprefix("tower."): tensor.astype(np.float64) for name, tensor in tensors.items()}
    x = slow_tokens(c, t, (image / 255 - np.array(config.preprocess.mean)) / np.array(config.preprocess.std))
    for i in range(c.layers):
        b = {name.removeprefix("blocks."): array[i] for name, array in t.items() if name.startswith("blocks.")}
        q, k, v = np.split(norm(x, b, "norm1", c.eps) @ b["attention.qkv.weight"], 3, axis=1)
        if c.qkv_bias == "all":
            q, k, v = (part + bias for part, bias in zip((q, k, v), np.split(b["attention.qkv.bias"], 3), strict=True))
        elif c.qkv_bias == "query_value":
            q, v = (part + bias for part, bias in zip((q, v), np.split(b["attention.qkv.bias"], 2), strict=True))
        if c.rope != "none":
            q, k = turned(q, c), turned(k, c)
        y = attended(q, k, v, c.heads) @ b["attention.out.weight"] + b["attention.out.bias"]
        x = x + y * b.get("scale1", np.float64(1))
        y = activated(norm(x, b, "norm2", c.eps) @ b["mlp.up.weight"] + b["mlp.up.bias"], c.activation)
        x = x + (y @ b["mlp.down.weight"] + b["mlp.down.bias"]) * b.get("scale2", np.float64(1))
    x = norm(x, t, "norm_post", c.eps)
    pooled = slow_pool(c, t, x) if config.pooling == "attention" else x[0]
    pooled = x[c.prefix :].mean(0) if config.pooling == "mean" else pooled
    return pooled @ t["head.weight"] if c.head else pooled


def slow_tokens(c: ViTConfig, t: Tensors, pixels: np.ndarray) -> np.ndarray:
    step, patches = c.stride or c.patch, []
    for top in range(0, c.size - c.patch + 1, step):
        for left in range(0, c.size - c.patch + 1, step):
            patch = pixels[top : top + c.patch, left : left + c.patch].ravel() @ t["patch.weight"]
            patches.append(patch + t["patch.bias"] if c.patch_bias else patch)
    tokens = [t["class_token"]] if c.class_token else []
    if c.positions == "all":
        tokens = [tokens[0] + t["position"][0]]
    x = np.stack(patches) + (0 if c.positions == "none" else t["position"][int(c.positions == "all") :])
    x = np.stack([*tokens, *t.get("registers", []), *x])
    return norm(x, t, "norm_pre", c.eps) if c.norm_pre else x


def slow_pool(c: Any, t: Tensors, x: np.ndarray) -> np.ndarray:
    weights = np.split(t["pool.attention.qkv.weight"], 3, axis=1)
    biases = np.split(t["pool.attention.qkv.bias"], 3)
    q, k, v = (z @ w + b for z, w, b in zip((t["pool.probe"][None], x, x), weights, biases, strict=True))
    y = attended(q, k, v, c.pool_heads) @ t["pool.attention.out.weight"] + t["pool.attention.out.bias"]
    z = activated(norm(y, t, "pool.norm", c.eps) @ t["pool.mlp.up.weight"] + t["pool.mlp.up.bias"], c.activation)
    return (y + z @ t["pool.mlp.down.weight"] + t["pool.mlp.down.bias"])[0]


@pytest.mark.parametrize(
    ("change", "pooling"),
    [
        ({}, "class"),
        ({"activation": "quick_gelu", "head": 7, "patch_bias": True}, "class"),
        ({"norm_pre": False, "head": 5, "size": 16, "heads": 1}, "mean"),
        ({**SIGLIP, "pool_heads": 2, "pool_hidden": 10}, "attention"),
        ({**SIGLIP, "stride": 3, "size": 21}, "mean"),
        ({"registers": 2, "layer_scale": True, "activation": "swiglu", "norm_pre": False, "size": 29}, "class"),
        ({**ROPE, "rope": "centred", "registers": 2, "layer_scale": True, "qkv_bias": "query_value"}, "class"),
        ({**ROPE, "rope": "centred", "positions": "patches", "qkv_bias": "none", "stride": 4}, "mean"),
        ({"rope": "counted", "rope_theta": 1e4, "pool_heads": 4, "head": 5}, "attention"),
        ({"rope": "counted", "class_token": False, "positions": "patches", "pool_heads": 4}, "attention"),
    ],
)
def test_features_equal_the_slow_transcription(change: dict[str, Any], pooling: str):
    config, tensors = parts(dataclasses.replace(SMALL, **change), pooling)
    size = config.preprocess.size
    images = np.random.default_rng(1).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    found = jax.jit(Encoder.features)(Encoder.from_parts(config, tensors), jnp.asarray(images))
    np.testing.assert_allclose(found, [slow(config, tensors, image) for image in images], rtol=2e-4, atol=2e-5)


@jax.jit
def slopes(encoder: Encoder, images: jax.Array) -> Encoder:
    return jax.grad(lambda e: (e.features(images) ** 2).sum())(encoder)


@pytest.mark.parametrize("remat", [False, True])
def test_a_program_does_not_grow_with_the_blocks(remat: bool):
    """Forward and backward: as many lines for 12 blocks as for 2, so that a deep tower compiles as fast."""
    lines = []
    for layers in (2, 12):
        config, tensors = parts(dataclasses.replace(SMALL, layers=layers))
        encoder, images = Encoder.from_parts(config, tensors, remat=remat), jnp.zeros((1, 24, 24, 3), jnp.uint8)
        for run in (jax.jit(Encoder.features), slopes):
            lines.append(len(run.lower(encoder, images).as_text().splitlines()))
    assert lines[0] == lines[2]
    assert lines[1] == lines[3]


def test_a_gradient_keeps_products_and_no_attention_weights():
    config, tensors = parts(dataclasses.replace(SMALL, layers=3))
    encoder, images = Encoder.from_parts(config, tensors), jnp.zeros((2, 24, 24, 3), jnp.uint8)
    kept = [part.shape for part in jax.tree.leaves(jax.vjp(lambda e: e.features(images), encoder)[1])]
    stacked = [shape for shape in kept if shape[:2] == (2, 2)]  # the blocks of the scan, the last being apart; images
    assert (2, 2, 10, 20) in stacked  # what widened the MLP
    assert not [shape for shape in kept if shape[-2:] == (10, 10)]
    assert sum(math.prod(shape[2:]) for shape in stacked) <= 10 * (20 + 7 * 12)  # of 10 tokens


def test_rematerialised_blocks_give_the_same_slopes_in_less_memory():
    tower = dataclasses.replace(SMALL, layers=12, hidden=120)
    config, tensors = parts(dataclasses.replace(tower, **ROPE, rope="centred", layer_scale=True))
    images = jnp.asarray(np.random.default_rng(1).integers(0, 256, (4, 24, 24, 3), dtype=np.uint8))
    found, bytes_ = [], []
    for remat in (False, True):
        program = slopes.lower(Encoder.from_parts(config, tensors, remat=remat), images).compile()
        bytes_.append(program.memory_analysis().temp_size_in_bytes)
        found.append(program(Encoder.from_parts(config, tensors, remat=remat), images))
    assert bytes_[1] < 0.6 * bytes_[0]
    for kept, again in zip(*(jax.tree.leaves(slope) for slope in found), strict=True):
        np.testing.assert_allclose(kept, again, rtol=1e-3, atol=1e-4 * float(jnp.abs(kept).max()))


def test_half_precision_computes_over_float32_parameters():
    config, tensors = parts(dataclasses.replace(SMALL, **SIGLIP, pool_heads=2), "attention")
    encoder = Encoder.from_parts(config, tensors, "bfloat16")
    program = str(jax.make_jaxpr(lambda e, x: e.features(x))(encoder, jnp.zeros((1, 24, 24, 3), jnp.uint8)))
    products = [line for line in program.splitlines() if "dot_general" in line]
    assert products
    assert all(line.split(" = ")[0].split(":")[1].startswith("bf16") for line in products)
    grown = jax.eval_shape(slopes, encoder, jnp.zeros((1, 24, 24, 3), jnp.uint8))
    assert {slope.dtype for slope in jax.tree.leaves(grown)} == {jnp.dtype(jnp.float32)}


def test_bfloat16_stays_near_and_gives_float32():
    config, tensors = parts(dataclasses.replace(SMALL, head=16))
    images = jnp.asarray(np.random.default_rng(1).integers(0, 256, (2, 24, 24, 3), dtype=np.uint8))
    run = jax.jit(Encoder.__call__)
    whole, half = (run(Encoder.from_parts(config, tensors, dtype), images) for dtype in ("float32", "bfloat16"))
    assert whole.dtype == half.dtype == jnp.float32
    assert 0.99 < float((whole * half).sum(axis=1).min()) < 0.999999
