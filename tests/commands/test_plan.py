"""`lookalike plan` from argv to the table and to JSON; compilers are stood in for, but once."""

import json
from pathlib import Path

import pytest

from lookalike.commands import main
from lookalike.recipes import RECIPES
from lookalike.training import plan as plans
from lookalike.training.chips import CHIPS
from lookalike.training.config import TrainConfig
from lookalike.training.program import Compiled

ARGV = ["plan", "tune", "--model", "openclip-vit-h-14", "--topology", "v5e:2x4", "--batch", "256"]


@pytest.fixture
def asked(monkeypatch):
    """Jobs, each compiled by a stand-in that says a million bytes for each image."""
    jobs = []

    def stand_in(_function, job, **_limits):
        jobs.append(job)
        batch = 64 if job.stage is None else job.stage.batch
        return Compiled(CHIPS["v5e"], 8, 10**6 * batch, 1.0, 7 * 10**9, 2 * 10**9, 0)

    monkeypatch.setattr(plans, "watched", stand_in)
    return jobs


def test_a_published_model_needs_no_download_and_no_collection(asked, capsys):
    assert main([*ARGV, "--classes", "17691", "--rows", "478185", "--steps", "2390", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert "laion/CLIP-ViT-H-14-laion2B-s32B-b79K" in err
    assert "licence mit; nothing is downloaded" in err
    assert found["fits"] is True
    assert (found["topology"], found["chips"], found["hbm_bytes"]) == ("v5e:2x4", 8, 16 * 2**30)
    assert found["name"] == "tune"
    assert found["largest_batch"] > 10_000
    # 334.59 GFLOP an image (OpenCLIP's model_profile.csv), three times for what learns; the head is little.
    assert found["flops_per_step"] == pytest.approx(256 * 3 * 334.59e9, rel=0.02)
    tune = found["stages"][1]
    assert tune["images_per_s"] == pytest.approx(0.4 * 8 * 197e12 / (3 * 334.59e9), rel=0.02)
    assert tune["steps"] == 2390
    assert {job.classes for job in asked} == {17691}


def test_the_table(asked, capsys):
    assert main([*ARGV, "--no-search"]) == 0
    out = capsys.readouterr().out
    assert "8 x TPU v5e, 16.0 GiB and 197 TFLOP/s each" in out
    assert "It fits; about" in out
    assert "largest batch" not in out
    assert len(asked) == 2


def test_what_does_not_fit_is_said(asked, capsys):
    assert main([*ARGV[:-1], "800000", "--no-search"]) == 0
    out, err = capsys.readouterr()
    assert "It does not fit" in out
    assert "takes less memory with a smaller `--batch`" in err


def test_classes_and_rows_of_a_collection(asked, shop, capsys):
    argv = ["plan", "head", "--model", str(shop.model), "--data", str(shop.collection), "--no-search", "--batch", "8"]
    assert main([*argv, "--json"]) == 0
    rows = json.loads(Path(shop.collection, "card.json").read_text())["rows"]
    assert {job.rows for job in asked} == {rows}


def test_only_recipes_that_can_be_planned_are_offered(capsys):
    assert main(["plan", "--help"]) == 0
    offered = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    assert offered == RECIPES.keys() - {"best"}
    for more in (["--model", "laptop"], ["--help"]):  # `best` has an option `--minutes`, as `plan` has
        assert main(["plan", "best", *more]) == 2
        assert "nothing to plan" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["plan", "tune"], "Missing: `--model`"),
        (["plan", "tune", "--model", "openclip-vit-h-15"], "Did you mean `openclip-vit-h-14`?"),
        (
            ["plan", "tune", "--model", "best", "--topology", "v5:2x4"],
            "the kind `v5` is not known. Did you mean",
        ),
        (["plan", "tune", "--model", "best", "--topology", "v5e:2x4", "--measure", "3"], "not here to be measured"),
        (["plan", "tune", "--model", "best", "--efficiency", "0"], "expected more than 0"),
        (["plan", "tune", "--model", "best", "--rows", "100"], "at least one for each"),
        (["plan", "tuna"], "Did you mean `tune`?"),
        (["plan", "--model", "best"], "A recipe comes before the options"),
    ],
)
def test_what_can_be_mended(argv, sentence, capsys):
    assert main(argv) == 2
    assert sentence in capsys.readouterr().err


def test_a_recipe_without_fixed_stages(monkeypatch, capsys):
    monkeypatch.setitem(RECIPES, "pca", TrainConfig(recipe="pca"))
    assert main(["plan", "pca", "--model", "best"]) == 2
    assert "nothing to plan" in capsys.readouterr().err


def test_a_head_on_this_machine(shop, capsys):
    """Compiled, and measured, in processes of their own."""
    argv = ["plan", "head", "--model", str(shop.model), "--classes", "20", "--rows", "200", "--measure", "2"]
    assert main([*argv, "--no-search", "--batch", "16", "--json"]) == 0
    embed, head = json.loads(capsys.readouterr().out)["stages"]
    assert embed["measured_s"] > 0
    assert head["measured_s"] > 0
    assert head["fits"] is True
