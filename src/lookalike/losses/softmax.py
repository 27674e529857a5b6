"""Softmax over cosines to class centers, with a margin for the true class; over millions of classes in chunks.

With L the log-sum-exp of the other classes' logits and h the true one's after its margin, cross-entropy is
log(exp(L) + exp(h)) - h = softplus(L - h). So a margin touches B numbers, and only L runs over B x C. In chunks L is
summed over some classes at a time, and its gradient computes their cosines once more instead of keeping them
(benchmarks/softmax.py).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32

from lookalike.core.errors import UsageError
from lookalike.core.later import Array, jax, jnp, made_at_first_call
from lookalike.losses.centers import class_cosines, own_cosines
from lookalike.losses.margins import AdaCos, AdaFace, CurricularFace, Margin, Memory, NormFace, memory_of

_SAFE_SCALE = 40.0  # exp(-2 x 40) is a normal float32; below exp(-87) it is not
_FAR = -1e9  # a logit that takes no part in a softmax
_TINY = float(np.finfo(np.float32).tiny)


class _Logits(NamedTuple):
    """How cosines become logits: times `scale`; where `harder`, a cosine c above its row's counts as c (t + c)."""

    scale: Float32[Array, ""]
    harder: tuple[Float32[Array, "B"], Float32[Array, ""]] | None = None  # CurricularFace: the true cosines, and t

    def of(self, embedding_BD: Float[Array, "B D"], centers_CKD: Float32[Array, "C K D"]) -> Float32[Array, "B C"]:
        cos_BC = class_cosines(embedding_BD, centers_CKD)
        if self.harder is not None:
            above_B, t = self.harder
            cos_BC = jnp.where(cos_BC > above_B[:, None], cos_BC * (t + cos_BC), cos_BC)
        return self.scale * cos_BC


class _Layout(NamedTuple):
    """What is known when a program is compiled."""

    classes: int  # what is beside them only fills the shards up
    chunk: int  # classes at a time; 0: all
    shards: int
    top: float | None  # no logit exceeds it, and none vanishes beside it; None: the greatest is looked for


def class_loss(
    margin: Margin,
    embedding_BD: Float[Array, "B D"],
    length_B: Float[Array, "B"],
    centers_CKD: Float32[Array, "C K D"],
    label_B: Int32[Array, "B"],
    *,
    margin_B: Float32[Array, "B"] | None = None,
    memory: Memory | None = None,
    chunk: int = 0,
    shards: int = 1,
    classes: int = 0,
) -> tuple[Float32[Array, "B"], Float32[Array, "B"], Memory]:
    """Cross-entropy of each row's true class, its cosine made harder by `margin`; the true cosine; the next memory.

    Embeddings have length 1, and had `length_B` before (AdaFace looks at it). `margin_B` takes the place of the
    margin's own width; UsageError if it has none. `memory` is that of the step before; by default, the first.
    With `chunk` the logits of that many classes are held at a time, where there are more. `shards` says over how many
    devices axis C is split, if it is; then each takes its own classes in chunks, and C is a multiple of it. Only the
    first `classes` of C are classes, the rest fill the shards up; 0: all are.
    Values and gradients are finite for every embedding up to length 1, and what rounding makes of it.
    """
    own_B = own_cosines(embedding_BD, centers_CKD, label_B)
    seen_B = jax.lax.stop_gradient(own_B)
    memory = memory_of(margin) if memory is None else memory
    classes, own = classes or len(centers_CKD), len(centers_CKD) // shards
    layout = _Layout(classes, chunk if chunk < own else 0, shards, _top(margin))
    others = partial(_others, layout, embedding_BD, centers_CKD, label_B)
    logits = _Logits(jnp.float32(_scale(margin, classes)))
    match margin:
        case NormFace() | AdaCos():
            if margin_B is not None:
                raise UsageError(
                    f"{type(margin).__name__} has no margin, so that no schedule can widen it.",
                    hint="leave the margin as it is, or take a loss that has one, ArcFace for instance",
                )
            hard_B = margin.margin_cosine(own_B)
        case AdaFace():
            quality_B, memory = margin.qualities(length_B.astype(jnp.float32), memory)
            hard_B = margin.margin_cosine(own_B, margin_B, quality_B)
        case _:
            hard_B = margin.margin_cosine(own_B, margin_B)
    if isinstance(margin, AdaCos) and not margin.fixed:
        before = _Logits(jnp.where(memory["scale"] > 0.0, memory["scale"], logits.scale))
        memory = {"scale": margin.next_scale(jax.lax.stop_gradient(others(before)), seen_B)}
        logits = _Logits(memory["scale"])
    if isinstance(margin, CurricularFace):
        memory = margin.next_memory(seen_B, memory)
        logits = _Logits(logits.scale, (jax.lax.stop_gradient(hard_B), memory["t"]))
    return jax.nn.softplus(others(logits) - logits.scale * hard_B), own_B, memory


