"""Both versions of the Swin transformer as a graph.

Padding, rolling and cutting into windows are one look-up of tokens, and so is the way back. Biases and masks are made
of constants alone, by look-ups and sums that a runtime does once, as it loads the graph: written out, those of large
windows would take more room than the weights.
"""

import math

import numpy as np
from jaxtyping import Float32, Int
from onnx import TensorProto

from lookalike.encoders.config import Tensors
from lookalike.imaging.preprocess import Preprocess
from lookalike.towers import SwinConfig
from lookalike.towers.graphs.graph import LEAST_GELU, Graph, colors, int64
from lookalike.towers.swin import EPS_BETWEEN, log_offsets, pairs, regions


def swin(graph: Graph, config: SwinConfig, tensors: Tensors, preprocess: Preprocess) -> str:
    """The features [B F] of images: the mean over the last map."""
    sides = config.sides(preprocess.size)
    x = _tokens(graph, config, tensors, preprocess)
    x = graph.norm(x, tensors["norm_patch.weight"], tensors["norm_patch.bias"], EPS_BETWEEN)
    for stage, side in enumerate(sides):
        own = _below(f"stages.{stage}", tensors)
        window, shift = config.window(stage, side)
        for layer in range(config.depths[stage]):
            block = {name: t[layer] for name, t in _below("blocks", own).items()}
            x = _block(graph, config, block, x, stage, (side, window, layer % 2 * shift))
        if stage < config.stages - 1:
            x = _merged(graph, config, _below("merge", own), x, side)
    x = graph.norm(x, tensors["norm_post.weight"], tensors["norm_post.bias"], config.eps)
    return graph.op("ReduceMean", graph.shaped(x, -1, sides[-1] ** 2, config.features), *int64([1]), keepdims=0)


def _tokens(graph: Graph, config: SwinConfig, tensors: Tensors, preprocess: Preprocess) -> str:
    """The patches of the images as tokens [B*P F]; normalised by the patch matrix itself."""
    patch, side = config.patch, config.sides(preprocess.size)[0]
    missing, (mean, scale) = side * patch - preprocess.size, colors(preprocess)
    x = "images"
    if missing:  # what is added stands for the mean colour, which eight bits can't hold
        x = graph.op("Sub", graph.op("Cast", x, to=TensorProto.FLOAT), mean)
        x = graph.op("Pad", x, *int64([0, 0, 0, 0, 0, missing, missing, 0]))
    x = graph.op("Transpose", graph.shaped(x, -1, side, patch, side, patch * 3), perm=[0, 1, 3, 2, 4])
    x = graph.shaped(x, -1, patch * patch * 3)
    weight, bias = np.tile(scale, patch**2)[:, None] * tensors["patch.weight"], tensors["patch.bias"]
    if not missing:
        x, bias = graph.op("Cast", x, to=TensorProto.FLOAT), bias - np.tile(mean, patch**2) @ weight
    # Exact, since pixels fill all 256 levels and their mean is not yet subtracted.
    return graph.linear(x, weight, bias, exact=True)


def _block(graph: Graph, config: SwinConfig, tensors: Tensors, x: str, stage: int, cut: tuple[int, int, int]) -> str:
    """One block, [B*P F] to [B*P F]; `cut` is (side of the map, side of a window, shift)."""

    def norm(x: str, name: str) -> str:
        return graph.norm(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], config.eps)

    attention = _below("attention", tensors)
    if config.version == 1:
        x = graph.op("Add", x, _attention(graph, config, attention, norm(x, "norm1"), stage, cut))
        return graph.op("Add", x, _mlp(graph, tensors, norm(x, "norm2")))
    x = graph.op("Add", x, norm(_attention(graph, config, attention, x, stage, cut), "norm1"))
    return graph.op("Add", x, norm(_mlp(graph, tensors, x), "norm2"))


def _mlp(graph: Graph, tensors: Tensors, x: str) -> str:
    y = graph.op("Gelu", graph.linear(x, tensors["mlp.up.weight"], tensors["mlp.up.bias"]))
    return graph.linear(y, tensors["mlp.down.weight"], tensors["mlp.down.bias"], least=LEAST_GELU)


