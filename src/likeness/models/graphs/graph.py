"""An ONNX graph while it is made: nodes and constants by name, and the layers that towers share."""

from typing import Any

import numpy as np
import onnx
from jaxtyping import Float32
from onnx import TensorProto, helper, numpy_helper

from likeness.models.preprocess import Preprocess

OPSET = 23
"""The first with the Attention operator."""

LARGE = 2**16
"""Numbers in a matrix from which eight bits are worth their rounding."""


class Graph:
    """Collects nodes and constants; a value is known by its name."""

    def __init__(self, int8: bool = False) -> None:
        """With `int8`, large matrix products go by whole numbers of eight bits; see `linear`."""
        self._int8 = int8
        self._whole: dict[str, tuple[str, str]] = {}
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

    def linear(self, x: str, weight: np.ndarray, bias: np.ndarray | None, exact: bool = False) -> str:
        """`x @ weight + bias` for `x` of two axes.

        In an `int8` graph, unless `exact` or small: each row of `x` and each column of `weight` is divided by its
        largest number and rounded to 127 steps a side. A row's numbers do not depend on the rows beside it.
        """
        if exact or not self._int8 or weight.size < LARGE:
            return self.op("Gemm", x, weight, *(() if bias is None else (bias,)))
        if x not in self._whole:  # queries, keys and values are made from the same rows
            most = self.op("ReduceMax", self.op("Abs", x), np.array([-1], np.int64), keepdims=1)
            steps = self.op("Div", np.array(127, np.float32), self.op("Max", most, np.array(1e-12, np.float32)))
            # Unsigned, with 128 for zero, since that is what processors multiply; the cast rounds down.
            rows = self.op(
                "Cast", self.op("Add", self.op("Mul", x, steps), np.array(128.5, np.float32)), to=TensorProto.UINT8
            )
            self._whole[x] = rows, self.op("Mul", most, np.array(1 / 127, np.float32))
        rows, row_step = self._whole[x]
        step = np.maximum(np.abs(weight).max(axis=0), np.finfo(np.float32).tiny) / np.float32(127)
        columns = np.rint(weight / step).astype(np.int8)
        y = self.op("MatMulInteger", rows, columns, np.array(128, np.uint8), np.array(0, np.int8))
        y = self.op("Mul", self.op("Mul", self.op("Cast", y, to=TensorProto.FLOAT), step), row_step)
        return y if bias is None else self.op("Add", y, bias)

    def norm(self, x: str, weight: np.ndarray, bias: np.ndarray, eps: float) -> str:
        """Layer norm over the last axis."""
        return self.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=eps)

    def model(
        self,
        output: str,
        shape: list[str | int],
        features: list[str | int],
        given: tuple[str, int] = ("images", TensorProto.UINT8),
    ) -> onnx.ModelProto:
        """The whole, with one input (name and kind `given`, of `shape`) and one output, of shape `features`."""
        self._nodes.append(helper.make_node("Identity", [output], ["features"]))
        graph = helper.make_graph(
            self._nodes,
            "tower",
            [helper.make_tensor_value_info(*given, shape)],
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


def colors(preprocess: Preprocess) -> tuple[Float32[np.ndarray, " 3"], Float32[np.ndarray, " 3"]]:
    """(mean, scale) so that the normalised picture is `(x - mean) * scale` for `x` in 0 to 255."""
    mean = 255 * np.array(preprocess.mean, np.float64)
    scale = 1 / (255 * np.array(preprocess.std, np.float64))
    return mean.astype(np.float32), scale.astype(np.float32)


def int64(*values: list[int]) -> tuple[np.ndarray, ...]:
    """Constants that say shapes and places."""
    return tuple(np.array(value, np.int64) for value in values)