def _scale(margin: Margin, classes: int) -> float:
    return margin.first_scale(classes) if isinstance(margin, AdaCos) else margin.scale


def _top(margin: Margin) -> float | None:
    """No cosine exceeds 1, so `scale` can stand for the greatest logit, which saves a pass over B x C, as long as the
    least term, that of the opposite direction, does not vanish beside it.
    """
    if isinstance(margin, AdaCos | CurricularFace):  # a scale that moves, and logits of up to 2 x scale
        return None
    return margin.scale if margin.scale <= _SAFE_SCALE else None


def _others(layout, embedding_BD, centers_CKD, label_B, logits):  # type: ignore[no-untyped-def]
    """The log-sum-exp of every row's logits of all classes but its own."""
    if layout.chunk:
        split_SCKD = centers_CKD.reshape(layout.shards, -1, *centers_CKD.shape[1:])
        return _in_chunks(layout, embedding_BD, split_SCKD, label_B, logits)
    class_C = jnp.arange(len(centers_CKD), dtype=jnp.int32)
    other_BC = (class_C[None, :] != label_B[:, None]) & (class_C < layout.classes)[None, :]
    none_yet = _none_yet(layout.top, label_B.shape)
    return _log(*_added(layout.top, *none_yet, jnp.where(other_BC, logits.of(embedding_BD, centers_CKD), _FAR)))


Sums = Float32[Array, "*S B"]


def _none_yet(top: float | None, shape: tuple[int, ...]) -> tuple[Sums, Sums]:
    """The greatest logit, and the sum of exp(logit - greatest), of no classes."""
    return jnp.full(shape, _FAR if top is None else top, jnp.float32), jnp.zeros(shape, jnp.float32)


def _added(top: float | None, greatest_B: Sums, sum_B: Sums, logit_BC: Float32[Array, "*S B C"]) -> tuple[Sums, Sums]:
    """The same with further classes."""
    if top is None:
        before_B, greatest_B = greatest_B, jnp.maximum(greatest_B, jax.lax.stop_gradient(logit_BC).max(axis=-1))
        sum_B = sum_B * jnp.exp(before_B - greatest_B)
    return greatest_B, sum_B + jnp.exp(logit_BC - greatest_B[..., None]).sum(axis=-1)


def _log(greatest_B: Sums, sum_B: Sums) -> Sums:
    return greatest_B + jnp.log(jnp.maximum(sum_B, _TINY))  # a class alone has no others


@made_at_first_call
def _in_chunks() -> Callable[..., Float32[Array, "B"]]:
    """`_plain`, with a gradient of its own."""
    in_chunks = jax.custom_vjp(_plain, nondiff_argnums=(0,))
    in_chunks.defvjp(_forward, _backward)
    return in_chunks


