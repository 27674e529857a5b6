"""An ONNX graph while it is made: nodes and constants by name, and the layers that towers share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

OPSET = 23  # the first with the Attention operator
LARGE = 2**16  # numbers in a matrix from which eight bits are worth their rounding
_PAGE = 4096  # bytes; what can be mapped into memory begins at a multiple

Form = Literal["rows", "tokens", "maps", "image"]
"""rows: [B*P F]. tokens: [B P F]. maps: [B F S S]. image: [B S S F]."""


@dataclass(frozen=True)
class Node:
    """A value of a graph, and what is known of it."""

    name: str
    form: Form
    # An image that is not normalised yet. bytes: it is uint8, all 256 levels: exact in float32, and not to be rounded.
    # centred: its mean is subtracted.
    pixels: Literal["", "bytes", "centred"] = ""
    least: float | None = None  # nothing in it is less


class Graph:
    """Collects nodes and constants; a value is known by its name."""

    def __init__(self, int8: bool = False) -> None:
        self._int8 = int8  # see `linear`
        self._whole: dict[tuple[str, float | None], tuple[str, str]] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[np.ndarray] = []

    def op(self, kind: str, *inputs: str | np.ndarray | float | list[int], **attributes: Any) -> str:
        """Apply the operator `kind`; returns the name of its first output.

        What is no name becomes a constant: an array as it is, a float in 32 bits, a list of shapes or places in 64.
        """
        output = f"{kind.lower()}_{len(self._nodes)}"
        names = [i if isinstance(i, str) else self._constant(i) for i in inputs]
        self._nodes.append(helper.make_node(kind, names, [output], name=output, **attributes))
        return output

    def _constant(self, value: np.ndarray | float | list[int]) -> str:
        if isinstance(value, float | list):
            value = np.array(value, np.float32 if isinstance(value, float) else np.int64)
        self._constants.append(value)
        return f"constant_{len(self._constants) - 1}"

    def linear(
        self, x: str, weight: np.ndarray, bias: np.ndarray | None, exact: bool = False, least: float | None = None
    ) -> str:
        """`x @ weight + bias` for `x` of two axes.

        In an `int8` graph, unless `exact` or small, each column of `weight` is divided by its largest number and
        rounded to 127 steps a side, and so is each row of `x`; where `x` is known to have nothing below `least`, its
        rows are rounded to 255 steps from there on. A row's numbers do not depend on the rows beside it.
        """
        if exact or not self._int8 or weight.size < LARGE:
            return self.op("Gemm", x, weight, *(() if bias is None else (bias,)))
        rows, row_step = self._rounded(x, least)
        step = np.maximum(np.abs(weight).max(axis=0), np.finfo(np.float32).tiny) / np.float32(127)
        columns, zero = np.rint(weight / step).astype(np.int8), np.array(128 if least is None else 0, np.uint8)
        y = self.op("MatMulInteger", rows, columns, zero, np.array(0, np.int8))
        y = self.op("Mul", self.op("Mul", self.op("Cast", y, to=TensorProto.FLOAT), step), row_step)
        if least is not None:
            bias = np.float32(least) * weight.sum(axis=0) + (0 if bias is None else bias)
        return y if bias is None else self.op("Add", y, bias)

    def _rounded(self, x: str, least: float | None) -> tuple[str, str]:
        """The rows of `x` as bytes, and the size of each row's step; without `least` 128 stands for zero."""
        if (x, least) not in self._whole:  # queries, keys and values are made from the same rows
            start: str | float = 128.5  # the cast rounds down
            if least is None:  # bytes without a sign, since that is what processors multiply
                span, levels = self.op("ReduceMax", self.op("Abs", x), [-1], keepdims=1), 127.0
            else:
                span, levels = self.op("Add", self.op("ReduceMax", x, [-1], keepdims=1), -least), 255.0
            steps = self.op("Div", levels, self.op("Max", span, 1e-12))
            if least is not None:
                start = self.op("Add", self.op("Mul", steps, -least), 0.5)
            rows = self.op("Cast", self.op("Add", self.op("Mul", x, steps), start), to=TensorProto.UINT8)
            self._whole[x, least] = rows, self.op("Mul", span, 1 / levels)
        return self._whole[x, least]

    def lengths(self, x: str, start: int, end: int, *rest: int) -> str:
        """The shape of `x` from axis `start` to `end`, and other lengths behind it."""
        return self.op("Concat", self.op("Shape", x, start=start, end=end), list(rest), axis=0)

    def model(
        self,
        output: str,
        shape: list[str | int],
        features: list[str | int],
        given: tuple[str, int] = ("images", TensorProto.UINT8),
        name: str = "features",
    ) -> onnx.ModelProto:
        """The whole, with one input (name and kind `given`, of `shape`) and one output, `name`, of shape `features`."""
        self._nodes.append(helper.make_node("Identity", [output], [name]))
        info, opset = helper.make_tensor_value_info, helper.make_opsetid("", OPSET)
        inputs, outputs = [info(*given, shape)], [info(name, TensorProto.FLOAT, features)]
        graph = helper.make_graph(self._nodes, "tower", inputs, outputs)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=11, producer_name="lookalike")
        # One after the other, and last: the helpers above copy what they are given, and weights may be gigabytes.
        for i, value in enumerate(self._constants):
            # ascontiguousarray makes a scalar an array of one; an operator may then keep an axis too many.
            array = np.ascontiguousarray(value).reshape(value.shape)
            model.graph.initializer.append(numpy_helper.from_array(array, f"constant_{i}"))
        return model


def move_weights(model: onnx.ModelProto, file: Path) -> None:
    """Move the weights of a graph into `file`, which must lie beside it."""
    with file.open("wb") as stream:
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) >= _PAGE:  # smaller ones stay: shapes must, the rest may
                offset = stream.tell()
                stream.write(tensor.raw_data)
                stream.write(bytes(-stream.tell() % _PAGE))
                set_external_data(tensor, file.name, offset, len(tensor.raw_data))
                tensor.ClearField("raw_data")
