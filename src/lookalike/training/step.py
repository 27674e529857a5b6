"""One step of training: the objective, its gradient, the update. Pure, compiled once, the old state given up."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float32, Int32, Key, UInt8

from lookalike.losses import class_cosines, l2_normalize, margin_loss
from lookalike.training.config import HeadConfig, PixelsConfig
from lookalike.training.state import Learner, State, Tensors

Metrics = dict[str, Float32[Array, ""]]


class FeatureBatch(NamedTuple):
    """Cached features of B images; `mirrored` are those of their mirror images, or None."""

    features: Float32[Array, "B F"]
    mirrored: Float32[Array, "B F"] | None
    label: Int32[Array, "B"]


class ImageBatch(NamedTuple):
    """B images as the tower takes them."""

    images: UInt8[Array, "B S S 3"]
    label: Int32[Array, "B"]


Batch = TypeVar("Batch", FeatureBatch, ImageBatch)
Objective = Callable[[Learner, Batch, Key[Array, ""]], tuple[Float32[Array, ""], Metrics]]
TowerFeatures = Callable[[Tensors, UInt8[Array, "B S S 3"]], Float32[Array, "B F"]]


def head_objective(config: HeadConfig) -> Objective[FeatureBatch]:
    """The loss of a projection on cached features, each a random mix of the image's and its mirror image's."""

    def objective(learner: Learner, batch: FeatureBatch, key: Key[Array, ""]) -> tuple[Float32[Array, ""], Metrics]:
        mix_key, drop_key = jax.random.split(key)
        features = batch.features
        if batch.mirrored is not None:
            share = jax.random.uniform(mix_key, (features.shape[0], 1))
            features = share * features + (1.0 - share) * batch.mirrored
        return _embedding_loss(config, learner, features, batch.label, drop_key)

    return objective


def pixels_objective(config: PixelsConfig, tower_features: TowerFeatures) -> Objective[ImageBatch]:
    """The loss of a whole encoder on images; `tower_features` runs the tower with the tensors it is given."""

    def objective(learner: Learner, batch: ImageBatch, key: Key[Array, ""]) -> tuple[Float32[Array, ""], Metrics]:
        features = tower_features(learner.tower, batch.images)
        return _embedding_loss(config, learner, features, batch.label, key)

    return objective


def make_step(
    objective: Objective[Batch], optimizer: optax.GradientTransformation, seed: int
) -> Callable[[State, Batch], tuple[State, Metrics]]:
    """The compiled step: state and batch to the next state and the metrics of the batch.

    The state's memory is taken over, so that it is held once; random numbers are a function of `seed` and the
    step.
    """

    @partial(jax.jit, donate_argnums=0)
    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        value_and_gradient = jax.value_and_grad(objective, has_aux=True)
        (loss, metrics), gradient = value_and_gradient(state.learner, batch, key)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.learner)
        learner = optax.apply_updates(state.learner, updates)
        metrics = {"loss": loss, **metrics, "gradient": optax.tree.norm(gradient)}
        return State(state.step + 1, learner, optimizer_state), metrics

    return step


def _embedding_loss(
    config: HeadConfig | PixelsConfig,
    learner: Learner,
    features: Float32[Array, "B F"],
    label: Int32[Array, "B"],
    key: Key[Array, ""],
) -> tuple[Float32[Array, ""], Metrics]:
    """Features to unit length, dropout, projection, unit length, cosines to the centers, margin; and geometry."""
    features = l2_normalize(features)
    kept = features
    if config.dropout:
        stay = jax.random.bernoulli(key, 1.0 - config.dropout, features.shape)
        kept = jnp.where(stay, features / (1.0 - config.dropout), 0.0)
    embedding = l2_normalize(kept @ learner.projection["weight"] + learner.projection["bias"][None, :])
    cos_BC = class_cosines(embedding, learner.centers["weight"])
    loss = margin_loss(config.loss, cos_BC, label).mean()
    metrics = {"cosine": jnp.take_along_axis(cos_BC, label[:, None], axis=1).mean()}
    if config.distill.weight:
        metrics["distill"] = config.distill(features, embedding)
        loss = loss + config.distill.weight * metrics["distill"]
    return loss, metrics
