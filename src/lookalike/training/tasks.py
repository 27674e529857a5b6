"""What is trained on what: from a config and a collection to first values, objective and batches."""

import math
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32, UInt8

from lookalike.core.arrays import l2_normalize
from lookalike.core.errors import CollectionError, RunError
from lookalike.core.files import fingerprint
from lookalike.core.shapes import Ids
from lookalike.data.batches import batches
from lookalike.data.collection import Collection
from lookalike.data.sampling import group, positions
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, below, declared
from lookalike.encoders.encoder import Encoder
from lookalike.imaging.augment import Crop
from lookalike.imaging.preprocess import Preprocess
from lookalike.losses import centers_at_means
from lookalike.training.checkpoint import Facts
from lookalike.training.config import HeadConfig, Lda, Pca, PcaConfig, PixelsConfig, Random, Start
from lookalike.training.pca import Projection, lda, pca, within_classes
from lookalike.training.state import Learner, Tensors
from lookalike.training.step import FeatureBatch, ImageBatch, Objective, head_objective, pixels_objective
from lookalike.vectors.column import ensure_features
from lookalike.vectors.runtime import Embedder, combine

Features = Float32[np.ndarray, "N F"]


@dataclass(frozen=True)
class Rows:
    """The rows that are learned from."""

    ids: Ids
    label: Int32[np.ndarray, "N"]
    """The class of each row, 0 to C - 1: one class for each pair of domain and label; -1 without a label."""
    names: tuple[str, ...]
    """Domain and label of each class."""


@dataclass(frozen=True)
class Task:
    """All that the loop needs to know of what it trains."""

    untouched: Encoder
    """The encoder before anything was done to it: what training is measured against."""
    learner: Learner
    """First values."""
    objective: Objective[Any]
    batches: Callable[[int], Generator[FeatureBatch | ImageBatch, None, None]]
    """The endless stream of batches behind a number of steps; a function of config and step."""
    steps: int
    facts: Facts
    decays: frozenset[str]
    """Names of the tensors that weight decay is for."""
    encoder: Callable[[Learner], Encoder]
    """The encoder that a learner is."""


def training_rows(collection: Collection, where: str, *, labelled: bool) -> Rows:
    """The rows of split "train", or all where no row has a split; with a label, if `labelled`.

    Raises:
        CollectionError: There are none, or fewer than two classes.
    """
    table = collection.table(["id", "label", "domain", "split"], where or None)
    split, label = np.array(table["split"].to_pylist(), object), np.array(table["label"].to_pylist(), object)
    keep = split == "train" if any(collection.table(["split"])["split"].to_pylist()) else np.ones(len(split), bool)
    known = np.array([text is not None for text in label], bool)
    keep &= known | (not labelled)
    names = [f"{domain or ''}\t{text}" for domain, text in zip(table["domain"].to_pylist(), label, strict=True)]
    classed = np.flatnonzero(keep & known).tolist()
    used = sorted({names[i] for i in classed})  # by hand: an array of texts is as wide as the longest of them
    code = {name: place for place, name in enumerate(used)}
    full = np.full(len(label), -1, np.int32)
    full[classed] = [code[names[i]] for i in classed]
    if not keep.any() or (labelled and len(used) < 2):
        raise CollectionError(
            f"`{collection.path}` has {int(keep.sum())} rows of {len(used)} classes to learn from; "
            "two classes are the least.",
            hint=f"`lookalike info {collection.path}` counts rows by split; labels come with `lookalike prepare`",
        )
    return Rows(table["id"].to_numpy()[keep], full[keep], tuple(used))


def cached_features(
    embedder: Embedder, collection: Collection, ids: Ids, mirror: bool
) -> tuple[Features, Features | None]:
    """Features of the rows `ids`, and of their mirror images if asked for; computed and stored where missing.

    In float32 on every machine, as `embedder` must be: a run must not depend on which one embedded first.
    """
    names = ensure_features(embedder, collection, mirror)

    def column(name: str) -> Features:
        every, vectors = collection.vectors(name)
        return vectors[np.searchsorted(every, ids)]

    return column(names[0]), column(names[1]) if mirror else None


