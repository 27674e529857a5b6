"""A tower and its pooling as an ONNX graph, written by hand, for CPUs. No JAX here.

Standard operators alone, each the largest that fits (Attention, LayerNormalization, Gelu, Gemm), so that a runtime
has little left to fuse. What is constant is folded on the way: normalising into the first layer, batch norms into
their convolutions, the attention's last block into the class token where no other token is looked at.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from jaxtyping import Float32
from onnx import TensorProto, helper, numpy_helper

from likeness.models.config import (
    NORM_PARTS,
    Conv,
    ConvNetConfig,
    EncoderConfig,
    MobileNetV2Config,
    Tensors,
    ViTConfig,
)
from likeness.models.preprocess import Preprocess
from likeness.models.towers import pads

OPSET = 23
"""The first with the Attention operator."""


def build(config: EncoderConfig, tensors: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The graph `images` uint8 [B S S 3] -> `features` float32 [B F], as `Encoder.features` computes them.

    Args:
        config: The encoder's config; mirror and projection take no part.
        tensors: Those of `tensor_shapes(config)`, by name.
    """
    graph = Graph()
    tower = {name.removeprefix("tower."): t for name, t in tensors.items() if name.startswith("tower.")}
    match config.tower:
        case ViTConfig():
            features = _vit(graph, config.tower, tower, config.preprocess, config.pooling)
        case MobileNetV2Config():
            features = _pooled(graph, _mobilenet(graph, config.tower, tower, config.preprocess), config.pooling)
        case ConvNetConfig():
            features = _pooled(graph, _convnet(graph, config.tower, tower, config.preprocess), config.pooling)
    side = config.preprocess.size
    return graph.model(features, ["B", side, side, 3], ["B", config.tower.features])


class Graph:
    """Collects nodes and constants; a value is known by its name."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[np.ndarray] = []

    def op(self, kind: str, *inputs: str | np.ndarray, **attributes: Any) -> str:
        """Apply the operator `kind`; arrays become constants. Returns the name of its first output."""
        output = f"{kind.lower()}_{len(self._nodes)}"
        names = [i if isinstance(i, str) else self._constant(i) for i in inputs]
        self._nodes.append(helper.make_node(kind, names, [output], name=output, **attributes))
        return output

    def shaped(self, x: str, *shape: int) -> str:
        """`x` in another shape; 0 keeps a length, -1 is what remains."""
        return self.op("Reshape", x, np.array(shape, np.int64))

    def linear(self, x: str, weight: np.ndarray, bias: np.ndarray | None) -> str:
        """`x @ weight + bias` for `x` of two axes."""
        return self.op("Gemm", x, weight, *(() if bias is None else (bias,)))

    def norm(self, x: str, weight: np.ndarray, bias: np.ndarray, eps: float) -> str:
        """Layer norm over the last axis."""
        return self.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=eps)

    def model(self, output: str, images: list[str | int], features: list[str | int]) -> onnx.ModelProto:
        """The whole, with one input and one output of these shapes."""
        self._nodes.append(helper.make_node("Identity", [output], ["features"]))
        graph = helper.make_graph(
            self._nodes,
            "tower",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, images)],
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, features)],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=11, producer_name="likeness"
        )
        # One after the other, and last: the helpers above copy what they are given, and weights may be gigabytes.
        for i, value in enumerate(self._constants):
            # ascontiguousarray makes a scalar an array of one; an operator may then keep an axis too many.
            array = np.ascontiguousarray(value).reshape(value.shape)
            model.graph.initializer.append(numpy_helper.from_array(array, f"constant_{i}"))
        return model

    def _constant(self, value: np.ndarray) -> str:
        self._constants.append(value)
        return f"constant_{len(self._constants) - 1}"


# ---------------------------------------------------------------------- ViT


def _vit(graph: Graph, config: ViTConfig, tensors: Tensors, preprocess: Preprocess, pooling: str) -> str:
    x = _tokens(graph, config, tensors, preprocess)
    for i in range(config.layers):
        block = {name.removeprefix("blocks."): t[i] for name, t in tensors.items() if name.startswith("blocks.")}
        last = i == config.layers - 1
        x = _block(graph, config, block, x, first_only=last and pooling == "class")
    x = graph.norm(x, tensors["norm_post.weight"], tensors["norm_post.bias"], config.eps)
    if pooling == "mean":
        patches = graph.op(
            "Slice", graph.shaped(x, -1, config.tokens, config.width), *_int64([1], [config.tokens], [1])
        )
        x = graph.op("ReduceMean", patches, *_int64([1]), keepdims=0)
    return x if config.head is None else graph.linear(x, tensors["head.weight"], None)


def _tokens(graph: Graph, config: ViTConfig, tensors: Tensors, preprocess: Preprocess) -> str:
    """What enters the first block, [B*P F]. Rearranged while still 8 bits; normalised by the patch matrix itself."""
    side, patch, width = config.size // config.patch, config.patch, config.width
    x = graph.shaped("images", -1, side, patch, side, patch * 3)
    x = graph.shaped(graph.op("Transpose", x, perm=[0, 1, 3, 2, 4]), -1, patch * patch * 3)
    mean, scale = (np.tile(part, patch * patch) for part in _colors(preprocess))
    weight = scale[:, None] * tensors["patch.weight"]
    position = tensors["position"]
    bias = tensors.get("patch.bias", np.zeros(width, np.float32)) - mean @ weight
    x = graph.linear(graph.op("Cast", x, to=TensorProto.FLOAT), weight, bias)
    x = graph.op("Add", graph.shaped(x, -1, side * side, width), position[None, 1:])
    batch = graph.op("Shape", x, start=0, end=1)
    first = (tensors["class_token"] + position[0])[None, None]
    first = graph.op("Expand", first, graph.op("Concat", batch, *_int64([1, width]), axis=0))
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


# ---------------------------------------------------------------------- convolutional towers


def _mobilenet(graph: Graph, config: MobileNetV2Config, tensors: Tensors, preprocess: Preprocess) -> str:
    x, scale = _centred(graph, preprocess)
    side = preprocess.size
    for block in config.plan():
        y = x
        for conv in block.convs:
            weight, bias = _folded(tensors, conv, config.eps)
            if conv.name == "stem":
                weight = scale[:, None] * weight
            around = pads(side, conv.kernel, conv.stride, conv.dilation, config.same_padding)
            y = _conv(graph, y, weight, bias, around, conv)
            side = (side + sum(around) - (conv.kernel - 1) * conv.dilation - 1) // conv.stride + 1
            if conv.relu6:
                y = graph.op("Clip", y, np.array(0, np.float32), np.array(6, np.float32))
        x = graph.op("Add", x, y) if block.residual else y
    return x


def _convnet(graph: Graph, config: ConvNetConfig, tensors: Tensors, preprocess: Preprocess) -> str:
    x, scale = _centred(graph, preprocess)
    for place, block in enumerate(config.plan()):
        (conv,) = block.convs
        weight = tensors[f"{conv.name}.conv.weight"]
        around = pads(0, conv.kernel, conv.stride, conv.dilation, same=False)
        y = _conv(graph, x, weight if place else scale[:, None] * weight, None, around, conv)
        y = _group_norm(graph, y, tensors[f"{conv.name}.norm.weight"], tensors[f"{conv.name}.norm.bias"], config)
        x = graph.op("Relu", graph.op("Add", x, y) if block.residual else y)
    return x


def _pooled(graph: Graph, x: str, pooling: str) -> str:
    """Features [B F] of maps [B F H W]: their mean, or their generalised mean with p = 3."""
    if pooling == "gem":
        x = graph.op("Pow", graph.op("Max", x, np.array(1e-6, np.float32)), np.array(3, np.float32))
    x = graph.op("Flatten", graph.op("GlobalAveragePool", x), axis=1)
    return x if pooling == "mean" else graph.op("Pow", x, np.array(1 / 3, np.float32))


def _centred(graph: Graph, preprocess: Preprocess) -> tuple[str, Float32[np.ndarray, " 3"]]:
    """Pictures as maps [B 3 S S] minus the mean, and the factor for the first kernel that does the rest.

    The mean can't go into the kernel too: at the edge a convolution adds zeros, which stand for the mean colour.
    """
    mean, scale = _colors(preprocess)
    x = graph.op("Cast", graph.op("Transpose", "images", perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
    return graph.op("Sub", x, mean[:, None, None]), scale


def _folded(tensors: Tensors, conv: Conv, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias that do the work of a convolution and the batch norm behind it."""
    weight, bias, mean, variance = (tensors[f"{conv.name}.norm.{part}"].astype(np.float64) for part in NORM_PARTS)
    gain = weight / np.sqrt(variance + eps)
    kernel = tensors[f"{conv.name}.conv.weight"] * gain
    return kernel.astype(np.float32), (bias - mean * gain).astype(np.float32)