def _plain(
    layout: _Layout,
    embedding_BD: Float[Array, "B D"],
    centers_SCKD: Float32[Array, "S C K D"],
    label_B: Int32[Array, "B"],
    logits: _Logits,
) -> Float32[Array, "B"]:
    """The log-sum-exp of all classes but each row's own. Every shard sums over its own; they meet once, at the end."""
    each_SBD = jnp.broadcast_to(embedding_BD, (layout.shards, *embedding_BD.shape))

    def add(step: Int32[Array, ""], sums: tuple[Sums, Sums]) -> tuple[Sums, Sums]:
        start, other_SBC = _chunk(layout, centers_SCKD.shape[1], label_B, step)
        logit_SBC = jax.vmap(logits.of)(each_SBD, _slice(layout, centers_SCKD, start))
        return _added(layout.top, *sums, jnp.where(other_SBC, logit_SBC, _FAR))

    steps = -(-centers_SCKD.shape[1] // layout.chunk)
    none_yet = _none_yet(layout.top, (layout.shards, len(label_B)))
    return jax.nn.logsumexp(_log(*jax.lax.fori_loop(0, steps, add, none_yet)), axis=0)


def _chunk(
    layout: _Layout, classes: int, label_B: Int32[Array, "B"], step: Int32[Array, ""]
) -> tuple[Int32[Array, ""], Bool[Array, "S B C"]]:
    """Where a chunk starts in each shard's `classes`, and what counts in it: no class twice, and no row's own.

    The last chunk starts early enough to be whole.
    """
    start = jnp.minimum(step * layout.chunk, classes - layout.chunk)
    place_C = start + jnp.arange(layout.chunk, dtype=jnp.int32)
    class_SC = classes * jnp.arange(layout.shards, dtype=jnp.int32)[:, None] + place_C[None, :]
    counts_SC = (place_C >= step * layout.chunk)[None, :] & (class_SC < layout.classes)
    return start, (class_SC[:, None, :] != label_B[None, :, None]) & counts_SC[:, None, :]


def _slice(layout: _Layout, x_SCKD: Float32[Array, "S C K D"], start: Int32[Array, ""]) -> Float32[Array, "S c K D"]:
    return jax.lax.dynamic_slice_in_dim(x_SCKD, start, layout.chunk, axis=1)


def _forward(layout, embedding_BD, centers_SCKD, label_B, logits):  # type: ignore[no-untyped-def]
    sum_B = _in_chunks(layout, embedding_BD, centers_SCKD, label_B, logits)
    return sum_B, (embedding_BD, centers_SCKD, label_B, logits, sum_B)


def _backward(layout, kept, gradient_B):  # type: ignore[no-untyped-def]
    """Each chunk's logits again; their shares of the softmax, times `gradient_B`, are their gradients."""
    embedding_BD, centers_SCKD, label_B, logits, sum_B = kept

    def add(step, gradients):  # type: ignore[no-untyped-def]
        to_embedding_SBD, to_centers_SCKD = gradients
        start, other_SBC = _chunk(layout, centers_SCKD.shape[1], label_B, step)
        logit_SBC, pull = jax.vjp(jax.vmap(logits.of), each_SBD, _slice(layout, centers_SCKD, start))
        share_SBC = jnp.exp(jnp.where(other_SBC, logit_SBC, _FAR) - sum_B[None, :, None])
        more_SBD, more_SCKD = pull(share_SBC * gradient_B[None, :, None])
        more_SCKD = more_SCKD + _slice(layout, to_centers_SCKD, start)  # the last chunk overlaps the one before
        to_centers_SCKD = jax.lax.dynamic_update_slice_in_dim(to_centers_SCKD, more_SCKD, start, 1)
        return to_embedding_SBD + more_SBD.astype(jnp.float32), to_centers_SCKD

    each_SBD = jnp.broadcast_to(embedding_BD, (layout.shards, *embedding_BD.shape))
    steps = -(-centers_SCKD.shape[1] // layout.chunk)
    first = jnp.zeros(each_SBD.shape, jnp.float32), jnp.zeros_like(centers_SCKD)
    to_embedding_SBD, to_centers_SCKD = jax.lax.fori_loop(0, steps, add, first)
    return to_embedding_SBD.sum(axis=0).astype(embedding_BD.dtype), to_centers_SCKD, None, None
