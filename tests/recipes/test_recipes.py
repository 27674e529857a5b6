import json
import subprocess
import sys
from dataclasses import replace

import pytest

from lookalike.core.config import from_json, to_json
from lookalike.core.errors import UsageError
from lookalike.losses import ArcFace
from lookalike.recipes import ABOUT, RECIPES
from lookalike.training.config import Pca


def test_the_names():
    kinds = {name: config.names for name, config in RECIPES.items()}
    assert list(ABOUT) == list(RECIPES)
    assert kinds == {
        "best": (),
        "head": ("head",),
        "tune": ("tune", "fit"),
        "tiny": ("new", "tune"),
        "pca": ("fit",),
        "lda": ("fit",),
        "arcface": ("head",),
        "seed": ("head", "tune"),
        "first_place": ("head", "tune", "tune2", "tune3", "tune4", "tune5", "tune6"),
        "first_place_paper": ("head", "tune", "tune2", "tune3", "tune4", "tune5", "tune6"),
        "second_place": ("tune",),
        "third_place": ("head", "tune"),
        "fifth_place": ("head",),
        "unifex": ("head",),
        "uned": ("head", "tune"),
    }


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_whole_and_survives_json(name):
    config = RECIPES[name]
    assert config.dimension == 64
    assert config.data == config.out == config.model == ""
    assert config.recipe == name
    assert from_json(type(config), json.loads(json.dumps(to_json(config)))) == config


@pytest.mark.parametrize("name", RECIPES)
def test_flags_override_leaves_and_keep_the_rest(name):
    from lookalike.commands.train import configure

    places = {"data": "c", "out": "r"} | ({} if "new" in RECIPES[name].names else {"model": "m"})
    flags = [text for flag, value in places.items() for text in (f"--{flag}", value)]
    config = configure([name, *flags, "--dimension", "32"]).run
    expected = to_json(RECIPES[name]) | places | {"dimension": 32}
    assert to_json(config) == expected


def test_the_field_s_recipe_can_be_said_in_flags():
    from lookalike.commands.train import configure

    places = ["--data", "c", "--model", "m", "--out", "r"]
    flags = "--loss.margin 0.3 --loss.scale 30 --projecting.dropout 0 --epochs 30"
    plain = "--no-mirror --geometry.similarity.weight 0"
    rates = "--optimizer.learning-rate 1e-3 --optimizer.centers-learning-rate 1e-3"
    said = configure(["head", *places, *flags.split(), *plain.split(), *rates.split()]).run
    assert said.stages[0].loss == ArcFace(0.3, 30.0)
    assert not said.mirror
    named = configure(["arcface", *places]).run.stages[0]
    assert named.start == Pca(0.0)
    assert said.stages[0] == replace(named, start=Pca(power=-0.25, within=1.0))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["haed", "--data", "c"], "There is no recipe `haed`. Did you mean `head`?"),
        (["--data", "c"], "A recipe comes before the options."),
        (["head", "--data", "c", "--out", "r"], "Missing: `--model`."),
        (["tiny", "--data", "c"], "Missing: `--out`."),
        (["head", "--log-every", "0"], "`--log-every` is 0; expected 1 or more."),
        (["pca", "--dimension", "-3"], "`--dimension` is -3; expected 1 or more."),
        (
            ["tiny", "--projecting.dropout", "1"],
            "`dropout` of Projecting is 1.0; expected 0 or more, and less than 1.",
        ),
        (
            ["tiny", "--data", "c", "--model", "m", "--out", "r"],
            "`tiny` makes a new tower, and `--model` gives one.",
        ),
        (
            ["tune", "--trained.rules", "x"],
            "`x` is no rule; expected PATTERN=FACTOR, the factor 0 or more: tower.position=0",
        ),
        (["head", "--loss.margin", "9"], "`margin` of ArcFace is 9.0; expected 0 to 1.5708."),
        (["arcface", "--loss.scale", "-1"], "`scale` of ArcFace is -1.0; expected 0.001 to 10000."),
        (["tiny", "--optimizer.learning-rate", "nan"], "`learning_rate` of Optimizer is nan; expected 0 or more."),
        (["head", "--optimizer.warmup", "3"], "`warmup` of Optimizer is 3.0; expected 0 to 1."),
        (["pca", "--fit.within", "7"], "`within` of Pca is 7.0; expected 0 to 1."),
        (
            ["head", "--geometry.similarity.temperature", "0"],
            "`temperature` of SimilarityDistillation is 0.0; expected 0.001 or more.",
        ),
        (["lda", "--fit.shrinkage", "2"], "`shrinkage` of Lda is 2.0; expected 0 to 1."),
        (["head", "--epochs", "-1", "--steps", "5"], "`--epochs` is -1.0; expected 0 or more."),
        (["head", "--los.margin", "1"], "Unknown option `--los.margin`. Did you mean `--loss.margin`?"),
    ],
)
def test_what_can_t_be_understood(argv, message):
    from lookalike.commands.train import configure

    with pytest.raises(UsageError) as caught:
        configure(argv)
    assert caught.value.message == message


def test_help_lists_recipes_and_their_values(capsys):
    from lookalike.commands import main

    assert main(["train", "--help"]) == 0
    overview = capsys.readouterr().out
    assert all(f"  {name} " in overview for name in RECIPES)
    assert main(["train", "head", "--help"]) == 0
    assert "--loss.margin" in capsys.readouterr().out


def test_the_command_s_module_costs_nothing():
    code = "import sys, lookalike.commands.train; sys.exit('jax' in sys.modules or 'lance' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
