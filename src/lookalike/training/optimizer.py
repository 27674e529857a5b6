"""From the optimiser's config to an Optax chain."""

import jax
import optax
from jaxtyping import PyTree

from lookalike.training.config import AdamW
from lookalike.training.state import Learner


def make_optimizer(config: AdamW, steps: int) -> optax.GradientTransformation:
    """Adam with decoupled decay for a `Learner`, each part at its own learning rate, one schedule over `steps`."""
    peaks = {
        "tower": config.tower_learning_rate,
        "projection": config.learning_rate,
        "centers": config.centers_learning_rate,
    }
    parts = {
        part: optax.chain(
            optax.scale_by_adam(),
            optax.add_decayed_weights(config.weight_decay if part != "centers" else 0.0, _decays),
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


def _decays(part: PyTree) -> PyTree[bool]:
    """True for kernels and weights: what has two axes or more."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, part)
