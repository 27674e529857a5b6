"""SavedModel and LiteRT exports against the JAX encoder, through the lines of their READMEs."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from lookalike.core.errors import EncoderError, UsageError
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, tensor_shapes
from lookalike.imaging.preprocess import Preprocess
from lookalike.targets import onnx, tensorflow
from lookalike.targets.parts import Export
from lookalike.targets.writing import check_request, write_export
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
from lookalike.towers.programs.graph import Graph

COLORS = ((0.48, 0.45, 0.40), (0.27, 0.26, 0.28))
VIT: dict[str, Any] = {"size": 32, "patch": 8, "width": 24, "layers": 2, "heads": 2, "hidden": 40}
UNIVERSAL = (Universal("plain", 1, 0, 3, 2, 1, 8), Universal("fused", 1, 0, 3, 2, 4, 8))
STAGES = (Stage("fused", 1, 3, 2, 4, 8), Stage("depthwise", 2, 5, 2, 4, 16, 0.25))
TOWERS: list[tuple[Tower, str, Preprocess, dict[str, Any]]] = [
    (
        ViTConfig(**VIT, activation="quick_gelu", head=10),
        "class",
        Preprocess(32, "crop", 36, "bicubic", *COLORS),
        {"mirror": True, "zooms": (0.8,)},
    ),
    (
        ViTConfig(**VIT, activation="gelu_tanh", stride=5, pool_heads=4),
        "attention",
        Preprocess(32, "squash", 36, "bilinear", *COLORS),
        {"dimension": None},
    ),
    (
        ViTConfig(**VIT, activation="gelu", rope="centred", positions="none", registers=2),
        "class",
        Preprocess(32, "crop", 24, "lanczos", *COLORS),
        {},
    ),
    (
        ViTConfig(**VIT, activation="swiglu", rope="counted"),
        "mean",
        Preprocess(32, "crop", 36, "bicubic", *COLORS, antialias=False, rounding="even"),
        {},
    ),
    (MobileNetV2Config(multiplier=0.25, output_stride=8), "mean", Preprocess(50, "squash", 50, "nearest", *COLORS), {}),
    (
        ResNetConfig((1, 2), (16, 24), bottleneck=True, stem=8),
        "mean",
        Preprocess(50, "squash", 50, "bilinear", *COLORS),
        {},
    ),
    (MobileNetV4Config(UNIVERSAL, stem=8, features=24), "mean", Preprocess(50, "squash", 50, "bilinear", *COLORS), {}),
    (ConvNetConfig(widths=(8, 16), depths=(0, 1)), "gem", Preprocess(32, "squash", 32, "bilinear", *COLORS), {}),
    (EfficientNetConfig(STAGES, stem=8, features=40), "mean", Preprocess(50, "crop", 57, "bicubic", *COLORS), {}),
    (ConvNeXtConfig(widths=(8, 16), depths=(2, 1)), "mean", Preprocess(50, "crop", 57, "bicubic", *COLORS), {}),
    (
        SwinConfig(1, 16, depths=(2, 2), heads=(2, 4), windows=(4, 4), shifts=(2, 2)),
        "mean",
        Preprocess(50, "crop", 57, "bicubic", *COLORS),
        {},
    ),
    (
        SwinConfig(2, 16, depths=(2, 1), heads=(2, 4), windows=(4, 7), shifts=(2, 0)),
        "mean",
        Preprocess(50, "crop", 57, "bilinear", *COLORS),
        {},
    ),
]
PADDED = Preprocess(32, "pad", 32, "bicubic", *COLORS, fill=(9, 99, 200))


def test_every_operator_of_every_tower_is_there():
    assert {type(tower) for tower, *_ in TOWERS} == set(get_args(Tower))
    for tower, pooling, preprocess, _ in TOWERS:
        projection = ProjectionConfig("linear", tower.features, 16, l2_normalize_input=True)
        config = EncoderConfig(tower, pooling, preprocess, projection, mirror=True)
        ones = {name: np.ones(shape, np.float32) for name, shape in tensor_shapes(config).items()}
        graph = onnx.assemble(Export(config, ones, {})).graph
        assert {node.op_type for node in graph.node} <= set(tensorflow.OPERATORS)


def test_an_operator_that_is_not_there_is_named():
    g = Graph()
    model = g.model(g.op("Det", "images"), [1, 3, 3, 3], [1, 3])
    with pytest.raises(EncoderError, match="The operators Det have no counterpart"):
        tensorflow.module(model)


@pytest.mark.parametrize("target", ["saved_model", "tflite"])
def test_without_tensorflow_the_command_is_named(target: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lookalike.targets.writing.absent", lambda libraries: list(libraries))
    with pytest.raises(
        UsageError, match=f"The target {target} is written by libraries that are not installed: tensorflow"
    ):
        check_request(target, True, False)
    with pytest.raises(UsageError, match="`--int8` goes with the targets onnx, openvino"):
        check_request(target, True, True)


def test_what_litert_can_not_hold(tmp_path: Path, case, small, monkeypatch: pytest.MonkeyPatch):
    made = case(ViTConfig(**small, activation="gelu"), "class", PADDED)
    with pytest.raises(EncoderError, match="does not compute in double precision"):
        tensorflow.write_tflite(Export(made.config, made.tensors, {}), tmp_path)
    monkeypatch.setattr(tensorflow, "LARGEST", 1000)
    with pytest.raises(EncoderError, match="A file of LiteRT holds at most"):
        tensorflow.write_tflite(Export(made.config, made.tensors, {}, preprocess=False), tmp_path)


@pytest.mark.reference("tensorflow", "ai_edge_litert")
@pytest.mark.parametrize("target", ["saved_model", "tflite"])
@pytest.mark.parametrize(("tower", "pooling", "preprocess", "options"), TOWERS)
def test_the_readme_gives_the_encoders_vectors(
    tmp_path: Path, case, by_readme, target, tower, pooling, preprocess, options
):
    made, out = case(tower, pooling, preprocess, **options), tmp_path / "out"
    facts = write_export(target, Export(made.config, made.tensors, {}), made.vectors, out)
    assert facts["minimum_cosine"] > 0.99999
    np.testing.assert_allclose(by_readme((out / "README.md").read_text(), out), made.expected, atol=1e-3)


@pytest.mark.reference("tensorflow", "ai_edge_litert")
@pytest.mark.parametrize(("target", "preprocess"), [("saved_model", True), ("saved_model", False), ("tflite", False)])
def test_padded_images(tmp_path: Path, case, small, target: str, preprocess: bool):
    made = case(ViTConfig(**small, activation="gelu"), "class", PADDED)
    export = Export(made.config, made.tensors, {}, preprocess=preprocess)
    assert write_export(target, export, made.vectors, tmp_path / "out")["minimum_cosine"] > 0.99999


@pytest.mark.reference("tensorflow", "ai_edge_litert")
@pytest.mark.parametrize("target", ["saved_model", "tflite"])
def test_any_batch_and_any_size(tmp_path: Path, clip, target: str):
    out = tmp_path / "out"
    write_export(target, Export(clip.config, clip.tensors, {}), clip.vectors, out)
    encode = loaded(out)
    for shape in ((1, 57, 40, 3), (3, 57, 40, 3), (2, 20, 210, 3)):
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        vectors = encode(images)
        assert (vectors.shape, vectors.dtype) == ((shape[0], 64), np.float32)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        alone = np.concatenate([encode(image[None]) for image in images])
        np.testing.assert_allclose(vectors, alone, atol=1e-5)


@pytest.mark.reference("tensorflow", "ai_edge_litert")
def test_files(tmp_path: Path, clip):
    for target in ("saved_model", "tflite"):
        write_export(target, Export(clip.config, clip.tensors, {}), clip.vectors, tmp_path / target)
    ours = {"README.md", "card.json"}
    files = {path.name for path in (tmp_path / "saved_model").iterdir()} - ours
    assert files >= {"saved_model.pb", "variables"}
    assert {path.name for path in (tmp_path / "tflite").iterdir()} - ours == {"model.tflite"}
    # Weights are variables: the graph itself stays small, however large they are.
    assert (tmp_path / "saved_model" / "saved_model.pb").stat().st_size < 300_000


@pytest.mark.reference("tensorflow", "ai_edge_litert")
def test_a_wrong_operator_is_refused(tmp_path: Path, clip, monkeypatch: pytest.MonkeyPatch):
    wrong = {**tensorflow.OPERATORS, "Sigmoid": lambda tf, x: tf.nn.relu(x)}
    monkeypatch.setattr(tensorflow, "OPERATORS", wrong)
    with pytest.raises(EncoderError, match="The saved_model export differs from the encoder"):
        write_export("saved_model", Export(clip.config, clip.tensors, {}), clip.vectors, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.reference("tensorflow")
@pytest.mark.parametrize(("kernel", "stride", "pad"), [(3, 2, 1), (2, 2, 0)])
def test_the_largest_of_a_window(kernel: int, stride: int, pad: int):
    x = np.random.default_rng(0).normal(size=(2, 3, 9, 9)).astype(np.float32) - 5  # zeros around would be larger
    found = tensorflow.OPERATORS["MaxPool"](
        tensorflow.load(), x, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4
    ).numpy()
    padded = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)], constant_values=-np.inf)
    for i, j in np.ndindex(found.shape[2:]):
        window = padded[:, :, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
        np.testing.assert_array_equal(found[:, :, i, j], window.max(axis=(2, 3)))


def loaded(directory: Path):
    """The signature of what was written: images to vectors."""
    if (file := directory / "model.tflite").exists():
        from ai_edge_litert.interpreter import Interpreter

        runner = Interpreter(str(file)).get_signature_runner("serving_default")
        return lambda images: runner(images=images)["vectors"]
    import tensorflow as tf

    model = tf.saved_model.load(str(directory))
    return lambda images: model.signatures["serving_default"](images=tf.constant(images))["vectors"].numpy()
