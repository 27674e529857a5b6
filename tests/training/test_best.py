"""`best` tries, proves, and keeps what won: on a made-up collection, and by tables of scores."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from lookalike.core.errors import RunError, UsageError
from lookalike.core.files import read_card
from lookalike.data.collection import Collection
from lookalike.encoders.config import EncoderConfig, ProjectionConfig
from lookalike.encoders.directory import read_model, read_text
from lookalike.encoders.encoder import Encoder
from lookalike.imaging.preprocess import Preprocess
from lookalike.losses import ArcFace
from lookalike.towers import ViTConfig
from lookalike.training import best as module
from lookalike.training.best import Way, _winner, best
from lookalike.training.config import BestConfig, FitStage, HeadStage, Optimizer, Pca, TuneStage
from lookalike.training.folds import Score

RATES = Optimizer(learning_rate=1e-2, centers_learning_rate=1e-2, tower_learning_rate=1e-3)


@pytest.fixture
def config(made, tmp_path):
    tune = TuneStage(loss=ArcFace(0.1, 16.0), optimizer=RATES, batch=16, epochs=1.0)
    return BestConfig(
        data=made.collection,
        model=made.model,
        out=str(tmp_path / "run"),
        dimension=3,
        head=HeadStage(start=Pca(within=1.0), optimizer=RATES, batch=16, epochs=1.0),
        last=replace(tune, copies=1, trained=replace(tune.trained, blocks=1)),
        whole=tune,
    )


def test_it_tries_what_the_time_allows_and_keeps_one(config, made, capsys):
    encoder = best(config)
    run = Path(config.out)
    found, card = read_model(run / "model")[0], read_card(run / "model")
    words = capsys.readouterr().err
    assert set(card["trials"]) == {"untouched", "pca", "fit", "head", "last", "half last", "whole", "half whole"}
    assert len(card["trials"]["head"]) == 3
    assert (len(card["trials"]["whole"]), len(card["trials"]["half whole"])) == (3, 1)
    assert found.projection.dimension == 3
    kept = card["recipe"].removeprefix("best: ")
    assert f"`{kept}` is kept; on what it has not seen it is" in words
    assert not (run / "trials").exists()
    again = best(config)
    assert again.fingerprint == encoder.fingerprint


def test_a_tower_tuned_at_another_size_is_averaged_at_that_size(config, tmp_path):
    tower = ViTConfig(16, 8, 12, 3, 3, 20, "gelu")
    form = Preprocess(16, "squash", 16, "bilinear", (0.5,) * 3, (0.5,) * 3)
    given = EncoderConfig(tower, "class", form, ProjectionConfig("identity", 12, 12))
    Encoder.init(given, jax.random.key(0)).save(tmp_path / "vit")
    config = replace(config, model=str(tmp_path / "vit"), last=replace(config.last, size=24))
    best(config)
    assert len(read_card(Path(config.out) / "model")["trials"]["half last"]) == 1


def test_the_untouched_tower_has_the_views_of_the_others(config, made, monkeypatch):
    seen = {}
    real = module.features_of

    def features_of(encoder, path, rows, mirror):
        seen[encoder.config.projection.dimension] = (encoder.config.mirror, encoder.config.zooms)
        return real(encoder, path, rows, mirror)

    monkeypatch.setattr(module, "features_of", features_of)
    best(replace(config, mirror=True, zooms=(0.8,), minutes=0.0))
    assert seen == {16: (True, (0.8,)), 3: (True, (0.8,))}


def test_killed_it_goes_on_with_the_trial_that_it_was_in(config, tmp_path, monkeypatch):
    whole = best(replace(config, out=str(tmp_path / "whole")))
    begun, real = [], module.train

    def killed(trial, *given, **named):
        begun.append(Path(trial.out).name)
        if len(begun) == 5:
            raise InterruptedError
        return real(trial, *given, **named)

    monkeypatch.setattr(module, "train", killed)
    with pytest.raises(InterruptedError):
        best(config)
    seconds = json.loads((Path(config.out) / "machine.json").read_text())["forward"]
    assert best(config).fingerprint == whole.fingerprint
    assert begun.count(begun[4]) == 2
    assert all(begun.count(name) == 1 for name in begun[:4])
    assert json.loads((Path(config.out) / "machine.json").read_text())["forward"] == seconds


def test_without_time_nothing_is_tuned(config, capsys):
    best(replace(config, minutes=0.0))
    words = capsys.readouterr().err
    assert "`last` is left out" in words
    assert "`whole` is left out" in words


def test_what_is_kept_has_the_text_side_of_its_tower(config, write_text_model, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_ways", lambda *_: [replace(way, folds=1) for way in ways("untouched", "fit")])
    best(replace(config, model=str(write_text_model(tmp_path / "clip"))))
    before, behind = (read_text(path, tensors=False) for path in (tmp_path / "clip", Path(config.out) / "model"))
    assert behind is not None
    assert behind == before


def ways(*names):
    return [Way(name, () if name == "untouched" else (FitStage(),), 3) for name in names]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"untouched": [0.9], "pca": [0.5], "fit": [0.5]}, "fit"),  # the untouched one has no 64 numbers to keep
        ({"untouched": [0.5], "pca": [0.502], "fit": [0.5]}, "fit"),  # by less than they differ by chance
        ({"untouched": [0.5], "pca": [0.51], "fit": [0.5]}, "pca"),
        ({"untouched": [0.5], "pca": [0.5], "fit": [0.5], "head": [0.504]}, "head"),
        ({"untouched": [0.5], "pca": [0.5, 0.3, 0.3], "fit": [0.52, 0.3, 0.3], "last": [0.53]}, "last"),
        ({"untouched": [0.5], "pca": [0.5, 0.7, 0.7], "fit": [0.49, 0.6, 0.6], "last": [0.51]}, "last"),
        ({"untouched": [0.5], "fit": [0.5], "last": [0.53], "half last": [0.534], "whole": [0.532]}, "whole"),
        ({"untouched": [0.5], "fit": [0.5], "last": [0.54], "whole": [0.532], "half whole": [0.534]}, "whole"),
        ({"untouched": [0.5], "fit": [0.5], "last": [0.543], "whole": [0.532], "half whole": [0.534]}, "last"),
    ],
)
def test_what_wins(scores, expected):
    table = {name: [Score(value, value) for value in values] for name, values in scores.items()}
    assert _winner(ways(*scores), table).name == expected


def planned(config, made, tmp_path):
    """The ways that would be tried, of a tower that takes a millisecond for an image."""
    (tmp_path / "machine.json").write_text('{"forward": 0.001}')
    rows, untouched = module.rows_of(config), module.begun(config)
    return {way.name: way for way in module._ways(config, rows, module.folds(rows), untouched, tmp_path)}


def test_what_has_no_steps_is_left_out(config, made, tmp_path, capsys):
    ways = planned(replace(config, whole=replace(config.whole, epochs=0.0)), made, tmp_path)
    assert list(ways) == ["untouched", "pca", "fit", "head", "last", "half last"]
    assert "`whole` is left out, as it has no steps." in capsys.readouterr().err


def test_less_than_an_epoch_is_tried_if_it_is_asked_for(config, made, tmp_path):
    ways = planned(replace(config, whole=replace(config.whole, epochs=0.25)), made, tmp_path)
    assert ways["whole"].stages[0].epochs == 0.25


def test_steps_are_shortened_as_epochs_are(config, made, tmp_path):
    """72 images in batches of 16: 4,500 steps are 1,000 epochs, of which a minute and a half is not enough for two."""
    whole = replace(config.whole, epochs=1.0, steps=4500)
    of_steps = planned(replace(config, minutes=1.5, whole=whole), made, tmp_path)["whole"]
    of_epochs = planned(replace(config, minutes=1.5, whole=replace(whole, epochs=1000.0, steps=0)), made, tmp_path)
    assert of_steps == of_epochs["whole"]
    assert 1 < of_steps.stages[0].epochs < 1000
    assert planned(replace(config, whole=replace(whole, steps=5)), made, tmp_path)["whole"].stages[0].steps == 5


def test_minutes_go_to_the_whole_tower_first(config, made, tmp_path, capsys):
    """A tower of two blocks takes 1 ms for each of 72 images: an epoch of it takes 252 ms, of one block half of that.

    Every encoder looks at all images once. Trials learn from a fold's share of them, what is kept from all.
    """
    config = replace(config, whole=replace(config.whole, epochs=10.0), last=replace(config.last, epochs=4.0))
    learned = module.folds(module.rows_of(config))[0].learned.sum() / 72
    assert places_of(config) == 2
    looks, epoch = 0.072, 0.252

    def found(seconds):
        return planned(replace(config, minutes=seconds / 60 + 1e-9), made, tmp_path)

    six = looks + (learned + 1) * 6 * epoch + 2 * looks
    assert list(found(six)) == ["untouched", "pca", "fit", "head", "whole"]
    assert found(six)["whole"].stages[0].epochs == 6.0
    assert "`last` is left out" in capsys.readouterr().err
    ten = looks + (learned + 1) * 10 * epoch + 2 * looks
    trial = learned * (0.072 + 4 * epoch / 2) + looks  # its maps are made once
    both = trial + learned * 10 * epoch + looks  # on a fold more
    enough = found(ten + trial + both + looks)  # and one average
    assert list(enough) == ["untouched", "pca", "fit", "head", "last", "whole", "half whole"]
    assert (enough["whole"].stages[0].epochs, enough["last"].stages[0].epochs, enough["whole"].folds) == (10.0, 4.0, 2)
    alone = looks + trial + (0.072 + 4 * epoch / 2) + looks
    assert list(found(alone)) == ["untouched", "pca", "fit", "head", "last"]
    assert found(alone)["last"].folds == 1
    assert "`whole` is left out" in capsys.readouterr().err
    assert list(found(alone - 0.01)) == ["untouched", "pca", "fit", "head"]


def places_of(config):
    return module.places(read_model(config.model)[0].tower)


def test_endless_minutes_are_no_error_of_ours(config, made, tmp_path):
    assert planned(replace(config, minutes=1e300), made, tmp_path)["last"].folds == 3
    with pytest.raises(UsageError, match="`minutes` of BestConfig is inf; expected 0 or more"):
        replace(config, minutes=math.inf)


def test_what_is_asked_of_a_run_holds_for_what_is_kept(config, made):
    asked = replace(config, minutes=0.0, save_every=7, log_every=3, evaluate_every=2, device="cpu")
    with pytest.raises(UsageError, match="`best` chooses by classes that it keeps back itself"):
        best(replace(asked, stop_if_worse=True))
    runs = []
    with pytest.raises(InterruptedError):
        best(asked, lambda run, rows: runs.append(run) or interrupt())
    assert (runs[0].save_every, runs[0].log_every, runs[0].evaluate_every, runs[0].device) == (7, 3, 2, "cpu")


def interrupt():
    raise InterruptedError


def test_trials_of_other_images_are_not_gone_on_with(config, made, tmp_path):
    data = shutil.copytree(made.collection, tmp_path / "coll")
    config = replace(config, data=str(data), minutes=0.0)
    with pytest.raises(InterruptedError):
        best(config, lambda run, rows: interrupt())
    Collection.open(data).mark_gone(np.array([3]))
    with pytest.raises(RunError, match="was saved with rows 72, and now it is 71"):
        best(config)
    with pytest.raises(RunError, match="was started with dimension 3, and this command says 2"):
        best(replace(config, dimension=2))
