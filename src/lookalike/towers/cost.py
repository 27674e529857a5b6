"""What a tower costs: parameters, and floating-point operations for an image. Pure, from the config alone."""

from math import prod

from lookalike.towers import Conv, Shapes, SwinConfig, Tower, ViTConfig, pads
from lookalike.towers.convnext import ConvNeXtConfig
from lookalike.towers.kinds import kind_of
from lookalike.towers.parts import Bottleneck


def parameters(shapes: Shapes) -> int:
    """How many numbers are trained: all tensors of `shapes` but the statistics of batch norms."""
    return sum(prod(shape) for name, shape in shapes.items() if kind_of(name) != "statistic")


def operations(tower: Tower, size: int) -> int:
    """Additions and multiplications of matrix products, convolutions and attention for one image of `size` pixels.

    A multiplication and an addition count as two; papers that speak of FLOPs often count them as one. Norms,
    activations and additions of whole maps are left out: they are about a hundredth.
    """
    match tower:
        case ViTConfig():
            return _vit(tower)
        case SwinConfig():
            return _swin(tower, size)
        case ConvNeXtConfig():
            return _convnext(tower, size)
    return _convolutions(tower.plan(), size)


def _vit(tower: ViTConfig) -> int:
    tokens, width = tower.tokens, tower.width
    shapes = tower.shapes()
    blocks = sum(prod(shape) for name, shape in shapes.items() if name.startswith("blocks.") and len(shape) == 3)
    total = 2 * prod(shapes["patch.weight"]) * tower.grid**2 + 2 * blocks * tokens
    total += tower.layers * _attention(tokens, tokens, width)
    if tower.pool_heads:
        total += 2 * 2 * width**2 * tokens + _attention(1, tokens, width)  # keys and values of all tokens
        total += 2 * (2 * width**2 + prod(shapes["pool.mlp.up.weight"]) + prod(shapes["pool.mlp.down.weight"]))
    return total + 2 * width * (tower.head or 0)


def _swin(tower: SwinConfig, size: int) -> int:
    shapes, sides = tower.shapes(), tower.sides(size)
    total = 2 * prod(shapes["patch.weight"]) * sides[0] ** 2
    for i, (side, width) in enumerate(zip(sides, tower.widths, strict=True)):
        window = tower.window(i, side)[0]
        padded = (-(-side // window) * window) ** 2
        hidden = shapes[f"stages.{i}.blocks.mlp.up.weight"][2]
        block = 2 * 4 * width**2 * padded + _attention(padded, window**2, width) + 2 * 2 * width * hidden * side**2
        total += tower.depths[i] * block
        if i < tower.stages - 1:
            total += 2 * prod(shapes[f"stages.{i}.merge.reduction.weight"]) * sides[i + 1] ** 2
    return total


def _convnext(tower: ConvNeXtConfig, size: int) -> int:
    total = 0
    for name, shape in tower.shapes().items():
        if name.endswith("weight") and len(shape) > 1 and ".norm" not in name:  # kernels and matrices, once a token
            total += 2 * prod(shape) * tower.sides(size)[int(name.split(".")[1])] ** 2
    return total


def _convolutions(plan: tuple[Bottleneck, ...], side: int) -> int:
    total = 0
    for block in plan:
        for conv in block.convs:
            side = _out(conv, side)
            total += 2 * side**2 * conv.kernel**2 * conv.outputs * (1 if conv.depthwise else conv.inputs)
        total += 2 * 2 * block.convs[-1].inputs * block.squeeze
    return total


def _attention(queries: int, keys: int, width: int) -> int:
    """Products of queries with keys, and of what follows from them with values."""
    return 2 * 2 * queries * keys * width


def _out(conv: Conv, side: int) -> int:
    """Side of the map behind a convolution."""
    padded = side + sum(pads(side, conv.kernel, conv.stride, conv.dilation, conv.padding))
    return (padded - (conv.kernel - 1) * conv.dilation - 1) // conv.stride + 1
