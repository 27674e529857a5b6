"""A tower read as ONNX against the same tower read as JAX, on random weights and statistics.

What eight bits cost is computed by the reference of the format: processors without instructions for bytes, where the
product stays in float32, saturate inside their sums.
"""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from lookalike.core.machine import multiplies_bytes
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, below, tensor_shapes
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
from lookalike.towers.plans import Bottleneck
from lookalike.towers.programs.graph import Graph
from lookalike.towers.programs.onnx import build

VIT = {"size": 32, "patch": 8, "width": 24, "layers": 3, "heads": 2, "hidden": 40, "eps": 1e-2}  # an eps that shows
SIGLIP = {"class_token": False, "positions": "patches", "norm_pre": False, "patch_bias": True, "pool_heads": 4}
ROPE = {"positions": "none", "registers": 2, "norm_pre": False, "layer_scale": True}
EFFICIENT = (Stage("depthwise", 2, 3, 1, 1, 8, 0.25), Stage("depthwise", 2, 5, 2, 6, 16, 0.25))
EFFICIENT_V2 = (Stage("plain", 1, 3, 1, 1, 8), Stage("fused", 2, 3, 2, 4, 16), Stage("depthwise", 2, 3, 2, 4, 24, 0.25))
UNIVERSAL = (Universal("plain", 1, 0, 3, 2, 1, 8), Universal("fused", 1, 0, 3, 2, 4, 8))
UNIVERSAL += (Universal("universal", 2, 5, 3, 2, 3, 16), Universal("universal", 1, 3, 0, 1, 2, 16))
EVA = {"qkv_bias": "query_value", "rope": "scaled", "rope_grid": 3, "norm_pre": False, "patch_bias": True}


class BiasedConfig(ResNetConfig):
    """What no published tower has: convolutions that add a number to each channel, with batch norms behind them."""

    def plan(self) -> tuple[Bottleneck, ...]:
        return tuple(replace(b, convs=tuple(replace(conv, bias=True) for conv in b.convs)) for b in super().plan())


TOWERS: list[tuple[Tower, str]] = [
    (ViTConfig(**VIT, activation="gelu"), "class"),
    (ViTConfig(**VIT, activation="quick_gelu", head=10), "class"),
    (ViTConfig(**VIT, activation="gelu", patch_bias=True, norm_pre=False, norm_pooled=True), "mean"),
    (ViTConfig(**VIT, activation="gelu_tanh", **SIGLIP), "attention"),
    (ViTConfig(**VIT, activation="gelu_tanh", **SIGLIP, stride=5), "mean"),
    (ViTConfig(**VIT, activation="swiglu", registers=3, layer_scale=True, norm_pre=False), "class"),
    (ViTConfig(**VIT, activation="gelu", **ROPE, qkv_bias="query_value", rope="centred"), "class"),
    (ViTConfig(**VIT, activation="gelu", **ROPE, qkv_bias="none", rope="centred"), "mean"),
    (
        ViTConfig(**VIT, activation="gelu", rope="counted", rope_theta=1e4, pool_heads=3, head=7, head_bias=True),
        "attention",
    ),
    (MobileNetV2Config(multiplier=0.25), "mean"),
    (MobileNetV2Config(multiplier=0.35, same_padding=True), "gem"),
    (MobileNetV2Config(multiplier=0.25, same_padding=True, output_stride=8, first_is_expansion=False), "mean"),
    (ConvNetConfig(widths=(8, 16), depths=(1, 2), groups=4), "mean"),
    (ConvNetConfig(widths=(8, 16), depths=(0, 1), groups=8, stem_kernel=5, stem_stride=2), "gem"),
    (EfficientNetConfig(EFFICIENT_V2, stem=8, features=40), "mean"),
    (EfficientNetConfig(EFFICIENT, 8, 40, padding="late", symmetric=(1,), first_residual=False, eps=1e-5), "gem"),
    (ConvNeXtConfig(widths=(8, 16, 24), depths=(1, 2, 1), last_eps=1e-3), "mean"),
    (ConvNeXtConfig(widths=(8, 16), depths=(2, 1), patch=3, kernel=5, layer_scale=False), "mean"),
    (SwinConfig(1, 16, depths=(3, 2), heads=(2, 4), windows=(4, 4), shifts=(2, 2)), "mean"),
    (SwinConfig(1, 16, depths=(2, 2), heads=(4, 2), windows=(13, 9), shifts=(6, 4), patch=2, expansion=2.0), "mean"),
    (ResNetConfig((1, 2), (16, 24), bottleneck=True, stem=8, eps=1e-2), "mean"),
    (ResNetConfig((2, 1), (8, 12), bottleneck=False, stem=8), "gem"),
    (BiasedConfig((1, 1), (8, 12), bottleneck=False, stem=8), "mean"),
    (MobileNetV4Config(UNIVERSAL, stem=8, features=24, eps=1e-2), "mean"),
    (ViTConfig(**VIT, activation="swiglu", **EVA, norm_attention=True, norm_mlp=True), "class"),
    (SwinConfig(2, 16, depths=(3, 2), heads=(2, 4), windows=(4, 7), shifts=(2, 0), trained_windows=(3, 3)), "mean"),
]


