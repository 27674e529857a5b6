"""What is trained on what: from a config and a collection to first values, objective and batches."""

import math
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int32

from lookalike.core.errors import CollectionError, RunError
from lookalike.core.files import fingerprint
from lookalike.core.shapes import Ids, l2_normalize
from lookalike.data.batches import batches
from lookalike.data.collection import Collection
from lookalike.data.sampling import Mixture, sampler
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, below, declared
from lookalike.encoders.encoder import Encoder
from lookalike.imaging.augment import Crop, View
from lookalike.imaging.preprocess import Preprocess
from lookalike.losses import centers_at_means
from lookalike.training.checkpoint import Facts
from lookalike.training.config import HeadConfig, Lda, Pca, PcaConfig, PixelsConfig, Random, Start
from lookalike.training.pca import Projection, lda, pca, within_classes
from lookalike.training.step import Batch, Learner, Objective, Tensors, make_objective
from lookalike.vectors.column import ensure_features
from lookalike.vectors.runtime import Embedder, combine

Features = Float32[np.ndarray, "N F"]
Labels = Int32[np.ndarray, "N"]


@dataclass(frozen=True)
class Task:
    """All that the loop needs to know of what it trains."""

    untouched: Encoder  # before anything was done to it: what training is measured against
    learner: Learner  # first values
    objective: Objective
    batches: Callable[[int], Generator[Batch, None, None]]  # endless, from behind a number of steps
    steps: int
    facts: Facts
    decays: frozenset[str]  # names of the tensors that weight decay is for
    encoder: Callable[[Learner], Encoder]  # the one that a learner is


def training_rows(collection: Collection, where: str, *, labelled: bool) -> tuple[Ids, Labels, list[str]]:
    """The rows of split "train", or all where no row has a split; with a label, if `labelled`.

    Their ids, the class of each (0 to C - 1, one for each pair of domain and label; -1: no label), the classes' names.
    CollectionError if there are none, or fewer than two classes.
    """
    table = collection.table(["id", "label", "domain", "split"], where or None)
    label, domain, split = (table[name].to_pylist() for name in ("label", "domain", "split"))
    names = ["" if a is None else f"{b or ''}\t{a}" for a, b in zip(label, domain, strict=True)]
    wanted = {"train"} if any(collection.table(["split"])["split"].to_pylist()) else set(split)
    keep = [i for i, name in enumerate(names) if split[i] in wanted and (name or not labelled)]
    used = sorted({names[i] for i in keep} - {""})
    if not keep or (labelled and len(used) < 2):
        raise CollectionError(
            f"`{collection.path}` has {len(keep)} rows of {len(used)} classes to learn from; "
            "two classes are the least.",
            hint=f"`lookalike info {collection.path}` counts rows by split; labels come with `lookalike prepare`",
        )
    code = {name: place for place, name in enumerate(used)}
    return table["id"].to_numpy()[keep], np.array([code.get(names[i], -1) for i in keep], np.int32), used


def cached_features(
    embedder: Embedder, collection: Collection, ids: Ids, mirror: bool
) -> tuple[Features, Features | None]:
    """Features of the rows `ids`, and of their mirror images if asked for; computed and stored where missing.

    In float32 on every machine, as `embedder` must be: a run must not depend on which one embedded first.
    """

    def column(name: str) -> Features:
        every, vectors = collection.vectors(name)
        return vectors[np.searchsorted(every, ids)]

    features, *mirrored = map(column, ensure_features(embedder, collection, mirror))
    return features, mirrored[0] if mirror else None


def closed_form(config: PcaConfig) -> tuple[Encoder, Encoder]:
    """The untouched encoder, and the one with the projection that `config` asks for."""
    collection, untouched = Collection.open(config.data), Encoder.load(config.model)
    labelled = isinstance(config.fit, Lda) or config.fit.within > 0
    ids, label, _ = training_rows(collection, config.where, labelled=labelled)
    features = cached_features(Embedder.of(untouched, path=config.model), collection, ids, config.mirror)
    projection = _start(config.fit, combine(*features), label, config.dimension, seed=0)  # draws nothing
    return untouched, _projected(untouched, projection, config.mirror)


