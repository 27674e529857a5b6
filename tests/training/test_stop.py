"""`stop_if_worse`: a stage ends below the untouched encoder and its own start, with the best weights measured."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from lookalike.core.errors import UsageError
from lookalike.encoders.encoder import Encoder
from lookalike.training.config import HeadStage, Optimizer, Pca
from lookalike.training.loop import train
from lookalike.training.measuring import Measuring

FAST = Optimizer(learning_rate=0.01, centers_learning_rate=0.01)


class Scores:
    """An evaluation that gives these values one after the other, and keeps the encoders."""

    def __init__(self, *values):
        self.values, self.seen = list(values), []

    def __call__(self, encoder):
        self.seen.append(np.asarray(encoder.tensors["projection.weight"]) if len(self.seen) else None)
        return {"mp@5": self.values[len(self.seen) - 1], "other": 0.0}


def weight(run):
    return np.asarray(Encoder.load(run / "model").tensors["projection.weight"])


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def config(made, out, **changes):
    changes = {"steps": 40, "evaluate_every": 10, "save_every": 5, "stop_if_worse": True, "optimizer": FAST} | changes
    return made.head(out, **changes)


@pytest.mark.parametrize(
    ("values", "best", "end"),
    [
        ((0.5, 0.6, 0.7, 0.4, 0.7), 2, 20),  # untouched, start, 10, 20: worse, so step 10 is kept
        ((0.5, 0.6, 0.55, 0.4, 0.6), 1, 20),  # the start is the best
        ((0.5, 0.3, 0.4, 0.45, 0.2, 0.45), 3, 30),  # few numbers that begin below the untouched may rise
        ((0.5, 0.3, 0.2, 0.3), 1, 10),  # and may not fall
        ((0.5, 0.6, 0.7, 0.8, 0.9, 0.4, 0.9), 4, 40),  # behind the last step
    ],
)
def test_it_ends_and_keeps_the_best(made, tmp_path, capsys, values, best, end):
    scores = Scores(*values)
    train(config(made, tmp_path / "run"), scores)
    np.testing.assert_array_equal(weight(tmp_path / "run"), scores.seen[best])
    assert len(scores.seen) == len(values)
    assert lines(tmp_path / "run")[-1] == {
        "step": end, "encoder": "trained", "dimension": 4, "mp@5": values[-1], "other": 0.0,
    }  # fmt: skip
    step = {1: 0, 2: 10, 3: 20, 4: 30}[best]
    words = capsys.readouterr().err
    assert f"below the untouched encoder's 0.5000 and the {values[1]:.4f} of the stage's start, so stage" in words
    assert f"ends; what it makes are its weights of step {step}," in words


def test_the_next_stage_goes_on_from_the_best(made, tmp_path):
    first, second = (HeadStage(start=Pca(-0.125), batch=16, steps=20, optimizer=FAST) for _ in range(2))
    scores = Scores(0.5, 0.6, 0.4, 0.6, 0.7, 0.7, 0.7)
    run = made.run(tmp_path / "run", first, second, evaluate_every=10, stop_if_worse=True)
    train(run, scores)
    assert [(line["step"], line["encoder"]) for line in lines(tmp_path / "run") if "encoder" in line] == [
        *((0, "untouched"), (0, "start"), (10, "head")),  # worse: the start is what the stage makes
        *((10, "start"), (20, "head2"), (30, "head2"), (30, "trained")),
    ]


def test_as_long_as_it_is_not_worse_nothing_changes(made, tmp_path):
    values = (0.5, 0.5, 0.6, 0.5, 0.7, 0.6, 0.6)
    train(config(made, tmp_path / "run"), Scores(*values))
    train(config(made, tmp_path / "plain", stop_if_worse=False), Scores(*values))
    np.testing.assert_array_equal(weight(tmp_path / "run"), weight(tmp_path / "plain"))


@pytest.mark.parametrize("moment", [("head", 10), ("head", 20), ("trained", 20)])
def test_killed_around_its_end_it_ends_alike(made, tmp_path, monkeypatch, moment):
    """Before or behind the measurement that ends the stage."""

    def scores(encoder):
        size = float(np.abs(np.asarray(encoder.tensors.get("projection.weight", 0.0))).sum())
        if size not in known:
            known[size] = [0.5, 0.6, 0.7, 0.4][len(known)]
        return {"mp@5": known[size]}

    known = {}
    train(config(made, tmp_path / "whole"), scores)
    real = Measuring.measure

    def killed(self, step, which, encoder):
        real(self, step, which, encoder)
        if (which, step) == moment:
            raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(Measuring, "measure", killed)
        with pytest.raises(InterruptedError):
            train(config(made, tmp_path / "run"), scores)
    train(config(made, tmp_path / "run"), scores)
    np.testing.assert_array_equal(weight(tmp_path / "run"), weight(tmp_path / "whole"))
    times = ("images_per_second", "waiting")
    mine, its = (
        [{n: v for n, v in line.items() if n not in times} for line in lines(tmp_path / run)]
        for run in ("run", "whole")
    )
    assert mine == its


def test_it_needs_measurements(made, tmp_path):
    with pytest.raises(UsageError, match="`--stop-if-worse` needs measurements"):
        train(config(made, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_another_device_or_tracker_goes_on_with_the_same_run(made, tmp_path):
    run = made.head(tmp_path / "run", steps=4)
    train(run)
    shutil.rmtree(tmp_path / "run" / "model")
    train(replace(run, device="cpu"))
    assert (tmp_path / "run" / "model").exists()
