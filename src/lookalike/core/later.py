"""JAX, imported at its first use: for files whose values a command line reads before anything is computed.

    from lookalike.core.later import Array, jax, jnp

A loss is its own config, so that the help of a recipe imports losses; and importing JAX takes longer than all the rest.
`Array` stands in annotations: for a type checker it is JAX's, else anything of that shape and type of numbers.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

__all__ = ["Array", "Later", "jax", "jnp", "made_at_first_call"]

P = ParamSpec("P")
R = TypeVar("R")


class Later:
    """A module that is imported when something of it is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        value = getattr(import_module(self._name), name)
        setattr(self, name, value)  # the next time it is there
        return value


if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp
    from jaxtyping import Array
else:
    jax, jnp, Array = Later("jax"), Later("jax.numpy"), Any


def made_at_first_call(make: Callable[[], Callable[P, R]]) -> Callable[P, R]:
    """The function that `make` returns, which is called once: where a decorator of JAX's would import it at once."""
    made = cache(make)

    def call(*given: P.args, **named: P.kwargs) -> R:
        return made()(*given, **named)

    return call