def encoder_parts(tower: Tower, pooling: str, size: int = 32) -> tuple[EncoderConfig, dict[str, np.ndarray]]:
    """A config, and random tensors of the kind that training leaves: norms that are not the identity."""
    preprocess = Preprocess(size, "squash", size, "bicubic", (0.48, 0.45, 0.40), (0.27, 0.26, 0.28))
    config = EncoderConfig(tower, pooling, preprocess, ProjectionConfig("identity", tower.features, tower.features))
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        fan_in = np.prod(shape[:-1]) if ".conv." in name else shape[-2] if len(shape) > 1 else 1
        value = rng.normal(size=shape) / np.sqrt(fan_in) * (1.2 if ".conv." in name else 1)
        if "norm" in name:
            value = {"weight": 1 + 0.2 * rng.normal(size=shape), "variance": rng.uniform(0.5, 2, shape)}.get(
                name.split(".")[-1], 0.2 * rng.normal(size=shape)
            )
        tensors[name] = value.astype(np.float32)
    return config, tensors


def graph_of(config: EncoderConfig, tensors: dict[str, np.ndarray], int8: bool = False) -> onnx.ModelProto:
    return build(config.tower, config.pooling, config.preprocess, below("tower", tensors), int8)


@pytest.mark.parametrize(("tower", "pooling"), TOWERS)
def test_equals_the_jax_encoder(tower: Tower, pooling: str) -> None:
    import jax
    import jax.numpy as jnp

    from lookalike.encoders.encoder import Encoder

    size = 32 if isinstance(tower, ViTConfig) else 50  # 50: odd maps on the way down
    config, tensors = encoder_parts(tower, pooling, size)
    images = np.random.default_rng(1).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    encoder = Encoder.from_parts(config, tensors)
    expected = np.asarray(jax.jit(lambda e, x: e.features(x))(encoder, jnp.asarray(images)))
    model = graph_of(config, tensors)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images})
    assert found.shape == (3, tower.features)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5 * np.abs(expected).max())
    assert np.abs(expected - expected.mean(axis=0)).max() > 1e-3  # the images do differ


def test_uses_standard_operators_alone() -> None:
    for tower, pooling in TOWERS:
        model = graph_of(*encoder_parts(tower, pooling))
        assert {node.domain for node in model.graph.node} == {""}


def test_eight_bits_stay_close_and_do_not_depend_on_the_other_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike.towers.programs.graph.LARGE", 1)
    tower = ViTConfig(64, 16, 64, 3, 2, 256, activation="gelu", head=48)
    config, tensors = encoder_parts(tower, "class", 64)
    images = np.random.default_rng(1).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    found = {}
    for int8 in (False, True):
        model = graph_of(config, tensors, int8)
        assert ("MatMulInteger" in {node.op_type for node in model.graph.node}) == int8
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        together = session.run(None, {"images": images})[0]
        alone = np.concatenate([session.run(None, {"images": images[i : i + 1]})[0] for i in range(4)])
        np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-4)
        (found[int8],) = ReferenceEvaluator(model).run(None, {"images": images})
        if multiplies_bytes() or not int8:
            # A number between two steps of eight bits may be rounded to either, which moves all that follows from it.
            near = np.abs(found[int8] - together).max(1) < 1e-3
            assert near.all() if not int8 else near.sum() >= 3
            alike = np.sum(found[int8] * together, 1) / np.linalg.norm(found[int8], axis=1)
            assert (alike / np.linalg.norm(together, axis=1)).min() > 0.9999
    cosine = np.sum(found[True] * found[False], 1) / np.prod([np.linalg.norm(v, axis=1) for v in found.values()], 0)
    assert cosine.min() > 0.9995
    assert not np.allclose(found[True], found[False], rtol=1e-4)


def test_small_products_stay_exact() -> None:
    tower = ViTConfig(**VIT, activation="gelu")
    model = graph_of(*encoder_parts(tower, "class"), int8=True)
    assert "MatMulInteger" not in {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("least", [None, -0.171])
def test_eight_bits_are_as_close_as_their_steps(monkeypatch: pytest.MonkeyPatch, least: float | None) -> None:
    """Rounding moves a number by half a step at most: what is left out is bounded, number by number."""
    monkeypatch.setattr("lookalike.towers.programs.graph.LARGE", 1)
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.normal(size=shape).astype(np.float32) for shape in ((9, 40), (40, 7), (7,)))
    x[0] = 0
    if least is not None:
        x = np.maximum(x, np.float32(least))
    graph = Graph(int8=True)
    made = graph.model(graph.linear("images", weight, bias, least=least), ["B", 40], ["B", 7])
    made.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    (found,) = ReferenceEvaluator(made).run(None, {"images": x})
    row = (np.abs(x).max(1) / 127 if least is None else (x.max(1) - least) / 255)[:, None].astype(np.float64)
    column = np.abs(weight).max(0).astype(np.float64) / 127
    bound = row / 2 * np.abs(weight).sum(0) + (np.abs(x - (least or 0)) + row / 2).sum(1)[:, None] * column / 2 + 1e-5
    error = np.abs(found - (x.astype(np.float64) @ weight + bias))
    assert (error <= bound).all()
    assert error.max() > 1e-4


def test_the_same_rows_are_rounded_anew_where_more_is_known_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without a least number there are other steps and another zero; one may not stand for the other."""
    monkeypatch.setattr("lookalike.towers.programs.graph.LARGE", 1)
    rng = np.random.default_rng(0)
    x, weight = np.abs(rng.normal(size=(9, 40))).astype(np.float32), rng.normal(size=(40, 7)).astype(np.float32)
    graph = Graph(int8=True)
    both = [graph.linear("images", weight, None, least=least) for least in (None, 0.0)]
    made = graph.model(graph.op("Concat", *both, axis=1), ["B", 40], ["B", 14])
    made.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    (found,) = ReferenceEvaluator(made).run(None, {"images": x})
    np.testing.assert_allclose(found, np.tile(x @ weight, (1, 2)), atol=0.2)
