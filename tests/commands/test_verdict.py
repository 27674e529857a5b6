"""What is said at the end of a run, against the same measured by hand."""

import json
import re
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import lookalike as la
from lookalike.commands import blend, main, mirror
from lookalike.commands.train import configure
from lookalike.commands.verdict import _by_queries, _mending, conclude
from lookalike.core.config import parse
from lookalike.core.errors import CollectionError, RunError, StorageError
from lookalike.core.files import locked, read_card
from lookalike.encoders.encoder import Encoder
from lookalike.evaluation.intervals import half_width
from lookalike.evaluation.report import PerQuery
from lookalike.training import folds
from lookalike.training.config import HeadStage, TrainConfig


def queries(values):
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(30), 8)
    return PerQuery({"mp@5": np.clip(values + rng.normal(0, 0.05, 240), 0, 1)}, np.repeat(["a", "b"], 120), label)


@pytest.mark.parametrize(("trained", "which"), [(0.7, "better"), (0.3, "worse"), (0.501, "same")])
def test_it_follows_from_the_interval(trained, which):
    rng = np.random.default_rng(1)
    one, other = queries(np.full(240, trained)), queries(rng.uniform(0.3, 0.7, 240))
    told = _by_queries(one, other)
    apart = one.values["mp@5"] - other.values["mp@5"]
    half = half_width(apart, one.label, one.domain)
    assert told["which"] == which
    assert told["low"] == pytest.approx(told["difference"] - half)
    assert told["difference"] == pytest.approx(apart.reshape(2, 120).mean(axis=1).mean())


def test_a_tower_that_tuning_made_worse_is_shown_ways_back():
    given = ["--data", "c", "--model", "a model", "--out", "run"]
    tune = configure(["tune", *given]).run
    told = _mending(replace(tune, unlabelled="photos"), "worse")
    back, head = (shlex.split(command) for command in re.findall(r"`([^`]*)`", " ".join(told)))
    assert back[:2] == ["lookalike", "blend"]
    asked = parse(blend.Config, back[2:], prog="blend", description="")
    assert (asked.models, asked.way, asked.data) == (("a model", "run/model"), "interpolate", "c")
    assert configure(head[2:]).run.model == "a model"
    assert len(_mending(replace(configure(["tune", *given, "--size", "96"]).run, unlabelled="photos"), "worse")) == 1


def test_what_is_no_better_is_told_that_images_without_labels_may_help():
    given = ["--data", "c", "--model", "a model", "--out", "run"]
    head = configure(["head", *given]).run
    line = "Images of what will be searched may help, and need no labels: `--unlabelled COLL`."
    assert _mending(head, "worse") == _mending(head, "same") == [line]
    assert _mending(configure(["tune", *given]).run, "worse")[0] == line
    assert _mending(head, "better") == []
    assert _mending(replace(head, unlabelled="photos"), "worse") == []
    assert _mending(configure(["lda", *given]).run, "worse") == []


