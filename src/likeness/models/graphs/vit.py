"""The vision transformer as a graph."""

import numpy as np
from onnx import TensorProto

from likeness.models.config import Tensors
from likeness.models.graphs.graph import Graph, colors, int64
from likeness.models.preprocess import Preprocess
from likeness.models.towers import ViTConfig


def vit(graph: Graph, config: ViTConfig, tensors: Tensors, preprocess: Preprocess, pooling: str) -> str:
    """The features [B F] of pictures."""
    x = _tokens(graph, config, tensors, preprocess)
    for i in range(config.layers):
        block = {name.removeprefix("blocks."): t[i] for name, t in tensors.items() if name.startswith("blocks.")}
        last = i == config.layers - 1
        x = _block(graph, config, block, x, first_only=last and pooling == "class")
    x = graph.norm(x, tensors["norm_post.weight"], tensors["norm_post.bias"], config.eps)
    if pooling == "mean":
        patches = graph.op("Slice", graph.shaped(x, -1, config.tokens, config.width), *int64([1], [config.tokens], [1]))
        x = graph.op("ReduceMean", patches, *int64([1]), keepdims=0)
    return x if config.head is None else graph.linear(x, tensors["head.weight"], None)


def _tokens(graph: Graph, config: ViTConfig, tensors: Tensors, preprocess: Preprocess) -> str:
    """What enters the first block, [B*P F]. Rearranged while still 8 bits; normalised by the patch matrix itself."""
    side, patch, width = config.size // config.patch, config.patch, config.width
    x = graph.shaped("images", -1, side, patch, side, patch * 3)
    x = graph.shaped(graph.op("Transpose", x, perm=[0, 1, 3, 2, 4]), -1, patch * patch * 3)
    mean, scale = (np.tile(part, patch * patch) for part in colors(preprocess))
    weight = scale[:, None] * tensors["patch.weight"]
    position = tensors["position"]
    bias = tensors.get("patch.bias", np.zeros(width, np.float32)) - mean @ weight
    # Exact, since pixels fill all 256 levels and their mean is not yet subtracted.
    x = graph.linear(graph.op("Cast", x, to=TensorProto.FLOAT), weight, bias, exact=True)
    x = graph.op("Add", graph.shaped(x, -1, side * side, width), position[None, 1:])
    batch = graph.op("Shape", x, start=0, end=1)
    first = (tensors["class_token"] + position[0])[None, None]
    first = graph.op("Expand", first, graph.op("Concat", batch, *int64([1, width]), axis=0))
    x = graph.shaped(graph.op("Concat", first, x, axis=1), -1, width)
    if not config.norm_pre:
        return x
    return graph.norm(x, tensors["norm_pre.weight"], tensors["norm_pre.bias"], config.eps)


def _block(graph: Graph, config: ViTConfig, tensors: Tensors, x: str, first_only: bool) -> str:
    """One block, [B*P F] to [B*P F]; or to [B F], where behind it only the class token is looked at."""
    y = graph.norm(x, tensors["norm1.weight"], tensors["norm1.bias"], config.eps)
    if first_only:
        x, asking = _first(graph, config, x), _first(graph, config, y)
    else:
        asking = y
    weights = np.split(tensors["attention.qkv.weight"], 3, axis=1)
    biases = np.split(tensors["attention.qkv.bias"], 3)
    tokens = (1 if first_only else config.tokens, config.tokens, config.tokens)
    q, k, v = (
        graph.shaped(graph.linear(z, w, b), -1, p, config.width)
        for z, w, b, p in zip((asking, y, y), weights, biases, tokens, strict=True)
    )
    y = graph.op("Attention", q, k, v, q_num_heads=config.heads, kv_num_heads=config.heads)
    y = graph.shaped(y, -1, config.width)
    x = graph.op("Add", x, graph.linear(y, tensors["attention.out.weight"], tensors["attention.out.bias"]))
    y = graph.norm(x, tensors["norm2.weight"], tensors["norm2.bias"], config.eps)
    y = graph.linear(y, tensors["mlp.up.weight"], tensors["mlp.up.bias"])
    if config.activation == "gelu":
        y = graph.op("Gelu", y)
    else:
        y = graph.op("Mul", y, graph.op("Sigmoid", graph.op("Mul", y, np.array(1.702, np.float32))))
    return graph.op("Add", x, graph.linear(y, tensors["mlp.down.weight"], tensors["mlp.down.bias"]))


def _first(graph: Graph, config: ViTConfig, x: str) -> str:
    """The class tokens [B F] of [B*P F]."""
    return graph.op("Gather", graph.shaped(x, -1, config.tokens, config.width), np.array(0, np.int64), axis=1)
