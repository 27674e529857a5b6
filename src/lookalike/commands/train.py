"""lookalike train: a recipe, with flags over its leaves, becomes an encoder."""

from __future__ import annotations

from dataclasses import make_dataclass, replace
from typing import TYPE_CHECKING, Any

from lookalike.core.config import did_you_mean, option, parse
from lookalike.core.errors import UsageError

if TYPE_CHECKING:
    from lookalike.training.config import TrainConfig
    from lookalike.training.measuring import Evaluate

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
        print(_USAGE.format(recipes="\n".join(f"  {recipe:<18} {line}" for recipe, line in ABOUT.items())))
        raise SystemExit(0)
    if name.startswith("-"):
        raise UsageError("A recipe comes before the options.", hint="lookalike train RECIPE --data COLL --out RUN")
    if name not in RECIPES:
        raise UsageError(
            f"There is no recipe `{name}`.{did_you_mean(name, RECIPES)}", hint=f"recipes: {', '.join(RECIPES)}"
        )
    prog = f"lookalike train {name}"
    config = _parsed(RECIPES[name], argv[1:], prog, f"{ABOUT[name][0].upper()}{ABOUT[name][1:]}.")
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
    from lookalike.core.devices import start
    from lookalike.training.config import BestConfig

    start(config.device)  # before what measures starts JAX
    if isinstance(config, BestConfig):
        from lookalike.training.best import best

        best(config, evaluation(config))
    else:
        from lookalike.training.loop import train

        train(config, evaluation(config))
    print(f"{config.out}/model")


def evaluation(config: TrainConfig) -> Evaluate | None:
    """How an encoder does on the classes of split "test", which training never sees; None if there are none."""
    from lookalike.data.collection import Collection
    from lookalike.evaluation.encoders import measure_on
    from lookalike.vectors.runtime import load

    given = load(config.model, precision="float32") if config.model else None
    measure = measure_on(Collection.open(config.data), "test", given)
    return None if measure is None else lambda encoder: measure(encoder).metrics
