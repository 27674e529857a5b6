"""ConvNeXt as a graph: rows of tokens, turned to maps for the depthwise kernels alone."""

import numpy as np
from onnx import TensorProto

from lookalike.encoders.config import Tensors
from lookalike.imaging.preprocess import Preprocess
from lookalike.towers import ConvNeXtConfig
from lookalike.towers.graphs.graph import LEAST_GELU, Graph, colors, int64


def convnext(graph: Graph, config: ConvNeXtConfig, tensors: Tensors, preprocess: Preprocess) -> str:
    """The features [B F] of images: the normed mean over the last map."""
    sides, x = config.sides(preprocess.size), "images"
    before = preprocess.size
    for i, side in enumerate(sides):
        own = _below(f"stages.{i}", tensors)
        if i == 0:
            x = _norm(graph, _pixels(graph, own, before, config.patch, preprocess), own, "norm", config.eps)
        else:
            x = _norm(graph, x, own, "norm", config.eps)
            x = _tiles(graph, x, before, 2, config.widths[i - 1])
            x = graph.linear(x, own["patch.weight"], own["patch.bias"])
        for layer in range(config.depths[i]):
            block = {name: t[layer] for name, t in _below("blocks", own).items()}
            x = _block(graph, config, block, x, side)
        before = side
    x = graph.op("ReduceMean", graph.shaped(x, -1, before**2, config.features), *int64([1]), keepdims=0)
    return _norm(graph, x, tensors, "norm_post", config.last_eps)


def _pixels(graph: Graph, tensors: Tensors, size: int, patch: int, preprocess: Preprocess) -> str:
    """The patches of the images as tokens [B*P F]; normalised by the patch matrix itself."""
    x = graph.op("Cast", _tiles(graph, "images", size, patch, 3), to=TensorProto.FLOAT)
    mean, scale = (np.tile(part, patch**2) for part in colors(preprocess))
    weight = scale[:, None] * tensors["patch.weight"]
    # Exact, since pixels fill all 256 levels and their mean is not yet subtracted.
    return graph.linear(x, weight, tensors["patch.bias"] - mean @ weight, exact=True)


def _tiles(graph: Graph, x: str, side: int, patch: int, width: int) -> str:
    """Tokens [B*P patch*patch*width] of maps of `side` places; what is beyond whole patches is left out."""
    whole = side // patch
    x = graph.shaped(x, -1, side, side, width)
    if side % patch:
        x = graph.op("Slice", x, *int64([0, 0], [whole * patch] * 2, [1, 2]))
    x = graph.op("Transpose", graph.shaped(x, -1, whole, patch, whole, patch * width), perm=[0, 1, 3, 2, 4])
    return graph.shaped(x, -1, patch * patch * width)


def _block(graph: Graph, config: ConvNeXtConfig, tensors: Tensors, x: str, side: int) -> str:
    """One block, [B*P F] to [B*P F]; the scale is part of the last matrix."""
    weight = tensors["depthwise.conv.weight"]
    width = weight.shape[3]
    y = graph.op("Transpose", graph.shaped(x, -1, side, side, width), perm=[0, 3, 1, 2])
    y = graph.op(
        "Conv",
        y,
        weight.transpose(3, 2, 0, 1),
        tensors["depthwise.bias"],
        kernel_shape=[config.kernel] * 2,
        group=width,
        pads=[config.kernel // 2] * 4,
    )
    y = graph.shaped(graph.op("Transpose", y, perm=[0, 2, 3, 1]), -1, width)
    y = _norm(graph, y, tensors, "norm", config.eps)
    y = graph.op("Gelu", graph.linear(y, tensors["mlp.up.weight"], tensors["mlp.up.bias"]))
    scale = tensors.get("scale", np.ones(width, np.float32))
    weight, bias = tensors["mlp.down.weight"] * scale, tensors["mlp.down.bias"] * scale
    return graph.op("Add", x, graph.linear(y, weight, bias, least=LEAST_GELU))


def _norm(graph: Graph, x: str, tensors: Tensors, name: str, eps: float) -> str:
    return graph.norm(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], eps)


def _below(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
