"""The vision transformer as a graph."""

import numpy as np
from onnx import TensorProto

from lookalike.encoders.config import Tensors
from lookalike.imaging.preprocess import Preprocess
from lookalike.towers import ViTConfig
from lookalike.towers.graphs.graph import LEAST_GELU, Graph, colors, int64


def vit(graph: Graph, config: ViTConfig, tensors: Tensors, preprocess: Preprocess, pooling: str) -> str:
    """The features [B F] of images."""
    x = _tokens(graph, config, tensors, preprocess)
    for i in range(config.layers):
        block = {name.removeprefix("blocks."): t[i] for name, t in tensors.items() if name.startswith("blocks.")}
        last = i == config.layers - 1
        x = _block(graph, config, block, x, first_only=last and pooling == "class")
    norm = tensors["norm_post.weight"], tensors["norm_post.bias"], config.eps
    x = x if config.norm_pooled else graph.norm(x, *norm)
    if pooling == "mean":
        patches = graph.shaped(x, -1, config.tokens, config.width)
        if config.prefix:
            patches = graph.op("Slice", patches, *int64([config.prefix], [config.tokens], [1]))
        x = graph.op("ReduceMean", patches, *int64([1]), keepdims=0)
    elif pooling == "attention":
        pool = {name.removeprefix("pool."): t for name, t in tensors.items() if name.startswith("pool.")}
        x = _asked(graph, config, pool, x)
    x = graph.norm(x, *norm) if config.norm_pooled else x
    return x if config.head is None else graph.linear(x, tensors["head.weight"], tensors.get("head.bias"))


def _tokens(graph: Graph, config: ViTConfig, tensors: Tensors, preprocess: Preprocess) -> str:
    """What enters the first block, [B*P F]. Rearranged while still 8 bits; normalised by the patch matrix itself."""
    mean, scale = (np.tile(part, config.patch**2) for part in colors(preprocess))
    weight = scale[:, None] * tensors["patch.weight"]
    bias = tensors.get("patch.bias", np.zeros(config.width, np.float32)) - mean @ weight
    # Exact, since pixels fill all 256 levels and their mean is not yet subtracted.
    x = graph.linear(graph.op("Cast", _cut(graph, config), to=TensorProto.FLOAT), weight, bias, exact=True)
    x = graph.shaped(x, -1, config.grid**2, config.width)
    first = _prefix(config, tensors)
    if config.positions != "none":
        x = graph.op("Add", x, tensors["position"][None, int(config.positions == "all") :])
    if len(first):
        batch = graph.op("Shape", x, start=0, end=1)
        shape = graph.op("Concat", batch, *int64([*first.shape]), axis=0)
        x = graph.op("Concat", graph.op("Expand", first[None], shape), x, axis=1)
    x = graph.shaped(x, -1, config.width)
    if not config.norm_pre:
        return x
    return graph.norm(x, tensors["norm_pre.weight"], tensors["norm_pre.bias"], config.eps)


def _cut(graph: Graph, config: ViTConfig) -> str:
    """The patches of the images as rows, 8 bits."""
    grid, patch, step = config.grid, config.patch, config.step
    x = "images"
    if step < patch:  # rows and columns that lie in several patches are taken several times
        at = (step * np.arange(grid)[:, None] + np.arange(patch)).ravel()
        x = graph.op("Gather", graph.op("Gather", x, at, axis=1), at, axis=2)
    elif grid * patch < config.size:
        x = graph.op("Slice", x, *int64([0, 0], [grid * patch] * 2, [1, 2]))
    x = graph.shaped(x, -1, grid, patch, grid, patch * 3)
    return graph.shaped(graph.op("Transpose", x, perm=[0, 1, 3, 2, 4]), -1, patch * patch * 3)


def _prefix(config: ViTConfig, tensors: Tensors) -> np.ndarray:
    """The tokens before the patches, which are the same for every image."""
    first = []
    if config.class_token:
        token = tensors["class_token"]
        first.append((token + tensors["position"][0] if config.positions == "all" else token)[None])
    if config.registers:
        first.append(tensors["registers"])
    return np.concatenate(first) if first else np.zeros((0, config.width), np.float32)


def _block(graph: Graph, config: ViTConfig, tensors: Tensors, x: str, first_only: bool) -> str:
    """One block, [B*P F] to [B*P F]; or to [B F], where behind it only the class token is looked at."""
    y = graph.norm(x, tensors["norm1.weight"], tensors["norm1.bias"], config.eps)
    if first_only:
        x, asking = _first(graph, config, x), _first(graph, config, y)
    else:
        asking = y
    y = _attention(graph, config, tensors, asking, y, first_only)
    weight, bias = _scaled(tensors, "attention.out", "scale1")
    x = graph.op("Add", x, graph.linear(y, weight, bias))
    y = graph.norm(x, tensors["norm2.weight"], tensors["norm2.bias"], config.eps)
    weight, bias = _scaled(tensors, "mlp.down", "scale2")
    return graph.op("Add", x, graph.linear(_up(graph, config, tensors, y), weight, bias, least=_least(config)))


