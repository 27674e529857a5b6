"""A tower in two halves: what images have become at one of its places, and the features of that."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lookalike.towers import ops
from lookalike.towers.ops import Pooling
from lookalike.towers.programs.jax import Cut, Dtype, Jax, value
from lookalike.towers.programs.products import merged

if TYPE_CHECKING:
    from lookalike.towers import Tower


def front(
    tower: "Tower", tensors: Mapping[str, Array], x: Float[Array, "B S S 3"], place: int, dtype: Dtype = "float32"
) -> Float[Array, "B P F"]:
    """What normalised images have become at a place of the tower; `tensors` are those before it, see `halves`."""
    cut = Cut(place, _blank(tower, place, 1))

    def one(image: Array) -> Array:
        program = Jax(tensors, dtype, matmul=merged, cut=cut)
        tower.forward(program, value(image), tower.poolings[-1])  # the compiler leaves out what is behind the place
        return program.left

    return jax.vmap(one)(x.astype(dtype))


def behind(
    tower: "Tower",
    pooling: Pooling,
    tensors: Mapping[str, Array],
    x: Float[Array, "B P F"],
    place: int,
    size: int,
    dtype: Dtype = "float32",
    remat: bool = False,
) -> Float[Array, "B D"]:
    """The features of images of `size` pixels from what `front` says; `tensors` are those behind the place."""
    blank = _blank(tower, place, 0)

    def one(entering: Array) -> Array:
        program = Jax(blank, dtype, remat, matmul=merged, cut=Cut(place, tensors, entering))
        image = jnp.zeros((size, size, 3), dtype)  # the compiler leaves out what is before the place
        return tower.forward(program, value(image), pooling).data[0]

    return jax.vmap(one)(x.astype(dtype)).astype(jnp.float32)


def _blank(tower: "Tower", place: int, half: int) -> dict[str, Array]:
    """Zeros for the half of a tower that is traced, as its forward is one, and not computed."""
    return {name: jnp.zeros(shape, jnp.float32) for name, shape in ops.halves(tower, place)[half].items()}
