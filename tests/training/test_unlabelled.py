"""`--unlabelled`: images that help to choose directions, against projections that scikit-learn or a loop makes."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

import lookalike as la
from lookalike.commands import main
from lookalike.core.errors import CollectionError, RunError
from lookalike.core.files import read_card, write_json
from lookalike.data.collection import Collection
from lookalike.encoders.encoder import Encoder
from lookalike.targets.model_card import licences, public
from lookalike.targets.parts import data_of
from lookalike.training.config import FitStage, Optimizer, Pca
from lookalike.training.loop import train
from lookalike.training.pca import pca, within_classes
from lookalike.vectors.runtime import load


def l2_normalize(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture
def others(made, tmp_path, write_collection):
    """Twenty images without labels, six of them of split "test", and their features."""
    rng = np.random.default_rng(5)
    images = Collection.open(made.collection).table(["image"])["image"].to_pylist()[:20]
    path = write_collection(tmp_path / "others", images, [None] * 20, ["away"] * 20, [None] * 14 + ["test"] * 6)
    collection = Collection.open(path)
    features = np.abs(rng.normal(size=(20, made.features.shape[1]))).astype(np.float32)
    encoder, embedder = Encoder.load(made.model), load(made.model)
    maker = {"fingerprint": encoder.features_fingerprint}
    for name in ("features", "mirrored"):
        collection.write_vectors(embedder.column(name, "float32"), np.arange(20), features, maker)
    return path, features


def embedded(made, weight, bias):
    return l2_normalize(l2_normalize(made.features) @ weight + bias)


def test_directions_are_those_of_both_and_the_spread_within_classes_of_what_has_labels(made, others, tmp_path):
    path, features = others
    train(made.run(tmp_path / "run", FitStage(Pca(-0.25, within=1.0)), unlabelled=path))
    learned = made.split == "train"
    x = made.features[learned]
    pairs = [("toys", "tools")[c % 2] + str(c) for c in made.label[learned]]
    metric = within_classes(x, np.unique(pairs, return_inverse=True)[1], 1.0, 2 * 16 / (16 + len(x)))
    both = l2_normalize(np.concatenate([x, features[:14]]).astype(np.float64))  # none of split test
    variance, vectors = np.linalg.eigh(metric @ np.cov(both.T, bias=True) @ metric)
    weight = metric @ (vectors[:, ::-1][:, :4] * variance[::-1][:4] ** -0.25)
    found = Encoder.load(tmp_path / "run" / "model").project(made.features)
    expected = embedded(made, weight, -both.mean(axis=0) @ weight)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-4)  # whatever the signs


def test_a_head_starts_with_them(made, others, tmp_path):
    path, features = others
    still = Optimizer(learning_rate=0.0, centers_learning_rate=1e-3)
    train(made.head(tmp_path / "run", unlabelled=path, mirror=False, steps=1, optimizer=still))
    weight, bias = pca(np.concatenate([made.features[made.split == "train"], features[:14]]), 4, -0.125)
    found = Encoder.load(tmp_path / "run" / "model").project(made.features)
    np.testing.assert_allclose(found, embedded(made, weight, bias), atol=1e-4)


def test_of_its_own_collection_those_count_that_are_not_learned_from(made, tmp_path):
    """The images of the domain that a fold leaves out, for one, but none of split test."""
    where = "domain != 'toys'"
    train(made.run(tmp_path / "run", FitStage(Pca()), where=where, unlabelled=made.collection))
    weight, bias = pca(made.features[made.split == "train"], 4)  # of both domains
    found = Encoder.load(tmp_path / "run" / "model").project(made.features)
    np.testing.assert_allclose(found, embedded(made, weight, bias), atol=1e-4)
    alone = train(made.run(tmp_path / "alone", FitStage(Pca()), where=where)).project(made.features)
    assert np.abs(np.asarray(found) - np.asarray(alone)).max() > 0.1


@pytest.mark.parametrize("recipe", [["pca"], ["head", "--steps", "1", "--optimizer.learning-rate", "0"]])
def test_left_out_domains_may_be_seen_without_labels(made, tmp_path, capsys, recipe):
    """`head` decides about the mirror image before, where no domain is left out."""
    given = ["--data", made.collection, "--model", made.model, "--dimension", "4", "--out", str(tmp_path / "all")]
    assert main(["train", *recipe, *given, "--leave-out", "domain", "--unlabelled", made.collection]) == 0
    folds = json.loads((tmp_path / "all" / "left-out.json").read_text())["folds"]
    assert len(folds) == 2
    said = capsys.readouterr().err
    images = [made.split == "train", (made.split == "train") & (made.label % 2 == 0)]
    assert f"{sum(images[0]) - sum(images[1])} images of" in said
    weights = [Encoder.load(fold["run"] + "/model").tensors["projection.weight"] for fold in folds]
    if recipe == ["pca"]:  # in both, all images of split train, and no labels
        np.testing.assert_allclose(weights[0], weights[1], atol=1e-5)


def test_what_was_seen_is_in_the_card(made, others, tmp_path):
    path, _ = others
    card = read_card(path)
    write_json(Path(path) / "card.json", {**card, "licences": {"CC-BY-NC-4.0": 20}, "rows": 20})
    train(made.run(tmp_path / "run", FitStage(Pca()), unlabelled=path))
    card = read_card(tmp_path / "run" / "model")
    assert data_of(tmp_path / "run" / "model") == [made.collection, path]  # by which leaks are looked for
    assert licences(card)["20 images of `others`"] == "CC-BY-NC-4.0"
    assert public(card)["unlabelled"]["data"] == "others"  # no path of this machine


def test_best_keeps_to_it(made, others, tmp_path, capsys):
    path, _ = others
    given = ["--data", made.collection, "--model", made.model, "--dimension", "4", "--minutes", "0", "--no-mirror"]
    assert main(["train", "best", *given, "--zooms", "--unlabelled", path, "--out", str(tmp_path / "run")]) == 0
    assert f"14 images of `{path}` help to choose the directions" in capsys.readouterr().err


def test_a_run_goes_on_with_the_same_images_alone(made, others, tmp_path):
    """Stopped behind a checkpoint: a path that leads elsewhere may be to the same images, and not to others."""
    path, _ = others

    asked = []

    def stopped(_):
        asked.append(len(asked))
        if len(asked) == 3:  # the untouched encoder, the start, and that of step 8
            raise KeyboardInterrupt
        return {}

    def head(**changes):
        return made.head(tmp_path / "run", save_every=4, evaluate_every=8, **changes)

    with pytest.raises(KeyboardInterrupt):
        train(head(unlabelled=path), stopped)
    moved, fewer = tmp_path / "moved", tmp_path / "fewer"
    shutil.copytree(path, moved)
    shutil.copytree(path, fewer)
    Collection.open(fewer).mark_gone(np.array([3]))
    with pytest.raises(RunError, match="was saved with unlabelled"):
        train(head(unlabelled=str(fewer)))
    again = train(head(unlabelled=str(moved)))
    shutil.rmtree(tmp_path / "run")
    assert again.fingerprint == train(head(unlabelled=path)).fingerprint


def test_images_that_could_help_are_told(made, others, write_collection, tmp_path, capsys):
    path, _ = others
    rows = Collection.open(path).table(["image"])["image"].to_pylist()
    names, splits = ["a", "b"] * 4 + [None] * 12, ["train"] * 8 + [None] * 9 + ["test"] * 3
    mixed = write_collection(tmp_path / "mixed", rows, names, ["toys"] * 20, splits)
    train(made.run(tmp_path / "run", FitStage(Pca(within=1.0)), data=mixed))
    told = f"9 images of `{mixed}` have no label; `--unlabelled {shlex.quote(mixed)}` lets them help"
    assert told in capsys.readouterr().err
    train(made.run(tmp_path / "all", FitStage(Pca()), data=mixed, unlabelled=mixed))
    said = capsys.readouterr().err
    assert "have no label" not in said
    assert f"9 images of `{mixed}` help" in said


@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("nowhere", "nowhere"),
        ("own", "none is left for `--unlabelled`"),
        ("judge", "`gpr1200`, which may not be learned from, only be measured on"),
    ],
)
def test_what_is_not_there_is_told(made, others, tmp_path, which, words):
    path, _ = others
    card = read_card(path)
    write_json(Path(path) / "card.json", {**card, "sources": [{"name": "gpr1200", "learn": False}]})
    places = {"nowhere": str(tmp_path / "nowhere"), "own": made.collection, "judge": path}
    with pytest.raises(CollectionError, match=words):
        train(made.run(tmp_path / "run", FitStage(Pca()), unlabelled=places[which]))


def test_from_python_it_is_a_collection_or_its_path(made, others, tmp_path):
    given = {"data": Collection.open(made.collection), "model": made.model, "dimension": 4}
    one = la.train("pca", out=tmp_path / "one", unlabelled=Collection.open(others[0]), **given)
    other = la.train("pca", out=tmp_path / "other", unlabelled=others[0], **given)
    assert one
    assert other
    assert one.fingerprint == other.fingerprint


def test_a_collection_that_is_not_there_is_told_before_a_model_is_asked_for(made, tmp_path, capsys):
    given = ["--data", made.collection, "--model", str(tmp_path / "no-model"), "--out", str(tmp_path / "run")]
    assert main(["train", "pca", *given, "--unlabelled", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_where_no_directions_are_chosen_it_is_refused(made, others, tmp_path, capsys):
    path, _ = others
    given = ["--data", made.collection, "--unlabelled", path, "--dimension", "4"]
    argv = ["train", "lda", *given, "--model", made.model, "--out", str(tmp_path / "lda")]
    assert main(argv) == 2
    assert "no stage of the run begins with them" in capsys.readouterr().err
    assert main(["train", "tiny", *given, "--steps", "1", "--out", str(tmp_path / "tiny")]) == 2
    assert "no stage of the run begins with them" in capsys.readouterr().err
