"""A tower read as a table: every tensor with its shape and kind, and what an image costs. No JAX here."""

# The verbs are described in `Ops`, and not every reader needs all that they are given.
# ruff: noqa: D102, ARG002

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, prod, sqrt
from typing import TYPE_CHECKING, Any, Literal

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
)
from lookalike.towers.text import TextConfig

if TYPE_CHECKING:
    from lookalike.towers import Tower

Shapes = dict[str, tuple[int, ...]]
"""Tensor name -> shape."""

Kind = Literal["matrix", "kernel", "norm", "bias", "scale", "position", "statistic"]
"""What a tensor is. norm: the factors of a norm. scale: other learned factors. position: learned positions and tokens.
statistic: a mean or variance that was measured, and does not learn."""

POSITION_WIDTH = 512
"""Width inside the MLP that makes Swin's second position bias; the same in every published model."""


@dataclass(frozen=True)
class Tensor:
    """One tensor as a tower declares it."""

    shape: tuple[int, ...]
    """With the axis of blocks first, where blocks are stacked."""
    kind: Kind
    start: float = 0.0
    """The mean of a new one."""
    deviation: float = 0.0
    """The standard deviation of a new one; 0: it starts as a constant."""

    @property
    def trained(self) -> bool:
        """Whether it learns."""
        return self.kind != "statistic"

    @property
    def decays(self) -> bool:
        """Whether weight decay is for it: what multiplies and is summed, not norms, scales, biases, positions."""
        return self.kind in ("matrix", "kernel")


def matrix(inputs: int, outputs: int) -> Tensor:
    """A new matrix has variance 1 / inputs."""
    return Tensor((inputs, outputs), "matrix", deviation=sqrt(1 / inputs))


def position(*shape: int) -> Tensor:
    """Learned positions and tokens start small."""
    return Tensor(shape, "position", deviation=0.02)


def bias(outputs: int) -> Tensor:
    """Biases start at 0."""
    return Tensor((outputs,), "bias")


def declare(tower: "Tower | TextConfig") -> dict[str, Tensor]:
    """Every tensor by its name, in the order in which the forward meets them."""
    return _run(tower, 0).tensors


def shapes_of(tower: "Tower | TextConfig") -> Shapes:
    """Every tensor's shape by its name."""
    return {name: tensor.shape for name, tensor in declare(tower).items()}


def parameters(tower: "Tower | TextConfig") -> int:
    """How many numbers are trained: all but the statistics of batch norms."""
    return sum(prod(tensor.shape) for tensor in declare(tower).values() if tensor.trained)


def operations(tower: "Tower", size: int) -> int:
    """Additions and multiplications of matrix products, convolutions and attention for one image of `size` pixels.

    A multiplication and an addition count as two; papers that speak of FLOPs often count them as one. Norms,
    activations and additions of whole maps are left out: they are about a hundredth.
    """
    return _run(tower, size).operations


def _run(tower: "Tower | TextConfig", size: int) -> "Declare":
    ops = Declare()
    if isinstance(tower, TextConfig):
        tower.forward(ops, Value(None, tower.context, 1))
    else:  # its last pooling is the one that uses every tensor
        side = tower.only_size or size or 64
        tower.forward(ops, Value(None, side**2, 3), tower.poolings[-1])
    return ops


