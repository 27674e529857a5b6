"""ONNX: one file for every runtime that reads it, with the preprocessing inside.

The tower's graph is the one that embeds on CPUs; preprocessing goes before it and the projection behind it.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, helper

from lookalike.core import ort
from lookalike.core.errors import EncoderError
from lookalike.core.shapes import Vectors
from lookalike.encoders.config import EncoderConfig, below
from lookalike.export.parts import Export, Target, Written, opening
from lookalike.export.pixels import preprocessing
from lookalike.towers.programs.graph import Graph, int64, move_weights
from lookalike.towers.programs.onnx import build

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
    config = export.config
    tower = below("tower", export.tensors)
    model = build(config.tower, config.pooling, config.preprocess, tower, export.int8)
    if export.int8 and not any(node.op_type == "MatMulInteger" for node in model.graph.node):
        raise EncoderError(
            f"A {type(config.tower).__name__.removesuffix('Config')} of this size has no matrices that 8 bits would "
            "make smaller or faster.",
            hint="leave out `--int8`",
        )
    graph, given = model.graph, "images"
    nodes = list(graph.node)
    del graph.node[:]
    if export.preprocess:
        before = preprocessing(config.preprocess)
        graph.input[0].CopyFrom(before.graph.input[0])
        given = _joined(graph, before.graph, "before", {"images": "images"})
    if config.mirror:
        given = _joined(graph, _with_mirror().graph, "mirror", {"images": given})
    for node in nodes:
        node.input[:] = [given if name == "images" else name for name in node.input]
    graph.node.extend(nodes)
    vectors = _joined(graph, _projection(config, export), "after", {"images": "features"})
    graph.node.append(helper.make_node("Identity", [vectors], ["vectors"]))
    dimension = config.projection.dimension
    graph.output[0].CopyFrom(helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["B", dimension]))
    graph.name = "encoder"
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


def _joined(graph: GraphProto, part: GraphProto, prefix: str, inputs: dict[str, str]) -> str:
    """Append the nodes and constants of `part` under new names; returns that of its output."""

    def named(name: str) -> str:
        return inputs.get(name) or (f"{prefix}_{name}" if name else "")

    for node in part.node:
        copy = graph.node.add()
        copy.CopyFrom(node)
        copy.name = named(node.name)
        copy.input[:] = [named(name) for name in node.input]
        copy.output[:] = [named(name) for name in node.output]
    for tensor in part.initializer:
        copy = graph.initializer.add()
        copy.CopyFrom(tensor)
        copy.name = named(tensor.name)
    return named(part.output[0].name)


def _with_mirror() -> ModelProto:
    """Images, and behind them their mirror images: `images` [B S S 3] -> `features` [2B S S 3]."""
    g = Graph()
    first, beyond, axis, step = int64([-1], [np.iinfo(np.int64).min], [2], [-1])
    both = g.op("Concat", "images", g.op("Slice", "images", first, beyond, axis, step), axis=0)
    return g.model(both, ["B", "S", "S", 3], ["M", "S", "S", 3])


def _projection(config: EncoderConfig, export: Export) -> GraphProto:
    """Features (of images, and behind them of their mirror images) to embeddings of unit length."""
    g, x = Graph(), "images"
    if config.mirror:
        halves = g.op("Reshape", x, np.array([2, -1, config.tower.features], np.int64))
        x = g.op("ReduceMean", halves, np.array([0], np.int64), keepdims=0)
    if config.projection.l2_normalize_input:
        x = _unit(g, x)
    if config.projection.kind == "linear":
        x = g.linear(x, export.tensors["projection.weight"], export.tensors["projection.bias"])
    model = g.model(_unit(g, x), ["B", config.tower.features], ["B", config.projection.dimension])
    graph: GraphProto = model.graph
    return graph


def _unit(g: Graph, x: str) -> str:
    """Rows at length 1. Divided by their largest number first, so that no square overflows; zeros stay zeros."""
    axis = np.array([1], np.int64)
    most = g.op("Max", g.op("ReduceMax", g.op("Abs", x), axis, keepdims=1), np.array(1e-30, np.float32))
    x = g.op("Div", x, most)
    length = g.op("Max", g.op("ReduceL2", x, axis, keepdims=1), np.array(1e-30, np.float32))
    return g.op("Div", x, length)


TARGET = Target(write, "onnx", needs=("onnx",), reads=("onnxruntime",), graph=True, int8=True)
