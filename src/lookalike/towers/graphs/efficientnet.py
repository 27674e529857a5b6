"""EfficientNet as a graph."""

from lookalike.encoders.config import Tensors
from lookalike.imaging.preprocess import Preprocess
from lookalike.towers import Bottleneck, EfficientNetConfig, pads
from lookalike.towers.efficientnet import squeeze_name
from lookalike.towers.graphs.convs import centred, convolved, folded
from lookalike.towers.graphs.graph import Graph


def efficientnet(graph: Graph, config: EfficientNetConfig, tensors: Tensors, preprocess: Preprocess) -> str:
    """The last map [B F H W] of images."""
    x, scale = centred(graph, preprocess)
    side = preprocess.size
    for block in config.plan():
        y = x
        for conv in block.convs:
            if block.squeeze and conv is block.convs[-1]:
                y = _squeezed(graph, block, tensors, y)
            weight, bias = folded(tensors, conv, config.eps)
            if conv.name == "stem":
                weight = scale[:, None] * weight
            around = pads(side, conv.kernel, conv.stride, conv.dilation, conv.padding)
            y = convolved(graph, y, weight, bias, around, conv)
            side = (side + sum(around) - conv.kernel) // conv.stride + 1
            y = _swish(graph, y) if conv.active else y
        x = graph.op("Add", x, y) if block.residual else y
    return x


def _squeezed(graph: Graph, block: Bottleneck, tensors: Tensors, x: str) -> str:
    """Maps [B C H W], every channel times a number that its whole map decides."""
    name = squeeze_name(block)
    gate = graph.op("GlobalAveragePool", x)
    for part in ("reduce", "expand"):
        weight, bias = tensors[f"{name}.{part}.weight"], tensors[f"{name}.{part}.bias"]
        gate = graph.op("Conv", gate, weight.T[:, :, None, None], bias, kernel_shape=[1, 1])
        gate = _swish(graph, gate) if part == "reduce" else graph.op("Sigmoid", gate)
    return graph.op("Mul", x, gate)


def _swish(graph: Graph, x: str) -> str:
    """Swish: x * sigmoid(x)."""
    return graph.op("Mul", x, graph.op("Sigmoid", x))
