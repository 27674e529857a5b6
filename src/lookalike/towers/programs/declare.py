"""A tower read as a table: every tensor with its shape and kind, and what an image costs. No JAX here."""

from functools import cache
from math import prod
from typing import TYPE_CHECKING

from lookalike.towers.ops import Ops, Tensor, Value

if TYPE_CHECKING:
    from lookalike.towers import Tower
    from lookalike.towers.text import TextConfig

Shapes = dict[str, tuple[int, ...]]
"""Tensor name -> shape."""


def declare(tower: "Tower | TextConfig") -> dict[str, Tensor]:
    """Every tensor by its name, in the order in which the forward meets them."""
    return dict(_run(tower, 0).declared)


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


@cache  # a forward of a large tower takes a hundredth of a second, and a command asks for it many times
def _run(tower: "Tower | TextConfig", size: int) -> Ops:
    ops, side = Ops(), tower.only_size or size or 64
    tower.forward(ops, Value(None, side**2, 3), tower.poolings[-1])  # the one that uses every tensor
    return ops
