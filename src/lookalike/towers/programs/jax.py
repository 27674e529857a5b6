"""A tower read as a JAX program: blocks scanned, in float32 or bfloat16.

One image at a time, the caller says `jax.vmap`. Parameters are float32. A verb computes in the dtype of what it is
given, norms and softmax always in float32.
"""

# The verbs are described in `Ops`, and not every reader needs all that they are given.
# ruff: noqa: D102, ARG002

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Float32, Int

from lookalike.core.mesh import used
from lookalike.towers import ops
from lookalike.towers.ops import NORM_PARTS, Block, Ops, Pooling, Value, cuts
from lookalike.towers.programs.convolution import convolution
from lookalike.towers.programs.products import Matmul, merged, plain
from lookalike.towers.swin import offset_table, pairs, regions

if TYPE_CHECKING:
    from lookalike.towers import Tower
    from lookalike.towers.text import TextConfig

Dtype = Literal["float32", "bfloat16"]


def features(
    tower: "Tower | TextConfig",
    pooling: Pooling,
    tensors: Mapping[str, Array],
    x: Float[Array, "B S S 3"] | Int[Array, "B T"],
    dtype: Dtype = "float32",
    remat: bool = False,
) -> Float[Array, "B F"]:
    """The features of normalised images, or of texts by their ids: at most `context` of them, filled up where `whole`
    says so. `tensors` are those of `declare(tower)`, float32.

    With `remat` a gradient computes stacked blocks twice instead of keeping what is inside them: memory then grows with
    the tokens between blocks alone, for about a third more time.
    """
    program = Jax(tensors, dtype, remat, matmul=merged)
    x = x if jnp.issubdtype(x.dtype, jnp.integer) else x.astype(dtype)
    return jax.vmap(lambda one: tower.forward(program, value(one), pooling).data[0])(x).astype(jnp.float32)


class Cut(NamedTuple):
    """Where a forward changes over to other tensors, and maybe to another map."""

    place: int
    tensors: Mapping[str, Array]
    entering: Array | None = None  # [P F]; None: what it has by then


_KEPT = "kept"  # the name of what a gradient keeps inside a scan
_kept = partial(checkpoint_name, name=_KEPT)


def seen(tower: "Tower | TextConfig", pooling: Pooling, tensors: Mapping[str, Array], x: Array) -> list[Array]:
    """What passes the places that a tower shows, [P F], for one image or text: what originals are compared by."""
    program = Jax(tensors, "float32", shown=[])
    tower.forward(program, value(x), pooling)
    return program.shown or []


def value(data: Array) -> Value:
    """Tokens [P F], a map [H W F], or the ids [T] of a text."""
    if data.ndim == 1:
        return Value(data, len(data), 1)
    rows = data.reshape(-1, data.shape[-1])
    return Value(rows, *rows.shape)


def _map(x: Value) -> Any:
    return x.data.reshape(x.side, x.side, x.width)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def rectified(x: Float[Array, "*S"], high: float) -> Float[Array, "*S"]:
    """`x` between 0 and `high`, with no gradient at these two. What comes out tells it; what went in isn't kept."""
    return jnp.clip(x, 0, high)


def _rectified_forward(x: Array, high: float) -> tuple[Array, Array]:
    y = rectified(x, high)
    return y, y


def _rectified_backward(high: float, y: Array, gradient: Array) -> tuple[Array]:
    return (jnp.where((y > 0) & (y < high), gradient, jnp.zeros((), gradient.dtype)),)


rectified.defvjp(_rectified_forward, _rectified_backward)


