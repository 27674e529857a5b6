"""The verbs in which a tower says its forward, once for all that reads it: shapes, cost, JAX, ONNX.

A tower's `forward(ops, image, pooling)` is a pure function of an `Ops`: it names parameters and says what follows from
what, without arithmetic of its own. Weights are [in, out] (`x @ W`), convolution kernels [height, width, in, out].
"""

# Whoever reads a tower needs not all that the verbs are given.
# ruff: noqa: ARG002

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cache
from math import isqrt, log, prod, sqrt
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lookalike.core.errors import EncoderError

if TYPE_CHECKING:
    from lookalike.towers import Tower
    from lookalike.towers.text import TextConfig

Pooling = Literal["class", "mean", "gem", "attention"]  # see `EncoderConfig.pooling`
Padding = Literal["symmetric", "same", "late"]  # see `pads`
Biases = Literal["all", "query_value", "none"]  # which of query, key and value have a bias
Positions = Literal["all", "patches", "none"]  # see `ViTConfig.positions`
Where = Literal["highest", "end", "last"]  # see `TextConfig.read`
Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "relu6", "silu", "sigmoid"]
"""gelu: the exact one, x * Phi(x). gelu_tanh: its approximation by tanh (SigLIP). quick_gelu: x * sigmoid(1.702 x)
(OpenAI's CLIP). silu: x * sigmoid(x). relu6: between 0 and 6."""

Kind = Literal["matrix", "kernel", "norm", "bias", "scale", "position", "statistic"]
"""What a tensor is. norm: the factors of a norm. scale: other learned factors. position: learned positions and tokens.
statistic: a mean or variance that was measured, and does not learn."""

Shapes = dict[str, tuple[int, ...]]
"""Tensor name -> shape."""

NORM_PARTS = ("weight", "bias", "mean", "variance")  # of a batch norm
POSITION_WIDTH = 512  # inside the MLP that makes Swin's second position bias; the same in every published model


@dataclass(frozen=True)
class Tensor:
    """One tensor as a tower declares it."""

    shape: tuple[int, ...]  # with the axis of blocks first, where blocks are stacked
    kind: Kind
    start: float = 0.0  # the mean of a new one
    place: int = 0  # how many places a forward has passed when it meets this, or the first of its blocks; see `Ops.see`
    blocks: int = 0  # how many are stacked; 0: it is not

    @property
    def deviation(self) -> float:
        """The standard deviation of a new one; 0: it starts as a constant."""
        if self.kind == "matrix":
            return sqrt(1 / self.shape[-2])
        if self.kind == "kernel":
            return sqrt(2 / prod(self.shape[-4:-1]))  # He et al., 2015
        return 0.02 if self.kind == "position" else 0.0

    @property
    def trained(self) -> bool:
        """Whether it learns."""
        return self.kind != "statistic"

    @property
    def decays(self) -> bool:
        """Whether weight decay is for it: what multiplies and is summed, not norms, scales, biases, positions."""
        return self.kind in ("matrix", "kernel")


@dataclass(frozen=True)
class Value:
    """Tokens of one image, or the places of its map, rows from the top."""

    data: Any  # what a program holds of them
    tokens: int  # how many; 0: as many as a text has
    width: int  # numbers in a token

    @property
    def side(self) -> int:
        """Side of a map, in places."""
        return isqrt(self.tokens)


@dataclass(frozen=True)
class Conv:
    """One convolution and what stands behind it: `<name>.conv.weight`, and `<name>.norm.*` or `<name>.bias`."""

    name: str
    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    depthwise: bool = False  # each channel has its own kernel, [kernel, kernel, 1, outputs]
    padding: Padding = "symmetric"
    active: bool = True  # whether the tower's activation follows the norm
    bias: bool = False  # whether a number is added to each channel


@dataclass(frozen=True)
class Attention:
    """How tokens attend to each other."""

    heads: int
    biases: Biases = "all"
    # Cosine and sine by which queries and keys are turned, [P, half of a head]: number i of a head with number i + half
    # (rotary positions; Su et al., 2021).
    rotations: tuple[np.ndarray, np.ndarray] | None = None
    causal: bool = False  # whether a token looks only at itself and those before it
    first: bool = False  # whether the first token alone asks
    probe: str = ""  # the parameter that alone asks, a learned token


