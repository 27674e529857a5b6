"""The verbs in which a tower says its forward, once for all that reads it: shapes, cost, JAX, ONNX.

A tower's `forward(ops, image, pooling)` is a pure function of an `Ops`: it names parameters and says what follows from
what, without arithmetic of its own. The interpreters in `towers/programs` give the verbs their meaning. Weights are
[in, out] (`x @ W`), convolution kernels [height, width, in, out].
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isqrt
from typing import Any, Literal

Pooling = Literal["class", "mean", "gem", "attention"]
"""How tokens become features; see `EncoderConfig.pooling`."""

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "relu6", "silu", "sigmoid"]
"""gelu: the exact one, x * Phi(x). gelu_tanh: its approximation by tanh (SigLIP). quick_gelu: x * sigmoid(1.702 x)
(OpenAI's CLIP). silu: x * sigmoid(x). relu6: between 0 and 6."""

Padding = Literal["symmetric", "same", "late"]
"""Which zeros surround a map that a convolution enters; see `pads`."""

Biases = Literal["all", "query_value", "none"]
"""Which of query, key and value have a bias."""

Positions = Literal["all", "patches", "none"]
"""Which tokens a learned position is added to; all: class token and patches, never the registers."""

Where = Literal["highest", "end", "last"]
"""Which token a text is read from; see `TextConfig.read`."""


@dataclass(frozen=True)
class Value:
    """Tokens of one image, or the places of its map, rows from the top."""

    data: Any
    """What an interpreter holds of them."""
    tokens: int
    """How many; 0: as many as a text has."""
    width: int
    """Numbers in a token."""

    @property
    def side(self) -> int:
        """Side of a map, in places."""
        return isqrt(self.tokens)


@dataclass(frozen=True)
class Rope:
    """Rotary positions of patches in two dimensions; tokens before the patches are not turned."""

    kind: Literal["centred", "counted"]
    """centred: places run from -1 to 1 and turn by 2 pi. counted: places are `start`, `start` + 1..."""
    theta: float
    """The base of the frequencies."""
    grid: int
    """Patches along a side."""
    prefix: int
    """Tokens before the patches."""
    start: int = 0
    """The first place, for counted positions."""
    shared: int = 0
    """Side of the grid in which the tower was trained: counted places are scaled to it; 0: they are not."""


@dataclass(frozen=True)
class Windows:
    """Windows of a map in which tokens attend to each other."""

    heads: int
    side: int
    """Of a window, in tokens."""
    shift: int
    """By how many tokens the map is rolled before it is cut."""
    table: int
    """Side of the windows whose offsets the learned table has; 0: an MLP makes the bias from offsets, and directions
    are compared (version 2)."""
    trained: int = 0
    """Side of the windows in which that MLP was trained."""


@dataclass(frozen=True)
class Conv:
    """One convolution, and what stands behind it."""

    name: str
    """Its tensors are `<name>.conv.weight`, and `<name>.norm.*` or `<name>.bias`."""
    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    depthwise: bool = False
    """Each channel has its own kernel, [kernel, kernel, 1, outputs]."""
    padding: Padding = "symmetric"
    """Zeros around what enters."""
    active: bool = True
    """Whether the tower's activation follows the norm."""
    bias: bool = False
    """Whether a number is added to each channel."""


@dataclass(frozen=True)
class Attention:
    """How tokens attend to each other."""

    heads: int
    biases: Biases = "all"
    rope: Rope | None = None
    """By what queries and keys are turned."""
    causal: bool = False
    """Whether a token looks only at itself and those before it."""
    first: bool = False
    """Whether the first token alone asks, which is not turned."""


Block = Callable[["Ops", Value], Value]


class Ops(ABC):
    """The verbs. A parameter's name is what the verb is given, below the scopes it is in."""

    def __init__(self) -> None:
        self._path: tuple[str, ...] = ()

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Names of parameters are below `name` inside."""
        before, self._path = self._path, (*self._path, name)
        try:
            yield
        finally:
            self._path = before

    def name(self, name: str) -> str:
        """The whole name of a parameter."""
        return ".".join((*self._path, name))

    def see(self, x: Value) -> Value:
        """`x`, of which tests may ask here."""
        return x

    def full(self, x: Value) -> Value:
        """`x` in float32, where a tower computes in fewer bits."""
        return x

    def usual(self, x: Value) -> Value:
        """`x` in what the tower computes in."""
        return x

    @abstractmethod
    def repeat(self, name: str, times: int, blocks: Sequence[Block], x: Value, last: Block | None = None) -> Value:
        """Blocks of one shape below `name`, whose parameters are stacked over them.

        Args:
            name: Of their scope.
            times: How many.
            blocks: One after the other in turns; they differ in constants alone.
            x: What enters.
            last: What the last one may compute instead, where less of it is looked at.
        """

    @abstractmethod
    def linear(self, name: str, x: Value, out: int, bias: bool = True) -> Value:
        """`x @ weight + bias`, every token by itself."""

    @abstractmethod
    def gated(self, name: str, x: Value, out: int) -> Value:
        """SwiGLU's `silu(a) * b`, where one linear layer gives a and b side by side."""

    @abstractmethod
    def norm(self, name: str, x: Value, eps: float) -> Value:
        """Layer norm (Ba et al., 2016): mean 0 and variance 1 of each token, then scale and shift."""

    @abstractmethod
    def group_norm(self, name: str, x: Value, groups: int, eps: float) -> Value:
        """Mean 0 and variance 1 over the map and a group of channels, then scale and shift (Wu and He, 2018)."""

    @abstractmethod
    def batch_norm(self, name: str, x: Value, eps: float) -> Value:
        """Batch norm with its stored statistics, which do not learn (Ioffe and Szegedy, 2015; inference form)."""

    @abstractmethod
    def scale(self, name: str, x: Value) -> Value:
        """Each channel times a learned number."""

    @abstractmethod
    def activate(self, x: Value, kind: Activation) -> Value:
        """Number by number."""

    @abstractmethod
    def add(self, x: Value, y: Value) -> Value:
        """The sum."""

    @abstractmethod
    def multiply(self, x: Value, y: Value) -> Value:
        """Every token of `x` times the one token `y`, channel by channel."""

    @abstractmethod
    def cut(self, x: Value, patch: int, step: int | None = None, pad: bool = False, down: bool = False) -> Value:
        """Patches of a map as tokens, number by number from the top left.

        Args:
            x: The map.
            patch: Side of a patch.
            step: Distance between patches; None: `patch`.
            pad: Whether what is missing to a whole patch is filled with zeros (of an image: its mean); else the rest
                is left out.
            down: Whether the numbers of a patch run down first.
        """

    @abstractmethod
    def conv(self, conv: Conv, x: Value) -> Value:
        """A convolution, and its bias where it has one; norm and activation are said apart."""

    @abstractmethod
    def max_pool(self, x: Value, kernel: int, stride: int) -> Value:
        """The largest number of each channel in windows of a map, symmetrically padded."""

    @abstractmethod
    def tokens(
        self, x: Value, class_token: bool, registers: int, positions: Literal["all", "patches", "none"]
    ) -> Value:
        """Patches with learned positions, behind a class token and registers where there are any."""

    @abstractmethod
    def attend(self, name: str, x: Value, how: Attention) -> Value:
        """Multi-head attention up to its last matrix."""

    @abstractmethod
    def attend_windows(self, name: str, x: Value, windows: Windows) -> Value:
        """Attention of tokens in the same window of a map (Swin), up to its last matrix."""

    @abstractmethod
    def probe(self, name: str, attention: str, x: Value, heads: int) -> Value:
        """Attention of one learned token to all, up to its last matrix; the token is the parameter `name`."""

    @abstractmethod
    def part(self, x: Value, start: int, end: int) -> Value:
        """Some of the tokens."""

    @abstractmethod
    def pool(self, x: Value, kind: Pooling) -> Value:
        """One token: the first (class), the mean, or the generalised mean with p = 3 (gem; Radenovic et al., 2018),
        which needs tokens that aren't negative.
        """

    @abstractmethod
    def embed(self, ids: Value, vocabulary: int, context: int, width: int) -> Value:
        """Tokens of a text and their positions, from the tables `token` and `position`."""

    @abstractmethod
    def read(self, x: Value, ids: Value, where: Where, end: int | None) -> Value:
        """The one token that a text is read from; see `TextConfig.read`."""


def pads(length: int, kernel: int, stride: int, dilation: int, padding: Padding) -> tuple[int, int]:
    """Zeros before and after one side of a map that a convolution enters.

    Args:
        length: Of the side, in pixels.
        kernel: Side of the kernel, in taps.
        stride: Step, in pixels.
        dilation: Distance between taps, in pixels.
        padding: symmetric: equally many, as in torch. same: as many as the published TensorFlow weights expect, the
            odd one at the end: the sum follows from the undilated kernel and is then dilated (transformers'
            `apply_tf_padding`). late: one less before than after, whatever the length; with stride 2 the same as
            "same" for even lengths.
    """
    if padding == "symmetric":
        return ((kernel - 1) // 2 * dilation,) * 2
    if padding == "late":
        return (kernel // 2 - 1) * dilation, kernel // 2 * dilation
    spare = max(kernel - (length % stride or stride), 0)
    return spare // 2 * dilation, (spare - spare // 2) * dilation


def convolved(length: int, kernel: int, stride: int, dilation: int, padding: Padding) -> int:
    """Side of the map behind a convolution of a map of that side."""
    padded = length + sum(pads(length, kernel, stride, dilation, padding))
    return (padded - (kernel - 1) * dilation - 1) // stride + 1


def cuts(length: int, patch: int, step: int | None, pad: bool) -> int:
    """Patches along one side of a map."""
    return -(-length // patch) if pad else (length - patch) // (step or patch) + 1
