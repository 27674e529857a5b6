"""What a training step takes and gives: plain named tensors, so that a checkpoint is readable without our code."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float32, Int32

Tensors = dict[str, Float32[Array, "..."]]


class Learner(NamedTuple):
    """All that is trained; the encoder's tensors leave training, the centers stay behind."""

    tower: Tensors
    """By name, without what stays fixed; empty where features are cached."""
    projection: Tensors
    """`weight` [F D] and `bias` [D]."""
    centers: Tensors
    """`weight` [C K D]."""


class State(NamedTuple):
    """A run at one moment. Random numbers follow from the config's seed and the step, so no key is kept."""

    step: Int32[Array, ""]
    """Steps done."""
    learner: Learner
    optimizer: optax.OptState


def first_state(learner: Learner, optimizer: optax.GradientTransformation) -> State:
    """The state before the first step: a copy, as a step takes over its state's memory."""
    return State(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, learner), optimizer.init(learner))
