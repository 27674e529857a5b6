"""One program on one device and on many: the same losses, gradients, weights and embeddings, but for the order of sums.

The tolerance after six steps is 1e-5 of a loss, and 1e-4 of the length of a gradient and absolute of an embedding's
number: on one device features moved by 1e-7 of their size move a gradient by up to 3e-5.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from lookalike.core import mesh as meshes
from lookalike.core.config import to_json
from lookalike.core.files import write_json
from lookalike.core.journal import Progress
from lookalike.core.mesh import AXES
from lookalike.encoders.config import EncoderConfig, ProjectionConfig
from lookalike.encoders.encoder import Encoder
from lookalike.imaging.preprocess import Preprocess
from lookalike.losses import (
    AdaCos,
    AdaFace,
    ArcFace,
    CurricularFace,
    Geometry,
    L2Sp,
    Projecting,
    RkdDistance,
    SimilarityDistillation,
    SupCon,
    TwoViews,
)
from lookalike.towers import ViTConfig
from lookalike.training import steps
from lookalike.training.config import FitStage, Given, HeadStage, Optimizer, Pca, Trained, TuneStage
from lookalike.training.loop import train

RATES = Optimizer(learning_rate=1e-3, centers_learning_rate=1e-2, tower_learning_rate=1e-3, weight_decay=0.05, clip=1.0)
HEAD = HeadStage(batch=13, steps=6, optimizer=RATES, projecting=Projecting(dropout=0.1))
TUNE = TuneStage(batch=13, steps=6, optimizer=RATES, start=Pca(-0.125), ema=0.5)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A small ViT, whose blocks are stacked."""
    tower = ViTConfig(size=16, patch=8, width=16, layers=2, heads=2, hidden=32, activation="gelu")
    prepare = Preprocess(16, "squash", 16, "bilinear", (0.5,) * 3, (0.25,) * 3)
    encoder = Encoder.init(
        EncoderConfig(tower, "mean", prepare, ProjectionConfig("identity", 16, 16)), jax.random.key(1)
    )
    path = tmp_path_factory.mktemp("vit") / "model"
    encoder.save(path)
    return str(path)


@pytest.fixture(autouse=True)
def all_is_split(monkeypatch):
    """What is small, too."""
    monkeypatch.setattr(meshes, "LEAST_SPLIT", 1)


def mesh_of(devices, *shape):
    return Mesh(np.array(devices[: shape[0] * shape[1]]).reshape(shape), AXES)


def lines(run):
    found = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    return [{n: v for n, v in line.items() if n not in ("images_per_second", "waiting")} for line in found]


def assert_same(run, other, images):
    assert len(lines(run)) == len(lines(other)) > 0
    for a, b in zip(lines(run), lines(other), strict=True):
        assert a.keys() == b.keys() > {"loss", "gradient"}
        for name in a:
            # Sums in another order; statistics of a batch divide by what is small. Seen: 1.5e-4, on a CPU with AVX-512.
            assert a[name] == pytest.approx(b[name], rel=3e-4 if name == "gradient" else 1e-5, abs=1e-6), name
    found = [jax.jit(Encoder.__call__)(Encoder.load(each / "model"), images) for each in (run, other)]
    np.testing.assert_allclose(*found, atol=1e-4)


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).integers(0, 255, (5, 16, 16, 3)), jnp.uint8)


TWO = Geometry(SimilarityDistillation(0.5), distance=RkdDistance(0.2), views=TwoViews(0.1), weights=L2Sp(0.1))
STAGES = {
    "head": HEAD,
    "head with statistics of the batch": replace(
        HEAD, loss=AdaFace(), centers=2, projecting=Projecting(batch_norm=True, nested=(2, 4)), chunk=2
    ),
    "head of pairs": replace(HEAD, loss=SupCon()),
    "tune": replace(TUNE, loss=CurricularFace(0.3, 16.0)),
    "tune, two views and terms of the batch": replace(TUNE, geometry=TWO, loss=AdaCos()),
    "tune in parts": replace(TUNE, batch=14, accumulate=2, loss=ArcFace(0.1, 16.0), chunk=4, remat=True),
    "tune the last block on maps": replace(TUNE, trained=Trained(blocks=1), copies=2),
    "tune by products of low rank": replace(TUNE, trained=Trained(lora=2)),
}


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_many_devices_do_what_one_does(made, model, images, tmp_path, devices, stage):
    """Though they divide neither the batch nor the classes, 9 of them."""
    run = made.run(tmp_path / "one", replace(stage, augment=HEAD.augment), model=model, log_every=1)
    train(run, mesh=mesh_of(devices, 1, 1))
    for shape in [(1, 8), (2, 4)] if stage == HEAD else [(2, 4)]:
        other = tmp_path / "x".join(map(str, shape))
        train(replace(run, out=str(other)), mesh=mesh_of(devices, *shape))
        assert_same(tmp_path / "one", other, images)