def _attention(graph: Graph, config: ViTConfig, tensors: Tensors, asking: str, x: str, first_only: bool) -> str:
    """What the asking tokens gather, before the last matrix, [B*Q F]."""
    weights = np.split(tensors["attention.qkv.weight"], 3, axis=1)
    tokens = (1 if first_only else config.tokens, config.tokens, config.tokens)
    q, k, v = (
        graph.shaped(graph.linear(z, w, b), -1, p, config.width)
        for z, w, b, p in zip((asking, x, x), weights, _biases(config, tensors), tokens, strict=True)
    )
    if config.rope != "none":
        # The class token, which asks alone in the last block, is not turned.
        q, k = q if first_only else _rotated(graph, config, q), _rotated(graph, config, k)
    y = graph.op("Attention", q, k, v, q_num_heads=config.heads, kv_num_heads=config.heads)
    return graph.shaped(y, -1, config.width)


def _biases(config: ViTConfig, tensors: Tensors) -> tuple[np.ndarray | None, ...]:
    match config.qkv_bias:
        case "all":
            return tuple(np.split(tensors["attention.qkv.bias"], 3))
        case "query_value":
            query, value = np.split(tensors["attention.qkv.bias"], 2)
            return query, None, value
        case "none":
            return None, None, None


def _rotated(graph: Graph, config: ViTConfig, x: str) -> str:
    """Queries or keys [B P F], turned by their place."""
    tables = config.rotations()
    batch = graph.op("Shape", x, start=0, end=1)
    places = graph.op(
        "Expand", np.arange(config.tokens)[None], graph.op("Concat", batch, *int64([config.tokens]), axis=0)
    )
    return graph.op("RotaryEmbedding", x, *tables, places, num_heads=config.heads)


def _scaled(tensors: Tensors, name: str, scale: str) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and bias, with the layer scale behind them folded in."""
    weight, bias, by = tensors[f"{name}.weight"], tensors[f"{name}.bias"], tensors.get(scale)
    return (weight, bias) if by is None else (weight * by, bias * by)


def _least(config: ViTConfig) -> float | None:
    """Below what nothing leaves the MLP's activation."""
    return None if config.activation == "swiglu" else LEAST_GELU


def _up(graph: Graph, config: ViTConfig, tensors: Tensors, x: str) -> str:
    """The MLP up to its activation."""
    weight, bias = tensors["mlp.up.weight"], tensors["mlp.up.bias"]
    if config.activation == "swiglu":
        gate, value = (graph.linear(x, w, b) for w, b in zip(np.split(weight, 2, 1), np.split(bias, 2), strict=True))
        return graph.op("Mul", graph.op("Mul", gate, graph.op("Sigmoid", gate)), value)
    y = graph.linear(x, weight, bias)
    if config.activation == "quick_gelu":
        return graph.op("Mul", y, graph.op("Sigmoid", graph.op("Mul", y, np.array(1.702, np.float32))))
    return graph.op("Gelu", y, **({"approximate": "tanh"} if config.activation == "gelu_tanh" else {}))


def _asked(graph: Graph, config: ViTConfig, tensors: Tensors, x: str) -> str:
    """Attention pooling of all tokens, [B*P F] to [B F]. The probe is the same for every image, so its query is a
    constant.
    """
    wq, wk, wv = np.split(tensors["attention.qkv.weight"], 3, axis=1)
    bq, bk, bv = np.split(tensors["attention.qkv.bias"], 3)
    k, v = (graph.shaped(graph.linear(x, w, b), -1, config.tokens, config.width) for w, b in ((wk, bk), (wv, bv)))
    batch = graph.op("Shape", k, start=0, end=1)
    shape = graph.op("Concat", batch, *int64([1, config.width]), axis=0)
    q = graph.op("Expand", (tensors["probe"] @ wq + bq)[None, None], shape)
    y = graph.op("Attention", q, k, v, q_num_heads=config.pool_heads, kv_num_heads=config.pool_heads)
    y = graph.shaped(y, -1, config.width)
    y = graph.linear(y, tensors["attention.out.weight"], tensors["attention.out.bias"])
    z = graph.norm(y, tensors["norm.weight"], tensors["norm.bias"], config.eps)
    weight, bias = tensors["mlp.down.weight"], tensors["mlp.down.bias"]
    z = graph.linear(_up(graph, config, tensors, z), weight, bias, least=_least(config))
    return graph.op("Add", y, z)


def _first(graph: Graph, config: ViTConfig, x: str) -> str:
    """The class tokens [B F] of [B*P F]."""
    return graph.op("Gather", graph.shaped(x, -1, config.tokens, config.width), np.array(0, np.int64), axis=1)
