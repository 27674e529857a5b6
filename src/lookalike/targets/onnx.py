"""ONNX, and OpenVINO's form of the same graph: the one that embeds on CPUs, preprocessing and projection inside."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto

from lookalike.core.machine import onnx_session
from lookalike.core.shapes import Vectors
from lookalike.encoders.config import EncoderConfig, below
from lookalike.targets.lines import graph_lines, views
from lookalike.targets.parts import Export, Target, Written, refused
from lookalike.targets.pixels import squares
from lookalike.towers.programs.graph import Graph, move_weights
from lookalike.towers.programs.onnx import record

LARGEST = 2**31 - 2**20  # bytes of weights that one file can hold, of ONNX and of LiteRT; ONNX puts more beside it


def write(export: Export, directory: Path) -> Written:
    """`model.onnx`, and `model.bin` where the weights are too large for one file."""
    save(assemble(export), directory)
    load = "session = onnxruntime.InferenceSession('model.onnx', providers=['CPUExecutionProvider'])\n"
    return written(export, "import onnxruntime", load, "session.run(None, {'images': prepared(path)[None]})[0][0]")


def write_openvino(export: Export, directory: Path) -> Written:
    """`model.xml` and `model.bin`, numbers in 32 bits."""
    # Without this module OpenVINO takes a stub; with it, importing OpenVINO tells its makers so over the network.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    with tempfile.TemporaryDirectory() as scratch:
        save(assemble(export), Path(scratch))
        model = openvino.Core().read_model(Path(scratch) / "model.onnx")
        openvino.save_model(model, directory / "model.xml", compress_to_fp16=False)
    load = (
        "exact = {'INFERENCE_PRECISION_HINT': 'f32'}  # without it, processors that can compute in bfloat16 do\n"
        "model = openvino.Core().compile_model('model.xml', 'CPU', exact)\n"
    )
    return written(export, "import openvino", load, "model(prepared(path)[None])[0][0]")


def written(export: Export, imports: str, load: str, run: str) -> Written:
    """What a target of this graph gives back: lines, and what goes in and comes out, in words."""
    config, side = export.config, export.config.preprocess.size
    into = "height, width, 3]`, RGB, of any height and width"
    if not export.preprocess:
        into = f"{side}, {side}, 3]`, RGB, resized and cropped before"
    keeps = (
        f"Input `images`: uint8 `[batch, {into}. Output `vectors`: float32 `[batch, {config.projection.dimension}]` of "
        f"unit length. {'Resizing, normalising' if export.preprocess else 'Normalising'}, tower"
        f"{views(config)} and projection are inside."
        f"{' Large matrices are whole numbers of 8 bits.' if export.int8 else ''}"
    )
    return Written(graph_lines(imports, load, run, None if export.preprocess else config.preprocess), keeps)


def assemble(export: Export) -> ModelProto:
    """The graph `images` -> `vectors`, weights inside; EncoderError if 8 bits are wanted, and no matrix is for them."""
    config, tensors, g = export.config, export.tensors, Graph(export.int8)
    side, images = config.preprocess.size, "images"
    shape: list[str | int] = ["B", "H", "W", 3] if export.preprocess else ["B", side, side, 3]
    if export.preprocess:
        images = squares(g, images, config.preprocess)
    if config.mirror:  # images, and behind them their mirror images
        mirrored = g.op("Slice", images, [-1], [np.iinfo(np.int64).min], [2], [-1])
        images = g.op("Concat", images, mirrored, axis=0)
    x = record(g, images, config.tower, config.pooling, config.preprocess, below("tower", tensors), config.zooms)
    if config.mirror:
        x = g.op("ReduceMean", g.op("Reshape", x, [2, -1, config.tower.features]), [0], keepdims=0)
    if config.projection.l2_normalize_input:
        x = _normalized(g, x)
    if config.projection.kind == "linear":
        x = g.linear(x, tensors["projection.weight"], tensors["projection.bias"], exact=True)
    model = g.model(_normalized(g, x), shape, ["B", config.projection.dimension], name="vectors")
    if export.int8 and not any(node.op_type == "MatMulInteger" for node in model.graph.node):
        words = f"A {config.kind} of this size has no matrices that 8 bits would make smaller or faster."
        raise refused(words, "leave out `--int8`")
    return model


def save(model: ModelProto, directory: Path) -> None:
    """`model.onnx` in `directory`; weights beyond 2 GB go into `model.bin`."""
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) > LARGEST:
        move_weights(model, directory / "model.bin")
    (directory / "model.onnx").write_bytes(model.SerializeToString())


def run(config: EncoderConfig, tensors: Mapping[str, np.ndarray], images: Sequence[np.ndarray]) -> Vectors:
    """The vectors of these images, prepared as the encoder prepares them and computed by ONNX Runtime."""
    with tempfile.TemporaryDirectory() as scratch:
        save(assemble(Export(config, tensors, {}, preprocess=False)), Path(scratch))
        session = onnx_session(Path(scratch) / "model.onnx")
        squares = [config.preprocess(image)[None] for image in images]
        vectors: Vectors = np.concatenate([session.run(None, {"images": square})[0] for square in squares])
    return vectors


def _normalized(g: Graph, x: str) -> str:
    """Rows at length 1. Divided by their largest number first, so that no square overflows; zeros stay zeros."""
    axis, least = np.array([1], np.int64), np.array(1e-30, np.float32)
    x = g.op("Div", x, g.op("Max", g.op("ReduceMax", g.op("Abs", x), axis, keepdims=1), least))
    return g.op("Div", x, g.op("Max", g.op("ReduceL2", x, axis, keepdims=1), least))


TARGET = Target(write, "onnx", needs=("onnx",), reads=("onnxruntime",), graph=True, int8=True)
OPENVINO = Target(write_openvino, "openvino", needs=("openvino",), reads=("openvino",), graph=True, int8=True)
