"""A tower trained on images: from scratch, and a given one tuned."""

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lookalike.core.files import read_card
from lookalike.data.collection import Collection
from lookalike.encoders import directory
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, tensor_shapes
from lookalike.encoders.directory import read_model, write_model
from lookalike.encoders.encoder import Encoder
from lookalike.imaging.augment import Color, Erase, Flip
from lookalike.imaging.decode import decode
from lookalike.imaging.preprocess import Preprocess
from lookalike.losses import ArcFace
from lookalike.towers import ConvNetConfig, MobileNetV2Config, ViTConfig
from lookalike.training.config import Augments, NewStage, Optimizer, TuneStage
from lookalike.training.loop import train
from lookalike.training.tasks import begun, make_task, rows_of
from lookalike.vectors.runtime import load


def pixels(made, out, *, model="", **changes):
    """A tower from scratch, or `model` tuned, with what is changed of the stage or of the run."""
    stage = TuneStage(
        augment=Augments(area=(0.6, 1.0), flip=Flip(0.5), color=Color(0.0, 0.0, 0.0), erase=Erase(0.0)),
        loss=ArcFace(0.1, 16.0),
        optimizer=Optimizer(learning_rate=1e-2, centers_learning_rate=1e-2, tower_learning_rate=1e-2),
        batch=16,
        steps=40,
    )
    own = {name: changes.pop(name) for name in list(changes) if name in {f.name for f in fields(TuneStage)}}
    stages = [] if model else [NewStage(ConvNetConfig(widths=(8, 16), depths=(0, 0)), 16)]
    return made.run(out, *stages, replace(stage, **own), **({"model": model, "log_every": 1} | changes))


def task_of(config):
    before = begun(config)
    return before, make_task(config, config.stages[-1], rows_of(config), before, before, Path(config.out))


def nearest_is_alike(encoder, made):
    """Share of the images of classes never seen whose nearest other image is of their class."""
    rows = np.flatnonzero(made.split == "test")
    data = Collection.open(made.collection).take(rows, ["image"])["image"].to_pylist()
    images = np.stack([encoder.config.preprocess(decode(jpeg)) for jpeg in data])
    embedding = np.asarray(jax.jit(Encoder.__call__)(encoder, jnp.asarray(images)))
    similar = embedding @ embedding.T - 9 * np.eye(len(rows), dtype=np.float32)
    return float((made.label[rows][similar.argmax(axis=1)] == made.label[rows]).mean())


def test_it_learns_and_stopped_it_goes_on_bit_for_bit(made, tmp_path, monkeypatch):
    from lookalike.core.journal import Progress

    def interrupt(self, count=1):
        self.done += count
        if self.done == 11:
            raise KeyboardInterrupt

    whole, stopped = pixels(made, tmp_path / "whole"), pixels(made, tmp_path / "stopped")
    encoder = train(whole, lambda encoder: {"alike": nearest_is_alike(encoder, made)})
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "advance", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(stopped)
    assert train(stopped).fingerprint == encoder.fingerprint
    found = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in found if "loss" in line]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5
    assert [line["alike"] for line in found if "alike" in line][-1] > 0.6


