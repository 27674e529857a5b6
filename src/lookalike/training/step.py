"""One step of training: objective, gradient, update. Pure, compiled once, the old state given up.

What is trained are plain named tensors, so that a checkpoint is readable without our code.
"""

from collections.abc import Callable, Set
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float32, Int32, Key, UInt8

from lookalike.losses import class_loss, l2_normalize
from lookalike.training.config import AdamW, HeadConfig, PixelsConfig

Tensors = dict[str, Float32[Array, "..."]]
Metrics = dict[str, Float32[Array, ""]]


class Learner(NamedTuple):
    """All that is trained; the encoder's tensors leave training, the centers stay behind."""

    tower: Tensors  # by their names in the encoder, without what stays fixed; empty where features are cached
    projection: Tensors  # `weight` [F D] and `bias` [D]
    centers: Tensors  # `weight` [C K D]


class State(NamedTuple):
    """A run at one moment. Random numbers follow from the config's seed and the step, so no key is kept."""

    step: Int32[Array, ""]  # how many are done
    learner: Learner
    optimizer: optax.OptState


class Batch(NamedTuple):
    """B images as the tower takes them; or their cached features, and those of their mirror images if these count."""

    inputs: UInt8[Any, "B S S 3"] | Float32[Any, "B F"]  # arrays of NumPy, until they are placed
    mirrored: Float32[Any, "B F"] | None
    label: Int32[Any, "B"]


Objective = Callable[[Learner, Batch, Key[Array, ""]], tuple[Float32[Array, ""], Metrics]]
TowerFeatures = Callable[[Tensors, UInt8[Array, "B S S 3"]], Float32[Array, "B F"]]


def first_state(learner: Learner, optimizer: optax.GradientTransformation) -> State:
    """The state before the first step: a copy, as a step takes over its state's memory."""
    return State(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, learner), optimizer.init(learner))


def make_objective(config: HeadConfig | PixelsConfig, tower_features: TowerFeatures | None = None) -> Objective:
    """The loss of cached features; or of images, from which `tower_features` makes them with the tensors it is given.

    Features, each a random mix of the image's and its mirror image's if both are there, to unit length, dropout,
    projection, unit length, cosines to the centers, margin; and geometry.
    """

    def objective(learner: Learner, batch: Batch, key: Key[Array, ""]) -> tuple[Float32[Array, ""], Metrics]:
        features = batch.inputs
        if tower_features is not None:
            features = tower_features(learner.tower, features)
        else:
            mix_key, key = jax.random.split(key)
            if batch.mirrored is not None:
                share = jax.random.uniform(mix_key, (features.shape[0], 1))
                features = share * features + (1.0 - share) * batch.mirrored
        kept = features = l2_normalize(features)
        if config.dropout:
            stay = jax.random.bernoulli(key, 1.0 - config.dropout, features.shape)
            kept = jnp.where(stay, features / (1.0 - config.dropout), 0.0)
        projected = kept @ learner.projection["weight"] + learner.projection["bias"][None, :]
        embedding, lengths = l2_normalize(projected), jnp.linalg.norm(projected, axis=1)
        loss_B, cosine_B, _ = class_loss(config.loss, embedding, lengths, learner.centers["weight"], batch.label)
        loss, metrics = loss_B.mean(), {"cosine": cosine_B.mean()}
        if config.distill.weight:
            metrics["distill"] = config.distill(features, embedding)
            loss = loss + config.distill.weight * metrics["distill"]
        return loss, metrics

    return objective


def make_optimizer(config: AdamW, steps: int, decays: Set[str]) -> optax.GradientTransformation:
    """Adam with decoupled decay for a `Learner`, each part at its own learning rate, one schedule over `steps`.

    `decays` names the tensors that weight decay is for, as encoders name them: centers have none.
    """
    rates = config.tower_learning_rate, config.learning_rate, config.centers_learning_rate

    def decaying(path: tuple[Any, ...], _leaf: object) -> bool:
        part, name = path[0].name, path[-1].key
        return (name if part == "tower" else f"{part}.{name}") in decays

    mask = partial(jax.tree_util.tree_map_with_path, decaying)
    parts = {
        part: optax.adamw(schedule(peak, config.warmup, steps), weight_decay=config.weight_decay, mask=mask)
        for part, peak in zip(Learner._fields, rates, strict=True)
    }
    part_of = partial(jax.tree_util.tree_map_with_path, lambda path, _leaf: path[0].name)
    clip = [optax.clip_by_global_norm(config.clip)] if config.clip else []
    return optax.chain(*clip, optax.partition(parts, part_of))


def schedule(peak: float, warmup: float, steps: int) -> optax.Schedule:
    """The learning rate at each step: up to `peak` in a straight line, then down to zero along half a cosine."""
    rising = round(warmup * steps)
    return optax.warmup_cosine_decay_schedule(peak / (rising + 1), peak, rising, max(steps, rising + 1))


def make_step(
    objective: Objective, optimizer: optax.GradientTransformation, seed: int
) -> Callable[[State, Batch], tuple[State, Metrics]]:
    """The compiled step: state and batch to the next state and the metrics of the batch.

    The state's memory is taken over, so that it is held once; random numbers are a function of `seed` and the step.
    """

    @partial(jax.jit, donate_argnums=0)
    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        (loss, metrics), gradient = jax.value_and_grad(objective, has_aux=True)(state.learner, batch, key)
        with jax.numpy_dtype_promotion("standard"):  # Optax mixes floats with its integer count; all stays float32
            updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.learner)
        learner = optax.apply_updates(state.learner, updates)
        metrics = {"loss": loss, **metrics, "gradient": optax.tree.norm(gradient)}
        return State(state.step + 1, learner, optimizer_state), metrics

    return step
