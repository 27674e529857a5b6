"""Tokens times weights: weights are fetched in the dtype of the tokens, and what their gradient sums is float32.

The caller says `jax.vmap`. With parameters in float32 and tokens in bfloat16, half the bytes pass between devices on
the way there, and nothing is rounded before it is summed on the way back.
"""

# The rule of a `jax.vmap` is told how large the batch is.
# ruff: noqa: ARG001

from collections.abc import Callable
from math import prod

import jax
import jax.custom_batching
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from lookalike.core.mesh import used

Matmul = Callable[[Array, Array], Array]


def plain(x: Float[Array, "*P F"], weight: Float[Array, "F O"]) -> Float[Array, "*P O"]:
    """`x @ weight` in the dtype of `x`, of what no `jax.vmap` sees."""
    return x @ used(weight, x.dtype)


@jax.custom_batching.custom_vmap
def merged(x: Float[Array, "*P F"], weight: Float[Array, "F O"]) -> Float[Array, "*P O"]:
    """The same; below `jax.vmap` one product of all images' tokens, so that the weights' gradient is one, too.

    For that of a stack XLA turns one of its factors first, which takes 4 % of a ViT-Tiny's step on a CPU. A
    gradient needs the `jax.vmap`.
    """
    return plain(x, weight)


@merged.def_vmap
def _merged_batch(size: int, batched: list[bool], x: Array, weight: Array) -> tuple[Array, bool]:
    if batched != [True, False]:
        return jax.vmap(plain, tuple(0 if one else None for one in batched))(x, weight), True
    if jax.default_backend() != "cpu":
        return _summed(x, weight), True
    return _summed(x.reshape(prod(x.shape[:-1]), x.shape[-1]), weight).reshape(*x.shape[:-1], weight.shape[1]), True


@jax.custom_vjp
def _summed(x: Float[Array, "*P F"], weight: Float[Array, "F O"]) -> Float[Array, "*P O"]:
    return plain(x, weight)


def _forward(x: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    return plain(x, weight), (x, weight)


def _backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    """By itself JAX rounds the weights' gradient to the dtype of the tokens, on each device, before it is summed."""
    x, weight = kept
    tokens = tuple(range(x.ndim - 1))
    own = lax.dot_general(x, gradient, ((tokens, tokens), ((), ())), preferred_element_type=jnp.float32)
    return gradient @ used(weight, x.dtype).T, own.astype(weight.dtype)


_summed.defvjp(_forward, _backward)
