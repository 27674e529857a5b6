"""A tower read as an ONNX graph for CPUs. No JAX here.

Standard operators alone, each the largest that fits (Attention, LayerNormalization, Gelu, Gemm), so that a runtime
has little left to fuse. What needs none goes into weights: a scale into the matrix before it, a batch norm into its
kernel, normalising an image into the first matrix or kernel.
"""

# The verbs are described in `Ops`, and not every reader needs all that they are given.
# ruff: noqa: D102, ARG002

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx
from onnx import TensorProto

from lookalike.imaging.preprocess import Preprocess
from lookalike.imaging.resample import magnifier
from lookalike.towers import ops
from lookalike.towers.ops import NORM_PARTS, Block, Ops, Pooling, Value, convolved, cuts, pads
from lookalike.towers.programs.graph import Form, Graph, Node
from lookalike.towers.swin import offset_table, order, pairs, regions
from lookalike.towers.text import TextConfig

if TYPE_CHECKING:
    from lookalike.towers import Tower

Tensors = Mapping[str, np.ndarray]  # tensor name -> float32 array
Layer = tuple[np.ndarray, np.ndarray | None]  # a matrix, and the bias

_GELU, _SILU = -0.171, -0.279  # exact or approximate, they give nothing below -0.16997 and -0.27846
_KINDS: dict[str, tuple[float | None, Callable[..., str]]] = {
    "add": (None, lambda g, x, y: g.op("Add", x, y)),
    "multiply": (None, lambda g, x, y: g.op("Mul", x, y)),
    "gelu": (_GELU, lambda g, x: g.op("Gelu", x)),
    "gelu_tanh": (_GELU, lambda g, x: g.op("Gelu", x, approximate="tanh")),
    "quick_gelu": (_GELU, lambda g, x: g.op("Mul", x, g.op("Sigmoid", g.op("Mul", x, 1.702)))),
    "silu": (_SILU, lambda g, x: g.op("Mul", x, g.op("Sigmoid", x))),
    "relu": (0.0, lambda g, x: g.op("Relu", x)),
    "relu6": (0.0, lambda g, x: g.op("Clip", x, 0.0, 6.0)),
    "sigmoid": (0.0, lambda g, x: g.op("Sigmoid", x)),
}
"""What nothing in the result is less than, and the operators."""


def build(
    tower: "Tower",
    pooling: Pooling,
    preprocess: Preprocess,
    tensors: Tensors,
    int8: bool = False,
    zooms: Sequence[float] = (),
) -> onnx.ModelProto:
    """The graph `images` uint8 [B S S 3] -> `features` float32 [B F], by the tensors of `declare(tower)`; `zooms` as in
    `EncoderConfig`.

    With `int8` large matrix products go by whole numbers of eight bits: a third of the time on processors that have
    instructions for it, for a cosine of about .9996 (ViT-B/16).
    """
    graph, side = Graph(int8), preprocess.size
    features = record(graph, "images", tower, pooling, preprocess, tensors, zooms)
    return graph.model(features, ["B", side, side, 3], ["B", tower.features])


def record(
    graph: Graph,
    images: str,
    tower: "Tower",
    pooling: Pooling,
    preprocess: Preprocess,
    tensors: Tensors,
    zooms: Sequence[float] = (),
) -> str:
    """Add the tower to a graph that has `images` uint8 [B S S 3]; their features [B F], and zooms' with them."""
    program, side = Onnx(graph, tensors, preprocess.mean, preprocess.std), preprocess.size
    if zooms:
        x = graph.op("Cast", images, to=TensorProto.FLOAT)
        parts = [x]
        for share in zooms:
            enlarge = magnifier(side, share)
            rows = graph.op("MatMul", enlarge, graph.op("Reshape", x, [-1, side, 3 * side]))
            columns = graph.op("MatMul", enlarge, graph.op("Reshape", rows, [-1, side, 3]))
            parts.append(graph.op("Reshape", columns, [-1, side, side, 3]))
        images = graph.op("Concat", *parts, axis=0)
    image = Value(Node(images, "image", pixels="bytes"), side**2, 3)
    features = program.form(tower.forward(program, image, pooling), "rows")
    if not zooms:
        return features
    return graph.op("ReduceMean", graph.op("Reshape", features, [1 + len(zooms), -1, tower.features]), [0], keepdims=0)


