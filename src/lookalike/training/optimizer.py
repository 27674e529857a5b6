"""From the optimiser's config to an Optax chain."""

from collections.abc import Set
from functools import partial
from typing import Any

import jax
import optax
from jaxtyping import PyTree

from lookalike.training.config import AdamW
from lookalike.training.state import Learner


def make_optimizer(config: AdamW, steps: int, decays: Set[str]) -> optax.GradientTransformation:
    """Adam with decoupled decay for a `Learner`, each part at its own learning rate, one schedule over `steps`.

    `decays` names the tensors that weight decay is for, as encoders name them.
    """
    peaks = {
        "tower": config.tower_learning_rate,
        "projection": config.learning_rate,
        "centers": config.centers_learning_rate,
    }
    parts = {
        part: optax.chain(
            optax.scale_by_adam(),
            optax.add_decayed_weights(config.weight_decay if part != "centers" else 0.0, partial(_decaying, decays)),
            optax.scale_by_learning_rate(schedule(peak, config.warmup, steps)),
        )
        for part, peak in peaks.items()
    }
    clip = [optax.clip_by_global_norm(config.clip)] if config.clip else []
    return _promoting(optax.chain(*clip, optax.partition(parts, _part_of)))


def schedule(peak: float, warmup: float, steps: int) -> optax.Schedule:
    """The learning rate at each step: up to `peak` in a straight line, then down to zero along half a cosine."""
    rising = round(warmup * steps)
    return optax.warmup_cosine_decay_schedule(peak / (rising + 1), peak, rising, max(steps, rising + 1))


def _promoting(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner`, allowed to mix dtypes: Optax raises floats to its integer count. What it returns stays float32."""

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        with jax.numpy_dtype_promotion("standard"):
            return inner.update(updates, state, params)

    return optax.GradientTransformation(inner.init, update)


def _part_of(learner: Learner) -> PyTree[str]:
    """The name of the part that each leaf belongs to."""
    return Learner(*(jax.tree.map(lambda _, name=name: name, part) for name, part in learner._asdict().items()))


def _decaying(decays: Set[str], learner: Learner) -> PyTree[bool]:
    """Which leaves decay: tensors of the tower are named in full, those of the other parts by their place in it."""

    def decaying(path: tuple[Any, ...], _leaf: object) -> bool:
        names = [str(getattr(key, "key", getattr(key, "name", ""))) for key in path]
        return (names[-1] if names[0] == "tower" else ".".join(names)) in decays

    return jax.tree_util.tree_map_with_path(decaying, learner)
