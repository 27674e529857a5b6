"""Numbers of a run as TensorBoard and Weights & Biases get them, told to libraries that only write down the calls."""

import sys
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest

from lookalike.core.errors import UsageError
from lookalike.training import loop
from lookalike.training.config import TrainConfig
from lookalike.training.tracking import tracked

LINES = [
    (0, {"encoder": "untouched", "dimension": 16, "mp@5": 0.5}),
    (20, {"loss": 2.0, "cosine": 0.25}),
]


def told(kind, run):
    with tracked(TrainConfig(out=str(run), track=kind), run) as track:
        for step, values in LINES:
            track(step, values)


def test_nobody_is_told(tmp_path):
    told("none", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_tensorboard(tmp_path, monkeypatch):
    calls = []

    class Writer:
        def __init__(self, directory):
            calls.append(("open", directory))

        def add_scalar(self, name, value, step):
            calls.append((name, value, step))

        def flush(self):
            calls.append("flush")

        def close(self):
            calls.append("close")

    monkeypatch.setitem(sys.modules, "tensorboard", ModuleType("tensorboard"))
    monkeypatch.setitem(sys.modules, "tensorboard.summary", SimpleNamespace(Writer=Writer))
    told("tensorboard", tmp_path)
    assert calls == [
        *(("open", str(tmp_path / "tensorboard")), ("untouched/dimension", 16.0, 0), ("untouched/mp@5", 0.5, 0)),
        *("flush", ("train/loss", 2.0, 20), ("train/cosine", 0.25, 20), "flush", "close"),
    ]


def test_weights_and_biases_knows_a_run_that_goes_on(tmp_path, monkeypatch):
    begun, logged = [], []

    class Session:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            logged.append("finish")

        def log(self, values, step):
            logged.append((step, values))

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **given: begun.append(given) or Session()))
    for _ in range(2):
        told("wandb", tmp_path)
    assert logged[:3] == [
        (0, {"untouched/dimension": 16.0, "untouched/mp@5": 0.5}),
        (20, {"train/loss": 2.0, "train/cosine": 0.25}),
        "finish",
    ]
    assert begun[0]["id"] == begun[1]["id"]
    assert begun[0]["resume"] == "allow"
    assert begun[0]["config"]["track"] == "wandb"
    (tmp_path / "other").mkdir()
    told("wandb", tmp_path / "other")
    assert begun[2]["id"] != begun[0]["id"]


@pytest.mark.parametrize("kind", ["tensorboard", "wandb"])
def test_without_the_library_there_is_a_sentence(kind, tmp_path, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])

    monkeypatch.setattr("lookalike.training.tracking.import_module", missing)
    with pytest.raises(UsageError, match=f"`--track {kind}` needs the library `{kind}`") as refused:
        told(kind, tmp_path)
    assert "pip install 'lookalike[track]'" in refused.value.hint


def test_a_run_tells_what_it_writes(made, tmp_path, monkeypatch):
    """All lines of the journal reach the tracker, and who is told may change in a run that goes on."""
    heard = []

    @contextmanager
    def listening(config, run):
        yield lambda step, values: heard.append((step, sorted(values)))

    monkeypatch.setattr(loop, "tracked", listening)
    config = made.head(tmp_path / "run", steps=4, log_every=2)
    loop.train(config, lambda encoder: {"mp@5": 0.5})
    assert [step for step, _ in heard] == [0, 0, 2, 4, 4]
    assert heard[2] == (2, ["cosine", "gradient", "images_per_second", "loss", "waiting"])
    loop.train(replace(config, track="tensorboard"))
