"""Every recipe's resolved config, word for word: a changed value, or a changed default, shows in review.

`defaults.txt` has all that runs and stages have by default; a recipe's text what is not as there. Values are JSON.
`UPDATE_GOLDEN=1 WORKERS=0 scripts/test tests/recipes/test_golden.py` writes them anew.
"""

import json
import os
from pathlib import Path

import pytest

from lookalike.core.config import to_json
from lookalike.recipes import RECIPES
from lookalike.training.config import BestConfig, FitStage, HeadStage, NewStage, TrainConfig, TuneStage

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "recipes"
STAGES = NewStage, FitStage, HeadStage, TuneStage


def differing(told, usual):
    """What of an object is not as in one of the same type."""
    if not isinstance(told, dict) or not isinstance(usual, dict) or told["type"] != usual["type"]:
        return told
    return {key: differing(value, usual.get(key)) for key, value in told.items() if value != usual.get(key)}


def section(name, told, usual):
    """A line for each value of `told` that is not `usual`."""
    values = [f"  {key}: {json.dumps(value)}" for key, value in differing(told, usual).items()]
    return "\n".join([name, *values, ""])


def of_recipe(config):
    usual = to_json(type(config)())
    stages = dict(zip(config.names, config.stages, strict=True))
    stages |= {name: value for name, value in vars(config).items() if isinstance(value, STAGES)}  # of `best`
    run = {name: value for name, value in to_json(config).items() if name not in (*stages, "stages")}
    parts = [section(type(config).__name__, run, usual)]
    for name, stage in stages.items():
        parts.append(section(f"{name}: {type(stage).__name__}", to_json(stage), to_json(type(stage)())))
    return "\n".join(parts)


TEXTS = {name: of_recipe(config) for name, config in RECIPES.items()}
TEXTS["defaults"] = "\n".join(section(k.__name__, to_json(k()), None) for k in (TrainConfig, BestConfig, *STAGES))


@pytest.mark.parametrize("name", TEXTS)
def test_a_recipe_is_what_it_was(name):
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(TEXTS[name], encoding="utf-8")
    assert path.read_text(encoding="utf-8") == TEXTS[name]


def test_no_text_is_left_over():
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(TEXTS)