def _conv(
    graph: Graph, x: str, weight: np.ndarray, bias: np.ndarray | None, around: tuple[int, int], plan: Conv
) -> str:
    """Convolve maps [B C H W] with a kernel that is stored [h w in out]."""
    return graph.op(
        "Conv",
        x,
        weight.transpose(3, 2, 0, 1),
        *(() if bias is None else (bias,)),
        kernel_shape=list(weight.shape[:2]),
        strides=[plan.stride] * 2,
        dilations=[plan.dilation] * 2,
        group=plan.inputs if plan.depthwise else 1,
        pads=[around[0], around[0], around[1], around[1]],
    )


def _group_norm(graph: Graph, x: str, weight: np.ndarray, bias: np.ndarray, config: ConvNetConfig) -> str:
    """Each group of channels as one long channel, normed by itself."""
    one, zero = np.ones(config.groups, np.float32), np.zeros(config.groups, np.float32)
    y = graph.op("InstanceNormalization", graph.shaped(x, 0, config.groups, -1), one, zero, epsilon=config.eps)
    y = graph.op("Reshape", y, graph.op("Shape", x))
    return graph.op("Add", graph.op("Mul", y, weight[:, None, None]), bias[:, None, None])


def _colors(preprocess: Preprocess) -> tuple[Float32[np.ndarray, " 3"], Float32[np.ndarray, " 3"]]:
    """(mean, scale) so that the normalised picture is `(x - mean) * scale` for `x` in 0 to 255."""
    mean = 255 * np.array(preprocess.mean, np.float64)
    scale = 1 / (255 * np.array(preprocess.std, np.float64))
    return mean.astype(np.float32), scale.astype(np.float32)


def _int64(*values: list[int]) -> tuple[np.ndarray, ...]:
    return tuple(np.array(value, np.int64) for value in values)
