"""One step of training: objective, gradient, update. Pure, compiled once, the old state given up.

What is trained are plain named tensors, so that a checkpoint is readable without our code.
"""

import contextlib
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int32, Int64, Key, UInt8

from lookalike.core.mesh import spread
from lookalike.losses import Memory, Pairs, class_loss, embeddings, l2_normalize, pair_loss
from lookalike.losses.projection import Memory as Statistics
from lookalike.training.config import StepStage
from lookalike.training.learner import Fixed, Tensors

Metrics = dict[str, Float32[Array, ""]]


class Learner(NamedTuple):
    """All that is trained; the encoder's tensors leave training, the centers stay behind."""

    tower: Tensors  # by their names in the encoder, without what stays fixed; empty where features are cached
    projection: Tensors  # `weight` [F D] and `bias` [D]
    centers: Tensors  # `weight` [C K D]


class Running(NamedTuple):
    """Values that follow the steps without a gradient."""

    margin: Memory
    projection: Statistics


class State(NamedTuple):
    """A run at one moment. Random numbers follow from the config's seed and the step, so no key is kept."""

    step: Int32[Array, ""]  # how many are done
    learner: Learner
    optimizer: optax.OptState
    running: Running
    average: Learner | None  # the running mean of the learner, where the stage asks for one


class Batch(NamedTuple):
    """B rows of a collection as a stage looks at them: arrays of NumPy, until they are placed.

    Behind as many as the stage's `batch` says are others, which only fill up what devices divide. Where a batch is
    taken in parts, each array has an axis of parts before B, and each part is filled up.

    `inputs` are images as the tower takes them, V views of each where a stage looks at several; or maps; or V cached
    features of each.
    """

    inputs: UInt8[Any, "B S S 3"] | UInt8[Any, "B V S S 3"] | Float32[Any, "B V F"] | Any
    label: Int32[Any, "*P B"]
    untouched: Float32[Any, "*P B F"] | None = None  # features of the tower before training
    teacher: Float32[Any, "*P B X"] | None = None  # stored vectors of another encoder


Objective = Callable[
    [Learner, Fixed, Batch, Running, Key[Array, ""], Float32[Array, ""]],
    tuple[Float32[Array, ""], tuple[Metrics, Running]],
]
Features = Callable[[Tensors, Fixed, Any], Float32[Array, "B F"]]
Step = Callable[[State, Fixed, Batch], tuple[State, Metrics]]


def first_state(learner: Learner, optimizer: optax.GradientTransformation, running: Running, averaged: bool) -> State:
    """The state before the first step: a copy, as a step takes over its state's memory."""
    learner, average = jax.tree.map(jnp.copy, learner), jax.tree.map(jnp.copy, learner) if averaged else None
    return State(jnp.zeros((), jnp.int32), learner, optimizer.init(learner), running, average)


def mixed(inputs: Float32[Array, "B V F"], key: Key[Array, ""]) -> Float32[Array, "B F"]:
    """A random mix of two of each row's features, drawn anew; of one there is nothing to mix."""
    count = inputs.shape[1]
    if count == 1:
        return inputs[:, 0]
    which, share = jax.random.split(key)
    first = jax.random.randint(which, (len(inputs),), 0, count)
    second = (first + jax.random.randint(jax.random.fold_in(which, 1), (len(inputs),), 1, count)) % count
    pick = partial(jnp.take_along_axis, inputs, axis=1)
    one, other = (pick(at[:, None, None])[:, 0] for at in (first, second))
    part = jax.random.uniform(share, (len(inputs), 1))
    return part * one + (1.0 - part) * other


def make_objective(
    config: StepStage, features: Features, class_sizes: Int64[Any, "C"], mesh: Mesh | None = None
) -> Objective:
    """The loss of a batch: features to unit length, projection, unit length, the class loss, and geometry.

    `features` makes them of a batch's inputs. What only fills the batch up has features, too, and
    nothing else: no loss, term or statistic sees it. On a `mesh` the classes are apart over "model".
    """
    sizes, two = jnp.asarray(class_sizes, jnp.int32), bool(config.geometry.views.weight)
    rows = config.batch // getattr(config, "accumulate", 1)

    def objective(learner, fixed, batch, running, key, epoch):  # type: ignore[no-untyped-def]
        mix_key, key = jax.random.split(key)
        inputs, kept = batch.inputs, jax.tree.map(lambda x: x[:rows], batch._replace(inputs=None))
        if inputs.ndim == 3 and not learner.tower:
            inputs = mixed(inputs[:rows], mix_key)
        views = [inputs[:, 0], inputs[:, 1]] if two else [inputs]
        with contextlib.nullcontext() if mesh is None else jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            found = [l2_normalize(features(learner.tower, fixed, view)[:rows]) for view in views]
        projection, centers = learner.projection, learner.centers["weight"]
        made, statistics = embeddings(
            config.projecting, projection["weight"], projection["bias"], found[0], key, running.projection
        )
        total, cosine, margin = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32), running.margin
        for vectors, dimension in made:
            prefix = centers[..., :dimension]
            loss, own, margin = _class_loss(config, vectors, prefix, kept.label, running.margin, epoch, sizes, mesh)
            total, cosine = total + loss / len(made), cosine + own / len(made)
        term, terms = _geometry(config, learner, kept, found, fixed.first)
        return total + term, ({"cosine": cosine, **terms}, Running(margin, statistics))

    return objective


