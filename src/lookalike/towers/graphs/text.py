"""The text tower as a graph."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto

from lookalike.towers.graphs.graph import Graph, int64
from lookalike.towers.text import TextConfig


def build_text(config: TextConfig, tensors: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The graph `ids` int64 [B T] -> `features` float32 [B F], as `TextTower` computes them.

    T is any number of tokens up to the context; texts filled up to the same T may go together.

    Args:
        config: The tower's config.
        tensors: Those of `config.shapes()`, by name.
    """
    graph = Graph()
    length = graph.op("Shape", "ids", start=1, end=2)
    position = graph.op("Slice", tensors["position"], *int64([0]), length, *int64([0]))
    x = graph.op("Add", graph.op("Gather", tensors["token"], "ids", axis=0), position)
    threefold = graph.op("Shape", x)  # [B T F]: rows of all texts are one matrix where every token is by itself
    x = graph.shaped(x, -1, config.width)
    for i in range(config.layers):
        block = {name.removeprefix("blocks."): t[i] for name, t in tensors.items() if name.startswith("blocks.")}
        x = _block(graph, config, block, x, threefold)
    x = graph.op("GatherND", graph.op("Reshape", x, threefold), _place(graph, config, length), batch_dims=1)
    x = graph.norm(x, tensors["norm_post.weight"], tensors["norm_post.bias"], config.eps)
    if config.head is not None:
        x = graph.linear(x, tensors["head.weight"], tensors.get("head.bias"))
    return graph.model(x, ["B", "T"], ["B", config.features], ("ids", TensorProto.INT64))


def _block(graph: Graph, config: TextConfig, tensors: Mapping[str, np.ndarray], x: str, threefold: str) -> str:
    """One block, [B*T F] to [B*T F]."""
    y = graph.norm(x, tensors["norm1.weight"], tensors["norm1.bias"], config.eps)
    weights = np.split(tensors["attention.qkv.weight"], 3, axis=1)
    biases = np.split(tensors["attention.qkv.bias"], 3)
    q, k, v = (graph.op("Reshape", graph.linear(y, w, b), threefold) for w, b in zip(weights, biases, strict=True))
    causal = int(config.causal)
    y = graph.op("Attention", q, k, v, q_num_heads=config.heads, kv_num_heads=config.heads, is_causal=causal)
    y = graph.shaped(y, -1, config.width)
    x = graph.op("Add", x, graph.linear(y, tensors["attention.out.weight"], tensors["attention.out.bias"]))
    y = graph.norm(x, tensors["norm2.weight"], tensors["norm2.bias"], config.eps)
    y = graph.linear(y, tensors["mlp.up.weight"], tensors["mlp.up.bias"])
    if config.activation == "quick_gelu":
        y = graph.op("Mul", y, graph.op("Sigmoid", graph.op("Mul", y, np.array(1.702, np.float32))))
    else:
        y = graph.op("Gelu", y, approximate="tanh" if config.activation == "gelu_tanh" else "none")
    return graph.op("Add", x, graph.linear(y, tensors["mlp.down.weight"], tensors["mlp.down.bias"]))


def _place(graph: Graph, config: TextConfig, length: str) -> str:
    """Which token each text is read from, [B 1]."""
    if config.read == "last":
        batch = graph.op("Concat", graph.op("Shape", "ids", start=0, end=1), *int64([1]), axis=0)
        return graph.op("Expand", graph.op("Sub", length, *int64([1])), batch)
    ids = "ids" if config.read == "highest" else graph.op("Equal", "ids", np.array(config.end, np.int64))
    return graph.op("ArgMax", graph.op("Cast", ids, to=TensorProto.INT32), axis=1, keepdims=1)