def make_task(config: HeadConfig | PixelsConfig) -> Task:
    """A projection on cached features of `config.model`, or a whole encoder on images: new, or `config.model` tuned."""
    collection = Collection.open(config.data)
    ids, label, names = training_rows(collection, config.where, labelled=True)
    steps = config.steps or math.ceil(config.epochs * len(ids) / config.batch)
    if steps < 1:
        raise RunError(f"Training for {config.epochs} epochs is no step at all.", hint="give `--epochs` or `--steps`")
    if isinstance(config, PixelsConfig) and not config.model:
        untouched = first = _new_encoder(config)
        shape = (len(names), config.centers, config.dimension)
        centers = jax.random.normal(jax.random.key(config.seed + 1), shape) / config.dimension**0.5
    else:
        untouched = Encoder.load(config.model)
        mirror = config.mirror if isinstance(config, HeadConfig) else untouched.config.mirror
        cached = cached_features(Embedder.of(untouched, path=config.model), collection, ids, mirror)
        first, embedding = _begun(config, untouched, combine(*cached), label, mirror)
        centers = centers_at_means(embedding, label, config.centers, config.seed)
    tensors, known = first.tensors, declared(first.config)
    tower: Tensors = {}
    if isinstance(config, HeadConfig):
        objective, stream = make_objective(config), partial(_feature_batches, config, *cached, label)
    else:
        tower = {n: t for n, t in tensors.items() if n.startswith("tower.") and known[n].trained}
        running = replace(first, dtype=config.dtype, remat=config.remat)
        objective = make_objective(config, lambda learned, images: _with(running, learned).features(images))
        stream = partial(_image_batches, config, collection, ids, label, first.config.preprocess.size)
    facts: Facts = {
        "steps": steps,
        "classes": len(names),
        "rows": len(ids),
        "content": fingerprint(ids.tobytes(), label.tobytes(), *names),
        "model": untouched.fingerprint,
    }
    return Task(
        untouched,
        Learner(tower, below("projection", tensors), {"weight": centers}),
        objective,
        stream,
        steps,
        facts,
        frozenset(name for name, tensor in known.items() if tensor.decays),
        lambda learner: _with(first, learner.tower | {f"projection.{n}": t for n, t in learner.projection.items()}),
    )


def _new_encoder(config: PixelsConfig) -> Encoder:
    size, features = config.size, config.tower.features
    preprocess = Preprocess(size, "squash", size, "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    projection = ProjectionConfig("linear", features, config.dimension, l2_normalize_input=True)
    return Encoder.init(EncoderConfig(config.tower, "mean", preprocess, projection), jax.random.key(config.seed))


def _begun(
    config: HeadConfig | PixelsConfig, untouched: Encoder, features: Features, label: Labels, mirror: bool
) -> tuple[Encoder, Float32[np.ndarray, "N D"]]:
    """A given encoder with the projection that it has before the first step, and the embeddings of `features` then."""

    def project(weight: np.ndarray, bias: np.ndarray) -> Float32[np.ndarray, "N D"]:
        return l2_normalize(features) @ weight + bias

    own, first = untouched.config.projection, untouched
    if isinstance(config, HeadConfig):
        weight, bias = _start(config.start, features, label, config.dimension, config.seed)
        size = np.sqrt(np.square(project(weight, bias)).sum(axis=1).mean()) or np.float32(1.0)  # all may be zeros
        # So that a learning rate means the same for each start.
        first = _projected(untouched, (weight / size, bias / size), mirror)
    elif (own.kind, own.dimension, own.l2_normalize_input) != ("linear", config.dimension, True):
        first = _projected(untouched, pca(features, config.dimension, -0.125), mirror)
    weight, bias = (np.asarray(first.tensors[f"projection.{part}"]) for part in ("weight", "bias"))
    return first, l2_normalize(project(weight, bias))


def _start(start: Start, features: Features, label: Labels, dimension: int, seed: int) -> Projection:
    match start:
        case Pca():
            metric = within_classes(features, label, start.within, start.shrinkage) if start.within else None
            return pca(features, dimension, start.power, metric)
        case Lda():
            return lda(features, label, dimension, start.shrinkage)
        case Random():
            noise = np.random.default_rng(seed).standard_normal((features.shape[1], dimension), np.float32)
            return noise / np.float32(dimension**0.5), np.zeros(dimension, np.float32)


def _projected(encoder: Encoder, projection: Projection, mirror: bool) -> Encoder:
    """`encoder` with this projection in the place of its own."""
    weight, bias = map(jnp.asarray, projection)
    kind = ProjectionConfig("linear", weight.shape[0], weight.shape[1])
    named = replace(encoder, config=replace(encoder.config, projection=kind, mirror=mirror))
    return _with(named, {"projection.weight": weight, "projection.bias": bias})


def _with(encoder: Encoder, learned: Tensors) -> Encoder:
    return replace(encoder, tensors={**encoder.tensors, **learned})


def _feature_batches(
    config: HeadConfig, features: Features, mirrored: Features | None, label: Labels, start: int
) -> Generator[Batch, None, None]:
    draw = sampler(Mixture(classes=config.sample), label, np.zeros_like(label), config.batch, config.seed)
    for step in count(start):
        at = draw(step)
        yield Batch(features[at], None if mirrored is None else mirrored[at], label[at])


def _image_batches(
    config: PixelsConfig, collection: Collection, ids: Ids, label: Labels, size: int, start: int
) -> Generator[Batch, None, None]:
    augment = config.augment
    view = View(size, (Crop(size, augment.area), augment.flip, augment.color, augment.erase))
    source = batches(
        collection,
        ids,
        label,
        np.zeros_like(label),
        batch=config.batch,
        seed=config.seed,
        start=start,
        mixture=Mixture(classes=config.sample),
        views=[view],
    )
    with closing(source):
        for images, labels, _ in source:
            yield Batch(images[0], None, labels)
