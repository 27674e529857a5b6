"""Gradients to updates: the optimizer of a `Learner`, its learning rates and their schedule."""

from collections.abc import Callable, Mapping, Set
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, muon

from lookalike.training.config import Optimizer
from lookalike.training.learner import Factor

PARTS = "tower", "projection", "centers"  # of a `Learner`


def make_optimizer(
    config: Optimizer, steps: int, decays: Set[str], factors: Mapping[str, Factor] | None = None
) -> optax.GradientTransformation:
    """What `config` says, each part of a `Learner` at its own learning rate, one schedule over `steps`.

    `decays` names the tensors that weight decay is for, as encoders name them: centers have none. `factors` multiply
    the updates of the tower's tensors, block by block where blocks are stacked.
    """
    rates = config.tower_learning_rate, config.learning_rate, config.centers_learning_rate

    def decaying(path: tuple[Any, ...], _leaf: object) -> bool:
        part, name = path[0].name, path[-1].key
        return (name if part == "tower" else f"{part}.{name}") in decays

    def matrix(path: tuple[Any, ...], leaf: Any) -> MuonDimensionNumbers | None:
        return _as_matrix(leaf) if decaying(path, leaf) else None

    masks = tuple(partial(jax.tree_util.tree_map_with_path, each) for each in (decaying, matrix))
    parts = {
        part: _algorithm(config, schedule(config, peak, steps), *masks) if peak else optax.set_to_zero()
        for part, peak in zip(PARTS, rates, strict=True)
    }
    part_of = partial(jax.tree_util.tree_map_with_path, lambda path, _leaf: path[0].name)
    clip = [optax.clip_by_global_norm(config.clip)] if config.clip else []
    return optax.chain(*clip, optax.partition(parts, part_of), _scaled(factors or {}))


def _algorithm(
    config: Optimizer, rate: optax.Schedule, mask: Callable[[Any], Any], matrices: Callable[[Any], Any]
) -> optax.GradientTransformation:
    decay = config.weight_decay
    match config.algorithm:
        case "adamw":
            return optax.adamw(rate, config.momentum, config.beta2, weight_decay=decay, mask=mask)
        case "lion":
            return optax.lion(rate, config.momentum, config.beta2, weight_decay=decay, mask=mask)
        case "sgd":
            decayed = [optax.add_decayed_weights(decay, mask)] if decay else []
            momentum = [optax.trace(config.momentum)] if config.momentum else []
            return optax.chain(*momentum, *decayed, optax.scale_by_learning_rate(rate))
        case "muon":
            return muon(
                rate,
                beta=config.momentum,
                weight_decay=decay,
                weight_decay_mask=mask,
                adam_b1=config.momentum,
                adam_b2=config.beta2,  # Adam has what is no matrix, which does not decay: its decay knows no mask
                muon_weight_dimension_numbers=matrices,
            )


def _as_matrix(leaf: Any) -> MuonDimensionNumbers:
    """Which axes of a matrix or kernel are its input, and which its output; an axis of blocks before them is neither.

    The places of a kernel count as inputs.
    """
    first = leaf.ndim % 2 if leaf.ndim > 2 else 0  # [in out], [blocks in out], [h w in out], [blocks h w in out]
    return MuonDimensionNumbers(tuple(range(first, leaf.ndim - 1)), leaf.ndim - 1)


def _scaled(factors: Mapping[str, Factor]) -> optax.GradientTransformation:
    def scale(path: tuple[Any, ...], update: jax.Array) -> jax.Array:
        factor = factors.get(path[-1].key) if path[0].name == "tower" else None
        if factor is None:
            return update
        if isinstance(factor, float):
            return update * factor
        return update * jnp.asarray(factor).reshape(-1, *[1] * (update.ndim - 1))

    return optax.stateless(lambda updates, _params: jax.tree_util.tree_map_with_path(scale, updates))


def schedule(config: Optimizer, peak: float, steps: int) -> optax.Schedule:
    """The learning rate at each step: up to `peak` in a straight line, then down as the schedule says.

    It begins a step above zero, or at `floor` times the peak, and ends at `floor` times the peak.
    """
    rising = round(config.warmup * steps)
    first, last = max(config.floor, 1 / (rising + 1)) * peak, config.floor * peak
    falling = max(steps - rising, 1)
    down = {
        "cosine": optax.cosine_decay_schedule(peak, falling, alpha=config.floor),
        "linear": optax.linear_schedule(peak, last, falling),
        "constant": optax.constant_schedule(peak),
    }[config.schedule]
    up = optax.linear_schedule(first, peak, max(rising, 1))
    return optax.join_schedules([up, down], [rising])
