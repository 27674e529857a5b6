"""lookalike train: a recipe, with flags over its leaves, becomes an encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import make_dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from lookalike.core.config import did_you_mean, option, parse
from lookalike.core.errors import UsageError
from lookalike.core.shapes import Ids, Vectors

if TYPE_CHECKING:
    from lookalike.data.collection import Collection
    from lookalike.encoders.encoder import Encoder
    from lookalike.training.config import TrainConfig
    from lookalike.training.loop import Evaluate
    from lookalike.vectors.runtime import Embedder

_USAGE = """usage: lookalike train RECIPE --data COLL --model MODEL --out RUN [options]

Make an encoder from a collection, following a recipe.

{recipes}

`lookalike train RECIPE --help` lists the recipe's options and what it sets them to.
A run that was stopped goes on with the same command."""


def configure(argv: list[str]) -> TrainConfig:
    """The recipe that `argv` names, with its flags applied; UsageError if one is unknown, or missing."""
    from lookalike.recipes import ABOUT, RECIPES

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
    prog = f"lookalike train {name}"
    config = _parsed(RECIPES[name], argv[1:], prog, f"Make {ABOUT[name]}.")
    new = "new" in config.names
    if new and config.model:
        raise UsageError(
            f"`{name}` makes a new tower, and `--model` gives one.",
            hint=f"`lookalike train tune --model {config.model} ...` tunes a given one",
        )
    needed = ["data", "out"] if new else ["data", "model", "out"]
    if missing := [f"`--{field}`" for field in needed if not getattr(config, field)]:
        raise UsageError(f"Missing: {', '.join(missing)}.", hint=f"`{prog} --help` lists the options")
    return config


def _parsed(recipe: TrainConfig, argv: list[str], prog: str, description: str) -> TrainConfig:
    """`recipe` with flags applied: those of a stage begin with its name, unless it is the only one that learns."""
    alone = len({*recipe.names} - {"new"}) == 1
    stages = zip(recipe.names, recipe.stages, strict=True)
    flags = make_dataclass(
        "Flags",
        [
            ("run", type(recipe), option(default=recipe, flat=True)),
            *((name, type(stage), option(default=stage, flat=alone and name != "new")) for name, stage in stages),
        ],
        frozen=True,
    )
    found: Any = parse(flags, argv, prog=prog, description=description, default=flags())
    config: TrainConfig = replace(found.run, stages=tuple(getattr(found, name) for name in recipe.names))
    return config


def main(config: TrainConfig) -> None:
    """Train, with every encoder measured on split "test" if the collection has one; print where the encoder is."""
    from lookalike.training.loop import train

    train(config, evaluation(config))
    print(f"{config.out}/model")


def evaluation(config: TrainConfig) -> Evaluate | None:
    """How an encoder does on the classes of split "test", which training never sees; None if there are none.

    Encoders on the tower as it was given share its cached features.
    """
    from lookalike.data.collection import Collection
    from lookalike.evaluation.protocols import COLUMNS, evaluate
    from lookalike.vectors.runtime import load

    collection = Collection.open(config.data)
    rows = collection.table(COLUMNS)
    rows = rows.take(np.flatnonzero([split == "test" for split in rows["split"].to_pylist()]))
    if not len(rows):
        return None
    ids = rows["id"].to_numpy()
    given = load(config.model, precision="float32") if config.model else None
    cached, from_images = _from_features(config, given, ids), _from_images(collection, ids)

    def scores(encoder: Encoder) -> Mapping[str, float]:
        known = given is not None and encoder.features_fingerprint == given.features_fingerprint
        return evaluate((cached if known else from_images)(encoder), rows, split="test").metrics

    return scores


def _from_features(config: TrainConfig, given: Embedder | None, ids: Ids) -> Callable[[Encoder], Vectors]:
    """Embeddings of the rows `ids` from cached features, which encoders that differ in their projection share."""
    from lookalike.data.collection import Collection
    from lookalike.training.rows import cached_features
    from lookalike.vectors.runtime import combine

    @cache
    def features(mirror: bool) -> Vectors:
        assert given is not None
        collection = Collection.open(config.data)  # as training left it, which may have added the column
        return combine(*cached_features(given, collection, ids, mirror))

    return lambda encoder: np.asarray(encoder.project(features(encoder.config.mirror)))


def _from_images(collection: Collection, ids: Ids) -> Callable[[Encoder], Vectors]:
    """Embeddings of the rows `ids` from their images, read a batch at a time; an encoder is compiled once."""
    import jax

    from lookalike.encoders.encoder import Encoder
    from lookalike.training.rows import filled, stored_images

    embed = jax.jit(Encoder.__call__)

    def vectors_of(encoder: Encoder) -> Vectors:
        images = stored_images(encoder, collection, ids)
        return np.concatenate([np.asarray(embed(encoder, filled(batch)))[: len(batch)] for batch in images])

    return vectors_of