def _geometry(config, learner, batch, found, first):  # type: ignore[no-untyped-def]
    """The terms of a batch, from the features of its views; embeddings without dropout."""
    if not any(getattr(config.geometry, each.name).weight for each in fields(config.geometry)):
        return jnp.zeros((), jnp.float32), {}
    weight, bias = learner.projection["weight"], learner.projection["bias"]
    embedding = [l2_normalize(view @ weight + bias[None]) for view in found]
    known = batch.untouched is not None
    return config.geometry(
        found[0],
        embedding[0],
        untouched=l2_normalize(batch.untouched) if known else None,
        teacher=batch.teacher,
        second_view=embedding[1] if len(found) > 1 else None,
        weights=learner.tower,
        untouched_weights=first,
    )


def _class_loss(config, vectors, centers, label, memory, epoch, sizes, mesh):  # type: ignore[no-untyped-def]
    """The mean loss of the rows, their mean cosine to their own center, the next memory."""
    length = jnp.sqrt(jnp.maximum(jnp.square(vectors).sum(axis=1), 1e-12))
    unit = spread(l2_normalize(vectors), mesh, "data")
    if isinstance(config.loss, Pairs):
        return pair_loss(config.loss, unit, label).mean(), jnp.zeros((), jnp.float32), memory
    widths = None
    if hasattr(config.loss, "margin"):
        margins = config.margin.margins(config.loss.margin, epoch, sizes)
        widths = margins[label] if margins.ndim else jnp.full(label.shape, margins)
    classes, shards = len(centers), 1 if mesh is None else mesh.shape["model"]
    centers = spread(jnp.pad(centers, ((0, -classes % shards), (0, 0), (0, 0))), mesh, "model")
    how = {"margin_B": widths, "memory": memory, "chunk": config.chunk, "shards": shards, "classes": classes}
    loss, cosine, memory = class_loss(config.loss, unit, length, centers, label, **how)
    return loss.mean(), cosine.mean(), memory


def make_step(
    objective: Objective, optimizer: optax.GradientTransformation, config: StepStage, seed: int, epoch_steps: float
) -> Step:
    """The compiled step: state and batch to the next state and the metrics of the batch.

    The state's memory is taken over, so that it is held once; random numbers are a function of `seed` and the step.
    `epoch_steps` is how many steps an epoch has.
    """
    parts, radius = getattr(config, "accumulate", 1), config.optimizer.sam

    def gradient(learner, fixed, batch, running, key, epoch):  # type: ignore[no-untyped-def]
        """Loss, metrics, running values and gradient of a batch, in parts one after the other."""
        value = jax.value_and_grad(objective, has_aux=True)
        if parts == 1:
            (loss, (metrics, running)), found = value(learner, fixed, batch, running, key, epoch)
            return {"loss": loss, **metrics}, running, found

        def part(carried, given):  # type: ignore[no-untyped-def]
            total, running = carried
            piece, number = given
            one = jax.random.fold_in(key, number)
            (loss, (metrics, running)), found = value(learner, fixed, piece, running, one, epoch)
            return (jax.tree.map(jnp.add, total, found), running), {"loss": loss, **metrics}

        zeros = jax.tree.map(jnp.zeros_like, learner)
        (found, running), metrics = jax.lax.scan(part, (zeros, running), (batch, jnp.arange(parts)))
        return jax.tree.map(jnp.mean, metrics), running, jax.tree.map(lambda x: x / parts, found)

    @partial(jax.jit, donate_argnums=0)
    def step(state: State, fixed: Fixed, batch: Batch) -> tuple[State, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        epoch = state.step.astype(jnp.float32) / epoch_steps
        metrics, running, found = gradient(state.learner, fixed, batch, state.running, key, epoch)
        if radius:  # the gradient at the worst place nearby (Foret et al., 2021, equation 2)
            far = radius / jnp.maximum(optax.tree.norm(found), 1e-12)
            worst = jax.tree.map(lambda x, g: x + far * g, state.learner, found)
            _, _, found = gradient(worst, fixed, batch, state.running, key, epoch)
        with jax.numpy_dtype_promotion("standard"):  # Optax mixes floats with its integer count; all stays float32
            updates, optimizer_state = optimizer.update(found, state.optimizer, state.learner)
        learner = optax.apply_updates(state.learner, updates)
        metrics = {**metrics, "gradient": optax.tree.norm(found)}
        average = state.average
        if average is not None:
            # From few steps the mean forgets its start sooner, as if it had seen ten times as many.
            done = state.step.astype(jnp.float32)
            decay = jnp.minimum(config.ema, (1.0 + done) / (10.0 + done))
            average = jax.tree.map(lambda a, x: decay * a + (1.0 - decay) * x, average, learner)
        return State(state.step + 1, learner, optimizer_state, running, average), metrics

    return step
