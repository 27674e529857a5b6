"""Convolutional towers as graphs."""

import numpy as np
from jaxtyping import Float32
from onnx import TensorProto

from lookalike.encoders.config import Tensors
from lookalike.imaging.preprocess import Preprocess
from lookalike.towers import NORM_PARTS, Conv, ConvNetConfig, MobileNetV2Config, pads
from lookalike.towers.graphs.graph import Graph, colors


def mobilenet(graph: Graph, config: MobileNetV2Config, tensors: Tensors, preprocess: Preprocess) -> str:
    """The last map [B F H W] of images."""
    x, scale = centred(graph, preprocess)
    side = preprocess.size
    for block in config.plan():
        y = x
        for conv in block.convs:
            weight, bias = folded(tensors, conv, config.eps)
            if conv.name == "stem":
                weight = scale[:, None] * weight
            around = pads(side, conv.kernel, conv.stride, conv.dilation, conv.padding)
            y = convolved(graph, y, weight, bias, around, conv)
            side = (side + sum(around) - (conv.kernel - 1) * conv.dilation - 1) // conv.stride + 1
            if conv.active:
                y = graph.op("Clip", y, np.array(0, np.float32), np.array(6, np.float32))
        x = graph.op("Add", x, y) if block.residual else y
    return x


def convnet(graph: Graph, config: ConvNetConfig, tensors: Tensors, preprocess: Preprocess) -> str:
    """The last map [B F H W] of images."""
    x, scale = centred(graph, preprocess)
    for place, block in enumerate(config.plan()):
        (conv,) = block.convs
        weight = tensors[f"{conv.name}.conv.weight"]
        around = pads(0, conv.kernel, conv.stride, conv.dilation, conv.padding)
        y = convolved(graph, x, weight if place else scale[:, None] * weight, None, around, conv)
        y = group_norm(graph, y, tensors[f"{conv.name}.norm.weight"], tensors[f"{conv.name}.norm.bias"], config)
        x = graph.op("Relu", graph.op("Add", x, y) if block.residual else y)
    return x


def pooled(graph: Graph, x: str, pooling: str) -> str:
    """Features [B F] of maps [B F H W]: their mean, or their generalised mean with p = 3."""
    if pooling == "gem":
        x = graph.op("Pow", graph.op("Max", x, np.array(1e-6, np.float32)), np.array(3, np.float32))
    x = graph.op("Flatten", graph.op("GlobalAveragePool", x), axis=1)
    return x if pooling == "mean" else graph.op("Pow", x, np.array(1 / 3, np.float32))


def centred(graph: Graph, preprocess: Preprocess) -> tuple[str, Float32[np.ndarray, " 3"]]:
    """Images as maps [B 3 S S] minus the mean, and the factor for the first kernel that does the rest.

    The mean can't go into the kernel too: at the edge a convolution adds zeros, which stand for the mean colour.
    """
    mean, scale = colors(preprocess)
    x = graph.op("Cast", graph.op("Transpose", "images", perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
    return graph.op("Sub", x, mean[:, None, None]), scale


def folded(tensors: Tensors, conv: Conv, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias that do the work of a convolution and the batch norm behind it."""
    weight, bias, mean, variance = (tensors[f"{conv.name}.norm.{part}"].astype(np.float64) for part in NORM_PARTS)
    gain = weight / np.sqrt(variance + eps)
    kernel = tensors[f"{conv.name}.conv.weight"] * gain
    return kernel.astype(np.float32), (bias - mean * gain).astype(np.float32)


def convolved(
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


def group_norm(graph: Graph, x: str, weight: np.ndarray, bias: np.ndarray, config: ConvNetConfig) -> str:
    """Each group of channels as one long channel, normed by itself."""
    one, zero = np.ones(config.groups, np.float32), np.zeros(config.groups, np.float32)
    y = graph.op("InstanceNormalization", graph.shaped(x, 0, config.groups, -1), one, zero, epsilon=config.eps)
    y = graph.op("Reshape", y, graph.op("Shape", x))
    return graph.op("Add", graph.op("Mul", y, weight[:, None, None]), bias[:, None, None])