@pytest.fixture
def many(tmp_path):
    """Nine classes of four images, on white."""
    for label in range(9):
        for number in range(4):
            rng = np.random.default_rng((label, 7))
            noise = np.random.default_rng((label, number)).integers(-40, 40, (32, 32, 3))
            pixels = rng.integers(60, 190, (4, 4, 3)).repeat(8, 0).repeat(8, 1) + noise
            (tmp_path / "many" / f"c{label}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "many" / f"c{label}" / f"{number}.png")
    return tmp_path / "many"


def train(capsys, *arguments):
    assert main(["train", *map(str, arguments)]) == 0
    return capsys.readouterr().err


def test_with_test_rows_it_is_said_once_and_kept_in_the_card(many, shop, tmp_path, capsys):
    la.prepare(many, tmp_path / "c", test=0.4)
    command = ["head", "--data", tmp_path / "c", "--model", shop.model, "--out", tmp_path / "run", "--dimension", 2]
    words = train(capsys, *command)
    verdict = json.loads((tmp_path / "run/model/card.json").read_text())["verdict"]
    assert verdict["words"] in words
    assert "the untouched tower" in verdict["words"]
    assert "with mirror image and zooms as here" in verdict["words"]
    trained = la.evaluate(str(tmp_path / "run/model"), tmp_path / "c").metrics["mp@5"]
    assert verdict["trained"] == pytest.approx(trained, abs=0.02)  # eight bits, where the processor has them
    assert verdict["which"] in ("better", "worse", "same")
    assert "the untouched tower" not in train(capsys, *command)


def test_without_test_rows_classes_are_kept_back(many, shop, tmp_path, capsys):
    la.prepare(many, tmp_path / "c")
    words = train(
        capsys, "head", "--data", tmp_path / "c", "--model", shop.model, "--out", tmp_path / "run", "--dimension", 2
    )
    assert "the same training was done three times on two thirds of the classes" in words
    assert not (tmp_path / "run/folds").exists()
    assert la.load(tmp_path / "run/model").dimension == 2


def test_head_leaves_the_mirror_image_out_where_it_is_worth_nothing(many, shop, tmp_path, capsys):
    """Images that are their own mirror images gain nothing by it, whatever the tower."""
    for file in many.rglob("*.png"):
        pixels = np.asarray(Image.open(file))
        Image.fromarray(np.concatenate([pixels[:, :16], pixels[:, 15::-1]], axis=1)).save(file)
    la.prepare(many, tmp_path / "c")
    command = ["head", "--data", tmp_path / "c", "--model", shop.model, "--dimension", 2, "--out"]
    words = train(capsys, *command, tmp_path / "a")
    assert "Without the mirror image: images would be looked at twice" in words
    assert "it changed mP@5 by +0.000, +0.000, +0.000; `--mirror` takes it" in words.replace("-0.000", "+0.000")
    assert json.loads((tmp_path / "a/config.json").read_text())["mirror"] is False
    assert la.load(tmp_path / "a/model").config.mirror is False
    assert "Without the mirror image" not in train(capsys, *command, tmp_path / "a")  # as it was decided
    words = train(capsys, *command, tmp_path / "b", "--mirror")
    assert "Without the mirror image" not in words
    assert la.load(tmp_path / "b/model").config.mirror is True


@pytest.mark.parametrize(("gains", "kept"), [([0.0, 0.004, -0.1], False), ([0.0, 0.006, -0.1], True), (None, True)])
def test_the_mirror_image_goes_only_if_no_trial_speaks_for_it(many, shop, tmp_path, monkeypatch, gains, kept):
    def trials(*_):
        if gains is None:
            raise RunError("4 classes are too few to choose by: 6 are the least.")
        return gains

    la.prepare(many, tmp_path / "c")
    monkeypatch.setattr(mirror, "_gains", trials)
    argv = ["head", "--data", str(tmp_path / "c"), "--model", str(shop.model), "--out", str(tmp_path / "r")]
    config = configure(argv)
    assert config.decides
    assert mirror.decided(config.run).mirror is kept
    assert not configure([*argv, "--mirror"]).decides
    assert not configure([*argv, "--no-mirror"]).decides
    assert not configure(["tune", *argv[1:]]).decides


def test_test_rows_of_one_class_measure_nothing(many, shop, tmp_path, capsys):
    rows = [
        "path,label,split",
        *(f"{f},{f.parent.name},{'test' if f.parent.name == 'c0' else 'train'}" for f in sorted(many.rglob("*.png"))),
    ]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    la.prepare(tmp_path / "t.csv", tmp_path / "c")
    command = ["--data", tmp_path / "c", "--model", shop.model, "--out", tmp_path / "run", "--dimension", 2]
    words = train(capsys, "head", *command)
    assert "Nothing is measured on split test. Split `test` has one class: every match is right" in words
    assert "the same training was done three times on two thirds of the classes" in words
    assert main(["evaluate", str(tmp_path / "c"), "--model", str(shop.model)]) == 2
    assert "Split `test` has one class" in capsys.readouterr().err


def test_test_rows_without_a_match_measure_nothing(many, shop, tmp_path, capsys):
    """One image of each of two classes: a training that has no measurement is no reason not to train."""
    alone = {many / "c0" / "0.png", many / "c1" / "0.png"}
    rows = [f"{f},{f.parent.name},{'test' if f in alone else 'train'}" for f in sorted(many.rglob("*.png"))]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,split", *rows]))
    la.prepare(tmp_path / "t.csv", tmp_path / "c")
    command = ["--data", tmp_path / "c", "--model", shop.model, "--out", tmp_path / "run", "--dimension", 2]
    words = train(capsys, "pca", *command)
    assert "Nothing is measured on split test. No label of it has two images, of different groups." in words
    assert "the same training was done three times on two thirds of the classes" in words


def test_what_can_not_be_measured_is_said(shop, tmp_path, capsys):
    common = ["--model", shop.model, "--dimension", 2]
    words = train(capsys, "head", "--data", shop.collection, "--out", tmp_path / "a", *common)
    assert "How good it is was not measured: 4 classes are too few" in words
    for number, image in enumerate(sorted(shop.images.rglob("*.png"))):
        (tmp_path / "flat").mkdir(exist_ok=True)
        (tmp_path / "flat" / f"{number}.png").write_bytes(image.read_bytes())
    la.prepare(tmp_path / "flat", tmp_path / "c")
    words = train(capsys, "pca", "--data", tmp_path / "c", "--out", tmp_path / "b", *common)
    assert "Without labels nothing tells whether it is better" in words


def test_a_place_that_is_something_else_is_refused_before_any_work(shop, tmp_path, capsys):
    """Its `config.json` is not a run's, which says whether the mirror image counts."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "vit"}')
    argv = ["train", "head", "--data", str(shop.collection), "--model", str(shop.model), "--dimension", "2"]
    assert main([*argv, "--out", str(tmp_path / "other")]) == 2
    assert "exists and is something else, so no run is written there." in capsys.readouterr().err


@pytest.fixture
def finished(shop, tmp_path):
    """A run that is finished but for its last words."""
    rows = [f"{f},{f.parent.name}" for f in sorted(shop.images.rglob("*.png"))]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *rows]))
    la.prepare(tmp_path / "t.csv", tmp_path / "c")
    shutil.copytree(shop.model, tmp_path / "run" / "model")
    names = {"data": str(tmp_path / "c"), "model": str(shop.model), "out": str(tmp_path / "run")}
    return TrainConfig(**names, dimension=2, stages=(HeadStage(),))


def test_a_fold_that_can_not_be_trained_is_said(finished, monkeypatch, capsys):
    """As one that keeps back all rows that `--only` leaves."""

    def refused(*_):
        raise CollectionError("None of the 6 rows to learn from in `c` meets `domain = 'a'`.")

    whole = np.ones(12, bool)
    monkeypatch.setattr(folds, "folds", lambda rows, seed: [folds.Fold(whole, whole, frozenset())])
    conclude(finished, Encoder.load(finished.model), None, refused)
    words = capsys.readouterr().err
    assert "How good it is was not measured: None of the 6 rows to learn from in `c` meets" in words
    assert "verdict" not in read_card(f"{finished.out}/model")


def test_two_do_not_conclude_at_once(finished):
    """Parts of the rows are trained on in the run's directory, which the second would take from the first."""
    with locked(finished.out, "train"), pytest.raises(StorageError, match="Another process is writing"):
        conclude(finished, Encoder.load(finished.model), None, lambda *_: None)