def stopped(run, monkeypatch, step, mesh):
    """The run, interrupted behind this step."""

    def interrupt(self, count=1):
        self.done += count
        if self.unit == "steps" and self.done == step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "advance", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(run, mesh=mesh)
    assert len(lines(run.out)) == step


@pytest.mark.parametrize(("before", "behind"), [((2, 4), (1, 1)), ((1, 1), (2, 4)), ((1, 8), (3, 1))])
@pytest.mark.parametrize("stage", [HEAD, TUNE], ids=["head", "tune"])
def test_a_run_goes_on_with_other_devices(made, model, images, tmp_path, devices, monkeypatch, before, behind, stage):
    run = made.run(tmp_path / "stopped", stage, model=model, log_every=1)
    stopped(run, monkeypatch, 4, mesh_of(devices, *before))
    train(run, mesh=mesh_of(devices, *behind))
    train(replace(run, out=str(tmp_path / "whole")), mesh=mesh_of(devices, 1, 1))
    assert_same(Path(run.out), tmp_path / "whole", images)


def in_two_processes(config):
    """Go on with this run, each process with one device, on this machine."""
    code = (
        "import sys; from lookalike.core.config import from_json; from lookalike.core.files import read_json;"
        "from lookalike.training.config import TrainConfig; from lookalike.training.loop import train;"
        "train(from_json(TrainConfig, read_json(sys.argv[1])))"
    )
    path = Path(f"{config.out}.json")
    write_json(path, to_json(config))
    where = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{20000 + os.getpid() % 20000}", "JAX_NUM_PROCESSES": "2"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            env={**os.environ, **where, "JAX_PROCESS_ID": str(number)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        said = [process.communicate(timeout=600)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], "\n\n".join(said)
    assert all("2 x cpu of 2 processes" in words for words in said)


def test_two_processes_do_what_one_does(made, model, images, tmp_path):
    """Each with its part of the batch, which two don't divide; what stages cache, one of them makes."""
    stages = FitStage(Pca()), replace(HEAD, copies=1), replace(TUNE, start=Given(), geometry=TWO)
    run = made.run(tmp_path / "two", *stages, model=model, log_every=1, save_every=2)
    in_two_processes(run)
    train(replace(run, out=str(tmp_path / "one")))
    assert_same(tmp_path / "two", tmp_path / "one", images)


def test_two_processes_go_on_where_one_stopped(made, model, images, tmp_path, monkeypatch):
    run = made.run(tmp_path / "stopped", TUNE, model=model, log_every=1)
    stopped(run, monkeypatch, 4, None)
    in_two_processes(run)
    train(replace(run, out=str(tmp_path / "whole")))
    assert_same(tmp_path / "stopped", tmp_path / "whole", images)


def test_a_state_lies_apart_from_its_first_moment_on(made, model, tmp_path, devices, monkeypatch):
    """Never whole on a device, where each step leaves it, and compiled once."""
    seen = []

    def watched(make, mesh, *given):
        found = meshes.born(make, mesh, *given)
        seen.append(found)
        return found

    monkeypatch.setattr(steps, "born", watched)
    kept = []
    real = steps.made
    monkeypatch.setattr(steps, "made", lambda task, state: kept.append(state) or real(task, state))
    train(made.run(tmp_path / "run", TUNE, model=model), mesh=mesh_of(devices, 2, 4))
    (_, places), _ = seen
    last = kept[-1]
    assert jax.tree.map(lambda x: x.sharding, last) == places
    matrix = "tower.blocks.mlp.up.weight"
    assert last.learner.tower[matrix].sharding.spec == PartitionSpec(None, None, AXES)
    assert last.learner.tower[matrix].addressable_shards[0].data.shape == (2, 16, 4)
    moments = [x for x in jax.tree.leaves(last.optimizer) if x.shape == (2, 16, 32)]
    assert [x.sharding.spec for x in moments] == [PartitionSpec(None, None, AXES)] * 2
    assert last.learner.centers["weight"].sharding.spec == PartitionSpec(None, None, ("model",))
    assert last.learner.projection["weight"].sharding.is_fully_replicated