def projected(
    encoder: Encoder,
    weight: Float32[Array | np.ndarray, "F D"],
    bias: Float32[Array | np.ndarray, "D"],
    mirror: bool,
) -> Encoder:
    """`encoder` with this projection in the place of its own."""
    tower = {name: tensor for name, tensor in encoder.tensors.items() if name.startswith("tower.")}
    projection = ProjectionConfig("linear", weight.shape[0], weight.shape[1], l2_normalize_input=True)
    config = replace(encoder.config, projection=projection, mirror=mirror)
    return Encoder(config, {**tower, "projection.weight": jnp.asarray(weight), "projection.bias": jnp.asarray(bias)})


def closed_form(config: PcaConfig) -> tuple[Encoder, Encoder]:
    """The untouched encoder, and the one with the projection that `config` asks for."""
    collection, untouched = Collection.open(config.data), Encoder.load(config.model)
    rows = training_rows(collection, config.where, labelled=isinstance(config.fit, Lda) or config.fit.within > 0)
    embedder = Embedder.of(untouched, path=config.model)
    features = combine(*cached_features(embedder, collection, rows.ids, config.mirror))
    weight, bias = _start(config.fit, features, rows.label, config.dimension, seed=0)  # draws nothing
    return untouched, projected(untouched, weight, bias, config.mirror)


def head_task(config: HeadConfig) -> Task:
    """A projection on the cached features of `config.model`."""
    collection, untouched = Collection.open(config.data), Encoder.load(config.model)
    rows = training_rows(collection, config.where, labelled=True)
    embedder = Embedder.of(untouched, path=config.model)
    features, mirrored = cached_features(embedder, collection, rows.ids, config.mirror)
    mean = combine(features, mirrored)
    weight, bias = _start(config.start, mean, rows.label, config.dimension, config.seed)
    size = np.sqrt(np.square(l2_normalize(mean) @ weight + bias).sum(axis=1).mean()) or np.float32(1.0)
    weight, bias = weight / size, bias / size  # so that a learning rate means the same for each; features may be zeros
    steps, groups = _steps(config, len(rows.ids)), group(rows.label)

    def stream(start: int) -> Generator[FeatureBatch, None, None]:
        for step in count(start):
            at = positions(config.sample, groups, config.batch, config.seed, step)
            both = (jnp.asarray(features[at]), None if mirrored is None else jnp.asarray(mirrored[at]))
            yield FeatureBatch(*both, jnp.asarray(rows.label[at]))

    return Task(
        untouched,
        _learner(config, {}, weight, bias, mean, rows.label),
        head_objective(config),
        stream,
        steps,
        _facts(rows, untouched, steps),
        frozenset({"projection.weight"}),
        lambda learner: projected(untouched, learner.projection["weight"], learner.projection["bias"], config.mirror),
    )


def pixels_task(config: PixelsConfig) -> Task:
    """A whole encoder on images: new, or `config.model` tuned."""
    collection = Collection.open(config.data)
    rows = training_rows(collection, config.where, labelled=True)
    untouched = Encoder.load(config.model) if config.model else _new_encoder(config)
    first, learner = _first_pixels(config, untouched, collection, rows)
    fixed, steps = _trained(first, learns=False), _steps(config, len(rows.ids))

    def tower_features(tower: Tensors, images: UInt8[Array, "B S S 3"]) -> Float32[Array, "B F"]:
        return replace(first, tensors={**fixed, **tower}, dtype=config.dtype, remat=config.remat).features(images)

    def stream(start: int) -> Generator[ImageBatch, None, None]:
        augment, size = config.augment, first.config.preprocess.size
        source = batches(
            collection,
            rows.ids,
            rows.label,
            batch=config.batch,
            seed=config.seed,
            start=start,
            sample=config.sample,
            size=size,
            augments=(Crop(size, augment.area), augment.flip, augment.color, augment.erase),
        )
        with closing(source):
            for batch in source:
                yield ImageBatch(jnp.asarray(batch.images), jnp.asarray(batch.labels))

    return Task(
        untouched,
        learner,
        pixels_objective(config, tower_features),
        stream,
        steps,
        _facts(rows, untouched, steps),
        frozenset(name for name, tensor in declared(first.config).items() if tensor.decays),
        lambda learner: _assembled(first, fixed, learner.tower, learner.projection),
    )


