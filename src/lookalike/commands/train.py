"""lookalike train: a recipe, with flags over its leaves, becomes an encoder."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from lookalike.core.config import did_you_mean, parse
from lookalike.core.errors import UsageError
from lookalike.core.shapes import Ids, Vectors

if TYPE_CHECKING:
    from lookalike.data.collection import Collection
    from lookalike.encoders.encoder import Encoder
    from lookalike.training.config import TrainConfig
    from lookalike.training.loop import Evaluate

_USAGE = """usage: lookalike train RECIPE --data COLL [--model MODEL] --out RUN [options]

Make an encoder from a collection, following a recipe.

{recipes}

`lookalike train RECIPE --help` lists the recipe's options and what it sets them to.
A run that was stopped goes on with the same command."""


def configure(argv: list[str]) -> TrainConfig:
    """The recipe that `argv` names, with its flags applied; UsageError if one is unknown, or missing."""
    from lookalike.recipes import ABOUT, RECIPES
    from lookalike.training.config import PixelsConfig

    name = argv[0] if argv else "--help"
    if name in ("-h", "--help"):
        print(_USAGE.format(recipes="\n".join(f"  {recipe:<9} {line}" for recipe, line in ABOUT.items())))
        raise SystemExit(0)
    if name.startswith("-"):
        raise UsageError("A recipe comes before the options.", hint="lookalike train RECIPE --data COLL --out RUN")
    if name not in RECIPES:
        raise UsageError(
            f"There is no recipe `{name}`.{did_you_mean(name, RECIPES)}", hint=f"recipes: {', '.join(RECIPES)}"
        )
    recipe, prog = RECIPES[name], f"lookalike train {name}"
    config = parse(type(recipe), argv[1:], prog=prog, description=f"Make {ABOUT[name]}.", default=recipe)
    needed = ["data", "out"] if isinstance(config, PixelsConfig) else ["data", "model", "out"]
    if missing := [f"`--{field}`" for field in needed if not getattr(config, field)]:
        raise UsageError(f"Missing: {', '.join(missing)}.", hint=f"`{prog} --help` lists the options")
    return config


def main(config: TrainConfig) -> None:
    """Train, with every encoder measured on split "test" if the collection has one; print where the encoder is."""
    from lookalike.training.loop import train

    train(config, evaluation(config))
    print(f"{config.out}/model")


def evaluation(config: TrainConfig) -> Evaluate | None:
    """How an encoder does on the classes of split "test", which training never sees; None if there are none."""
    from lookalike.data.collection import Collection
    from lookalike.evaluation.protocols import COLUMNS, evaluate
    from lookalike.training.config import PixelsConfig

    collection = Collection.open(config.data)
    rows = collection.table(COLUMNS)
    rows = rows.take(np.flatnonzero([split == "test" for split in rows["split"].to_pylist()]))
    if not len(rows):
        return None
    ids = rows["id"].to_numpy()
    vectors_of = _from_images(collection, ids) if isinstance(config, PixelsConfig) else _from_features(config, ids)
    return lambda encoder: evaluate(vectors_of(encoder), rows, split="test").metrics


def _from_features(config: TrainConfig, ids: Ids) -> Callable[[Encoder], Vectors]:
    """Embeddings of the rows `ids` from cached features, which encoders that differ in their projection share."""
    from lookalike.data.collection import Collection
    from lookalike.training.tasks import cached_features
    from lookalike.vectors.runtime import combine, load

    @cache
    def features(mirror: bool) -> Vectors:
        collection = Collection.open(config.data)  # as training left it, which may have added the column
        return combine(*cached_features(load(config.model, precision="float32"), collection, ids, mirror))

    return lambda encoder: np.asarray(encoder.project(features(encoder.config.mirror)))


def _from_images(collection: Collection, ids: Ids) -> Callable[[Encoder], Vectors]:
    """Embeddings of the rows `ids` from their images, read a batch at a time; an encoder is compiled once."""
    import jax

    from lookalike.encoders.encoder import Encoder
    from lookalike.imaging.decode import decode
    from lookalike.vectors.runtime import BATCH, prepared

    embed = jax.jit(Encoder.__call__)

    def vectors_of(encoder: Encoder) -> Vectors:
        places = range(0, len(ids), BATCH)
        data = (collection.take(ids[i : i + BATCH], ["image"])["image"].to_pylist() for i in places)
        parts = []
        for images in prepared(data, lambda image: encoder.config.preprocess(decode(image))):
            full = np.concatenate([images, np.zeros((BATCH - len(images), *images.shape[1:]), np.uint8)])
            parts.append(np.asarray(embed(encoder, full))[: len(images)])
        return np.concatenate(parts)

    return vectors_of
