"""What the steps of a stage look at: cached features, images, maps before the first trained block; and what learns."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int64

from lookalike.core.files import fingerprint, new_directory
from lookalike.core.journal import Progress
from lookalike.core.mesh import shared
from lookalike.data.batches import batches
from lookalike.data.sampling import generator, sampler
from lookalike.encoders.encoder import Encoder
from lookalike.losses import Projecting, first_memory
from lookalike.losses.projection import Memory as Statistics
from lookalike.training.config import HeadStage, StepStage, TrainConfig, TuneStage
from lookalike.training.learner import Division, Factor, Fixed, Tensors, divide, stacked
from lookalike.training.rows import Rows, mean_of
from lookalike.training.step import Features
from lookalike.vectors.runtime import BATCH

COPY = "rows.npy"
Inputs = Generator[tuple[Any, Int64[np.ndarray, "B"]], None, None]  # of each step, and the positions of its rows
Items = Int64[np.ndarray, "P R"]  # the places in a step of what is wanted of it, part by part


@dataclass(frozen=True)
class Part:
    """What the steps of a stage do with a tower."""

    features: Features  # of a batch's inputs
    learned: Tensors
    fixed: Fixed
    factors: Mapping[str, Factor]  # of learning rates


@dataclass(frozen=True)
class Source:
    """What goes into the steps of a stage, and what is made of it."""

    inputs: Callable[[int, Int64[np.ndarray, "B"]], Inputs]  # of these items of a step, from behind so many steps
    part: Part
    tower: Callable[[Tensors, Fixed], Tensors]  # the tower's tensors when this is what was learned, and what stayed


def part_of(stage: StepStage, division: Division | None) -> Part:
    """Of a tower so divided; None: it stays as it is, and inputs are its features."""
    if division is None:
        return Part(lambda _learned, _fixed, x: x, {}, Fixed({}, {}), {})
    first = division.learned if stage.geometry.weights.weight else None
    fixed = Fixed({} if stage.copies else division.fixed.front, division.fixed.back, first)
    features = division.features_of_maps if stage.copies else division.features
    return Part(features, division.learned, fixed, division.factors)


def head_source(
    config: TrainConfig, stage: HeadStage, rows: Rows, encoder: Encoder, features: np.ndarray, run: Path
) -> Source:
    """Cached features [N V F]: of the images, of their mirror images if these count, and of augmented copies."""
    columns = [features[:, i] for i in range(features.shape[1])]
    columns += _copies(config, stage, rows, encoder, run, (Encoder.features, encoder), np.float32)

    def inputs(start: int, items: Int64[np.ndarray, "B"]) -> Inputs:
        draw = sampler(stage.mixture, rows.label, rows.domain, stage.batch, config.seed)
        for step in count(start):
            at = draw(step)[items]
            yield np.stack([column[at] for column in columns], axis=1), at

    return Source(inputs, part_of(stage, None), lambda _learned, _fixed: {})


def tune_source(config: TrainConfig, stage: TuneStage, rows: Rows, encoder: Encoder, run: Path) -> Source:
    """Images as they are augmented for each step; or, of cached copies, the maps before the first trained block."""
    division = divide(encoder, stage.trained, config.seed)
    before = {name: tensor for name, tensor in encoder.tensors.items() if name.startswith("tower.")}

    def tower(learned: Tensors, fixed: Fixed) -> Tensors:
        tensors = division.merged(learned, fixed._replace(front=fixed.front or division.fixed.front))
        share = stage.interpolate
        if share == 1.0:
            return tensors
        return {name: (1.0 - share) * _beside(before[name], x) + share * x for name, x in tensors.items()}

    if not stage.copies:
        images = _images(config, stage, rows, encoder.config.preprocess.size)
        return Source(images, part_of(stage, division), tower)
    columns = _copies(config, stage, rows, encoder, run, (division.maps, division.fixed.front), np.float16)

    def inputs(start: int, items: Int64[np.ndarray, "B"]) -> Inputs:
        draw = sampler(stage.mixture, rows.label, rows.domain, stage.batch, config.seed)
        for step in count(start):
            at = draw(step)[items]
            which = generator(config.seed, step, 0, -2).integers(len(columns), size=stage.batch)[items]
            yield np.stack([columns[c][i] for c, i in zip(which, at, strict=True)]), at

    return Source(inputs, part_of(stage, division), tower)


def _beside(x: Any, other: Any) -> Any:
    """`x` where `other` lies."""
    return jax.device_put(x, other.sharding) if isinstance(other, jax.Array) else x


def first_statistics(config: Projecting, width: int, features: Any) -> Statistics:
    """Those that a batch norm of features of length 1 begins with: of all rows, where their features are known."""
    if not config.batch_norm or features is None:
        return first_memory(config, width)
    mean = mean_of(features)
    unit = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return {"mean": jnp.asarray(unit.mean(axis=0)), "variance": jnp.asarray(unit.var(axis=0))}


def _images(config: TrainConfig, stage: TuneStage, rows: Rows, size: int) -> Callable[[int, Any], Inputs]:
    views = (stage.augment.view(size),) * (2 if stage.geometry.views.weight else 1)

    def inputs(start: int, items: Int64[np.ndarray, "B"]) -> Inputs:
        draw = sampler(stage.mixture, rows.label, rows.domain, stage.batch, config.seed)
        own = partial(batches, batch=stage.batch, seed=config.seed, start=start, views=views, items=items)
        with closing(own(rows.collection, rows.ids, draw)) as stream:
            for images, at in stream:
                yield images[0] if len(views) == 1 else np.stack(images, axis=1), at

    return inputs


def _copies(
    config: TrainConfig,
    stage: StepStage,
    rows: Rows,
    encoder: Encoder,
    run: Path,
    make: tuple[Callable[[Any, Any], jax.Array], Any],
    dtype: Any,
) -> Sequence[np.ndarray]:
    """What `make`, a function and its parameters, says of augmented copies of all rows.

    Each copy is in a file below `run`; those that are whole serve.
    """
    if not stage.copies:
        return []
    running = cache(lambda: shared(*make, stacked(encoder.config)))
    trained = stage.trained if isinstance(stage, TuneStage) else None  # maps are those before the first such block
    told = repr((stage.augment, config.seed, encoder.dtype, trained))
    key = fingerprint(rows.content, encoder.fingerprint, told, str(dtype))
    found, size = [], encoder.config.preprocess.size
    with Progress("copies", "images", stage.copies * len(rows.ids)) as bar:
        for number in range(stage.copies):
            path = run / "copies" / key[:16] / str(number)
            if not path.exists():
                with new_directory(path, "copy") as directory:
                    images = _seen(config, stage, rows, size, number)
                    _write(directory / COPY, map(running(), images), len(rows.ids), dtype)
            found.append(np.load(path / COPY, mmap_mode="r"))
            bar.advance(len(rows.ids))
    return found


def _seen(
    config: TrainConfig, stage: HeadStage | TuneStage, rows: Rows, size: int, number: int
) -> Iterator[np.ndarray]:
    """All rows' images once, in order, as augmented for copy `number`; the last batch is filled up."""
    steps = -(-len(rows.ids) // BATCH)

    def draw(step: int) -> Int64[np.ndarray, "B"]:
        first = (step - number * steps) * BATCH
        return np.minimum(np.arange(first, first + BATCH), len(rows.ids) - 1)

    views, start = (stage.augment.view(size),), number * steps
    stream = batches(rows.collection, rows.ids, draw, batch=BATCH, seed=config.seed, start=start, views=views)
    with closing(stream):
        for images, _ in islice(stream, steps):
            yield images[0]


def _write(path: Path, parts: Iterable[Any], total: int, dtype: Any) -> None:
    """One array [N ...] of `total` rows, part by part, so that memory never holds it."""
    array: np.memmap[Any, Any] | None = None
    for number, part in enumerate(map(np.asarray, parts)):
        if array is None:
            array = np.lib.format.open_memmap(path, "w+", dtype, (total, *part.shape[1:]))
        place = array[number * len(part) : (number + 1) * len(part)]
        place[:] = part[: len(place)]
    assert array is not None
    array.flush()
