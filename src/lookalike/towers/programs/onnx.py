"""A tower read as an ONNX graph for CPUs. No JAX here.

Standard operators alone, each the largest that fits (Attention, LayerNormalization, Gelu, Gemm), so that a runtime
has little left to fuse. What can be folded is, before: see `fold`.
"""

# The verbs are described in `Ops`, and not every reader needs all that they are given.
# ruff: noqa: D102, ARG002

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from onnx import TensorProto

from lookalike.imaging.preprocess import Preprocess
from lookalike.towers.ops import (
    Activation,
    Attention,
    Block,
    Conv,
    Ops,
    Pooling,
    Value,
    Where,
    Windows,
    convolved,
    cuts,
    pads,
)
from lookalike.towers.programs.fold import Tensors, colors, fold
from lookalike.towers.programs.graph import LEAST_GELU, LEAST_SILU, Graph, Node, int64
from lookalike.towers.programs.tables import log_offsets, order, pairs, regions, rotations
from lookalike.towers.text import TextConfig

if TYPE_CHECKING:
    from lookalike.towers import Tower


def build(
    tower: "Tower", pooling: Pooling, preprocess: Preprocess, tensors: Tensors, int8: bool = False
) -> onnx.ModelProto:
    """The graph `images` uint8 [B S S 3] -> `features` float32 [B F].

    Args:
        tower: The tower.
        pooling: One of its poolings.
        preprocess: For the size of images, and how they are normalised.
        tensors: Those of `declare(tower)`, by name.
        int8: Whether large matrix products go by whole numbers of eight bits: a third of the time on processors that
            have instructions for it, for a cosine of about .9996 (ViT-B/16).
    """
    graph, side = Graph(int8), preprocess.size
    features = record(graph, "images", tower, pooling, preprocess, tensors)
    return graph.model(features, ["B", side, side, 3], ["B", tower.features])


def record(
    graph: Graph, images: str, tower: "Tower", pooling: Pooling, preprocess: Preprocess, tensors: Tensors
) -> str:
    """Add the tower to a graph that has `images` uint8 [B S S 3]; their features [B F]."""
    ops = Onnx(graph, fold(tower, pooling, preprocess, tensors), colors(preprocess)[0])
    return ops.rows(tower.forward(ops, Value(Node(images, "image", pixels=True), preprocess.size**2, 3), pooling))


def build_text(config: TextConfig, tensors: Tensors) -> onnx.ModelProto:
    """The graph `ids` int64 [B T] -> `features` float32 [B F].

    T is any number of tokens up to the context; texts filled up to the same T may go together.
    """
    ops = Onnx(Graph(), tensors)
    x = config.forward(ops, Value(Node("ids", "rows"), 0, 1))
    return ops.graph.model(ops.rows(x), ["B", "T"], ["B", config.features], ("ids", TensorProto.INT64))


