"""What a stage trains on what: from its config and an encoder to first values, objective and batches."""

import math
import shlex
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int64

from lookalike.core.errors import CollectionError, RunError, UsageError
from lookalike.core.journal import note
from lookalike.core.mesh import born, make_mesh, whole
from lookalike.core.shapes import l2_normalize
from lookalike.data.collection import Collection
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, declared
from lookalike.encoders.directory import read_model
from lookalike.encoders.encoder import Encoder, init_tensors
from lookalike.encoders.fit import adapt
from lookalike.imaging.preprocess import Preprocess
from lookalike.losses import Margin, centers_at_means, folded, memory_of, unfolded
from lookalike.losses.projection import Linear
from lookalike.losses.projection import Memory as Statistics
from lookalike.towers import ViTConfig
from lookalike.training.checkpoint import Facts
from lookalike.training.config import (
    FitStage,
    Given,
    HeadStage,
    Lda,
    NewStage,
    Pca,
    Stage,
    Start,
    StepStage,
    TrainConfig,
    TuneStage,
)
from lookalike.training.learner import Fixed, Tensors, decays, stacked
from lookalike.training.optimizer import make_optimizer
from lookalike.training.pca import Labels, Others, Projection, lda, pca, shrinkage_of, within_classes
from lookalike.training.rows import Features, Rows, features_of, mean_of, training_rows, unlabelled_rows
from lookalike.training.sources import Items, Part, Source, first_statistics, head_source, tune_source
from lookalike.training.step import Batch, Learner, Running, Step, make_objective, make_step


@dataclass(frozen=True)
class Made:
    """What a stage begins with, and leaves."""

    encoder: Encoder
    centers: Float32[Array, "C K D"] | None = None  # of all classes of the run; None: there are none yet
    path: str = ""  # the model directory that the tower is from, if it is still as it was there
    new: bool = False  # whether nothing was learned yet


@dataclass(frozen=True)
class Task:
    """All that the loop needs to know of a stage that learns step by step."""

    learner: Learner  # first values
    fixed: Fixed
    running: Running
    optimizer: optax.GradientTransformation
    step: Step
    batches: Callable[[int, Items], Generator[Batch, None, None]]  # a host's share, from behind a number of steps
    steps: int
    facts: Facts
    stacked: frozenset[str]  # names of tensors in which blocks are stacked
    made: Callable[[Learner, Running, Fixed], Made]  # what a learner is


def begun(config: TrainConfig, mesh: Mesh | None = None) -> Made:
    """What the first stage begins with: the encoder that is given, on the host, or a new one, born on the mesh.

    On neither way a device sees more of it than its part.
    """
    first = config.stages[0] if config.stages else None
    if isinstance(first, NewStage):
        made = new_config(first, config.dimension)
        draw, key = partial(init_tensors, declared(made)), jax.random.key(config.seed)
        tensors, _ = born(draw, mesh or make_mesh(), stacked(made), key)
        return Made(Encoder(made, whole(tensors)), new=True)
    return Made(Encoder(*read_model(config.model)), path=config.model)


def viewing(config: TrainConfig, made: Made) -> Made:
    """The same, looking at as many views of an image as the run does."""
    views = replace(made.encoder.config, mirror=config.mirror, zooms=config.zooms)
    return replace(made, encoder=replace(made.encoder, config=views))


