"""A tower read as a JAX program: blocks scanned, in float32 or bfloat16."""

# The verbs are described in `Ops`, and not every reader needs all that they are given.
# ruff: noqa: D102, ARG002

import math
from collections.abc import Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

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
    cuts,
)
from lookalike.towers.programs import layers
from lookalike.towers.programs.tables import log_offsets, pairs, regions, rotations
from lookalike.towers.text import TextConfig

if TYPE_CHECKING:
    from lookalike.towers import Tower

Dtype = Literal["float32", "bfloat16"]


def features(
    tower: "Tower",
    pooling: Pooling,
    tensors: Mapping[str, Array],
    images: Float[Array, "B S S 3"],
    dtype: Dtype = "float32",
    remat: bool = False,
) -> Float[Array, "B F"]:
    """The features of normalised images.

    Args:
        tower: The tower.
        pooling: One of its poolings.
        tensors: Those of `declare(tower)`, float32.
        images: Normalised.
        dtype: What it computes in; norms and softmax stay float32.
        remat: Whether a gradient computes stacked blocks twice instead of keeping what is inside them: memory then
            grows with the tokens between blocks alone, for about a third more time. Towers without: no effect.
    """

    def one(image: Array) -> Array:
        result: Array = tower.forward(Jax(tensors, image.dtype, remat), _image(image), pooling).data[0]
        return result

    return jax.vmap(one)(images.astype(dtype))


def seen(tower: "Tower", pooling: Pooling, tensors: Mapping[str, Array], image: Float[Array, "S S 3"]) -> list[Array]:
    """What passes the places that the tower shows, tokens [P F] or maps [H W F]: what originals are compared by."""
    ops = _Shown(tensors, image.dtype, remat=False)
    tower.forward(ops, _image(image), pooling)
    return ops.shown


def text_features(
    config: TextConfig, tensors: Mapping[str, Array], ids: Int[Array, "B T"], dtype: Dtype = "float32"
) -> Float[Array, "B F"]:
    """The features of texts, not of unit length, by their ids: at most `context`, filled up where `whole` says so."""

    def one(ids: Array) -> Array:
        features = config.forward(Jax(tensors, jnp.dtype(dtype), remat=False), Value(ids, len(ids), 1)).data[0]
        return jnp.asarray(features, jnp.float32)

    return jax.vmap(one)(ids)


def text_seen(config: TextConfig, tensors: Mapping[str, Array], ids: Int[Array, " T"]) -> list[Array]:
    """The tokens [T F] of one text that enter the first block, and those behind each."""
    ops = _Shown(tensors, jnp.dtype("float32"), remat=False)
    config.forward(ops, Value(ids, len(ids), 1))
    return ops.shown


def _image(image: Float[Array, "S S 3"]) -> Value:
    return Value(image.reshape(-1, 3), image.shape[0] ** 2, 3)


