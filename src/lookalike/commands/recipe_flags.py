"""A recipe on the command line: its name, the flags over its leaves, and which kinds of leaves it has."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, make_dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from lookalike.core.config import did_you_mean, option, parse
from lookalike.core.errors import UsageError

if TYPE_CHECKING:
    from lookalike.training.config import TrainConfig


def recipe_of(argv: list[str], usage: str, example: str, *, staged: bool = False) -> str:
    """The recipe that `argv` names; UsageError if it names none. Where it asks for help, `usage` with all of them, or
    with those alone whose stages are known before they run, if `staged`.
    """
    from lookalike.recipes import ABOUT, RECIPES

    name = argv[0] if argv else "--help"
    if name in ("-h", "--help"):
        shown = [recipe for recipe, config in RECIPES.items() if config.stages or not staged]
        print(usage.format(recipes="\n".join(f"  {recipe:<18} {ABOUT[recipe]}" for recipe in shown)))
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
    and `own`, a verb's own options, with theirs. The help is `description`, then what the recipe says of itself.
    """
    from lookalike.recipes import DETAILS, RECIPES

    recipe = with_kinds(RECIPES[name], argv)
    flags, told = flags_type(recipe, own), f"{description}\n\n{DETAILS[name]}".rstrip()
    found: Any = parse(flags, argv, prog=prog, description=told, default=flags())
    config = replace(found.run, stages=tuple(getattr(found, name) for name in recipe.names))
    return config, getattr(found, "own", None)


def flags_type(recipe: TrainConfig, own: Any = None) -> type[Any]:
    """A dataclass of the recipe, its stages and a verb's `own` options, whose defaults are theirs; and of its kinds."""
    alone, found = _alone(recipe), list(enumerate(_kinds(recipe)))
    kinds = make_dataclass(
        "Kinds", [(f"kind{i}", Literal[tuple(k.members)], k.option()) for i, k in found], frozen=True
    )
    stages = zip(recipe.names, recipe.stages, strict=True)
    return make_dataclass(
        "Flags",
        [
            *([] if own is None else [("own", type(own), option(default=own, flat=True))]),
            ("run", type(recipe), option(default=recipe, flat=True)),
            *([("kinds", kinds, option(default=kinds(), flat=True))] if found else []),
            *((name, type(stage), option(default=stage, flat=alone == name)) for name, stage in stages),
        ],
        frozen=True,
    )


def with_kinds(recipe: TrainConfig, argv: Sequence[str]) -> TrainConfig:
    """The recipe with the kinds that `argv` names, each with its own values; what is none is for `parse` to refuse."""
    stages = list(recipe.stages)
    for kind in _kinds(recipe):
        others = {name: made for name, made in kind.members.items() if name != kind.now}
        for word, value in _pairs(argv):
            if word == f"--{kind.flag}" and value in others:
                stages[kind.stage] = replace(stages[kind.stage], **{kind.field: others[value]()})
    return replace(recipe, stages=tuple(stages))


@dataclass(frozen=True)
class _Kind:
    """A leaf of a stage that is one of several classes."""

    stage: int
    field: str
    flag: str
    now: str  # the class that it is
    members: dict[str, type[Any]]

    def option(self) -> Any:
        """Its flag, which names a class; `with_kinds` has done what it says."""
        words = f"Another kind has its own values, and options that `--{self.flag} KIND --help` lists."
        return option(default=self.now, flag=self.flag, words=words)


def _kinds(recipe: TrainConfig) -> Iterator[_Kind]:
    """Those of all stages, in order."""
    alone = _alone(recipe)
    for number, (name, stage) in enumerate(zip(recipe.names, recipe.stages, strict=True)):
        hints = typing.get_type_hints(type(stage))
        for leaf in fields(stage):
            members = {kind.__name__: kind for kind in typing.get_args(hints[leaf.name]) if isinstance(kind, type)}
            if len(members) > 1 and all(map(is_dataclass, members.values())):
                flag = leaf.name if name == alone else f"{name}.{leaf.name}"
                now = type(getattr(stage, leaf.name)).__name__
                yield _Kind(number, leaf.name, flag, now, members)


def _alone(recipe: TrainConfig) -> str:
    """The stage whose flags do without its name: the only one that takes steps, or the only fit; "" if none is."""
    from lookalike.training.config import FitStage, NewStage

    stages = list(zip(recipe.names, recipe.stages, strict=True))
    steps = [name for name, stage in stages if not isinstance(stage, (NewStage, FitStage))]
    alone = steps or [name for name, stage in stages if isinstance(stage, FitStage)]
    return alone[0] if len(alone) == 1 else ""


def _pairs(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Words of `argv` with what stands behind them: `--loss CosFace`, `--loss=CosFace`."""
    for word, behind in pairwise([*argv, ""]):
        flag, equals, value = word.partition("=")
        yield flag.replace("_", "-"), value if equals else behind
