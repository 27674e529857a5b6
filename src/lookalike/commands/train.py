"""lookalike train: a recipe, with flags over its leaves, becomes an encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lookalike.core.config import did_you_mean, option, parse
from lookalike.core.errors import UsageError
from lookalike.core.files import write_json

if TYPE_CHECKING:
    import pyarrow as pa

    from lookalike.core.shapes import Vectors
    from lookalike.encoders.encoder import Encoder
    from lookalike.training.config import TrainConfig

_USAGE = """usage: lookalike train RECIPE --data COLL --model MODEL --out RUN [options]

Make an encoder from a collection, following a recipe.

{recipes}

`lookalike train RECIPE --help` lists the recipe's options and what it sets them to.
A run that was stopped goes on with the same command."""


def configure(argv: list[str]) -> TrainConfig:
    """The recipe that `argv` names, with its flags applied; UsageError if one is unknown, or missing."""
    from lookalike.recipes import ABOUT

    name = recipe_of(argv, _USAGE, "lookalike train RECIPE --data COLL --out RUN")
    prog = f"lookalike train {name}"
    config, _ = parsed(name, argv[1:], prog, f"{ABOUT[name][0].upper()}{ABOUT[name][1:]}.")
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


def recipe_of(argv: list[str], usage: str, example: str) -> str:
    """The recipe that `argv` names; UsageError if it names none. Where it asks for help, `usage` with all of them."""
    from lookalike.recipes import ABOUT, RECIPES

    name = argv[0] if argv else "--help"
    if name in ("-h", "--help"):
        print(usage.format(recipes="\n".join(f"  {recipe:<18} {line}" for recipe, line in ABOUT.items())))
        raise SystemExit(0)
    if name.startswith("-"):
        raise UsageError("A recipe comes before the options.", hint=example)
    if name not in RECIPES:
        raise UsageError(
            f"There is no recipe `{name}`.{did_you_mean(name, RECIPES)}", hint=f"recipes: {', '.join(RECIPES)}"
        )
    return name


def parsed(name: str, argv: list[str], prog: str, description: str, own: Any = None) -> tuple[TrainConfig, Any]:
    """The recipe with flags applied: those of a stage begin with its name, unless it is the only one that takes steps;
    and `own`, a verb's own options, with theirs.
    """
    from lookalike.recipes import RECIPES
    from lookalike.training.config import FitStage, NewStage

    recipe = RECIPES[name]
    stages = list(zip(recipe.names, recipe.stages, strict=True))
    steps = [name for name, stage in stages if not isinstance(stage, (NewStage, FitStage))]
    alone = steps if steps else [name for name, stage in stages if isinstance(stage, FitStage)]
    flags = make_dataclass(
        "Flags",
        [
            *([] if own is None else [("own", type(own), option(default=own, flat=True))]),
            ("run", type(recipe), option(default=recipe, flat=True)),
            *((name, type(stage), option(default=stage, flat=alone == [name])) for name, stage in stages),
        ],
        frozen=True,
    )
    found: Any = parse(flags, argv, prog=prog, description=description, default=flags())
    config = replace(found.run, stages=tuple(getattr(found, name) for name in recipe.names))
    return config, getattr(found, "own", None)


def main(config: TrainConfig) -> None:
    """Train, with every encoder measured on split "test" if the collection has one; print where the encoder is."""
    from lookalike.core.devices import described, start
    from lookalike.pages.report import write_report
    from lookalike.training.config import BestConfig

    machine = described(start(config.device))  # before what measures starts JAX
    evaluate = evaluation(config)

    def report(which: str) -> None:
        if evaluate and which:
            evaluate.keep(which)
        write_report(config.out, config.data, machine)

    if isinstance(config, BestConfig):
        from lookalike.training.best import best

        best(config, evaluate)
    else:
        from lookalike.training.loop import train

        train(config, evaluate, report=report)
    print(f"{config.out}/model")


@dataclass
class Evaluation:
    """Measures encoders on the classes of split "test", and keeps what the page of the run shows."""

    out: Path
    rows: pa.Table
    vectors: Callable[[Encoder], Vectors]  # of `rows`
    last: dict[str, Any] = field(default_factory=dict)

    def __call__(self, encoder: Encoder) -> Mapping[str, float]:
        """The metrics, means over domains."""
        from lookalike.evaluation.examples import examples
        from lookalike.evaluation.protocols import evaluate

        vectors = self.vectors(encoder)
        found = evaluate(vectors, self.rows, split="test")
        queries = [asdict(example) for example in examples(vectors, self.rows)]
        self.last = {"metrics": found.metrics, "per_domain": found.per_domain, "queries": queries}
        return found.metrics

    def keep(self, which: str) -> None:
        """Write the last measurement into the run, as that of encoder `which`."""
        name = which if which == "untouched" else "latest"
        write_json(self.out / "evaluation" / f"{name}.json", {"encoder": which, **self.last})


def evaluation(config: TrainConfig) -> Evaluation | None:
    """How an encoder does on the classes of split "test", which training never sees; None if there are none."""
    from lookalike.data.collection import Collection
    from lookalike.evaluation.encoders import vectors_on
    from lookalike.evaluation.protocols import COLUMNS
    from lookalike.vectors.runtime import load

    collection = Collection.open(config.data)
    rows = collection.table(COLUMNS)
    rows = rows.take(np.flatnonzero([split == "test" for split in rows["split"].to_pylist()]))
    if not len(rows):
        return None
    given = load(config.model, precision="float32") if config.model else None
    return Evaluation(Path(config.out), rows, vectors_on(collection, rows["id"].to_numpy(), given))