@dataclass(frozen=True)
class Windows:
    """Windows of a map in which tokens attend to each other (Swin)."""

    heads: int
    side: int  # of a window, in tokens
    shift: int  # by how many tokens the map is rolled before it is cut
    # Side of the windows whose offsets the learned table has; 0: an MLP makes the bias from offsets, and directions are
    # compared (version 2).
    table: int
    trained: int = 0  # side of the windows in which that MLP was trained


Block = Callable[["Ops", Value], Value]


class Ops:
    """The verbs; names of parameters are below the scopes around them.

    As it is, it notes tensors and counts operations, and a value is its size alone. The programs in `towers/programs`
    give each verb its arithmetic.
    """

    def __init__(self, tensors: Mapping[str, Any] | None = None) -> None:
        self.tensors = tensors or {}
        self.declared: dict[str, Tensor] = {}
        self.operations = 0
        self.places = 0  # passed so far
        self._below = ""
        self._stacked: tuple[int, ...] = ()

    def __getitem__(self, name: str) -> Any:
        return self.tensors[self._below + name]

    def get(self, name: str) -> Any:
        """The tensor, or None."""
        return self.tensors.get(self._below + name)

    @contextmanager
    def scope(self, name: str) -> Iterator[dict[str, Any]]:
        """Names of parameters are below `name` inside; gives the tensors there."""
        before, self._below = self._below, f"{self._below}{name}."
        try:
            yield {name: tensor for name, tensor in self.tensors.items() if name.startswith(self._below)}
        finally:
            self._below = before

    def given(self, tensors: Mapping[str, Any]) -> Any:
        """The same with other tensors."""
        other = copy(self)
        other.tensors = tensors
        return other

    def _add(self, name: str, kind: Kind, *shape: int, start: float = 0.0) -> None:
        blocks = self._stacked[0] if self._stacked else 0
        self.declared[self._below + name] = Tensor((*self._stacked, *shape), kind, start, self.places, blocks)

    def _count(self, times: int, *sizes: int) -> None:
        self.operations += 2 * times * prod(sizes) * prod(self._stacked)

    def see(self, x: Value) -> Value:
        """`x`, at a place at which a tower may be looked at and cut; every block of a `repeat` ends in one."""
        self.places += 1
        return x

    def cast(self, x: Value, full: bool) -> Value:
        """`x` in float32 if `full`, else in what the tower computes in."""
        return x

    def repeat(self, name: str, times: int, blocks: Sequence[Block], x: Value, last: Block | None = None) -> Value:
        """So many blocks of one shape below `name`, whose parameters are stacked over them.

        `blocks` take turns and differ in constants alone. The last one may compute `last` instead, where less of it is
        looked at.
        """
        with self.scope(name):
            self._stacked, before = (times,), self.places
            x = blocks[0](self, x)
            self._stacked, self.places = (), before + times
        return x

    def linear(self, name: str, x: Value, out: int, bias: bool = True, scale: str = "") -> Value:
        """`x @ weight + bias`, every token by itself; then each channel times the parameter `scale`, if it is named."""
        self._add(f"{name}.weight", "matrix", x.width, out)
        if bias:
            self._add(f"{name}.bias", "bias", out)
        if scale:
            self._add(scale, "scale", out, start=1.0)
        self._count(x.tokens, x.width, out)
        return Value(None, x.tokens, out)

    def gated(self, name: str, x: Value, out: int) -> Value:
        """SwiGLU's `silu(a) * b`, where one linear layer gives a and b side by side."""
        return Value(None, self.linear(name, x, 2 * out).tokens, out)

    def norm(self, name: str, x: Value, eps: float, groups: int = 0) -> Value:
        """Mean 0 and variance 1, then scale and shift: of each token (layer norm; Ba et al., 2016), or, with `groups`,
        of the whole map in each group of channels (group norm; Wu and He, 2018).
        """
        self._add(f"{name}.weight", "norm", x.width, start=1.0)
        self._add(f"{name}.bias", "bias", x.width)
        return x

    def apply(self, kind: Activation | Literal["add", "multiply"], x: Value, y: Value | None = None) -> Value:
        """Number by number: an activation, or what `x` and `y` give; one token of `y` stands for all."""
        return x

    def cut(self, x: Value, patch: int, step: int | None = None, pad: bool = False, down: bool = False) -> Value:
        """Patches of a map as tokens, side by side or `step` apart, number by number from the top left, with `down`
        down first. A patch that is not whole is left out, or with `pad` filled with zeros (of an image: with its mean).
        """
        return Value(None, cuts(x.side, patch, step, pad) ** 2, patch**2 * x.width)

    def conv(self, conv: Conv, x: Value, eps: float | None = None) -> Value:
        """A convolution; with `eps`, a batch norm behind it by its stored statistics, which do not learn (Ioffe and
        Szegedy, 2015; inference form).
        """
        side = convolved(x.side, conv.kernel, conv.stride, conv.dilation, conv.padding)
        shape = (conv.kernel, conv.kernel, 1 if conv.depthwise else x.width, conv.outputs)
        self._add(f"{conv.name}.conv.weight", "kernel", *shape)
        if conv.bias:
            self._add(f"{conv.name}.bias", "bias", conv.outputs)
        self._count(side**2, *shape)
        y = Value(None, side**2, conv.outputs)
        if eps is not None:
            self.norm(f"{conv.name}.norm", y, eps)
            self._add(f"{conv.name}.norm.mean", "statistic", y.width)
            self._add(f"{conv.name}.norm.variance", "statistic", y.width, start=1.0)
        return y

    def max_pool(self, x: Value, kernel: int, stride: int) -> Value:
        """The largest number of each channel in windows of a map, symmetrically padded."""
        return Value(None, convolved(x.side, kernel, stride) ** 2, x.width)

    def tokens(self, x: Value, class_token: bool, registers: int, positions: Positions) -> Value:
        """Patches with learned positions, behind a class token and registers where there are any; see `before`."""
        if class_token:
            self._add("class_token", "position", x.width)
        if registers:
            self._add("registers", "position", registers, x.width)
        if positions != "none":
            self._add("position", "position", x.tokens + (positions == "all"), x.width)
        return Value(None, x.tokens + class_token + registers, x.width)

    def before(self, class_token: bool, registers: int, positions: Positions) -> list[Any]:
        """What stands before the patches: the same for every image."""
        first = [self["class_token"][None]] if class_token else []
        if positions == "all":
            first = [first[0] + self["position"][:1]]
        return [*first, self["registers"]] if registers else first

    def attend(self, name: str, x: Value, how: Attention) -> Value:
        """Multi-head attention up to its last matrix."""
        if how.probe:
            self._add(how.probe, "position", x.width)
        self.linear(f"{name}.qkv", x, 3 * x.width, bias=False)
        if biased := {"all": 3, "query_value": 2, "none": 0}[how.biases]:
            self._add(f"{name}.qkv.bias", "bias", biased * x.width)
        asking = 1 if how.first or how.probe else x.tokens
        self._count(asking - x.tokens, x.width, x.width)
        self._count(2 * asking, x.tokens, x.width)
        return Value(None, asking, x.width)

    def attend_windows(self, name: str, x: Value, windows: Windows) -> Value:
        """Attention of tokens in the same window of a map, up to its last matrix."""
        padded, side = (-(-x.side // windows.side) * windows.side) ** 2, windows.side
        self._count(padded - x.tokens, x.width, 3 * x.width)  # of what pads the map
        self._count(2 * padded, side**2, x.width)
        self.linear(f"{name}.qkv", x, 3 * x.width, bias=False)
        self._add(f"{name}.qkv.bias", "bias", (3 if windows.table else 2) * x.width)  # version 2 has none of keys
        if windows.table:
            self._add(f"{name}.table", "position", (2 * windows.table - 1) ** 2, windows.heads)
            return x
        # Kept as its logarithm; it starts at 10.
        self._add(f"{name}.logit_scale", "scale", windows.heads, start=log(10))
        self._add(f"{name}.position.up.weight", "matrix", 2, POSITION_WIDTH)
        self._add(f"{name}.position.up.bias", "bias", POSITION_WIDTH)
        self._add(f"{name}.position.down.weight", "matrix", POSITION_WIDTH, windows.heads)
        return x

    def part(self, x: Value, start: int, end: int) -> Value:
        """Some of the tokens."""
        return Value(None, end - start, x.width)

    def pool(self, x: Value, kind: Pooling) -> Value:
        """One token: the first (class), the mean, or the generalised mean with p = 3 (gem; Radenovic et al., 2018),
        which needs tokens that aren't negative.
        """
        return Value(None, 1, x.width)

    def embed(self, ids: Value, vocabulary: int, context: int, width: int) -> Value:
        """Tokens of a text and their positions, from the tables `token` and `position`."""
        self._add("token", "position", vocabulary, width)
        self._add("position", "position", context, width)
        return Value(None, context, width)

    def read(self, x: Value, ids: Value, where: Where, end: int | None) -> Value:
        """The one token that a text is read from; see `TextConfig.read`."""
        return Value(None, 1, x.width)


def declare(tower: "Tower | TextConfig") -> dict[str, Tensor]:
    """Every tensor by its name, in the order in which the forward meets them."""
    return dict(_run(tower, 0).declared)


def shapes_of(tower: "Tower | TextConfig") -> Shapes:
    """Every tensor's shape by its name."""
    return {name: tensor.shape for name, tensor in declare(tower).items()}


def places(tower: "Tower | TextConfig") -> int:
    """How many places the tower has at which it can be cut; behind the last one are at most a norm and a projection."""
    return _run(tower, 0).places


def halves(tower: "Tower | TextConfig", place: int) -> tuple[Shapes, Shapes]:
    """The tensors before and behind a place, the first of which is 1; of stacked ones each half has its blocks."""
    front: Shapes = {}
    back: Shapes = {}
    for name, tensor in declare(tower).items():
        if tensor.blocks:
            early = min(max(place - tensor.place, 0), tensor.blocks)
            for half, blocks in ((front, early), (back, tensor.blocks - early)):
                half |= {name: (blocks, *tensor.shape[1:])} if blocks else {}
        else:
            (front if tensor.place < place else back)[name] = tensor.shape
    return front, back


def parameters(tower: "Tower | TextConfig") -> int:
    """How many numbers are trained: all but the statistics of batch norms."""
    return sum(prod(tensor.shape) for tensor in declare(tower).values() if tensor.trained)


def operations(tower: "Tower", size: int) -> int:
    """Additions and multiplications of matrix products, convolutions and attention for one image of `size` pixels.

    A multiplication and an addition count as two; papers that speak of FLOPs often count them as one. Norms,
    activations and additions of whole maps are left out: they are about a hundredth.
    """
    return _run(tower, size).operations


@cache  # a forward of a large tower takes a hundredth of a second, and a command asks for it many times
def _run(tower: "Tower | TextConfig", size: int) -> Ops:
    ops, side = Ops(), tower.only_size or size or 64
    tower.forward(ops, Value(None, side**2, 3), tower.poolings[-1])  # the one that uses every tensor
    return ops


def pads(length: int, kernel: int, stride: int, dilation: int, padding: Padding) -> tuple[int, int]:
    """Zeros before and after one side of a map that a convolution enters, sizes in pixels.

    symmetric: equally many, as in torch. same: as many as the published TensorFlow weights expect, the odd one at the
    end: the sum follows from the undilated kernel and is then dilated (transformers' `apply_tf_padding`). late: one
    less before than after, whatever the length; with stride 2 the same as "same" for even lengths.
    """
    if padding == "symmetric":
        return ((kernel - 1) // 2 * dilation,) * 2
    if padding == "late":
        return (kernel // 2 - 1) * dilation, kernel // 2 * dilation
    spare = max(kernel - (length % stride or stride), 0)
    return spare // 2 * dilation, (spare - spare // 2) * dilation


def convolved(length: int, kernel: int, stride: int, dilation: int = 1, padding: Padding = "symmetric") -> int:
    """Side of the map behind a convolution of a map of that side."""
    padded = length + sum(pads(length, kernel, stride, dilation, padding))
    return (padded - (kernel - 1) * dilation - 1) // stride + 1


def cuts(length: int, patch: int, step: int | None, pad: bool) -> int:
    """Patches along one side of a map."""
    return -(-length // patch) if pad else (length - patch) // (step or patch) + 1


def demand(good: bool, says: str) -> None:
    """EncoderError for a config that can not be."""
    if not good:
        raise EncoderError(says)
