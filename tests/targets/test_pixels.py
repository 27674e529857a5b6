"""Preprocessing as a graph against Pillow (antialiased) and torch's formula (not), through `Preprocess` itself."""

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest

from lookalike.imaging.preprocess import Preprocess
from lookalike.targets.parity import drawn_images
from lookalike.targets.pixels import squares
from lookalike.towers.programs.graph import Graph

GREY = (0.5, 0.5, 0.5)


def preprocessing(preprocess: Preprocess) -> onnx.ModelProto:
    """The squares as float32, which the output of a `Graph` is."""
    g, size = Graph(), preprocess.size
    made = g.op("Cast", squares(g, "images", preprocess), to=onnx.TensorProto.FLOAT)
    return g.model(made, ["B", "H", "W", 3], ["B", size, size, 3])


def graph(preprocess: Preprocess) -> Callable[[np.ndarray], np.ndarray]:
    """Prepares one image."""
    model = preprocessing(preprocess)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"images": image[None]})[0][0]


@pytest.mark.parametrize(
    ("mode", "size", "resize", "interpolation", "antialias", "rounding"),
    [
        ("squash", 64, 64, "bicubic", True, "floor"),
        ("squash", 48, 60, "bilinear", True, "floor"),
        ("squash", 64, 64, "nearest", True, "floor"),
        ("crop", 224, 256, "bicubic", True, "floor"),
        ("crop", 64, 71, "bilinear", True, "even"),
        ("crop", 64, 48, "lanczos", True, "floor"),
        ("pad", 64, 64, "bicubic", True, "floor"),
        ("pad", 64, 71, "bilinear", True, "even"),
        ("squash", 64, 64, "bilinear", False, "floor"),
        ("crop", 64, 70, "bicubic", False, "floor"),
        ("crop", 64, 48, "bicubic", False, "even"),
    ],
)
def test_equals_the_host(mode, size, resize, interpolation, antialias, rounding):
    fill = (1, 120, 250) if mode == "pad" else (0, 0, 0)
    preprocess = Preprocess(size, mode, resize, interpolation, GREY, GREY, antialias, rounding, fill)
    prepare = graph(preprocess)
    for image in drawn_images()[:4]:
        found = prepare(image)
        apart = np.abs(found.astype(int) - preprocess(image))
        off = np.array(image.shape[:2]) - preprocess.resized(*image.shape[:2])
        if antialias and off[0] > max(0, 2 * off[1]):
            # Pillow 13 takes these the other way round; rounding between the passes then differs.
            assert np.mean(apart > 1) <= 0.02
            assert apart.max() <= 24
        else:
            assert apart.max() <= 1
            # Weights of the bilinear filter are simple fractions, and so many sums lie half way between two values.
            assert np.mean(apart > 0) <= (0.2 if interpolation == "bilinear" else 0.002)


def test_a_wrong_filter_would_be_noticed():
    image = drawn_images()[1]
    bilinear = Preprocess(64, "squash", 64, "bilinear", GREY, GREY)
    bicubic = Preprocess(64, "squash", 64, "bicubic", GREY, GREY)
    assert np.abs(graph(bilinear)(image).astype(int) - bicubic(image)).max() > 10


def test_pictures_of_a_batch_are_independent():
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 57, 3), dtype=np.uint8)
    model = preprocessing(Preprocess(32, "crop", 36, "bicubic", GREY, GREY))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (whole,) = session.run(None, {"images": images})
    for image, found in zip(images, whole, strict=True):
        np.testing.assert_array_equal(session.run(None, {"images": image[None]})[0][0], found)


def test_standard_operators_alone():
    preprocess = Preprocess(32, "crop", 36, "lanczos", GREY, GREY)
    assert {node.domain for node in preprocessing(preprocess).graph.node} == {""}