def mobile_net(path):
    config = EncoderConfig(
        tower=MobileNetV2Config(multiplier=0.25, output_stride=32),
        pooling="mean",
        preprocess=Preprocess(32, "squash", 32, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        projection=ProjectionConfig("identity", 1280, 1280),
    )
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        kernel = np.random.default_rng(len(tensors)).normal(size=shape) * (2 / np.prod(shape[:-1])) ** 0.5
        tensors[name] = (kernel if len(shape) > 1 else np.full(shape, name.endswith(("weight", "variance")))).astype(
            "f"
        )
    write_model(path, config, tensors, {})
    return str(path)


def test_statistics_of_batch_norms_do_not_learn(made, tmp_path):
    model = mobile_net(tmp_path / "model")
    _, task = task_of(pixels(made, tmp_path / "run", model=model))
    config, tensors = read_model(model)
    still = {name for name in tensors if name.endswith((".norm.mean", ".norm.variance"))}
    assert len(still) == 104
    assert set(task.learner.tower) == set(tensors) - still
    moved = task.learner._replace(tower={name: tensor + 1 for name, tensor in task.learner.tower.items()})
    after = task.made(moved, task.running, task.fixed).encoder
    assert after.config == replace(config, projection=ProjectionConfig("linear", 1280, 4))
    for name, tensor in tensors.items():
        assert np.array_equal(after.tensors[name], tensor) == (name in still), name


def test_a_given_tower_is_tuned(made, tmp_path):
    train(pixels(made, tmp_path / "run", model=made.model, steps=2))
    (_, before), (_, after) = read_model(made.model), read_model(tmp_path / "run" / "model")
    assert all((after[name] != tensor).any() for name, tensor in before.items())


def test_a_model_is_read_and_checked_once(made, tmp_path, monkeypatch):
    read, real = [], directory.read_safetensors
    monkeypatch.setattr(directory, "read_safetensors", lambda path: read.append(path) or real(path))
    model = tmp_path / "model"
    shutil.copytree(made.model, model)  # at a new place, so that no graph of it is kept
    before, _ = task_of(pixels(made, tmp_path / "run", model=str(model)))
    assert read == [model / "model.safetensors"]
    assert before.encoder.fingerprint == read_card(model)["fingerprint"]
    read.clear()
    assert load(model, "onnx").features_fingerprint == before.encoder.features_fingerprint
    assert not read  # the graph was kept


def test_a_given_tower_starts_at_pca_with_centers_at_the_means(made, tmp_path):
    config = pixels(made, tmp_path / "run", model=made.model)
    _, task = task_of(config)
    first = task.made(task.learner, task.running, task.fixed).encoder
    rows = made.split == "train"
    embedding = np.asarray(first.project(jnp.asarray(made.features[rows])))
    assert np.abs(embedding.mean(axis=0)).max() < 0.2
    centers = np.asarray(task.learner.centers["weight"][:, 0])
    assert centers.shape == (9, 4)
    own = embedding @ centers.T  # every class mean is its own nearest center
    pairs = [("toys", "tools")[c % 2] + str(c) for c in made.label[rows]]
    label = np.unique(pairs, return_inverse=True)[1]
    means = np.stack([own[label == c].mean(axis=0) for c in range(9)])
    np.testing.assert_array_equal(means.argmax(axis=1), np.arange(9))


def test_half_precision_and_rematerialised_blocks_reach_the_tower(made, tmp_path, monkeypatch):
    import lookalike.encoders.encoder as encoder_module

    tower = ViTConfig(16, 8, 12, 2, 3, 20, "gelu")
    config = EncoderConfig(
        tower,
        "class",
        Preprocess(16, "squash", 16, "bilinear", (0.5,) * 3, (0.5,) * 3),
        ProjectionConfig("identity", 12, 12),
    )
    Encoder.init(config, jax.random.key(0)).save(tmp_path / "model")
    built, real = [], encoder_module.features

    def watched(tower, pooling, tensors, images, dtype, remat):
        built.append((dtype, remat))
        return real(tower, pooling, tensors, images, dtype, remat)

    monkeypatch.setattr(encoder_module, "features", watched)
    options = {"model": str(tmp_path / "model"), "steps": 2, "dtype": "bfloat16", "remat": True}
    encoder = train(pixels(made, tmp_path / "run", **options))
    assert ("bfloat16", True) in built
    assert (encoder.dtype, encoder.remat) == ("float32", False)
    assert {t.dtype for t in encoder.tensors.values()} == {np.dtype(np.float32)}
    _, before = read_model(tmp_path / "model")
    assert np.abs(encoder.tensors["tower.blocks.mlp.up.weight"] - before["tower.blocks.mlp.up.weight"]).max() > 1e-4