class Jax(Ops):
    """A value is an array [P F]."""

    def __init__(self, tensors: Mapping[str, Array], dtype: Any, remat: bool) -> None:
        super().__init__()
        self.tensors, self.dtype, self.remat = tensors, dtype, remat

    def __getitem__(self, name: str) -> Array:
        return self.tensors[self.name(name)]

    def full(self, x: Value) -> Value:
        return Value(x.data.astype(jnp.float32), x.tokens, x.width)

    def usual(self, x: Value) -> Value:
        return Value(x.data.astype(self.dtype), x.tokens, x.width)

    def repeat(self, name: str, times: int, blocks: Sequence[Block], x: Value, last: Block | None = None) -> Value:
        """Scanned, so that compiling does not take longer with their number.

        The last block computes all that the others do: apart from the scan it would need a copy of all the others'
        weights, and a second program.
        """
        with self.scope(name):
            stacked = {n: t for n, t in self.tensors.items() if n.startswith(self.name(""))}
            turns = len(blocks)
            rest = times % turns
            whole = {
                n: t[: times - rest].reshape(-1, turns, *t.shape[1:]) if turns > 1 else t for n, t in stacked.items()
            }

            def one(data: Array, own: dict[str, Array]) -> tuple[Array, None]:
                for i, block in enumerate(blocks):
                    part = {n: t[i] for n, t in own.items()} if turns > 1 else own
                    data = self._with(part)._run(block, data, x)
                return data, None

            run = jax.checkpoint(one, prevent_cse=False) if self.remat else one
            data, _ = jax.lax.scan(run, x.data, whole)
            for i in range(rest):
                data = self._with({n: t[times - rest + i] for n, t in stacked.items()})._run(blocks[i], data, x)
        return Value(data, x.tokens, x.width)

    def _with(self, tensors: dict[str, Array]) -> "Jax":
        other = copy(self)
        other.tensors = tensors
        return other

    def _run(self, block: Block, data: Array, x: Value) -> Any:
        return block(self, Value(data, x.tokens, x.width)).data

    def linear(self, name: str, x: Value, out: int, bias: bool = True) -> Value:
        y = x.data @ self[f"{name}.weight"].astype(x.data.dtype)
        return Value(y + self[f"{name}.bias"].astype(y.dtype)[None] if bias else y, x.tokens, out)

    def gated(self, name: str, x: Value, out: int) -> Value:
        gate, value = jnp.split(self.linear(name, x, 2 * out).data, 2, axis=-1)
        return Value(jax.nn.silu(gate) * value, x.tokens, out)

    def norm(self, name: str, x: Value, eps: float) -> Value:
        y = layers.layer_norm(x.data, self[f"{name}.weight"], self[f"{name}.bias"], eps)
        return Value(y, x.tokens, x.width)

    def group_norm(self, name: str, x: Value, groups: int, eps: float) -> Value:
        y = layers.group_norm(x.data, self[f"{name}.weight"], self[f"{name}.bias"], groups, eps)
        return Value(y, x.tokens, x.width)

    def batch_norm(self, name: str, x: Value, eps: float) -> Value:
        weight, bias, mean, variance = (self[f"{name}.{part}"] for part in ("weight", "bias", "mean", "variance"))
        return Value(layers.batch_norm(x.data, weight, bias, mean, variance, eps), x.tokens, x.width)

    def scale(self, name: str, x: Value) -> Value:
        return Value(x.data * self[name].astype(x.data.dtype)[None], x.tokens, x.width)

    def activate(self, x: Value, kind: Activation) -> Value:
        return Value(layers.activated(x.data, kind), x.tokens, x.width)

    def add(self, x: Value, y: Value) -> Value:
        return Value(x.data + y.data, x.tokens, x.width)

    def multiply(self, x: Value, y: Value) -> Value:
        return Value(x.data * y.data, x.tokens, x.width)

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
        return Value(tiles.reshape(count**2, -1), count**2, patch**2 * x.width)

    def conv(self, conv: Conv, x: Value) -> Value:
        y = layers.convolution(_map(x), self[f"{conv.name}.conv.weight"], conv.stride, conv.dilation, conv.padding)
        y = y + self[f"{conv.name}.bias"].astype(y.dtype)[None, None] if conv.bias else y
        return Value(y.reshape(-1, conv.outputs), y.shape[0] ** 2, conv.outputs)

    def max_pool(self, x: Value, kernel: int, stride: int) -> Value:
        around = ((kernel // 2,) * 2, (kernel // 2,) * 2, (0, 0))
        low = jnp.asarray(-jnp.inf, x.data.dtype)
        y = jax.lax.reduce_window(_map(x), low, jax.lax.max, (kernel, kernel, 1), (stride, stride, 1), around)
        return Value(y.reshape(-1, x.width), y.shape[0] ** 2, x.width)

    def tokens(
        self, x: Value, class_token: bool, registers: int, positions: Literal["all", "patches", "none"]
    ) -> Value:
        patches, dtype, parts = x.data, x.data.dtype, []
        position = None if positions == "none" else self["position"].astype(dtype)
        if class_token:
            token = self["class_token"].astype(dtype)[None]
            parts.append(token if position is None or positions == "patches" else token + position[:1])
        if position is not None:
            patches = patches + position[int(positions == "all") :]
        if registers:
            parts.append(self["registers"].astype(dtype))
        return Value(jnp.concatenate([*parts, patches]), x.tokens + class_token + registers, x.width)

    def _qkv(self, name: str, x: Array) -> Array:
        y, bias = x @ self[f"{name}.weight"].astype(x.dtype), self.tensors.get(self.name(f"{name}.bias"))
        if bias is None:
            return y
        bias, width = bias.astype(x.dtype), x.shape[1]
        if bias.shape[0] == 2 * width:  # keys have none
            bias = jnp.concatenate([bias[:width], jnp.zeros_like(bias[:width]), bias[width:]])
        return y + bias[None]

    def attend(self, name: str, x: Value, how: Attention) -> Value:
        parts = self._qkv(f"{name}.qkv", x.data).reshape(x.tokens, 3, how.heads, x.width // how.heads)
        q, k, v = parts[:, 0], parts[:, 1], parts[:, 2]
        if how.rope is not None:
            cosine, sine = (jnp.asarray(table) for table in rotations(how.rope, x.width // how.heads))
            q, k = layers.rotated(q, (cosine, sine)), layers.rotated(k, (cosine, sine))
        q = q[:1] if how.first else q
        return Value(layers.attention(q, k, v, how.causal), q.shape[0], x.width)

    def probe(self, name: str, attention: str, x: Value, heads: int) -> Value:
        k, v = jnp.split(self._qkv(f"{attention}.qkv", x.data), 3, axis=1)[1:]
        q = self._qkv(f"{attention}.qkv", self[name].astype(x.data.dtype)[None])[:, : x.width]
        q, k, v = (part.reshape(-1, heads, x.width // heads) for part in (q, k, v))
        return Value(layers.attention(q, k, v), 1, x.width)

    def attend_windows(self, name: str, x: Value, windows: Windows) -> Value:
        side, width, window, shift, heads = x.side, x.width, windows.side, windows.shift, windows.heads
        # As transformers: zeros at the end, which are looked at like all else, and only then rolled.
        whole = jnp.pad(_map(x), ((0, -side % window), (0, -side % window), (0, 0)))
        rolled = jnp.roll(whole, (-shift, -shift), axis=(0, 1)) if shift else whole
        count, tokens = len(whole) // window, window**2
        rows = rolled.reshape(count, window, count, window, width).swapaxes(1, 2).reshape(-1, width)
        parts = self._qkv(f"{name}.qkv", rows).reshape(-1, tokens, 3, heads, width // heads)
        q, k, v = parts[:, :, 0], parts[:, :, 1], parts[:, :, 2]
        scores = self._scores(name, q, k, windows) + self._window_bias(name, windows)[None]
        if shift:  # tokens that are neighbours only because the map was rolled are kept apart
            places = jnp.asarray(regions(len(whole), window, shift), jnp.int32)
            apart = jnp.where(places[:, :, None] != places[:, None], jnp.float32(-100), jnp.float32(0))
            scores = scores + apart[:, None]
        y = layers.weighted(scores, v.swapaxes(1, 2)).swapaxes(1, 2)
        rolled = y.reshape(count, count, window, window, width).swapaxes(1, 2).reshape(whole.shape)
        y = (jnp.roll(rolled, (shift, shift), axis=(0, 1)) if shift else rolled)[:side, :side]
        return Value(y.reshape(-1, width), x.tokens, width)

    def _scores(self, name: str, q: Array, k: Array, windows: Windows) -> Array:
        """[M h T T], in float32 whatever goes in: version 2 multiplies them by up to 100."""
        if windows.table:
            q = q * q.shape[-1] ** -0.5
            return jnp.einsum("mqhd,mkhd->mhqk", q, k, preferred_element_type=jnp.float32)
        q, k = layers.direction(q), layers.direction(k)
        scale = jnp.exp(jnp.minimum(self[f"{name}.logit_scale"], math.log(100)))
        cosines = jnp.einsum("mqhd,mkhd->mhqk", q, k, preferred_element_type=jnp.float32)
        return cosines * scale[None, :, None, None]

    def _window_bias(self, name: str, windows: Windows) -> Array:
        """What is added to the score of each two tokens, [h T T]; a smaller window uses the middle of the table."""
        if windows.table:
            return jnp.moveaxis(self[f"{name}.table"][pairs(windows.side, windows.table)], -1, 0)
        offsets = jnp.asarray(log_offsets(windows.side, windows.trained))
        hidden = jax.nn.relu(offsets @ self[f"{name}.position.up.weight"] + self[f"{name}.position.up.bias"][None])
        table = 16 * jax.nn.sigmoid(hidden @ self[f"{name}.position.down.weight"])
        return jnp.moveaxis(table[pairs(windows.side, windows.side)], -1, 0)

    def part(self, x: Value, start: int, end: int) -> Value:
        return Value(x.data[start:end], end - start, x.width)

    def pool(self, x: Value, kind: Pooling) -> Value:
        return Value(layers.pooled(x.data, kind)[None], 1, x.width)

    def embed(self, ids: Value, vocabulary: int, context: int, width: int) -> Value:
        x = (self["token"][ids.data] + self["position"][: ids.tokens]).astype(self.dtype)
        return Value(x, ids.tokens, width)

    def read(self, x: Value, ids: Value, where: Where, end: int | None) -> Value:
        return Value(x.data[place(ids.data, where, end)][None], 1, x.width)


class _Shown(Jax):
    """Keeps what the tower shows; blocks run one by one, for nothing can be kept from inside a scan."""

    def __init__(self, tensors: Mapping[str, Array], dtype: Any, remat: bool) -> None:
        super().__init__(tensors, dtype, remat)
        self.shown: list[Array] = []

    def see(self, x: Value) -> Value:
        self.shown.append(x.data)
        return x

    def repeat(self, name: str, times: int, blocks: Sequence[Block], x: Value, last: Block | None = None) -> Value:
        with self.scope(name):
            stacked = {n: t for n, t in self.tensors.items() if n.startswith(self.name(""))}
            for i in range(times):
                x = blocks[i % len(blocks)](self._with({n: t[i] for n, t in stacked.items()}), x)
        return x


def place(ids: Int[Array, " T"], where: Where, end: int | None) -> Int[Array, ""]:
    """Which token a text is read from; see `TextConfig.read`."""
    if where == "last":
        return jnp.asarray(len(ids) - 1)
    return jnp.argmax(ids if where == "highest" else ids == end)


def _map(x: Value) -> Any:
    return x.data.reshape(x.side, x.side, x.width)
