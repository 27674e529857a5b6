"""Preprocessing as an ONNX graph: images of any size to the square that a tower takes, in 8 bits.

Resizing along one side is linear, so it is a matrix product whose matrix the graph makes from the image's size.
Nothing but elementwise operators and MatMul is needed, which every runtime has and computes alike; the operator Resize
has antialiasing in few of them, and rounds in its own way. The arithmetic is Pillow's (`Resample.c`): weights in 22
bits, first along the rows, then along the columns, each time rounded to 8 bits. Pillow 13 takes columns first where
it takes more than twice as many pixels off the height as off the width; a graph can only choose by computing both, for
values that differ here and there. Positions are whole numbers until the last division, so that single precision is
enough.
"""

from functools import reduce

import numpy as np
from onnx import ModelProto, TensorProto

from lookalike.imaging.preprocess import Preprocess
from lookalike.towers.graphs.graph import Graph

_BITS = 2.0**22


def preprocessing(preprocess: Preprocess) -> ModelProto:
    """The graph `images` uint8 [B H W 3] -> `features` uint8 [B S S 3], as `preprocess` computes them."""
    g, size = Graph(), preprocess.size
    shape = g.op("Shape", "images")
    height, width = (g.op("Gather", shape, _whole([i])) for i in (1, 2))
    rows, columns = _resized(g, preprocess, height, width)
    down, seen_y = _matrix(g, preprocess, height, rows)
    across, seen_x = _matrix(g, preprocess, width, columns)
    x = g.op("Cast", g.op("Transpose", "images", perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
    x = g.op("MatMul", x, g.op("Transpose", across, perm=[1, 0]))
    if preprocess.antialias:
        x = _rounded(g, x, preprocess.antialias)
    x = _rounded(g, g.op("MatMul", down, x), preprocess.antialias)
    if preprocess.mode == "pad" and any(preprocess.fill):
        empty = g.op("Sub", _real(1), g.op("MatMul", seen_y, g.op("Transpose", seen_x, perm=[1, 0])))
        x = g.op("Add", x, g.op("Mul", empty, np.array(preprocess.fill, np.float32)[:, None, None]))
    x = g.op("Transpose", g.op("Cast", x, to=TensorProto.UINT8), perm=[0, 2, 3, 1])
    model = g.model(x, ["B", "H", "W", 3], ["B", size, size, 3])
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.UINT8
    return model


def _resized(g: Graph, preprocess: Preprocess, height: str, width: str) -> tuple[str, str]:
    """Height and width [1] of the whole image after resizing."""
    side = _whole([preprocess.resize])
    if preprocess.mode == "squash":
        same = g.op("Identity", side)
        return same, same
    short, long = g.op("Min", height, width), g.op("Max", height, width)
    if preprocess.mode == "crop":
        scaled = g.op("Div", g.op("Mul", side, long), short)
        upright = g.op("LessOrEqual", width, height)
        return g.op("Where", upright, scaled, side), g.op("Where", upright, side, scaled)
    ratio = g.op("Div", g.op("Cast", long, to=TensorProto.DOUBLE), np.array([preprocess.resize], np.float64))
    sides = (g.op("Div", g.op("Cast", length, to=TensorProto.DOUBLE), ratio) for length in (height, width))
    rounded = (g.op("Cast", g.op("Round", side), to=TensorProto.INT64) for side in sides)
    rows, columns = (g.op("Max", side, _whole([1])) for side in rounded)
    return rows, columns


def _matrix(g: Graph, preprocess: Preprocess, length: str, resized: str) -> tuple[str, str]:
    """Along one side: weights [S L] of the image's pixels in those of the square, and whether each is seen [S 1]."""
    outputs = np.arange(preprocess.size, dtype=np.int64)[:, None]
    place = g.op("Add", outputs, _start(g, preprocess, resized))  # among the pixels of the whole resized image
    zero = _whole([0])
    inside = g.op("And", g.op("GreaterOrEqual", place, zero), g.op("Less", place, resized))
    seen = g.op("Cast", inside, to=TensorProto.FLOAT)
    pixels = g.op("Unsqueeze", g.op("Range", _whole(0), g.op("Squeeze", length), _whole(1)), zero)
    if preprocess.interpolation == "nearest":
        odd = g.op("Add", g.op("Mul", place, _whole([2])), _whole([1]))
        nearest = g.op("Div", g.op("Mul", odd, length), g.op("Mul", resized, _whole([2])))
        return g.op("Mul", g.op("Cast", g.op("Equal", pixels, nearest), to=TensorProto.FLOAT), seen), seen
    weights = _kernel(g, preprocess, _distance(g, preprocess, place, pixels, length, resized))
    if preprocess.antialias:
        total = g.op("ReduceSum", weights, _whole([1]), keepdims=1)
        weights = g.op("Div", weights, g.op("Where", inside, total, _real(1)))
        weights = g.op("Div", g.op("Round", g.op("Mul", weights, _real(_BITS))), _real(_BITS))
    else:
        weights = _held_at_the_edges(g, preprocess, weights, place, pixels, length, resized)
    return g.op("Mul", weights, seen), seen


def _start(g: Graph, preprocess: Preprocess, resized: str) -> str:
    """Where the square begins in the resized image, [1]; negative where it begins before it."""
    spare = g.op("Sub", resized, _whole([preprocess.size]))
    half = g.op("Mul", g.op("Cast", spare, to=TensorProto.FLOAT), _real(0.5))
    toward_zero = g.op("Div", spare, _whole([2]))
    middle = g.op("Cast", g.op("Floor" if preprocess.rounding == "floor" else "Round", half), to=TensorProto.INT64)
    if preprocess.mode != "pad" and preprocess.rounding == "floor":
        return middle
    return g.op("Where", g.op("Less", spare, _whole([0])), toward_zero, middle)


def _distance(g: Graph, preprocess: Preprocess, place: str, pixels: str | np.ndarray, length: str, resized: str) -> str:
    """From each of the square's pixels to each of the image's, in widths of the filter, [S L] float32."""
    two, one = _whole([2]), _whole([1])
    theirs = g.op("Mul", g.op("Add", g.op("Mul", pixels, two), one), resized)
    ours = g.op("Mul", g.op("Add", g.op("Mul", place, two), one), length)
    unit = g.op("Max", length, resized) if preprocess.antialias else resized
    apart = g.op("Cast", g.op("Sub", theirs, ours), to=TensorProto.FLOAT)
    return g.op("Abs", g.op("Div", apart, g.op("Cast", g.op("Mul", unit, two), to=TensorProto.FLOAT)))


def _kernel(g: Graph, preprocess: Preprocess, t: str) -> str:
    """The filter at distances `t`. Keys' cubic has a = -0.5 in Pillow, and -0.75 where torch does not antialias."""
    if preprocess.interpolation == "bilinear":
        return g.op("Relu", g.op("Sub", _real(1), t))
    if preprocess.interpolation == "lanczos":
        sincs = (_sinc(g, x) for x in (t, g.op("Div", t, _real(3))))
        value = reduce(lambda a, b: g.op("Mul", a, b), sincs)
        return g.op("Where", g.op("Less", t, _real(3)), value, _real(0))
    a = -0.5 if preprocess.antialias else -0.75
    near = _polynomial(g, t, a + 2, -(a + 3), 0, 1)
    far = _polynomial(g, t, a, -5 * a, 8 * a, -4 * a)
    value = g.op("Where", g.op("Less", t, _real(1)), near, far)
    return g.op("Where", g.op("Less", t, _real(2)), value, _real(0))


def _held_at_the_edges(
    g: Graph, preprocess: Preprocess, weights: str, place: str, pixels: str, length: str, resized: str
) -> str:
    """Without antialiasing, what the filter sees beyond the first and the last pixel has that pixel's colour."""
    last = g.op("Sub", length, _whole([1]))
    beyond = np.array([[1, 2]], np.int64)
    for edge, outside in ((_whole([0]), -beyond), (last, g.op("Add", last, beyond))):
        lost = _kernel(g, preprocess, _distance(g, preprocess, place, outside, length, resized))
        lost = g.op("ReduceSum", lost, _whole([1]), keepdims=1)
        weights = g.op("Add", weights, g.op("Where", g.op("Equal", pixels, edge), lost, _real(0)))
    return weights


def _sinc(g: Graph, x: str) -> str:
    angle = g.op("Mul", x, _real(np.pi))
    safe = g.op("Max", angle, _real(1e-6))
    return g.op("Div", g.op("Sin", safe), safe)


def _polynomial(g: Graph, t: str, *coefficients: int | float) -> str:
    """By Horner's rule, the highest power first."""
    value = g.op("Mul", t, _real(coefficients[0]))
    for coefficient in coefficients[1:-1]:
        value = g.op("Mul", g.op("Add", value, _real(coefficient)), t)
    return g.op("Add", value, _real(coefficients[-1]))


def _rounded(g: Graph, x: str, up: bool) -> str:
    """Whole numbers from 0 to 255; halves go up, as in Pillow, or to the even one, as in NumPy."""
    whole = g.op("Floor", g.op("Add", x, _real(0.5))) if up else g.op("Round", x)
    return g.op("Clip", whole, _real(0), _real(255))


def _whole(value: int | list[int]) -> np.ndarray:
    return np.array(value, np.int64)


def _real(value: int | float) -> np.ndarray:
    return np.array(value, np.float32)