class Onnx(Ops):
    """Records nodes; a value stays in its form until an operator needs another."""

    def __init__(self, graph: Graph, tensors: Tensors, mean: Sequence[float] | np.ndarray = (0, 0, 0)) -> None:
        """`mean` is what an image is centred by where zeros surround it, [3]."""
        super().__init__()
        self.graph, self.tensors, self.mean = graph, tensors, np.asarray(mean, np.float32)
        self._at: int | None = None
        self._text = ""  # shape [B T F] of the tokens of texts

    def __getitem__(self, name: str) -> np.ndarray:
        tensor = self.tensors[self.name(name)]
        return tensor if self._at is None else tensor[self._at]

    def _get(self, name: str) -> np.ndarray | None:
        return self[name] if self.name(name) in self.tensors else None

    def repeat(self, name: str, times: int, blocks: Sequence[Block], x: Value, last: Block | None = None) -> Value:
        with self.scope(name):
            for self._at in range(times):
                block = blocks[self._at % len(blocks)] if last is None or self._at < times - 1 else last
                x = block(self, x)
            self._at = None
        return x

    # Forms

    def rows(self, x: Value) -> str:
        """`x` as [B*P F]."""
        match x.data.form:
            case "rows":
                name: str = x.data.name
                return name
            case "maps" if x.tokens == 1:
                return self.graph.op("Flatten", x.data.name, axis=1)
            case "maps":
                return self.graph.shaped(self.graph.op("Transpose", x.data.name, perm=[0, 2, 3, 1]), -1, x.width)
        return self.graph.shaped(x.data.name, -1, x.width)

    def _tokens(self, x: Value) -> str:
        """`x` as [B P F]."""
        if x.data.form == "tokens":
            name: str = x.data.name
            return name
        if not x.tokens:
            return self.graph.op("Reshape", x.data.name, self._text)
        return self.graph.shaped(self.rows(x) if x.data.form == "maps" else x.data.name, -1, x.tokens, x.width)

    def _maps(self, x: Value) -> str:
        """`x` as [B F S S]; an image in float32, its mean subtracted."""
        if x.data.form == "maps":
            name: str = x.data.name
            return name
        y = self.graph.op("Transpose", self._image(x), perm=[0, 3, 1, 2])
        if not x.data.pixels:
            return y
        return self.graph.op("Sub", self.graph.op("Cast", y, to=TensorProto.FLOAT), self.mean[:, None, None])

    def _image(self, x: Value) -> str:
        """`x` as [B S S F]."""
        if x.data.form == "image":
            name: str = x.data.name
            return name
        return self.graph.shaped(self.rows(x) if x.data.form == "maps" else x.data.name, -1, x.side, x.side, x.width)

    def _like(self, x: Value, y: Value) -> str:
        """`y` in the form of `x`."""
        forms = {"rows": self.rows, "tokens": self._tokens, "maps": self._maps, "image": self._image}
        return forms[x.data.form](y)

    # Verbs

    def linear(self, name: str, x: Value, out: int, bias: bool = True) -> Value:
        return self._product(x, self[f"{name}.weight"], self._get(f"{name}.bias"))

    def _product(self, x: Value, weight: np.ndarray, bias: np.ndarray | None) -> Value:
        out = weight.shape[1]
        if x.data.form == "maps" and x.tokens == 1:
            parts = () if bias is None else (bias,)
            y = self.graph.op("Conv", x.data.name, weight.T[:, :, None, None], *parts, kernel_shape=[1, 1])
            return Value(Node(y, "maps"), 1, out)
        rows = self.rows(x)
        if x.data.pixels:
            rows = self.graph.op("Cast", rows, to=TensorProto.FLOAT)
        y = self.graph.linear(rows, weight, bias, exact=x.data.pixels, least=x.data.least)
        return Value(Node(y, "rows"), x.tokens, out)

    def gated(self, name: str, x: Value, out: int) -> Value:
        x = Value(Node(self.rows(x), "rows"), x.tokens, x.width)
        weights, biases = np.split(self[f"{name}.weight"], 2, axis=1), np.split(self[f"{name}.bias"], 2)
        gate, value = (self._product(x, w, b).data.name for w, b in zip(weights, biases, strict=True))
        y = self.graph.op("Mul", self.graph.op("Mul", gate, self.graph.op("Sigmoid", gate)), value)
        return Value(Node(y, "rows"), x.tokens, out)

    def norm(self, name: str, x: Value, eps: float) -> Value:
        form: Any = "tokens" if x.data.form == "tokens" else "rows"
        y = self.graph.norm(
            self._tokens(x) if form == "tokens" else self.rows(x), self[f"{name}.weight"], self[f"{name}.bias"], eps
        )
        return Value(Node(y, form), x.tokens, x.width)

    def group_norm(self, name: str, x: Value, groups: int, eps: float) -> Value:
        """Each group of channels as one long channel, normed by itself."""
        g, maps = self.graph, self._maps(x)
        one, zero = np.ones(groups, np.float32), np.zeros(groups, np.float32)
        y = g.op("InstanceNormalization", g.shaped(maps, 0, groups, -1), one, zero, epsilon=eps)
        y = g.op("Mul", g.op("Reshape", y, g.op("Shape", maps)), self[f"{name}.weight"][:, None, None])
        return Value(Node(g.op("Add", y, self[f"{name}.bias"][:, None, None]), "maps"), x.tokens, x.width)

    def batch_norm(self, name: str, x: Value, eps: float) -> Value:
        return x  # folded

    def scale(self, name: str, x: Value) -> Value:
        return x  # folded

    def activate(self, x: Value, kind: Activation) -> Value:
        g, name, least = self.graph, x.data.name, 0.0
        match kind:
            case "gelu":
                y, least = g.op("Gelu", name), LEAST_GELU
            case "gelu_tanh":
                y, least = g.op("Gelu", name, approximate="tanh"), LEAST_GELU
            case "quick_gelu":
                scaled = g.op("Mul", name, np.array(1.702, np.float32))
                y, least = g.op("Mul", name, g.op("Sigmoid", scaled)), LEAST_GELU
            case "silu":
                y, least = g.op("Mul", name, g.op("Sigmoid", name)), LEAST_SILU
            case "relu":
                y = g.op("Relu", name)
            case "relu6":
                y = g.op("Clip", name, np.array(0, np.float32), np.array(6, np.float32))
            case "sigmoid":
                y = g.op("Sigmoid", name)
        return Value(replace(x.data, name=y, least=least), x.tokens, x.width)

    def add(self, x: Value, y: Value) -> Value:
        return Value(Node(self.graph.op("Add", x.data.name, self._like(x, y)), x.data.form), x.tokens, x.width)

    def multiply(self, x: Value, y: Value) -> Value:
        return Value(Node(self.graph.op("Mul", self._maps(x), self._maps(y)), "maps"), x.tokens, x.width)

    def cut(self, x: Value, patch: int, step: int | None = None, pad: bool = False, down: bool = False) -> Value:
        """Rearranged while still 8 bits, where nothing is filled in."""
        g, image, count, pixels = self.graph, self._image(x), cuts(x.side, patch, step, pad), x.data.pixels
        if step is not None and step < patch:  # rows and columns that lie in several patches are taken several times
            at = (step * np.arange(count)[:, None] + np.arange(patch)).ravel()
            image = g.op("Gather", g.op("Gather", image, at, axis=1), at, axis=2)
        elif (missing := count * patch - x.side) > 0:
            if pixels:  # what is added stands for the mean colour, which eight bits can't hold
                image, pixels = g.op("Sub", g.op("Cast", image, to=TensorProto.FLOAT), self.mean), False
            image = g.op("Pad", image, *int64([0, 0, 0, 0, 0, missing, missing, 0]))
        elif missing < 0:
            image = g.op("Slice", image, *int64([0, 0], [count * patch] * 2, [1, 2]))
        if down:
            y = g.op("Transpose", g.shaped(image, -1, count, patch, count, patch, x.width), perm=[0, 1, 3, 4, 2, 5])
        else:
            y = g.op("Transpose", g.shaped(image, -1, count, patch, count, patch * x.width), perm=[0, 1, 3, 2, 4])
        width = patch**2 * x.width
        exact = Node(g.shaped(y, -1, width), "rows", pixels=pixels)
        return Value(exact, count**2, width)

    def conv(self, conv: Conv, x: Value) -> Value:
        before, after = pads(x.side, conv.kernel, conv.stride, conv.dilation, conv.padding)
        bias = self._get(f"{conv.name}.bias")  # its own, or a batch norm's
        y = self.graph.op(
            "Conv",
            self._maps(x),
            self[f"{conv.name}.conv.weight"].transpose(3, 2, 0, 1),
            *(() if bias is None else (bias,)),
            kernel_shape=[conv.kernel] * 2,
            strides=[conv.stride] * 2,
            dilations=[conv.dilation] * 2,
            group=x.width if conv.depthwise else 1,
            pads=[before, before, after, after],
        )
        side = convolved(x.side, conv.kernel, conv.stride, conv.dilation, conv.padding)
        return Value(Node(y, "maps"), side**2, conv.outputs)

    def max_pool(self, x: Value, kernel: int, stride: int) -> Value:
        around, window = [kernel // 2] * 4, [kernel] * 2
        y = self.graph.op("MaxPool", self._maps(x), kernel_shape=window, strides=[stride] * 2, pads=around)
        return Value(Node(y, "maps"), convolved(x.side, kernel, stride, 1, "symmetric") ** 2, x.width)

    def tokens(
        self, x: Value, class_token: bool, registers: int, positions: Literal["all", "patches", "none"]
    ) -> Value:
        g, y, first = self.graph, self._tokens(x), []
        if class_token:
            first.append(self["class_token"][None] + (self["position"][:1] if positions == "all" else 0))
        if registers:
            first.append(self["registers"])
        if positions != "none":
            y = g.op("Add", y, self["position"][None, int(positions == "all") :])
        if first:  # the same for every image
            before = np.concatenate(first)
            y = g.op("Concat", g.op("Expand", before[None], g.lengths(y, 0, 1, *before.shape)), y, axis=1)
        return Value(Node(g.shaped(y, -1, x.width), "rows"), x.tokens + class_token + registers, x.width)

    def _qkv(self, name: str, values: Sequence[Value]) -> list[Value]:
        """Queries, keys and values, each of its own tokens."""
        weights, bias = np.split(self[f"{name}.weight"], 3, axis=1), self._get(f"{name}.bias")
        biases: list[Any] = [None] * 3 if bias is None else np.split(bias, len(bias) // weights[0].shape[1])
        if len(biases) == 2:  # keys have none
            biases.insert(1, None)
        return [self._product(x, w, b) for x, w, b in zip(values, weights, biases, strict=True)]

    def attend(self, name: str, x: Value, how: Attention) -> Value:
        g, heads = self.graph, how.heads
        asking = self.part(x, 0, 1) if how.first else x
        x = Value(Node(self.rows(x), "rows"), x.tokens, x.width)
        q, k, v = (self._tokens(part) for part in self._qkv(f"{name}.qkv", [asking if how.first else x, x, x]))
        if how.rope is not None:
            tables = rotations(how.rope, x.width // heads)
            places = g.op("Expand", np.arange(x.tokens)[None], g.lengths(k, 0, 1, x.tokens))
            k = g.op("RotaryEmbedding", k, *tables, places, num_heads=heads)
            q = q if how.first else g.op("RotaryEmbedding", q, *tables, places, num_heads=heads)
        y = g.op("Attention", q, k, v, q_num_heads=heads, kv_num_heads=heads, is_causal=int(how.causal))
        return Value(Node(y, "tokens"), asking.tokens, x.width)

    def probe(self, name: str, attention: str, x: Value, heads: int) -> Value:
        """The probe is the same for every image, so its query is a constant."""
        g, (wq, wk, wv) = self.graph, np.split(self[f"{attention}.qkv.weight"], 3, axis=1)
        bq, bk, bv = np.split(self[f"{attention}.qkv.bias"], 3)
        x = Value(Node(self.rows(x), "rows"), x.tokens, x.width)
        k, v = (self._tokens(self._product(x, w, b)) for w, b in ((wk, bk), (wv, bv)))
        q = g.op("Expand", (self[name] @ wq + bq)[None, None], g.lengths(k, 0, 1, 1, x.width))
        y = g.op("Attention", q, k, v, q_num_heads=heads, kv_num_heads=heads)
        return Value(Node(y, "tokens"), 1, x.width)

    def attend_windows(self, name: str, x: Value, windows: Windows) -> Value:
        """Padding, rolling and cutting into windows are one look-up of tokens, and so is the way back."""
        g, places, tokens = self.graph, order(x.side, windows), windows.side**2
        width, heads = x.width, windows.heads
        taken = self._tokens(x)
        if len(places) > x.tokens:
            taken = g.op("Pad", taken, *int64([0, 0, 0, 0, 1, 0]))
        taken = taken if _in_order(places, x.tokens) else g.op("Gather", taken, places, axis=1)
        cut = Value(Node(g.shaped(taken, -1, width), "rows"), len(places), width)
        parts = [
            g.shaped(part.data.name, -1, tokens, heads, width // heads) for part in self._qkv(f"{name}.qkv", [cut] * 3)
        ]
        if not windows.table:
            scale = np.exp(np.minimum(self[f"{name}.logit_scale"], np.float32(math.log(100))))
            parts[0] = g.op("Mul", g.op("LpNormalization", parts[0], axis=-1, p=2), scale[:, None])
            parts[1] = g.op("LpNormalization", parts[1], axis=-1, p=2)
        # Windows that differ in their mask stand side by side like heads; all others are a batch.
        several = len(places) // tokens if windows.shift else 1

        def heads_first(part: str) -> str:
            """[B*M T h d] to [B M*h T d], where M is `several`."""
            part = g.op("Transpose", g.shaped(part, -1, several, tokens, heads, width // heads), perm=[0, 1, 3, 2, 4])
            return g.shaped(part, -1, several * heads, tokens, width // heads)

        bias = self._window_bias(name, windows, x.side)
        by = (width // heads) ** -0.5 if windows.table else 1.0
        y = g.op("Attention", *(heads_first(part) for part in parts), bias, scale=by)
        y = g.op("Transpose", g.shaped(y, -1, several, heads, tokens, width // heads), perm=[0, 1, 3, 2, 4])
        y, back = g.shaped(y, -1, len(places), width), np.argsort(places, kind="stable")[: x.tokens]
        y = y if _in_order(back, len(places)) else g.op("Gather", y, back, axis=1)
        return Value(Node(y, "tokens"), x.tokens, width)

    def _window_bias(self, name: str, windows: Windows, side: int) -> str:
        """What is added to the scores, [1 h T T], or [1 M*h T T] where the windows moved.

        Made of constants by look-ups and sums that a runtime does once, as it loads the graph: written out, those of
        large windows would take more room than the weights.
        """
        window, reach = windows.side, windows.table or windows.side
        if windows.table:
            table = self[f"{name}.table"]
        else:
            hidden = log_offsets(window, windows.trained) @ self[f"{name}.position.up.weight"]
            hidden = np.maximum(hidden + self[f"{name}.position.up.bias"], 0)
            table = (16 / (1 + np.exp(-(hidden @ self[f"{name}.position.down.weight"])))).astype(np.float32)
        bias = self.graph.op("Gather", table.T[None], pairs(window, reach), axis=2)
        if not windows.shift:
            return bias
        parts = regions(side + -side % window, window, windows.shift)
        apart = np.where(parts[:, :, None] != parts[:, None], np.float32(-100), np.float32(0))
        return self.graph.shaped(self.graph.op("Add", bias, apart[:, None]), 1, -1, window**2, window**2)

    def part(self, x: Value, start: int, end: int) -> Value:
        if (start, end) == (0, x.tokens):
            return x
        if (start, end) == (0, 1):
            y = self.graph.op("Gather", self._tokens(x), np.array(0, np.int64), axis=1)
            return Value(Node(y, "rows"), 1, x.width)
        y = self.graph.op("Slice", self._tokens(x), *int64([start], [end], [1]))
        return Value(Node(y, "tokens"), end - start, x.width)

    def pool(self, x: Value, kind: Pooling) -> Value:
        g, maps = self.graph, x.data.form == "maps"
        if kind == "class":
            return self.part(x, 0, 1)
        y: str = x.data.name if maps else self._tokens(x)
        if kind == "gem":
            y = g.op("Pow", g.op("Max", y, np.array(1e-6, np.float32)), np.array(3, np.float32))
        y = g.op("GlobalAveragePool", y) if maps else g.op("ReduceMean", y, *int64([1]), keepdims=0)
        y = g.op("Pow", y, np.array(1 / 3, np.float32)) if kind == "gem" else y
        return Value(Node(y, "maps" if maps else "rows"), 1, x.width)

    def embed(self, ids: Value, vocabulary: int, context: int, width: int) -> Value:
        g = self.graph
        length = g.op("Shape", "ids", start=1, end=2)
        position = g.op("Slice", self["position"], *int64([0]), length, *int64([0]))
        x = g.op("Add", g.op("Gather", self["token"], "ids", axis=0), position)
        self._text = g.op("Shape", x)
        return Value(Node(g.shaped(x, -1, width), "rows"), 0, width)

    def read(self, x: Value, ids: Value, where: Where, end: int | None) -> Value:
        g = self.graph
        if where == "last":
            length = g.op("Shape", "ids", start=1, end=2)
            at = g.op("Expand", g.op("Sub", length, *int64([1])), g.lengths("ids", 0, 1, 1))
        else:
            found = "ids" if where == "highest" else g.op("Equal", "ids", np.array(end, np.int64))
            at = g.op("ArgMax", g.op("Cast", found, to=TensorProto.INT32), axis=1, keepdims=1)
        return Value(Node(g.op("GatherND", self._tokens(x), at, batch_dims=1), "rows"), 1, x.width)


def _in_order(order: np.ndarray, length: int) -> bool:
    return np.array_equal(order, np.arange(length))