class Declare(Ops):
    """Notes tensors and counts operations; a value is its size alone."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: dict[str, Tensor] = {}
        self.operations = 0
        self._stacked: tuple[int, ...] = ()

    def _add(self, name: str, tensor: Tensor) -> None:
        whole = Tensor((*self._stacked, *tensor.shape), tensor.kind, tensor.start, tensor.deviation)
        self.tensors[self.name(name)] = whole

    def _count(self, times: int, *sizes: int) -> None:
        self.operations += 2 * times * prod(sizes) * prod(self._stacked)

    def _value(self, tokens: int, width: int) -> Any:
        return Value(None, tokens, width)

    def repeat(self, name: str, times: int, blocks: Sequence[Block], x: Value, last: Block | None = None) -> Value:
        with self.scope(name):
            self._stacked = (times,)
            x = blocks[0](self, x)
            self._stacked = ()
        return x

    def linear(self, name: str, x: Value, out: int, bias: bool = True) -> Value:
        self._add(f"{name}.weight", matrix(x.width, out))
        if bias:
            self._add(f"{name}.bias", Tensor((out,), "bias"))
        self._count(x.tokens, x.width, out)
        return self._value(x.tokens, out)

    def gated(self, name: str, x: Value, out: int) -> Value:
        return self._value(self.linear(name, x, 2 * out).tokens, out)

    def norm(self, name: str, x: Value, eps: float) -> Value:
        self._add(f"{name}.weight", Tensor((x.width,), "norm", 1.0))
        self._add(f"{name}.bias", bias(x.width))
        return self._value(x.tokens, x.width)

    def group_norm(self, name: str, x: Value, groups: int, eps: float) -> Value:
        return self.norm(name, x, eps)

    def batch_norm(self, name: str, x: Value, eps: float) -> Value:
        self.norm(name, x, eps)
        self._add(f"{name}.mean", Tensor((x.width,), "statistic"))
        self._add(f"{name}.variance", Tensor((x.width,), "statistic", 1.0))
        return self._value(x.tokens, x.width)

    def scale(self, name: str, x: Value) -> Value:
        self._add(name, Tensor((x.width,), "scale", 1.0))
        return self._value(x.tokens, x.width)

    def activate(self, x: Value, kind: Activation) -> Value:
        return self._value(x.tokens, x.width)

    def add(self, x: Value, y: Value) -> Value:
        return self._value(x.tokens, x.width)

    def multiply(self, x: Value, y: Value) -> Value:
        return self._value(x.tokens, x.width)

    def cut(self, x: Value, patch: int, step: int | None = None, pad: bool = False, down: bool = False) -> Value:
        return self._value(cuts(x.side, patch, step, pad) ** 2, patch**2 * x.width)

    def conv(self, conv: Conv, x: Value) -> Value:
        inputs = 1 if conv.depthwise else x.width
        side = convolved(x.side, conv.kernel, conv.stride, conv.dilation, conv.padding)
        shape = (conv.kernel, conv.kernel, inputs, conv.outputs)
        deviation = sqrt(2 / prod(shape[:3]))  # He et al., 2015
        self._add(f"{conv.name}.conv.weight", Tensor(shape, "kernel", deviation=deviation))
        if conv.bias:
            self._add(f"{conv.name}.bias", bias(conv.outputs))
        self._count(side**2, *shape)
        return self._value(side**2, conv.outputs)

    def max_pool(self, x: Value, kernel: int, stride: int) -> Value:
        return self._value(convolved(x.side, kernel, stride, 1, "symmetric") ** 2, x.width)

    def tokens(
        self, x: Value, class_token: bool, registers: int, positions: Literal["all", "patches", "none"]
    ) -> Value:
        if class_token:
            self._add("class_token", position(x.width))
        if registers:
            self._add("registers", position(registers, x.width))
        if positions != "none":
            self._add("position", position(x.tokens + (positions == "all"), x.width))
        return self._value(x.tokens + class_token + registers, x.width)

    def attend(self, name: str, x: Value, how: Attention) -> Value:
        self.linear(f"{name}.qkv", x, 3 * x.width, bias=False)
        if biased := {"all": 3, "query_value": 2, "none": 0}[how.biases]:
            self._add(f"{name}.qkv.bias", bias(biased * x.width))
        self._count(2 * x.tokens, x.tokens, x.width)
        return self._value(1 if how.first else x.tokens, x.width)

    def attend_windows(self, name: str, x: Value, windows: Windows) -> Value:
        padded, side = (-(-x.side // windows.side) * windows.side) ** 2, windows.side
        self._count(padded - x.tokens, x.width, 3 * x.width)  # of what pads the map
        self._count(2 * padded, side**2, x.width)
        self.linear(f"{name}.qkv", x, 3 * x.width, bias=False)
        self._add(f"{name}.qkv.bias", bias((3 if windows.table else 2) * x.width))  # version 2 has none of keys
        if windows.table:
            self._add(f"{name}.table", position((2 * windows.table - 1) ** 2, windows.heads))
            return self._value(x.tokens, x.width)
        # Kept as its logarithm; it starts at 10.
        self._add(f"{name}.logit_scale", Tensor((windows.heads,), "scale", log(10)))
        self._add(f"{name}.position.up.weight", matrix(2, POSITION_WIDTH))
        self._add(f"{name}.position.up.bias", bias(POSITION_WIDTH))
        self._add(f"{name}.position.down.weight", matrix(POSITION_WIDTH, windows.heads))
        return self._value(x.tokens, x.width)

    def probe(self, name: str, attention: str, x: Value, heads: int) -> Value:
        self._add(name, position(x.width))
        self.linear(f"{attention}.qkv", x, 3 * x.width)
        self._count(1 - x.tokens, x.width, x.width)  # queries are made of one token
        self._count(2, x.tokens, x.width)
        return self._value(1, x.width)

    def part(self, x: Value, start: int, end: int) -> Value:
        return self._value(end - start, x.width)

    def pool(self, x: Value, kind: Pooling) -> Value:
        return self._value(1, x.width)

    def embed(self, ids: Value, vocabulary: int, context: int, width: int) -> Value:
        self._add("token", position(vocabulary, width))
        self._add("position", position(context, width))
        return self._value(context, width)

    def read(self, x: Value, ids: Value, where: Where, end: int | None) -> Value:
        return self._value(1, x.width)
