"""Stages that take over from each other: centers, encoders, cached copies; what they share, and killed between them."""

import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from lookalike.core.errors import CollectionError, RunError, UsageError
from lookalike.data.collection import Collection
from lookalike.encoders.config import EncoderConfig, ProjectionConfig
from lookalike.encoders.directory import read_model
from lookalike.encoders.encoder import Encoder
from lookalike.imaging.augment import Color, Erase, Flip, View
from lookalike.imaging.decode import decode
from lookalike.imaging.preprocess import Preprocess
from lookalike.losses import (
    ArcFace,
    FeatureAnchor,
    Geometry,
    Projecting,
    SimilarityDistillation,
    TwoViews,
    VectorDistillation,
)
from lookalike.towers import ViTConfig
from lookalike.training import loop
from lookalike.training.config import Augments, FitStage, HeadStage, Lda, Optimizer, Pca, Random, Trained, TuneStage
from lookalike.training.loop import train
from lookalike.training.rows import features_of, training_rows
from lookalike.training.sources import first_statistics, head_source, tune_source
from lookalike.training.step import mixed
from lookalike.training.tasks import Made, make_task

RATES = Optimizer(learning_rate=1e-2, centers_learning_rate=1e-2, tower_learning_rate=1e-3)


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    tower = ViTConfig(16, 8, 12, 3, 3, 20, "gelu")
    config = EncoderConfig(
        tower,
        "class",
        Preprocess(16, "squash", 16, "bilinear", (0.5,) * 3, (0.5,) * 3),
        ProjectionConfig("identity", 12, 12),
    )
    path = tmp_path_factory.mktemp("vit") / "model"
    Encoder.init(config, jax.random.key(0)).save(path)
    return str(path)


def head(**changes):
    return replace(HeadStage(start=Pca(-0.125), optimizer=RATES, batch=16, steps=6), **changes)


def tune(**changes):
    return replace(TuneStage(optimizer=RATES, loss=ArcFace(0.1, 16.0), batch=16, steps=4), **changes)


def weights(run):
    return (Path(run) / "model" / "model.safetensors").read_bytes()


def test_one_after_the_other(made, vit, tmp_path, monkeypatch):
    """A head, the last block on cached copies, a closed form: each begins where the one before it ended."""
    last = tune(trained=Trained(blocks=1), copies=2, ema=0.9)
    stages = (head(copies=1), last, FitStage(Pca(within=1.0)))
    whole = made.run(tmp_path / "whole", *stages, model=vit, mirror=True)
    scores = {}
    train(whole, lambda encoder: {"mp@5": scores.setdefault(encoder.fingerprint, len(scores))})
    config, tensors = read_model(tmp_path / "whole" / "model")
    _, before = read_model(vit)
    assert config.mirror
    assert config.projection == ProjectionConfig("linear", 12, 4)
    up, first = tensors["tower.blocks.mlp.up.weight"], before["tower.blocks.mlp.up.weight"]
    np.testing.assert_array_equal(up[:2], first[:2])
    assert np.abs(up[2] - first[2]).max() > 1e-5
    assert not (tmp_path / "whole" / "stages").exists()
    assert not (tmp_path / "whole" / "copies").exists()

    stopped = replace(whole, out=str(tmp_path / "stopped"))
    for name in ("head", "tune"):  # killed when a stage begins, and again at the next
        stopped_at(monkeypatch, name, stopped)
    train(stopped)
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")


def test_centers_are_taken_over(made, tmp_path, monkeypatch):
    kept, real = [], loop.make_task

    def watched(*given):
        kept.append((given[3], real(*given)))
        return kept[-1][1]

    monkeypatch.setattr(loop, "make_task", watched)
    train(made.run(tmp_path / "run", head(), tune(), mirror=True))
    (_, first), (before, second) = kept
    np.testing.assert_array_equal(second.learner.centers["weight"], before.centers)
    np.testing.assert_array_equal(second.learner.projection["weight"], before.encoder.tensors["projection.weight"])
    assert np.abs(np.asarray(first.learner.centers["weight"]) - np.asarray(before.centers)).max() > 1e-4


