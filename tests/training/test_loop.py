"""The whole story: what a run leaves, that it goes on where it was stopped, and that it is a function of its config."""

import contextlib
import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lookalike.commands.train import configure
from lookalike.core.errors import CollectionError, RunError, UsageError
from lookalike.core.files import kind_of, read_card, write_json
from lookalike.data.sampling import Mixture
from lookalike.encoders.encoder import Encoder
from lookalike.training.config import FitStage, Lda, Optimizer, Pca, Random
from lookalike.training.loop import train
from lookalike.training.measuring import Measuring
from lookalike.training.pca import lda, pca
from lookalike.training.tasks import make_task

TIMES = ("images_per_second", "waiting")


def lines(run):
    """Without what a clock has measured."""
    found = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in found]


def weights(run):
    return (Path(run) / "model" / "model.safetensors").read_bytes()


def l2_normalize(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def dimension_of(encoder):
    return {
        "numbers": float(encoder.config.projection.dimension),
        "norm": float(np.abs(encoder.tensors.get("projection.weight", 0)).sum()),
    }


def test_pca_is_written_as_an_encoder(made, tmp_path):
    config = made.run(tmp_path / "run", FitStage(Pca(-0.125)))
    encoder = train(config, dimension_of)
    weight, bias = pca(made.features[made.split == "train"], 4, -0.125)
    found = Encoder.load(tmp_path / "run" / "model")
    assert found.fingerprint == encoder.fingerprint
    expected = l2_normalize(l2_normalize(made.features) @ weight + bias)
    np.testing.assert_allclose(found.project(made.features), expected, atol=1e-5)
    assert [(line["encoder"], line["numbers"]) for line in lines(tmp_path / "run")] == [
        ("untouched", 16),
        ("trained", 4),
    ]
    assert kind_of(tmp_path / "run") == "run"


def test_lda_and_the_mean_with_mirror_images(made, tmp_path):
    config = made.run(tmp_path / "run", FitStage(Lda(0.5)), mirror=True)
    encoder = train(config)
    rows = made.split == "train"
    pairs = [("toys", "tools")[c % 2] + str(c) for c in made.label[rows]]
    label = np.unique(pairs, return_inverse=True)[1]
    weight, _ = lda((made.features + made.mirrored)[rows] / 2, label, 4, 0.5)
    np.testing.assert_allclose(encoder.tensors["projection.weight"], weight, atol=1e-4)
    assert encoder.config.mirror


def test_the_card_carries_what_was_said_of_the_model(made, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(made.model, model)
    card = {**read_card(model), "license": "mit", "source": "a fair"}
    write_json(model / "card.json", card)
    train(made.run(tmp_path / "run", FitStage(), model=str(model), recipe="pca"))
    found = read_card(tmp_path / "run" / "model")
    assert found["began_from"] == card
    assert found["license"] == "mit"
    assert found["recipe"] == "pca"
    assert "license: mit" in (tmp_path / "run" / "model" / "README.md").read_text()


def test_only_the_rows_asked_for(made, tmp_path):
    config = made.run(tmp_path / "run", FitStage(), where="domain = 'toys'")
    encoder = train(config)
    weight, _ = pca(made.features[(made.split == "train") & (made.label % 2 == 0)], 4)
    np.testing.assert_allclose(encoder.tensors["projection.weight"], weight, atol=1e-5)
    with pytest.raises(CollectionError, match="0 rows of 0 classes to learn from"):
        train(replace(config, out=str(tmp_path / "none"), where="domain = 'cars'"))


def test_head_learns_measures_and_finishes(made, tmp_path, capsys):
    config = made.head(tmp_path / "run", steps=60, log_every=20, evaluate_every=25)
    train(config, dimension_of)
    found = lines(tmp_path / "run")
    scores = [(line["step"], line["encoder"]) for line in found if "encoder" in line]
    assert scores == [(0, "untouched"), (0, "start"), (25, "head"), (50, "head"), (60, "trained")]
    losses = [line["loss"] for line in found if "loss" in line]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    words = capsys.readouterr().err
    assert "numbers 4.0000 (-12.0000)" in words  # as a difference from the untouched encoder's 16
    assert "step 0, untouched (16 numbers): numbers 16.0000  norm" in words

    before = weights(tmp_path / "run")
    again = train(config, lambda _encoder: pytest.fail("a finished run is not measured again"))
    assert "is finished" in capsys.readouterr().err
    assert weights(tmp_path / "run") == before
    assert again.fingerprint == Encoder.load(tmp_path / "run" / "model").fingerprint


def test_two_runs_write_the_same_bytes(made, tmp_path):
    changes = {"mixture": Mixture(classes="uniform"), "start": Random(), "centers": 2, "mirror": False}
    train(made.head(tmp_path / "a", **changes))
    train(made.head(tmp_path / "b", **changes))
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    train(made.head(tmp_path / "c", seed=1, **changes))
    assert weights(tmp_path / "a") != weights(tmp_path / "c")


def test_steps_follow_from_epochs(made, tmp_path):
    train(made.head(tmp_path / "run", steps=0, epochs=2.0))
    assert lines(tmp_path / "run")[-1]["step"] == 9  # 72 rows, twice, by 16
    with pytest.raises(RunError, match="no step at all"):
        train(made.head(tmp_path / "none", steps=0, epochs=0.0))


def test_stopped_by_hand_it_goes_on_bit_for_bit(made, tmp_path, monkeypatch):
    """Ctrl-C in the middle: the state is saved at once, and the rest of the run is what it would have been."""
    config = made.head(tmp_path / "stopped", steps=20, save_every=7, log_every=1)
    from lookalike.core.journal import Progress

    def interrupt(self, count=1):
        self.done += count
        if self.done == 11:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "advance", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    assert (tmp_path / "stopped" / "checkpoints" / "head" / "11").exists()
    assert not (tmp_path / "stopped" / "model").exists()
    faster = made.head(config.out, steps=20, save_every=7, log_every=1, optimizer=Optimizer(learning_rate=0.1))
    with pytest.raises(RunError, match=r"optimizer\.learning_rate 0\.0001, and this command says 0\.1"):
        train(faster)
    train(config)
    train(replace(config, out=str(tmp_path / "whole")))
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    assert lines(tmp_path / "stopped") == lines(tmp_path / "whole")


def nan_at(step):
    """`make_task`, with features that are not finite in the batch of this step."""

    def task(*given):
        made = make_task(*given)

        def batches(start, items):
            for at, batch in enumerate(made.batches(start, items), start + 1):
                yield batch._replace(inputs=batch.inputs * np.nan) if at == step else batch

        return replace(made, batches=batches)

    return task


@pytest.fixture(scope="module")
def of_twenty_steps(made, tmp_path_factory):
    """The bytes that the run below makes when nothing diverges."""
    out = tmp_path_factory.mktemp("twenty") / "run"
    train(made.head(out, steps=20, save_every=7, log_every=5))
    return weights(out)


@pytest.mark.parametrize("at", [13, 14, 15, 16, 20])
def test_a_run_that_diverges_stops_and_its_last_good_state_stays(made, tmp_path, monkeypatch, of_twenty_steps, at):
    config = made.head(tmp_path / "run", steps=20, save_every=7, log_every=5)
    with monkeypatch.context() as patch:
        patch.setattr("lookalike.training.loop.make_task", nan_at(at))
        for _ in range(2):
            with pytest.raises(RunError, match=f"diverged: behind step {at} the loss"):
                train(config)
            saved = {path.name for path in (tmp_path / "run" / "checkpoints" / "head").iterdir()}
            assert saved == {str(step) for step in (7, 14) if step < at}
    assert not (tmp_path / "run" / "model").exists()
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()
    train(config)  # whatever it was, it is gone
    assert weights(tmp_path / "run") == of_twenty_steps


def test_learning_rates_beyond_reason_end_in_a_sentence_or_a_finite_model(made, tmp_path):
    rates = Optimizer(learning_rate=1e38, centers_learning_rate=1e38, warmup=0.0)
    config = made.head(tmp_path / "run", steps=30, save_every=10, start=Random(), optimizer=rates)
    with contextlib.suppress(RunError):
        encoder = train(config)
        assert all(np.isfinite(tensor).all() for tensor in encoder.tensors.values())


@pytest.mark.parametrize("moment", ["before", "behind"])
def test_killed_while_it_measures_it_measures_again_and_not_twice(made, tmp_path, monkeypatch, moment):
    """Between the checkpoint and the measurement of one step, and between the last measurement and the model."""
    config = made.head(tmp_path / "whole", steps=6, save_every=2, evaluate_every=2, log_every=1)
    train(config, dimension_of)
    stopped, real = replace(config, out=str(tmp_path / "stopped")), Measuring.measure

    def killed(self, step, which, encoder):
        if moment == "behind":
            real(self, step, which, encoder)
        if (step, which) == ((4, "head") if moment == "before" else (6, "trained")):
            raise InterruptedError
        if moment == "before":
            real(self, step, which, encoder)

    with monkeypatch.context() as patch:
        patch.setattr(Measuring, "measure", killed)
        with pytest.raises(InterruptedError):
            train(stopped, dimension_of)
    train(stopped, dimension_of)
    assert lines(tmp_path / "stopped") == lines(tmp_path / "whole")


@pytest.mark.parametrize("seed", [-1, 2**32, 2**63, 2**200])
def test_seeds_that_there_are(made, tmp_path, seed):
    with pytest.raises(UsageError, match="`--seed` is"):
        made.head(tmp_path / "run", seed=seed)
    for name, value in (("epochs", float("nan")), ("epochs", float("inf")), ("batch", 0)):
        with pytest.raises(UsageError, match=f"`--{name}` is"):
            made.head(tmp_path / "run", **{name: value})


def test_features_that_are_zero_are_no_reason_to_fail(made, tmp_path, monkeypatch):
    nothing = np.zeros((72, 2, 16), np.float32)
    monkeypatch.setattr("lookalike.training.tasks.features_of", lambda *_: nothing)
    encoder = train(made.head(tmp_path / "random", start=Random(), steps=2))
    assert all(np.isfinite(tensor).all() for tensor in encoder.tensors.values())
    with pytest.raises(RunError, match="point the same way"):
        train(made.head(tmp_path / "pca"))


CHILD = "import sys; from lookalike.commands import main; sys.exit(main(['train', 'head', *sys.argv[1:]]))"
FLAGS = {"dimension": 4, "batch": 16, "steps": 150, "save-every": 10, "log-every": 1}


@pytest.fixture(scope="module")
def undisturbed(made, tmp_path_factory):
    """The bytes that the command below makes when nothing happens to it."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    train(in_python(made, out))
    return weights(out)


def in_python(made, out):
    flags = {"data": made.collection, "model": made.model, "out": str(out), **FLAGS}
    return configure(["head", *(text for name, value in flags.items() for text in (f"--{name}", str(value)))]).run


def test_asked_to_end_it_saves_and_goes_on_bit_for_bit(made, tmp_path, undisturbed):
    run = tmp_path / "run"
    flags = {"data": made.collection, "model": made.model, "out": str(run), **FLAGS}
    argv = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
    child = subprocess.Popen([sys.executable, "-c", CHILD, *argv], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and child.poll() is None:
        if (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_text().count('"loss"') > 25:
            child.terminate()
            break
        time.sleep(0.002)
    _, words = child.communicate(timeout=60)
    assert child.returncode == 130, words
    assert not (run / "model").exists()
    saved = max(int(path.name) for path in (run / "checkpoints" / "head").iterdir() if path.name.isdigit())
    assert 25 < saved < 150
    assert f"saved after step {saved} (head: {saved} of 150)" in words
    assert "the same command goes on where it stopped" in words
    train(in_python(made, run))
    assert weights(run) == undisturbed
    steps = [line["step"] for line in lines(run) if "loss" in line]
    assert steps == list(range(1, 151))
