"""Preprocessing as an ONNX graph: images of any size to the square that a tower takes, in 8 bits.

The geometry is that of `Preprocess`, and the matrices are those of `resample.weights`, by elementwise operators and
MatMul, which every runtime computes alike; Resize has antialiasing in few of them, and rounds in its own way. As in
Pillow (`Resample.c`), first along the rows, then along the columns, each time rounded to 8 bits. Pillow 13 takes
columns first where more than twice as many pixels go off the height as off the width; a graph could only compute both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto
from onnx.helper import tensor_dtype_to_np_dtype

from lookalike.imaging.preprocess import Preprocess
from lookalike.imaging.resample import Arithmetic, weights
from lookalike.towers.programs.graph import Graph

INT64, FLOAT, DOUBLE, BOOL = TensorProto.INT64, TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.BOOL


def squares(g: Graph, images: str, preprocess: Preprocess) -> str:
    """Add to a graph that has `images` uint8 [B H W 3] what makes uint8 [B S S 3] of them, as `preprocess` does."""
    shape = g.op("Shape", images)
    height, width = (Value(g, g.op("Gather", shape, np.array([axis])), INT64) for axis in (1, 2))
    sides = zip((height, width), preprocess.resized(height, width, ONNX), strict=True)
    (down, seen_y), (across, seen_x) = (_matrix(preprocess, length, resized) for length, resized in sides)
    x = Value(g, g.op("Cast", g.op("Transpose", images, perm=[0, 3, 1, 2]), to=FLOAT), FLOAT)
    x = x.op("MatMul", x, across.op("Transpose", across, perm=[1, 0]))
    if preprocess.antialias:
        x = _rounded(x, up=True)
    x = _rounded(x.op("MatMul", down, x), preprocess.antialias)
    if preprocess.mode == "pad" and any(preprocess.fill):
        seen = x.op("MatMul", seen_y, seen_x.op("Transpose", seen_x, perm=[1, 0]))
        x = x + (1 - seen) * np.array(preprocess.fill)[:, None, None]
    return g.op("Transpose", g.op("Cast", x.name, to=TensorProto.UINT8), perm=[0, 2, 3, 1])


def _operator(kind: str, result: int | None = None, swapped: bool = False) -> Callable[["Value", Any], "Value"]:
    def apply(one: "Value", other: Any) -> "Value":
        return one.op(kind, *((other, one) if swapped else (one, other)), result=result)

    return apply


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of a graph that is being made: Python's operators on it become nodes, other operands constants."""

    graph: Graph
    name: str
    kind: int

    def op(self, operator: str, *inputs: Any, result: int | None = None, **attributes: Any) -> "Value":
        """A node. What is no `Value` becomes a constant of this kind, and so does the result, or of kind `result`."""
        names = [i.name if isinstance(i, Value) else np.asarray(i, tensor_dtype_to_np_dtype(self.kind)) for i in inputs]
        return Value(self.graph, self.graph.op(operator, *names, **attributes), result or self.kind)

    __add__ = __radd__ = _operator("Add")
    __sub__, __rsub__ = _operator("Sub"), _operator("Sub", swapped=True)
    __mul__ = __rmul__ = _operator("Mul")
    __truediv__ = __floordiv__ = _operator("Div")  # whole numbers toward zero; `resample` divides no negative ones
    __lt__, __le__, __ge__ = (_operator(kind, BOOL) for kind in ("Less", "LessOrEqual", "GreaterOrEqual"))
    __eq__ = _operator("Equal", BOOL)  # type: ignore[assignment]
    __and__ = _operator("And")

    def __abs__(self) -> "Value":
        return self.op("Abs", self)

    def sum(self, axis: int, keepdims: bool) -> "Value":
        """Along one axis."""
        name = self.graph.op("ReduceSum", self.name, np.array([axis]), keepdims=int(keepdims))
        return Value(self.graph, name, self.kind)


def _where(condition: Value, one: Any, other: Any) -> Value:
    value: Value = one if isinstance(one, Value) else other
    return value.op("Where", condition, one, other)


def _sinc(x: Value) -> Value:
    angle = x * np.pi
    safe = _where(angle < 1e-6, 1e-6, angle)
    return safe.op("Sin", safe) / safe


def _cast(kind: int) -> Callable[[Value], Value]:
    return lambda x: x.op("Cast", x, result=kind, to=kind)


ONNX = Arithmetic(_where, _sinc, lambda x: x.op("Round", x), _cast(INT64), _cast(FLOAT), _cast(DOUBLE))


def _matrix(preprocess: Preprocess, length: Value, resized: Value | int) -> tuple[Value, Value]:
    """Along one side: weights [S L] of the image's pixels in those of the square, and whether each is seen [S 1]."""
    resized = resized + 0 * length  # a value, whatever the mode
    place = preprocess.start(resized, ONNX) + np.arange(preprocess.size)[:, None]
    pixels = length.op("Unsqueeze", length.op("Range", 0, length.op("Squeeze", length), 1), [0])
    return weights(place, pixels, length, resized, preprocess.interpolation, preprocess.antialias, ONNX)


def _rounded(x: Value, up: bool) -> Value:
    """Whole numbers from 0 to 255; halves go up, as in Pillow, or to the even one, as in NumPy."""
    whole = x.op("Floor", x + 0.5) if up else x.op("Round", x)
    return whole.op("Clip", whole, 0, 255)