def test_a_frozen_head_stays_while_the_tower_moves(made, tmp_path):
    frozen = replace(RATES, learning_rate=0.0, centers_learning_rate=0.0)
    train(made.run(tmp_path / "head", head(), mirror=True))
    train(made.run(tmp_path / "both", head(), tune(optimizer=frozen), mirror=True))
    (_, a), (_, b) = (read_model(tmp_path / name / "model") for name in ("head", "both"))
    for part in ("weight", "bias"):
        np.testing.assert_allclose(a[f"projection.{part}"], b[f"projection.{part}"], atol=1e-6)
    assert np.abs(a["tower.stages.0.down.conv.weight"] - b["tower.stages.0.down.conv.weight"]).max() > 1e-5


def test_another_resolution_from_a_stage_on(made, vit, tmp_path):
    train(made.run(tmp_path / "run", tune(steps=2), tune(steps=2, size=24, dtype="bfloat16", remat=True), model=vit))
    config, tensors = read_model(tmp_path / "run" / "model")
    assert config.preprocess.size == config.tower.size == 24
    assert tensors["tower.position"].shape == (10, 12)


def test_images_stored_smaller_are_said(made, vit, tmp_path, capfd):
    """Once for each size, before the steps; stored are 32 px."""
    train(made.run(tmp_path / "run", tune(steps=1), tune(steps=1, size=40), tune(steps=1), model=vit))
    said = [line for line in capfd.readouterr().err.splitlines() if "stored with a side below" in line]
    assert len(said) == 1
    assert said[0].startswith("72 of 72 images")
    assert "below the 40 px" in said[0]


def test_interpolated_weights_lie_between(made, vit, tmp_path):
    train(made.run(tmp_path / "whole", tune(), model=vit))
    train(made.run(tmp_path / "half", tune(interpolate=0.25), model=vit))
    _, before = read_model(vit)
    (_, whole), (_, half) = (read_model(tmp_path / name / "model") for name in ("whole", "half"))
    for name, tensor in before.items():
        np.testing.assert_allclose(half[name], 0.75 * tensor + 0.25 * whole[name], atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry(similarity=SimilarityDistillation(1.0)),
        Geometry(anchor=FeatureAnchor(1.0)),
        Geometry(views=TwoViews(1.0)),
    ],
)
def test_terms_have_what_they_look_at(made, tmp_path, geometry):
    encoder = train(made.run(tmp_path / "run", tune(geometry=geometry, steps=2)))
    assert all(np.isfinite(tensor).all() for tensor in encoder.tensors.values())


def test_a_teacher_is_a_column(made, tmp_path):
    geometry = Geometry(vectors=VectorDistillation(1.0))
    with pytest.raises(CollectionError, match=r"has no column `nowhere` for `geometry\.vectors` to look at"):
        train(made.run(tmp_path / "none", head(geometry=geometry, teacher="nowhere")))
    from lookalike.vectors.runtime import load

    column = load(made.model).column("features", "float32")
    encoder = train(made.run(tmp_path / "run", head(geometry=geometry, teacher=column)))
    assert all(np.isfinite(tensor).all() for tensor in encoder.tensors.values())


def test_a_stage_learns_from_rows_of_its_own(made, tmp_path):
    train(made.run(tmp_path / "run", head(), head(only="domain = 'toys'", start=Pca(), steps=2), mirror=True))
    with pytest.raises(CollectionError, match="None of the 72 rows to learn from"):
        train(made.run(tmp_path / "none", head(only="domain = 'cars'")))


def test_copies_that_are_whole_are_not_made_again(made, vit, tmp_path, monkeypatch):
    from lookalike.training import sources

    written, real = [], sources._write

    def watched(path, *given):
        written.append(path.parent.name.partition("-")[0])
        if len(written) == 2:
            raise InterruptedError
        real(path, *given)

    config = made.run(tmp_path / "run", tune(trained=Trained(blocks=1), copies=3), model=vit)
    monkeypatch.setattr(sources, "_write", watched)
    with pytest.raises(InterruptedError):
        train(config)
    train(config)
    assert len(written) == 4  # the first once, the second twice, the third once
    shutil.rmtree(tmp_path / "run")


