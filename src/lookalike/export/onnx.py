"""ONNX: one file for every runtime that reads it, with the preprocessing inside.

The tower's graph is the one that embeds on CPUs; preprocessing goes before it and the projection behind it.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto

from lookalike.core import ort
from lookalike.core.errors import EncoderError
from lookalike.core.shapes import Vectors
from lookalike.encoders.config import EncoderConfig, below
from lookalike.export.parts import Export, Target, Written, opening
from lookalike.export.pixels import squares
from lookalike.towers.programs.graph import Graph, int64, move_weights
from lookalike.towers.programs.onnx import record

_LARGEST = 2**31 - 2**20
"""Bytes that one file can hold; larger weights go beside it."""


def write(export: Export, directory: Path) -> Written:
    """`model.onnx`, and `model.bin` where the weights are too large for one file."""
    save(assemble(export), directory)
    code = (
        f"import numpy as np\nimport onnxruntime\nfrom PIL import Image, ImageOps\n\n{opening(export)}\n"
        "session = onnxruntime.InferenceSession('model.onnx', providers=['CPUExecutionProvider'])\n\n"
        "def embed(path):\n    return session.run(None, {'images': prepared(path)[None]})[0][0]\n"
    )
    return Written(code, kept(export))


def kept(export: Export) -> str:
    """What a graph holds and what goes in and comes out, in words."""
    side = export.config.preprocess.size
    into = (
        "uint8 `[batch, height, width, 3]`, RGB, of any height and width"
        if export.preprocess
        else (f"uint8 `[batch, {side}, {side}, 3]`, RGB, resized and cropped before")
    )
    inside = "Resizing, normalising" if export.preprocess else "Normalising"
    mirror = ", the mean with the mirror image" if export.config.mirror else ""
    bits = " Large matrices are whole numbers of 8 bits." if export.int8 else ""
    return (
        f"Input `images`: {into}. Output `vectors`: float32 `[batch, {export.config.projection.dimension}]` of unit "
        f"length. {inside}, tower{mirror} and projection are inside.{bits}"
    )


def assemble(export: Export) -> ModelProto:
    """The graph `images` -> `vectors`, weights inside.

    Raises:
        EncoderError: 8 bits are wanted, and the tower has no matrix that is large enough for them.
    """
    config, tensors, g = export.config, export.tensors, Graph(export.int8)
    side, images = config.preprocess.size, "images"
    shape: list[str | int] = ["B", "H", "W", 3] if export.preprocess else ["B", side, side, 3]
    if export.preprocess:
        images = squares(g, images, config.preprocess)
    if config.mirror:  # images, and behind them their mirror images
        mirrored = g.op("Slice", images, *int64([-1], [np.iinfo(np.int64).min], [2], [-1]))
        images = g.op("Concat", images, mirrored, axis=0)
    x = record(g, images, config.tower, config.pooling, config.preprocess, below("tower", tensors))
    if config.mirror:
        x = g.op("ReduceMean", g.shaped(x, 2, -1, config.tower.features), *int64([0]), keepdims=0)
    if config.projection.l2_normalize_input:
        x = _normalized(g, x)
    if config.projection.kind == "linear":
        x = g.linear(x, tensors["projection.weight"], tensors["projection.bias"], exact=True)
    model = g.model(_normalized(g, x), shape, ["B", config.projection.dimension], name="vectors")
    if export.int8 and not any(node.op_type == "MatMulInteger" for node in model.graph.node):
        raise EncoderError(
            f"A {type(config.tower).__name__.removesuffix('Config')} of this size has no matrices that 8 bits would "
            "make smaller or faster.",
            hint="leave out `--int8`",
        )
    return model


def save(model: ModelProto, directory: Path) -> None:
    """`model.onnx` in `directory`; weights beyond 2 GB go into `model.bin`."""
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _LARGEST:
        move_weights(model, directory / "model.bin")
    (directory / "model.onnx").write_bytes(model.SerializeToString())


def run(config: EncoderConfig, tensors: Mapping[str, np.ndarray], images: Sequence[np.ndarray]) -> Vectors:
    """The vectors of these images, prepared as the encoder prepares them and computed by ONNX Runtime."""
    with tempfile.TemporaryDirectory() as scratch:
        save(assemble(Export(config, tensors, {}, preprocess=False)), Path(scratch))
        session = ort.session(Path(scratch) / "model.onnx")
        squares = [config.preprocess(image)[None] for image in images]
        vectors: Vectors = np.concatenate([session.run(None, {"images": square})[0] for square in squares])
    return vectors


def _normalized(g: Graph, x: str) -> str:
    """Rows at length 1. Divided by their largest number first, so that no square overflows; zeros stay zeros."""
    axis = np.array([1], np.int64)
    most = g.op("Max", g.op("ReduceMax", g.op("Abs", x), axis, keepdims=1), np.array(1e-30, np.float32))
    x = g.op("Div", x, most)
    length = g.op("Max", g.op("ReduceL2", x, axis, keepdims=1), np.array(1e-30, np.float32))
    return g.op("Div", x, length)


TARGET = Target(write, "onnx", needs=("onnx",), reads=("onnxruntime",), graph=True, int8=True)