def new_config(stage: NewStage, dimension: int) -> EncoderConfig:
    """The new encoder's."""
    size, features = stage.size, stage.tower.features
    preprocess = Preprocess(size, "squash", size, "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    projection = ProjectionConfig("linear", features, dimension, l2_normalize_input=True)
    return EncoderConfig(stage.tower, "mean", preprocess, projection)


def rows_of(config: TrainConfig) -> Rows:
    """The rows that the run may learn from, without labels if every stage can do without; and others that help."""
    fits = [stage.fit for stage in config.stages if isinstance(stage, FitStage)]
    without = len(fits) == len(config.stages) > 0 and all(isinstance(f, Pca) and not f.within for f in fits)
    rows = training_rows(Collection.open(config.data), config.where, labelled=not without)
    return replace(rows, others=unlabelled_rows(config.unlabelled, rows)) if config.unlabelled else rows


def closed_form(config: TrainConfig, stage: FitStage, rows: Rows, before: Made) -> Made:
    """The encoder with the projection that the stage asks for; the centers of another projection say nothing."""
    rows = rows.where(stage.only)
    features = mean_of(features_of(before.encoder, before.path, rows, config.mirror))
    others = _beside(config, rows, before)
    projection = fitted(stage.fit, features, rows.label, config.dimension, config.seed, others)
    return Made(projected(before.encoder, projection), path=before.path)


def make_task(
    config: TrainConfig,
    stage: StepStage,
    rows: Rows,
    before: Made,
    untouched: Made,
    run: Path,
    mesh: Mesh | None = None,
) -> Task:
    """A projection on cached features, or tower and projection on images; what is cached on the way lies in `run`."""
    rows = rows.where(stage.only)
    steps = steps_of(stage, len(rows.ids))
    at = resized(before, stage) if isinstance(stage, TuneStage) else before
    features = None
    if isinstance(stage, HeadStage) or _looks(config, stage, at):
        features = features_of(at.encoder, at.path, rows, config.mirror)
    first = _first(config, stage, at, features, rows)
    centers = _centers(config, stage, at, first, features, rows)
    if isinstance(stage, HeadStage):
        assert features is not None
        source = head_source(config, stage, rows, first, features, run)
    else:
        source = tune_source(config, stage, rows, first, run)
    weight, bias = (jnp.asarray(first.tensors[f"projection.{part}"]) for part in ("weight", "bias"))
    statistics = first_statistics(stage.projecting, weight.shape[0], features)
    learner, running = first_values(stage, source.part, (weight, bias), centers, statistics)
    optimizer, step = step_of(config, stage, source.part, first.config, rows.sizes, mesh)
    beside = Beside.of(config, stage, rows, untouched)

    def made(learner: Learner, running: Running, fixed: Fixed) -> Made:
        trained = learner.projection["weight"], learner.projection["bias"]
        weight, bias = folded(stage.projecting, *trained, running.projection)
        named = {"projection.weight": weight, "projection.bias": bias}
        encoder = replace(with_tensors(first, source.tower(learner.tower, fixed) | named), dtype="float32", remat=False)
        return Made(encoder, learner.centers["weight"], before.path if isinstance(stage, HeadStage) else "")

    return Task(
        learner,
        source.part.fixed,
        running,
        optimizer,
        step,
        partial(_stream, source, beside, rows),
        steps,
        {**facts_of(rows, before), "steps": steps},
        stacked(first.config),
        made,
    )


def steps_of(stage: StepStage, rows: int) -> int:
    """How many steps the stage takes with so many rows to learn from; RunError if none."""
    steps = stage.steps or math.ceil(stage.epochs * rows / stage.batch)
    if steps < 1:
        raise RunError(f"Training for {stage.epochs} epochs is no step at all.", hint="give `--epochs` or `--steps`")
    return steps


def first_values(
    stage: StepStage, part: Part, projection: Linear, centers: Float32[Array, "C K D"], statistics: Statistics
) -> tuple[Learner, Running]:
    """What is trained, and what follows the steps, before the first of them; UsageError: a prefix is too long."""
    dimension = projection[0].shape[1]
    if any(prefix > dimension for prefix in stage.projecting.nested):
        raise UsageError(
            f"`nested` of Projecting is {stage.projecting.nested}; expected prefixes of {dimension} numbers.",
            hint="smaller ones, or a larger `--dimension`",
        )
    weight, bias = unfolded(stage.projecting, *projection, statistics)
    learner = Learner(part.learned, {"weight": weight, "bias": bias}, {"weight": centers})
    return learner, Running(memory_of(stage.loss) if isinstance(stage.loss, Margin) else {}, statistics)


def step_of(
    config: TrainConfig,
    stage: StepStage,
    part: Part,
    encoder: EncoderConfig,
    sizes: Int64[np.ndarray, "C"],
    mesh: Mesh | None = None,
) -> tuple[optax.GradientTransformation, Step]:
    """Optimizer and compiled step of a stage that learns from classes of these sizes."""
    rows = int(sizes.sum())
    optimizer = make_optimizer(stage.optimizer, steps_of(stage, rows), decays(encoder), part.factors)
    objective = make_objective(stage, part.features, sizes, mesh)
    return optimizer, make_step(objective, optimizer, stage, config.seed, rows / stage.batch)


def facts_of(rows: Rows, made: Made) -> Facts:
    """What is learned from, and what it begins with; a new encoder follows from the config, up to rounding."""
    found: Facts = {"classes": len(rows.classes), "rows": len(rows.ids), "content": rows.content}
    found |= {} if rows.others is None else {"unlabelled": rows.others.content}
    return found | ({} if made.new else {"model": made.encoder.fingerprint})


def resized(before: Made, stage: TuneStage) -> Made:
    """The encoder for the stage's input and patches; computing as the stage says."""
    encoder = replace(before.encoder, dtype=stage.dtype, remat=stage.remat)
    if not (stage.size or stage.stride):
        return replace(before, encoder=encoder)
    size, stride = stage.size or None, stage.stride or None
    config, tensors = adapt(encoder.config, encoder.on_host(), size=size, stride=stride)
    if config == encoder.config:
        return replace(before, encoder=encoder)
    tower = config.tower
    if isinstance(tower, ViTConfig) and (rest := (tower.size - tower.patch) % (apart := tower.stride or tower.patch)):
        note(f"Patches of {tower.patch} px, {apart} apart, leave {rest} of {tower.size} px unseen on two sides.")
    return replace(before, encoder=replace(encoder, config=config, tensors=tensors), path="")


def _looks(config: TrainConfig, stage: StepStage, before: Made) -> bool:
    """Whether first values depend on features of the images."""
    fits = isinstance(stage.start, Given) and _fits(before.encoder, config.dimension)
    return not (before.new and fits) and not (fits and _carried(stage, before))


def _fits(encoder: Encoder, dimension: int) -> bool:
    own = encoder.config.projection
    return (own.kind, own.dimension, own.l2_normalize_input) == ("linear", dimension, True)


def _carried(stage: StepStage, before: Made) -> bool:
    """Whether the centers of the stage before are this stage's."""
    return before.centers is not None and before.centers.shape[1] == stage.centers and isinstance(stage.start, Given)


def _first(config: TrainConfig, stage: StepStage, before: Made, features: Any, rows: Rows) -> Encoder:
    """The encoder with the projection that it has before the first step."""
    if isinstance(stage.start, Given) and _fits(before.encoder, config.dimension):
        return before.encoder
    start = Pca(power=-0.125) if isinstance(stage.start, Given) else stage.start
    mean = mean_of(features)
    weight, bias = fitted(start, mean, rows.label, config.dimension, config.seed, _beside(config, rows, before))
    # So that a learning rate means the same for each start; all may be zeros.
    size = np.sqrt(np.square(l2_normalize(mean) @ weight + bias).sum(axis=1).mean()) or np.float32(1.0)
    return projected(before.encoder, (weight / size, bias / size))


def _centers(
    config: TrainConfig, stage: StepStage, before: Made, first: Encoder, features: Any, rows: Rows
) -> Float32[Array, "C K D"]:
    """Those of the stage before; else each class's mean embedding; random ones for a tower that knows nothing."""
    if _carried(stage, before):
        assert before.centers is not None
        return before.centers
    if features is None:
        shape = (len(rows.classes), stage.centers, config.dimension)
        return jax.random.normal(jax.random.key(config.seed + 1), shape) / config.dimension**0.5
    weight, bias = (np.asarray(first.tensors[f"projection.{part}"]) for part in ("weight", "bias"))
    embedding = l2_normalize(l2_normalize(mean_of(features)) @ weight + bias)
    return centers_at_means(embedding, rows.label, len(rows.classes), stage.centers, config.seed)


def chooses_directions(stage: Stage) -> bool:
    """Whether its projection is, or begins as, one of the directions of greatest variance."""
    return isinstance(stage.fit if isinstance(stage, FitStage) else getattr(stage, "start", None), Pca | Given)


def _beside(config: TrainConfig, rows: Rows, before: Made) -> Features | None:
    """Features of the images that count without their labels."""
    if rows.others is None:
        return None
    return mean_of(features_of(before.encoder, before.path, rows.others, config.mirror))


def fitted(
    start: Start, features: Features, label: Labels, dimension: int, seed: int, others: Others | None = None
) -> Projection:
    """A projection without steps; `start` is not `Given`. Directions of `Pca` are those of `others` as well."""
    match start:
        case Pca():
            shrinkage = shrinkage_of(*features.shape) if start.shrinkage is None else start.shrinkage
            metric = within_classes(features, label, start.within, shrinkage) if start.within else None
            return pca(features, dimension, start.power, metric, others)
        case Lda():
            return lda(features, label, dimension, start.shrinkage)
        case _:
            noise = np.random.default_rng(seed).standard_normal((features.shape[1], dimension), np.float32)
            return noise / np.float32(dimension**0.5), np.zeros(dimension, np.float32)


def projected(encoder: Encoder, projection: Projection) -> Encoder:
    """`encoder` with this projection in the place of its own."""
    weight, bias = map(jnp.asarray, projection)
    kind = ProjectionConfig("linear", weight.shape[0], weight.shape[1])
    named = replace(encoder, config=replace(encoder.config, projection=kind))
    return with_tensors(named, {"projection.weight": weight, "projection.bias": bias})


def with_tensors(encoder: Encoder, tensors: Tensors) -> Encoder:
    """`encoder` with these tensors in the place of its own of the same names."""
    return replace(encoder, tensors={**encoder.tensors, **tensors})


@dataclass(frozen=True)
class Beside:
    """What of each row a batch has beside its inputs."""

    untouched: Features | None
    teacher: Features | None

    @classmethod
    def of(cls, config: TrainConfig, stage: StepStage, rows: Rows, untouched: Made) -> "Beside":
        """Features of the untouched tower where a stage on images holds to them; stored vectors where it names them."""
        features = teacher = None
        if holds(stage) and not untouched.new:
            features = mean_of(features_of(untouched.encoder, untouched.path, rows, config.mirror))
        if stage.geometry.vectors.weight:
            teacher = _stored(rows, stage.teacher)
        return cls(features, teacher)


def holds(stage: StepStage) -> bool:
    """Whether a stage on images looks at the features that the untouched tower has of them."""
    terms = (getattr(stage.geometry, n) for n in ("similarity", "gram", "distance", "angle", "anchor"))
    return isinstance(stage, TuneStage) and any(term.weight for term in terms)


def _stored(rows: Rows, column: str) -> Features:
    if column not in rows.collection.columns:
        raise CollectionError(
            f"`{rows.collection.path}` has no column `{column}` for `geometry.vectors` to look at.",
            hint=f"`lookalike embed {shlex.quote(rows.collection.path)} --model LARGER` makes one and says its name: "
            "--teacher NAME",
        )
    ids, vectors = rows.collection.vectors(column)
    found = np.searchsorted(ids, rows.ids)
    return vectors[found]


def _stream(source: Source, beside: Beside, rows: Rows, start: int, items: Items) -> Generator[Batch, None, None]:
    with closing(source.inputs(start, items.ravel())) as stream:
        for inputs, at in stream:
            parts = (None if each is None else each[at] for each in (beside.untouched, beside.teacher))
            batch = Batch(inputs, rows.label[at], *parts)
            yield batch if len(items) == 1 else jax.tree.map(lambda x: x.reshape(*items.shape, *x.shape[1:]), batch)