def test_copies_are_of_all_rows_in_order_and_each_in_its_own_way(made, tmp_path):
    """Without a change they are what an image at a time gives; 72 rows are more than one batch, and no whole two."""
    rows, encoder = training_rows(Collection.open(made.collection), "", labelled=True), Encoder.load(made.model)
    stored = rows.collection.take(rows.ids, ["image"])["image"].to_pylist()
    view, rng = View(24), np.random.default_rng(0)
    images = [view(rng, PIL.Image.fromarray(decode(data)), PIL.Image.new("RGB", (1, 1))) for data in stored]
    expected = np.concatenate([encoder.features(np.asarray(image)[None]) for image in images])
    plain = Augments(area=(1.0, 1.0), flip=Flip(0.0), color=Color(0.0, 0.0, 0.0), erase=Erase(0.0))
    seen = {}
    for name, augment in (("plain", plain), ("changed", Augments())):
        stage = head(copies=2, augment=augment)
        source = head_source(made.run(tmp_path, stage), stage, rows, encoder, expected[:, None], tmp_path / name)
        batches = list(islice(source.inputs(0, np.arange(16)), 12))
        seen[name] = {at: found for inputs, places in batches for at, found in zip(places, inputs, strict=True)}
    assert len(seen["plain"]) > 65  # those of the second batch too
    for at, found in seen["plain"].items():
        np.testing.assert_allclose(found, np.stack([expected[at]] * 3), atol=1e-4 * np.abs(expected).max())
    apart = [np.abs(found[[0, 0, 1]] - found[[1, 2, 2]]).max(axis=1) for found in seen["changed"].values()]
    assert (np.median(apart, axis=0) > 1e-2 * np.abs(expected).max()).all()


def test_each_step_takes_a_map_of_one_of_the_copies(made, vit, tmp_path):
    rows, stage = training_rows(Collection.open(made.collection), "", labelled=True), tune(copies=2, trained=Trained(1))
    source = tune_source(made.run(tmp_path, stage), stage, rows, Encoder.load(vit), tmp_path)
    kept = [np.load(path) for path in sorted(tmp_path.glob("copies/*/*/rows.npy"))]
    assert [copy.shape for copy in kept] == [(72, 5, 12)] * 2
    taken = []
    for inputs, places in islice(source.inputs(3, np.arange(16)), 4):
        of = [[np.array_equal(found, copy[at]) for copy in kept] for found, at in zip(inputs, places, strict=True)]
        assert all(map(any, of))
        taken += np.argmax(of, axis=1).tolist()
    assert 0.2 < np.mean(taken) < 0.8


def test_batch_norm_begins_with_the_statistics_of_all_rows():
    features = np.random.default_rng(0).normal(1, 2, (50, 2, 6)).astype(np.float32)
    unit = [(a + b) / np.linalg.norm(a + b) for a, b in features.astype(np.float64)]
    mean = sum(unit) / 50
    found = first_statistics(Projecting(batch_norm=True), 6, features)
    np.testing.assert_allclose(found["mean"], mean, atol=1e-6)
    np.testing.assert_allclose(found["variance"], sum((x - mean) ** 2 for x in unit) / 50, atol=1e-6)
    assert first_statistics(Projecting(), 6, features) == {}
    assert np.asarray(first_statistics(Projecting(batch_norm=True), 6, None)["variance"]).tolist() == [1.0] * 6


@pytest.mark.parametrize("start", [Pca(power=-0.5), Lda(), Random()], ids=repr)
def test_first_embeddings_have_length_1_on_average(made, tmp_path, start):
    """So that a learning rate means the same for each start."""
    stage, rows = head(start=start), training_rows(Collection.open(made.collection), "", labelled=True)
    begun, features = Made(Encoder.load(made.model), path=made.model), made.features[made.split == "train"]
    task = make_task(made.run(tmp_path, stage), stage, rows, begun, begun, tmp_path)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    first = unit @ np.asarray(task.learner.projection["weight"]) + np.asarray(task.learner.projection["bias"])
    assert np.mean(np.sum(first**2, axis=1)) == pytest.approx(1, rel=1e-4)


def stopped_at(monkeypatch, name, config):
    """Train, killed when the stage of this name begins its steps."""
    real = loop.take_steps

    def killed(config, stage, at, *others):
        if at == name:
            raise InterruptedError
        return real(config, stage, at, *others)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "take_steps", killed)
        with pytest.raises(InterruptedError):
            train(config)


