"""Kinds on the command line: another loss, schedule or start than the recipe's, with its own options."""

import typing

import pytest

import lookalike as la
from lookalike.commands import main, plan
from lookalike.commands.recipe_flags import with_kinds
from lookalike.commands.train import configure
from lookalike.core.files import read_json
from lookalike.losses import ArcFace, BySize, CosFace, Growing, Margin, MarginSchedule, NormFace, Pairs, SupCon
from lookalike.recipes import RECIPES
from lookalike.training.config import ClosedForm, Lda, Pca, Random, Start

PLACES = ["--data", "coll", "--model", "model", "--out", "run"]
UNIONS = {"loss": Margin | Pairs, "margin": MarginSchedule, "start": Start, "fit": ClosedForm}


def stage_of(recipe, *flags, number=0):
    return configure([recipe, *PLACES, *flags]).run.stages[number]


def test_another_loss_has_its_own_values_and_options():
    assert stage_of("head").loss == ArcFace(0.1, 16.0)
    assert stage_of("head", "--loss", "CosFace").loss == CosFace()
    assert stage_of("head", "--loss.margin", "0.1", "--loss.scale", "16", "--loss", "CosFace").loss == CosFace(
        0.1, 16.0
    )
    assert stage_of("head", "--loss=NormFace", "--loss.scale=20").loss == NormFace(20.0)
    assert stage_of("head", "--loss", "ArcFace", "--loss.margin", "0.2").loss == ArcFace(0.2, 16.0)  # as it was


def test_schedules_starts_and_closed_forms_too():
    stage = stage_of("tune", "--margin", "BySize", "--margin.high", "0.4", "--start", "Random")
    assert (stage.margin, stage.start) == (BySize(high=0.4), Random())
    assert stage_of("pca", "--fit", "Lda", "--fit.shrinkage", "0.3").fit == Lda(0.3)
    assert stage_of("tune", "--fit.fit", "Pca", "--fit.fit.power", "0", number=1).fit == Pca(power=0.0, within=1.0)


@pytest.mark.parametrize("recipe", [name for name, config in RECIPES.items() if config.stages])
def test_every_stage_of_every_recipe_takes_every_kind(recipe):
    config = RECIPES[recipe]
    steps = [name for name in config.names if not name.startswith(("new", "fit"))] or ["fit"]
    for number, (name, stage) in enumerate(zip(config.names, config.stages, strict=True)):
        prefix = "" if steps == [name] else f"{name}."
        for field, union in UNIONS.items():
            if not hasattr(stage, field):
                continue
            for kind in typing.get_args(union):
                found = with_kinds(config, [f"--{prefix}{field}", kind.__name__]).stages
                now = getattr(stage, field)
                assert getattr(found[number], field) == (now if type(now) is kind else kind())
                assert found[:number] + found[number + 1 :] == config.stages[:number] + config.stages[number + 1 :]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--loss", "cosface"], "`--loss` is 'cosface'; expected one of 'AdaCos', 'AdaFace', 'ArcFace', 'CosFace',"),
        (["--loss", "NormFace", "--loss.margin", "0.1"], "Unknown option `--loss.margin`."),
        (["--loss", "CosFace", "--loss.margin", "3"], "`margin` of CosFace is 3.0; expected 0 to 1."),
        (["--loss", "CosFace", "--loss", "NormFace"], "`--loss` is given twice."),
        (["--loss"], "`--loss` needs a value."),
    ],
)
def test_what_is_no_kind_is_refused(flags, message, capsys):
    assert main(["train", "head", *PLACES, *flags]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_the_help_is_that_of_the_kind(capsys):
    assert main(["train", "head", "--margin", "Growing", "--help"]) == 0
    words = capsys.readouterr().out
    assert "--margin.top" in words
    assert main(["train", "head", "--help"]) == 0
    assert "--margin.top" not in capsys.readouterr().out


def test_a_plan_takes_them():
    assert plan.configure(["head", "--model", "laptop", "--margin", "Growing"]).run.stages[0].margin == Growing()


def test_a_run_learns_by_it_and_keeps_to_it(shop, tmp_path, capsys):
    run = tmp_path / "run"
    argv = [
        "train",
        "head",
        "--data",
        str(shop.collection),
        "--model",
        str(shop.model),
        "--out",
        str(run),
        "--dimension",
        "3",
    ]
    argv += ["--batch", "8", "--epochs", "1", "--mixture.per-class", "2"]
    assert main([*argv, "--loss", "SupCon"]) == 0
    assert read_json(run / "config.json")["stages"][0]["loss"]["type"] == SupCon.__name__
    assert main(argv) == 2
    assert "was started with head.loss.type 'SupCon', and this command says 'ArcFace'." in capsys.readouterr().err
    options = {"dimension": 3, "batch": 8, "epochs": 1, "loss": "CosFace", "loss.margin": 0.0}
    la.train("head", data=shop.collection, model=shop.model, out=tmp_path / "python", **options)
    assert read_json(tmp_path / "python" / "config.json")["stages"][0]["loss"]["type"] == CosFace.__name__