def gelu(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """The exact one, x * Phi(x), in float32 (Hendrycks and Gimpel, 2016).

    By erf: erfc, by which `jax.nn.gelu` has it, takes three passes on a CPU.
    """
    x32 = x.astype(jnp.float32)
    return (x32 * (0.5 + 0.5 * lax.erf(x32 * np.float32(math.sqrt(0.5))))).astype(x.dtype)


_KINDS: dict[str, Callable[..., Array]] = {
    "add": operator.add,
    "multiply": operator.mul,
    "gelu": lambda x: gelu(x),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": lambda x: rectified(x, math.inf),
    "relu6": lambda x: rectified(x, 6.0),
    "silu": jax.nn.silu,
    "sigmoid": jax.nn.sigmoid,
}


class Jax(Ops):
    """A value is an array [P F]."""

    def __init__(
        self,
        tensors: Mapping[str, Array],
        dtype: Any,
        remat: bool = False,
        shown: list[Array] | None = None,
        matmul: Matmul = plain,
        cut: Cut | None = None,
    ) -> None:
        """With a list, `shown` gets what the tower shows, and blocks run one by one: a scan keeps all to itself.
        `matmul` multiplies tokens by weights.
        """
        super().__init__(tensors)
        self.dtype, self.remat, self.shown, self.matmul, self.divided = dtype, remat, shown, matmul, cut
        self.left: Array  # what the map was at the cut

    def __getitem__(self, name: str) -> Any:
        return used(self.apart(name))

    def apart(self, name: str) -> Any:
        """A parameter as it lies, for what fetches it in another dtype."""
        return super().__getitem__(name)

    def see(self, x: Value) -> Value:
        if self.shown is not None:
            self.shown.append(x.data)
        return self._passed(x, 1)

    def _passed(self, x: Value, count: int) -> Value:
        """`x` behind so many more places, the last of which may be the cut."""
        self.places += count
        if self.divided is None or self.places != self.divided.place:
            return x
        self.tensors, self.left = self.divided.tensors, x.data
        return x if self.divided.entering is None else value(self.divided.entering)

    def cast(self, x: Value, full: bool) -> Value:
        return value(x.data.astype("float32" if full else self.dtype))

    def repeat(self, name: str, times: int, blocks: Sequence[Block], x: Value, last: Block | None = None) -> Value:
        """Scanned, so that compiling does not take longer with their number.

        A gradient keeps of each block what enters it, its products and what its attention gives, and computes the rest
        again. `last` is apart from the scan, which needs a copy of all the others' weights; where memory is short, it
        computes all that the others do.
        """
        early = 0 if self.divided is None else min(max(self.divided.place - self.places, 0), times)
        for start, end in ((0, early), (early, times)):
            if end > start:
                turn, final = start % len(blocks), last if end == times else None
                y = self._repeat(name, end - start, [*blocks[turn:], *blocks[:turn]], x, final)
                x = self._passed(y, end - start)
        return x

    def _repeat(self, name: str, times: int, blocks: Sequence[Block], x: Value, last: Block | None) -> Value:
        inner = copy(self)
        inner.divided = None
        with inner.scope(name) as stacked:
            turns, short = len(blocks), last is not None and not self.remat and self.shown is None
            scanned = (times - short) // turns * turns if self.shown is None else 0

            def run(data: Array, own: dict[str, Array]) -> tuple[Array, None]:
                for i, block in enumerate(blocks):
                    part = {n: t[i] for n, t in own.items()} if turns > 1 else own
                    data = block(inner.given(part), value(data)).data
                return data, None

            if scanned:
                whole = {n: t[:scanned] for n, t in stacked.items()}
                if turns > 1:
                    whole = {n: t.reshape(-1, turns, *t.shape[1:]) for n, t in whole.items()}
                policy = None if self.remat else jax.checkpoint_policies.save_only_these_names(_KEPT)
                x = value(lax.scan(jax.checkpoint(run, prevent_cse=False, policy=policy), x.data, whole)[0])
            for i in range(scanned, times):
                block = last if last and short and i == times - 1 else blocks[i % turns]
                x = block(inner.given({n: t[i] for n, t in stacked.items()}), x)
        return x

    def linear(self, name: str, x: Value, out: int, bias: bool = True, scale: str = "") -> Value:
        y = _kept(self.matmul(x.data, self.apart(f"{name}.weight")))
        y = y + self[f"{name}.bias"].astype(y.dtype)[None] if bias else y
        return value(y * self[scale].astype(y.dtype)[None] if scale else y)

    def gated(self, name: str, x: Value, out: int) -> Value:
        gate, taken = (value(part) for part in jnp.split(self.linear(name, x, 2 * out).data, 2, axis=-1))
        return self.apply("multiply", self.apply("silu", gate), taken)

    def norm(self, name: str, x: Value, eps: float, groups: int = 0) -> Value:
        weight, bias = self[f"{name}.weight"], self[f"{name}.bias"]
        if groups:
            return value(group_norm(_map(x), weight, bias, groups, eps))
        x32 = x.data.astype(jnp.float32)
        centred = x32 - x32.mean(axis=-1, keepdims=True)
        variance = jnp.square(centred).mean(axis=-1, keepdims=True)
        return value((centred * lax.rsqrt(variance + eps) * weight[None] + bias[None]).astype(x.data.dtype))

    def apply(self, kind: ops.Activation | Literal["add", "multiply"], x: Value, y: Value | None = None) -> Value:
        return value(_KINDS[kind](x.data, *([] if y is None else [y.data])))

    def cut(self, x: Value, patch: int, step: int | None = None, pad: bool = False, down: bool = False) -> Value:
        whole, count = _map(x), cuts(x.side, patch, step, pad)
        if step is not None and step < patch:  # they overlap
            at = step * jnp.arange(count)[:, None] + jnp.arange(patch)[None]
            tiles = whole[at][:, :, at]
        else:
            missing = max(count * patch - x.side, 0)
            whole = jnp.pad(whole, ((0, missing), (0, missing), (0, 0)))[: count * patch, : count * patch]
            tiles = whole.reshape(count, patch, count, patch, x.width)
        tiles = tiles.transpose(0, 2, 3, 1, 4) if down else tiles.swapaxes(1, 2)
        return value(tiles.reshape(count**2, -1))

    def conv(self, conv: ops.Conv, x: Value, eps: float | None = None) -> Value:
        kernel, shift = self.apart(f"{conv.name}.conv.weight"), self[f"{conv.name}.bias"] if conv.bias else None
        if eps is not None:  # a factor and a number for each channel: the kernel takes the factor
            weight, bias, mean, variance = (self[f"{conv.name}.norm.{part}"] for part in NORM_PARTS)
            mean, variance = lax.stop_gradient((mean, variance))
            scale = weight * lax.rsqrt(variance + eps)
            kernel, shift = kernel * scale[None, None, None], bias + ((0.0 if shift is None else shift) - mean) * scale
        # All of it on the map: behind a reshape XLA computes depthwise kernels again for the gradient.
        y = convolution(_map(x), kernel, conv.stride, conv.dilation, conv.padding, self.matmul)
        if shift is not None:
            y = (y.astype(jnp.float32) + shift[None, None]).astype(y.dtype)
        return value(y)

    def max_pool(self, x: Value, kernel: int, stride: int) -> Value:
        around = ((kernel // 2,) * 2, (kernel // 2,) * 2, (0, 0))
        low = np.asarray(-np.inf, x.data.dtype)  # a number of NumPy: JAX knows no gradient where it is traced
        return value(lax.reduce_window(_map(x), low, lax.max, (kernel, kernel, 1), (stride, stride, 1), around))

    def tokens(self, x: Value, class_token: bool, registers: int, positions: ops.Positions) -> Value:
        y = x.data
        if positions != "none":
            y = y + self["position"][int(positions == "all") :].astype(y.dtype)
        first = [part.astype(y.dtype) for part in self.before(class_token, registers, positions)]
        return value(jnp.concatenate([*first, y]))

    def _qkv(self, name: str, x: Array, heads: int, *shape: int) -> tuple[Array, ...]:
        """Queries, keys and values, each [P h d], or `shape` instead of P."""
        matmul = plain if x.shape[0] == 1 else self.matmul
        y, bias = _kept(matmul(x, self.apart(f"{name}.qkv.weight"))), self.get(f"{name}.qkv.bias")
        if bias is not None:
            bias, width = bias.astype(x.dtype), x.shape[1]
            if bias.shape[0] == 2 * width:  # keys have none
                bias = jnp.concatenate([bias[:width], jnp.zeros_like(bias[:width]), bias[width:]])
            y = y + bias[None]
        parts = y.reshape(*(shape or (len(x),)), 3, heads, x.shape[1] // heads)
        return tuple(parts[..., i, :, :] for i in range(3))

    def attend(self, name: str, x: Value, how: ops.Attention) -> Value:
        q, k, v = self._qkv(name, x.data, how.heads)
        if how.probe:
            q = self._qkv(name, self[how.probe].astype(x.data.dtype)[None], how.heads)[0]
        if how.rotations is not None:
            q, k = rotated(q, *how.rotations), rotated(k, *how.rotations)
        q = q[:1] if how.first else q
        q, k, v = (part.swapaxes(0, 1) for part in (q * q.shape[-1] ** -0.5, k, v))
        scores = (q @ k.mT).astype(jnp.float32)
        if how.causal:  # a token sees itself, so that no row is empty
            scores = jnp.where(jnp.tril(jnp.ones(scores.shape[1:], bool))[None], scores, -jnp.inf)
        return value(weighted(scores, v).swapaxes(0, 1).reshape(q.shape[1], x.width))

    def attend_windows(self, name: str, x: Value, windows: ops.Windows) -> Value:
        side, window, shift = x.side, windows.side, windows.shift
        # As transformers: zeros at the end, which are looked at like all else, and only then rolled.
        whole = jnp.pad(_map(x), ((0, -side % window), (0, -side % window), (0, 0)))
        rolled = jnp.roll(whole, (-shift, -shift), axis=(0, 1)) if shift else whole
        count = len(whole) // window
        rows = rolled.reshape(count, window, count, window, x.width).swapaxes(1, 2).reshape(-1, x.width)
        q, k, v = self._qkv(name, rows, windows.heads, -1, window**2)  # [M T h d]
        # A window that is smaller than those of the table uses its middle.
        bias = offset_table(self, name, windows, jnp)[pairs(window, windows.table or window)]  # [T T h]
        # [M h T T], in float32 whatever goes in: version 2 multiplies them by up to 100.
        products = partial(jnp.einsum, "mqhd,mkhd->mhqk", preferred_element_type=jnp.float32)
        if windows.table:
            scores = products(q * q.shape[-1] ** -0.5, k)
        else:
            q, k = (l2_normalize(part).astype(part.dtype) for part in (q, k))
            scale = jnp.exp(jnp.minimum(self[f"{name}.logit_scale"], math.log(100)))
            scores = products(q, k) * scale[None, :, None, None]
        scores = scores + jnp.moveaxis(bias, -1, 0)[None]
        if shift:  # tokens that are neighbours only because the map was rolled are kept apart
            places = jnp.asarray(regions(len(whole), window, shift), jnp.int32)
            apart = jnp.where(places[:, :, None] != places[:, None], jnp.float32(-100), jnp.float32(0))
            scores = scores + apart[:, None]
        y = weighted(scores, v.swapaxes(1, 2)).swapaxes(1, 2)
        rolled = y.reshape(count, count, window, window, x.width).swapaxes(1, 2).reshape(whole.shape)
        return value((jnp.roll(rolled, (shift, shift), axis=(0, 1)) if shift else rolled)[:side, :side])

    def part(self, x: Value, start: int, end: int) -> Value:
        return value(x.data[start:end])

    def pool(self, x: Value, kind: Pooling) -> Value:
        """Averaged in float32."""
        if kind == "class":
            return self.part(x, 0, 1)
        x32 = x.data.astype(jnp.float32)
        mean = x32.mean(axis=0) if kind == "mean" else jnp.cbrt((jnp.maximum(x32, 1e-6) ** 3).mean(axis=0))
        return value(mean.astype(x.data.dtype)[None])

    def embed(self, ids: Value, vocabulary: int, context: int, width: int) -> Value:
        return value((self["token"][ids.data] + self["position"][: ids.tokens]).astype(self.dtype))

    def read(self, x: Value, ids: Value, where: ops.Where, end: int | None) -> Value:
        if where == "last":
            return self.part(x, ids.tokens - 1, ids.tokens)
        return value(x.data[jnp.argmax(ids.data if where == "highest" else ids.data == end)][None])


def group_norm(
    x: Float[Array, "H W C"], weight: Float[Array, " C"], bias: Float[Array, " C"], groups: int, eps: float
) -> Float[Array, "H W C"]:
    """Mean 0 and variance 1 over all places and a group of channels, then scale and shift (Wu and He, 2018).

    The sums are of distances from the mean of a few numbers of each group: of flat maps the difference of two mean
    squares is all rounding. A gradient keeps `x` alone, and computes the rest again.
    """

    def norm(x: Array, weight: Array, bias: Array) -> Array:
        x32, size = x.astype(jnp.float32), x.shape[2] // groups
        few = x32[:: max(x.shape[0] // 4, 1), :: max(x.shape[1] // 4, 1), ::size]
        near = lax.stop_gradient(jnp.repeat(few.mean(axis=(0, 1)), size))
        far = x32 - near[None, None]
        means = (part.mean(axis=(0, 1)).reshape(groups, size).mean(axis=1) for part in (far, far * far))
        level, square = (jnp.repeat(mean, size) for mean in means)
        mean, inverse = near + level, lax.rsqrt(jnp.maximum(square - level * level, 0) + eps)
        return ((x32 - mean[None, None]) * (weight * inverse)[None, None] + bias[None, None]).astype(x.dtype)

    return jax.checkpoint(norm, prevent_cse=False)(x, weight, bias)


def weighted(scores: Float32[Array, "*h Q K"], v: Float[Array, "*h K d"]) -> Float[Array, "*h Q d"]:
    """The mean of the values, weighted by the softmax of the scores.

    Divided by the sum of the weights only behind their product with the values, which is smaller than they are: on a
    CPU memory takes the time, and a batch of ViT-B/16 passes in three quarters of it.
    """
    weights = jnp.exp(scores - lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    mean = (weights.astype(v.dtype) @ v).astype(jnp.float32) / weights.sum(axis=-1, keepdims=True)
    return _kept(mean.astype(v.dtype))


def rotated(x: Float[Array, "P h D"], cosine: Any, sine: Any) -> Float[Array, "P h D"]:
    """Queries or keys of all heads, turned by what `Attention.rotations` has; in float32."""
    cosine, sine = (jnp.asarray(part)[:, None] for part in (cosine, sine))
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1).astype(x.dtype)


def l2_normalize(x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """`x` at length 1 along the last axis, in float32; zeros stay zeros, with a finite gradient."""
    x32 = x.astype(jnp.float32)
    return x32 * lax.rsqrt(jnp.maximum(jnp.sum(x32 * x32, axis=-1, keepdims=True), 1e-24))