def test_a_stage_is_not_taken_over_by_a_run_on_another_model(made, vit, tmp_path, monkeypatch):
    """The model may have moved; another one in its place has features that the kept projection knows nothing of."""
    shutil.copytree(vit, tmp_path / "model")
    config = made.run(tmp_path / "run", head(steps=2), head(steps=2), model=str(tmp_path / "model"))
    stopped_at(monkeypatch, "head2", config)
    shutil.move(tmp_path / "model", tmp_path / "moved")
    Encoder.init(read_model(vit)[0], jax.random.key(1)).save(tmp_path / "model")
    with pytest.raises(RunError, match=r"was saved with model [0-9a-f]{64}, and now it is"):
        train(config)
    paths, real = [], loop.make_task
    monkeypatch.setattr(loop, "make_task", lambda *given: paths.append(given[3].path) or real(*given))
    train(replace(config, model=str(tmp_path / "moved")))
    assert paths == [str(tmp_path / "moved")]


def test_copies_of_other_blocks_are_made_anew(made, vit, tmp_path, monkeypatch):
    """What was refused or killed before its first step may be asked again in other words, and maps are of one place."""
    first, other = (tune(trained=Trained(blocks=blocks), copies=1, steps=1) for blocks in (2, 1))
    stopped_at(monkeypatch, "tune", made.run(tmp_path / "run", first, model=vit))
    train(made.run(tmp_path / "run", other, model=vit))
    train(made.run(tmp_path / "fresh", other, model=vit))
    assert weights(tmp_path / "run") == weights(tmp_path / "fresh")


@pytest.mark.parametrize("stored", [True, False])
def test_features_are_float32_whatever_the_steps_compute_in(made, vit, tmp_path, monkeypatch, stored):
    """As on an accelerator, where the runtime is JAX and a tower may compute in bfloat16; none are stored yet."""
    rows = training_rows(Collection.open(made.collection), "", labelled=True)
    encoder = Encoder.init(read_model(vit)[0], jax.random.key(7))
    encoder.save(tmp_path / "model")
    exact = features_of(encoder, "", rows, False)
    monkeypatch.setattr("lookalike.vectors.runtime._chosen", lambda _runtime: "jax")
    half = replace(encoder, dtype="bfloat16")
    found = features_of(half, tmp_path / "model" if stored else "", rows, False)
    np.testing.assert_allclose(found, exact, atol=1e-4 * np.abs(exact).max())
    assert not any(name.endswith("_bfloat16") for name in Collection.open(made.collection).columns)


def test_a_stage_without_a_step(made, tmp_path):
    with pytest.raises(RunError, match="no step at all"):
        train(made.run(tmp_path / "run", head(steps=0, epochs=0.0)))


def test_two_of_a_row_s_features_are_mixed():
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(200, 3, 4)), jnp.float32)
    found = np.asarray(jax.jit(mixed)(inputs, jax.random.key(0)))
    pairs = set()
    for row, mix in zip(np.asarray(inputs), found, strict=True):
        fits = [
            (a, b)
            for a, b in ((0, 1), (0, 2), (1, 2))
            if np.linalg.norm(np.cross((mix - row[b])[:3], (row[a] - row[b])[:3])) < 1e-4
        ]
        assert fits, "no mix of two"
        pairs |= set(fits)
    assert pairs == {(0, 1), (0, 2), (1, 2)}
    np.testing.assert_array_equal(mixed(inputs[:, :1], jax.random.key(0)), inputs[:, 0])


def test_what_changed_behind_a_finished_stage_is_told(made, tmp_path, monkeypatch):
    data = shutil.copytree(made.collection, tmp_path / "coll")
    config = replace(made.run(tmp_path / "run", FitStage(), FitStage(Pca(within=1.0))), data=str(data))
    real = loop.save_stage

    def killed(*given):
        real(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_stage", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    Collection.open(data).mark_gone(np.array([3]))
    with pytest.raises(RunError, match="was saved with rows 72, and now it is 71"):
        train(config)
    assert not (tmp_path / "run" / "model").exists()


def test_prefixes_longer_than_the_embedding_are_refused(made, tmp_path):
    with pytest.raises(UsageError, match=r"`nested` of Projecting is \(2, 8\); expected prefixes of 4 numbers"):
        train(made.head(tmp_path / "run", projecting=Projecting(nested=(2, 8))))


def test_what_a_run_was_killed_over_goes_when_it_is_asked_again(made, tmp_path, monkeypatch):
    config = made.run(tmp_path / "run", FitStage(), FitStage(Pca(within=1.0)))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "clear", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    assert (tmp_path / "run" / "stages" / "0").exists()
    train(config)
    assert not (tmp_path / "run" / "stages").exists()