def build_text(config: TextConfig, tensors: Tensors) -> onnx.ModelProto:
    """The graph `ids` int64 [B T] -> `features` float32 [B F], for texts filled up to any T up to the context."""
    program = Onnx(Graph(), tensors)
    x = program.form(config.forward(program, Value(Node("ids", "rows"), 0, 1)), "rows")
    return program.graph.model(x, ["B", "T"], ["B", config.features], ("ids", TensorProto.INT64))


class Onnx(Ops):
    """Records nodes; a value stays in its form until an operator needs another."""

    def __init__(
        self, graph: Graph, tensors: Tensors, mean: Sequence[float] = (0, 0, 0), std: Sequence[float] = (1, 1, 1)
    ) -> None:
        """`mean` and `std` normalise an image whose pixels go from 0 to 1."""
        super().__init__(tensors)
        self.graph = graph
        self.mean = (255 * np.array(mean, np.float64)).astype(np.float32)
        self.gain = (1 / (255 * np.array(std, np.float64))).astype(np.float32)
        self._text = ""  # shape [B T F] of the tokens of texts

    def repeat(self, name: str, times: int, blocks: Sequence[Block], x: Value, last: Block | None = None) -> Value:
        with self.scope(name) as stacked:
            for i in range(times):
                block = blocks[i % len(blocks)] if last is None or i < times - 1 else last
                x = block(self.given({name: tensor[i] for name, tensor in stacked.items()}), x)
        return x

    def form(self, x: Value, form: Form) -> str:
        """`x` in a form; an image becomes maps in float32, with its mean subtracted."""
        g, node, name = self.graph, x.data, x.data.name
        if node.form == form:
            return name
        if node.form == "maps":
            one = x.tokens == 1
            y = g.op("Flatten", name, axis=1) if one else g.op("Transpose", name, perm=[0, 2, 3, 1])
            return self.form(replace(x, data=Node(y, "rows" if one else "image")), form)
        if form == "maps":
            y = g.op("Transpose", self.form(x, "image"), perm=[0, 3, 1, 2])
            if not node.pixels:
                return y
            return g.op("Sub", g.op("Cast", y, to=TensorProto.FLOAT), self.mean[:, None, None])
        if form == "tokens" and not x.tokens:
            return g.op("Reshape", name, self._text)
        sizes = {"rows": [], "tokens": [x.tokens], "image": [x.side] * 2}[form]
        return g.op("Reshape", name, [-1, *sizes, x.width])

    def _rows(self, x: Value) -> Value:
        return Value(Node(self.form(x, "rows"), "rows"), x.tokens, x.width)

    # Verbs

    def linear(self, name: str, x: Value, out: int, bias: bool = True, scale: str = "") -> Value:
        weight, added = self[f"{name}.weight"], self.get(f"{name}.bias")
        if x.data.pixels:
            mean, gain = (np.tile(part, x.width // 3) for part in (self.mean, self.gain))
            weight = gain[:, None] * weight
            if x.data.pixels == "bytes":
                added = (0 if added is None else added) - mean @ weight
        if scale:
            weight, added = weight * self[scale], None if added is None else added * self[scale]
        return self._product(x, (weight, added))

    def _product(self, x: Value, layer: Layer) -> Value:
        (weight, bias), exact = layer, x.data.pixels == "bytes"
        out = weight.shape[1]
        if x.data.form == "maps" and x.tokens == 1:
            parts = () if bias is None else (bias,)
            y = self.graph.op("Conv", x.data.name, weight.T[:, :, None, None], *parts, kernel_shape=[1, 1])
            return Value(Node(y, "maps"), 1, out)
        rows = self.form(x, "rows")
        if exact:
            rows = self.graph.op("Cast", rows, to=TensorProto.FLOAT)
        return Value(Node(self.graph.linear(rows, weight, bias, exact, x.data.least), "rows"), x.tokens, out)

    def gated(self, name: str, x: Value, out: int) -> Value:
        x = self._rows(x)
        layers = zip(np.split(self[f"{name}.weight"], 2, axis=1), np.split(self[f"{name}.bias"], 2), strict=True)
        gate, value = (self._product(x, layer) for layer in layers)
        return self.apply("multiply", self.apply("silu", gate), value)

    def norm(self, name: str, x: Value, eps: float, groups: int = 0) -> Value:
        g, weight, bias = self.graph, self[f"{name}.weight"], self[f"{name}.bias"]
        if not groups:
            form: Form = "tokens" if x.data.form == "tokens" else "rows"
            y = g.op("LayerNormalization", self.form(x, form), weight, bias, axis=-1, epsilon=eps)
            return Value(Node(y, form), x.tokens, x.width)
        # Each group of channels is one long channel, normed by itself.
        one, zero, maps = np.ones(groups, np.float32), np.zeros(groups, np.float32), self.form(x, "maps")
        y = g.op("InstanceNormalization", g.op("Reshape", maps, [0, groups, -1]), one, zero, epsilon=eps)
        y = g.op("Mul", g.op("Reshape", y, g.op("Shape", maps)), weight[:, None, None])
        return Value(Node(g.op("Add", y, bias[:, None, None]), "maps"), x.tokens, x.width)

    def apply(self, kind: ops.Activation | Literal["add", "multiply"], x: Value, y: Value | None = None) -> Value:
        least, operators = _KINDS[kind]
        others = [] if y is None else [self.form(y, x.data.form)]
        return replace(x, data=Node(operators(self.graph, x.data.name, *others), x.data.form, least=least))

    def cut(self, x: Value, patch: int, step: int | None = None, pad: bool = False, down: bool = False) -> Value:
        """Rearranged while still 8 bits, where nothing is filled in."""
        g, image, count, pixels = self.graph, self.form(x, "image"), cuts(x.side, patch, step, pad), x.data.pixels
        if step is not None and step < patch:  # rows and columns that lie in several patches are taken several times
            at = (step * np.arange(count)[:, None] + np.arange(patch)).ravel()
            image = g.op("Gather", g.op("Gather", image, at, axis=1), at, axis=2)
        elif (missing := count * patch - x.side) > 0:
            if pixels:  # what is added stands for the mean colour, which eight bits can't hold
                image, pixels = g.op("Sub", g.op("Cast", image, to=TensorProto.FLOAT), self.mean), "centred"
            image = g.op("Pad", image, [0, 0, 0, 0, 0, missing, missing, 0])
        elif missing < 0:
            image = g.op("Slice", image, [0, 0], [count * patch] * 2, [1, 2])
        inside, perm = ([patch, x.width], [0, 1, 3, 4, 2, 5]) if down else ([patch * x.width], [0, 1, 3, 2, 4])
        y = g.op("Transpose", g.op("Reshape", image, [-1, count, patch, count, *inside]), perm=perm)
        width = patch**2 * x.width
        return Value(Node(g.op("Reshape", y, [-1, width]), "rows", pixels=pixels), count**2, width)

    def conv(self, conv: ops.Conv, x: Value, eps: float | None = None) -> Value:
        before, after = pads(x.side, conv.kernel, conv.stride, conv.dilation, conv.padding)
        kernel, bias = self[f"{conv.name}.conv.weight"], self.get(f"{conv.name}.bias")
        if x.data.pixels:
            kernel = kernel * self.gain[:, None]
        if eps is not None:
            weight, shift, mean, variance = (self[f"{conv.name}.norm.{p}"].astype(np.float64) for p in NORM_PARTS)
            gain = weight / np.sqrt(variance + eps)
            own = 0 if bias is None else bias
            kernel, bias = (kernel * gain).astype(np.float32), (shift + (own - mean) * gain).astype(np.float32)
        inputs = (self.form(x, "maps"), kernel.transpose(3, 2, 0, 1), *(() if bias is None else (bias,)))
        steps = {"strides": [conv.stride] * 2, "dilations": [conv.dilation] * 2, "pads": [before, before, after, after]}
        groups = x.width if conv.depthwise else 1
        y = self.graph.op("Conv", *inputs, kernel_shape=[conv.kernel] * 2, group=groups, **steps)
        side = convolved(x.side, conv.kernel, conv.stride, conv.dilation, conv.padding)
        return Value(Node(y, "maps"), side**2, conv.outputs)

    def max_pool(self, x: Value, kernel: int, stride: int) -> Value:
        sizes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        y = self.graph.op("MaxPool", self.form(x, "maps"), **sizes)
        return Value(Node(y, "maps"), convolved(x.side, kernel, stride) ** 2, x.width)

    def tokens(self, x: Value, class_token: bool, registers: int, positions: ops.Positions) -> Value:
        g, y, first = self.graph, self.form(x, "tokens"), self.before(class_token, registers, positions)
        if positions != "none":
            y = g.op("Add", y, self["position"][None, int(positions == "all") :])
        if first:
            before = np.concatenate(first)
            y = g.op("Concat", g.op("Expand", before[None], g.lengths(y, 0, 1, *before.shape)), y, axis=1)
        y = g.op("Reshape", y, [-1, x.width])
        return Value(Node(y, "rows"), x.tokens + class_token + registers, x.width)

    def _qkv(self, name: str) -> list[Layer]:
        weights, bias = np.split(self[f"{name}.qkv.weight"], 3, axis=1), self.get(f"{name}.qkv.bias")
        if bias is None:
            return [(weight, None) for weight in weights]
        biases: list[np.ndarray | None] = list(np.split(bias, len(bias) // weights[0].shape[1]))
        if len(biases) == 2:  # keys have none
            biases.insert(1, None)
        return list(zip(weights, biases, strict=True))

    def attend(self, name: str, x: Value, how: ops.Attention) -> Value:
        g, heads = self.graph, how.heads
        asking = self.part(x, 0, 1) if how.first else None
        x, (query, *others) = self._rows(x), self._qkv(name)
        k, v = (self.form(self._product(x, layer), "tokens") for layer in others)
        if how.probe:  # the same for every image, and so a constant
            asked = self[how.probe] @ query[0] + (0 if query[1] is None else query[1])
            q = g.op("Expand", asked[None, None], g.lengths(k, 0, 1, 1, x.width))
        else:
            q = self.form(self._product(asking or x, query), "tokens")
        if how.rotations is not None:
            places = g.op("Expand", np.arange(x.tokens)[None], g.lengths(k, 0, 1, x.tokens))
            k = g.op("RotaryEmbedding", k, *how.rotations, places, num_heads=heads)
            q = q if how.first else g.op("RotaryEmbedding", q, *how.rotations, places, num_heads=heads)
        y = g.op("Attention", q, k, v, q_num_heads=heads, kv_num_heads=heads, is_causal=int(how.causal))
        return Value(Node(y, "tokens"), 1 if how.first or how.probe else x.tokens, x.width)

    def attend_windows(self, name: str, x: Value, windows: ops.Windows) -> Value:
        """Padding, rolling and cutting into windows are one look-up of tokens, and so is the way back."""
        g, places, tokens = self.graph, order(x.side, windows), windows.side**2
        width, heads = x.width, windows.heads
        taken = self.form(x, "tokens")
        if len(places) > x.tokens:
            taken = g.op("Pad", taken, [0, 0, 0, 0, 1, 0])
        taken = taken if np.array_equal(places, np.arange(x.tokens)) else g.op("Gather", taken, places, axis=1)
        rows = Value(Node(g.op("Reshape", taken, [-1, width]), "rows"), len(places), width)
        made = (self._product(rows, layer).data.name for layer in self._qkv(name))
        parts = [g.op("Reshape", part, [-1, tokens, heads, width // heads]) for part in made]
        if not windows.table:
            scale = np.exp(np.minimum(self[f"{name}.logit_scale"], np.float32(math.log(100))))
            parts[0] = g.op("Mul", g.op("LpNormalization", parts[0], axis=-1, p=2), scale[:, None])
            parts[1] = g.op("LpNormalization", parts[1], axis=-1, p=2)
        # Windows that differ in their mask stand side by side like heads; all others are a batch.
        several = len(places) // tokens if windows.shift else 1

        def exchanged(part: str, *sizes: int) -> str:
            """[B*M a b d], in whatever shape, to [B M b a d] for `sizes` a and b; M is `several`."""
            part = g.op("Reshape", part, [-1, several, *sizes, width // heads])
            return g.op("Transpose", part, perm=[0, 1, 3, 2, 4])

        split = [-1, several * heads, tokens, width // heads]
        q, k, v = (g.op("Reshape", exchanged(part, tokens, heads), split) for part in parts)
        bias = self._window_bias(name, windows, x.side)
        y = g.op("Attention", q, k, v, bias, scale=(width // heads) ** -0.5 if windows.table else 1.0)
        y = g.op("Reshape", exchanged(y, heads, tokens), [-1, len(places), width])
        back = np.argsort(places, kind="stable")[: x.tokens]
        y = y if np.array_equal(back, np.arange(len(places))) else g.op("Gather", y, back, axis=1)
        return Value(Node(y, "tokens"), x.tokens, width)

    def _window_bias(self, name: str, windows: ops.Windows, side: int) -> str:
        """What is added to the scores, [1 h T T], or [1 M*h T T] where the windows moved.

        Made of constants by look-ups and sums that a runtime does once, as it loads the graph: written out, those of
        large windows would take more room than the weights.
        """
        g, window = self.graph, windows.side
        table = offset_table(self, name, windows, np)
        bias = g.op("Gather", table.T[None], pairs(window, windows.table or window), axis=2)
        if not windows.shift:
            return bias
        parts = regions(side + -side % window, window, windows.shift)
        apart = np.where(parts[:, :, None] != parts[:, None], np.float32(-100), np.float32(0))
        return g.op("Reshape", g.op("Add", bias, apart[:, None]), [1, -1, window**2, window**2])

    def part(self, x: Value, start: int, end: int) -> Value:
        if (start, end) == (0, x.tokens):
            return x
        if (start, end) == (0, 1):
            y = self.graph.op("Gather", self.form(x, "tokens"), np.array(0, np.int64), axis=1)
            return Value(Node(y, "rows"), 1, x.width)
        y = self.graph.op("Slice", self.form(x, "tokens"), [start], [end], [1])
        return Value(Node(y, "tokens"), end - start, x.width)

    def pool(self, x: Value, kind: Pooling) -> Value:
        if kind == "class":
            return self.part(x, 0, 1)
        g, maps = self.graph, x.data.form == "maps"
        y = self.form(x, "maps" if maps else "tokens")
        if kind == "gem":
            y = g.op("Pow", g.op("Max", y, 1e-6), 3.0)
        y = g.op("GlobalAveragePool", y) if maps else g.op("ReduceMean", y, [1], keepdims=0)
        y = g.op("Pow", y, 1 / 3) if kind == "gem" else y
        return Value(Node(y, "maps" if maps else "rows"), 1, x.width)

    def embed(self, ids: Value, vocabulary: int, context: int, width: int) -> Value:
        g = self.graph
        position = g.op("Slice", self["position"], [0], g.op("Shape", "ids", start=1, end=2), [0])
        x = g.op("Add", g.op("Gather", self["token"], "ids", axis=0), position)
        self._text = g.op("Shape", x)
        return Value(Node(g.op("Reshape", x, [-1, width]), "rows"), 0, width)

    def read(self, x: Value, ids: Value, where: ops.Where, end: int | None) -> Value:
        g = self.graph
        if where == "last":
            length = g.op("Shape", "ids", start=1, end=2)
            at = g.op("Expand", g.op("Sub", length, [1]), g.lengths("ids", 0, 1, 1))
        else:
            found = "ids" if where == "highest" else g.op("Equal", "ids", np.array(end, np.int64))
            at = g.op("ArgMax", g.op("Cast", found, to=TensorProto.INT32), axis=1, keepdims=1)
        return Value(Node(g.op("GatherND", self.form(x, "tokens"), at, batch_dims=1), "rows"), 1, x.width)