def _attention(
    graph: Graph, config: SwinConfig, tensors: Tensors, x: str, stage: int, cut: tuple[int, int, int]
) -> str:
    """Attention in the windows of a map, [B*P F] to [B*P F]."""
    side, window, shift = cut
    heads, width = config.heads[stage], config.widths[stage]
    order = _order(side, window, shift)
    x = graph.shaped(_taken(graph, x, order, side, width), -1, width)
    weights = np.split(tensors["qkv.weight"], 3, axis=1)
    q, k, v = (
        graph.shaped(graph.linear(x, w, b), -1, window**2, heads, width // heads)
        for w, b in zip(weights, _biases(config, tensors), strict=True)
    )
    if config.version == 2:
        scale = np.exp(np.minimum(tensors["logit_scale"], np.float32(math.log(100))))
        q = graph.op("Mul", graph.op("LpNormalization", q, axis=-1, p=2), scale[:, None])
        k = graph.op("LpNormalization", k, axis=-1, p=2)
    # Windows that differ in their mask stand side by side like heads; all others are a batch.
    several = len(order) // window**2 if shift else 1
    q, k, v = (_heads_first(graph, part, several, window, heads, width) for part in (q, k, v))
    bias = _bias(graph, config, tensors, stage, cut)
    y = graph.op("Attention", q, k, v, bias, scale=1.0 if config.version == 2 else (width // heads) ** -0.5)
    y = graph.shaped(y, -1, several, heads, window**2, width // heads)
    y = graph.shaped(graph.op("Transpose", y, perm=[0, 1, 3, 2, 4]), -1, len(order), width)
    back = np.argsort(order, kind="stable")[: side**2]
    y = graph.shaped(y if _in_order(back, len(order)) else graph.op("Gather", y, back, axis=1), -1, width)
    return graph.linear(y, tensors["out.weight"], tensors["out.bias"])


def _heads_first(graph: Graph, x: str, several: int, window: int, heads: int, width: int) -> str:
    """[B*M T h d] to [B M*h T d], where M is `several`."""
    x = graph.shaped(x, -1, several, window**2, heads, width // heads)
    x = graph.op("Transpose", x, perm=[0, 1, 3, 2, 4])
    return graph.shaped(x, -1, several * heads, window**2, width // heads)


def _biases(config: SwinConfig, tensors: Tensors) -> tuple[np.ndarray | None, ...]:
    if config.version == 1:
        return tuple(np.split(tensors["qkv.bias"], 3))
    query, value = np.split(tensors["qkv.bias"], 2)
    return query, None, value


def _bias(graph: Graph, config: SwinConfig, tensors: Tensors, stage: int, cut: tuple[int, int, int]) -> str:
    """What is added to the scores, [1 h T T], or [1 M*h T T] where the windows moved."""
    side, window, shift = cut
    if config.version == 1:
        table, reach = tensors["table"], config.windows[stage]
    else:
        table, reach = _position_table(config, tensors, stage, window), window
    bias = graph.op("Gather", table.T[None], pairs(window, reach), axis=2)
    if not shift:
        return bias
    parts = regions(side + -side % window, window, shift)
    apart = np.where(parts[:, :, None] != parts[:, None], np.float32(-100), np.float32(0))
    return graph.shaped(graph.op("Add", bias, apart[:, None]), 1, -1, window**2, window**2)


def _position_table(config: SwinConfig, tensors: Tensors, stage: int, window: int) -> Float32[np.ndarray, "O h"]:
    """Version 2's bias of each offset."""
    trained = config.trained_windows[stage] if config.trained_windows else window
    hidden = log_offsets(window, trained) @ tensors["position.up.weight"] + tensors["position.up.bias"]
    scores = np.maximum(hidden, 0) @ tensors["position.down.weight"]
    return (16 / (1 + np.exp(-scores))).astype(np.float32)


def _merged(graph: Graph, config: SwinConfig, tensors: Tensors, x: str, side: int) -> str:
    """Four neighbours, down first, become one token of twice the width."""
    width = tensors["reduction.weight"].shape[1] // 2
    map_ = np.pad(np.arange(side**2).reshape(side, side), (0, side % 2), constant_values=side**2)
    half = len(map_) // 2
    order = map_.reshape(half, 2, half, 2).transpose(0, 2, 3, 1).ravel()
    x = graph.shaped(_taken(graph, x, order, side, width), -1, 4 * width)
    if config.version == 2:
        x = graph.linear(x, tensors["reduction.weight"], None)
    x = graph.norm(x, tensors["norm.weight"], tensors["norm.bias"], EPS_BETWEEN)
    return x if config.version == 2 else graph.linear(x, tensors["reduction.weight"], None)


def _order(side: int, window: int, shift: int) -> Int[np.ndarray, " N"]:
    """The tokens of a map, window by window; a number behind the last token stands for padding."""
    map_ = np.pad(np.arange(side**2).reshape(side, side), (0, -side % window), constant_values=side**2)
    down = len(map_) // window
    return np.roll(map_, (-shift, -shift), axis=(0, 1)).reshape(down, window, down, window).swapaxes(1, 2).ravel()


def _taken(graph: Graph, x: str, order: Int[np.ndarray, " N"], side: int, width: int) -> str:
    """Tokens [B*P F] in another order, [B N F]; zeros where `order` points behind the last."""
    x = graph.shaped(x, -1, side**2, width)
    if len(order) > side**2:
        x = graph.op("Pad", x, *int64([0, 0, 0, 0, 1, 0]))
    return x if _in_order(order, side**2) else graph.op("Gather", x, order, axis=1)


def _in_order(order: Int[np.ndarray, " N"], length: int) -> bool:
    return np.array_equal(order, np.arange(length))


def _below(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