def _new_encoder(config: PixelsConfig) -> Encoder:
    features = config.tower.features
    encoder = EncoderConfig(
        tower=config.tower,
        pooling="mean",
        preprocess=Preprocess(config.size, "squash", config.size, "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        projection=ProjectionConfig("linear", features, config.dimension, l2_normalize_input=True),
    )
    return Encoder.init(encoder, jax.random.key(config.seed))


def _first_pixels(
    config: PixelsConfig, untouched: Encoder, collection: Collection, rows: Rows
) -> tuple[Encoder, Learner]:
    """The encoder before the first step, and the learner: a given tower starts with centers at the class means."""
    if not config.model:
        shape = (len(rows.names), config.centers, config.dimension)
        centers = jax.random.normal(jax.random.key(config.seed + 1), shape) / config.dimension**0.5
        return untouched, Learner(_trained(untouched), below("projection", untouched.tensors), {"weight": centers})
    embedder = Embedder.of(untouched, path=config.model)
    mean = combine(*cached_features(embedder, collection, rows.ids, untouched.config.mirror))
    own = untouched.config.projection
    first = untouched
    if (own.kind, own.dimension, own.l2_normalize_input) != ("linear", config.dimension, True):
        first = projected(untouched, *pca(mean, config.dimension, -0.125), untouched.config.mirror)
    weight, bias = (np.asarray(first.tensors[f"projection.{part}"]) for part in ("weight", "bias"))
    return first, _learner(config, _trained(first), weight, bias, mean, rows.label)


def _learner(
    config: HeadConfig | PixelsConfig,
    tower: Tensors,
    weight: Float32[np.ndarray, "F D"],
    bias: Float32[np.ndarray, "D"],
    features: Features,
    label: Int32[np.ndarray, "N"],
) -> Learner:
    embedding = l2_normalize(l2_normalize(features) @ weight + bias)
    projection = {"weight": jnp.asarray(weight), "bias": jnp.asarray(bias)}
    return Learner(tower, projection, {"weight": centers_at_means(embedding, label, config.centers, config.seed)})


def _start(start: Start, features: Features, label: Int32[np.ndarray, "N"], dimension: int, seed: int) -> Projection:
    match start:
        case Pca():
            metric = within_classes(features, label, start.within, start.shrinkage) if start.within else None
            return pca(features, dimension, start.power, metric)
        case Lda():
            return lda(features, label, dimension, start.shrinkage)
        case Random():
            noise = np.random.default_rng(seed).standard_normal((features.shape[1], dimension), np.float32)
            return noise / np.float32(dimension**0.5), np.zeros(dimension, np.float32)


def _steps(config: HeadConfig | PixelsConfig, rows: int) -> int:
    steps = config.steps or math.ceil(config.epochs * rows / config.batch)
    if steps < 1:
        raise RunError(f"Training for {config.epochs} epochs is no step at all.", hint="give `--epochs` or `--steps`")
    return steps


def _facts(rows: Rows, encoder: Encoder, steps: int) -> Facts:
    return {
        "steps": steps,
        "classes": len(rows.names),
        "rows": len(rows.ids),
        "content": fingerprint(rows.ids.tobytes(), rows.label.tobytes(), *rows.names),
        "model": encoder.fingerprint,
    }


def _trained(encoder: Encoder, learns: bool = True) -> Tensors:
    """The tower's tensors that learn, by name, or those that do not: the stored statistics of batch norms."""
    known = declared(encoder.config)
    return {n: t for n, t in encoder.tensors.items() if n.startswith("tower.") and known[n].trained == learns}


def _assembled(first: Encoder, fixed: Tensors, tower: Tensors, projection: Tensors) -> Encoder:
    """`first` with what was learned in place of its own."""
    named = {f"projection.{part}": tensor for part, tensor in projection.items()}
    return replace(first, tensors={**fixed, **tower, **named})
