import errno
import json
import shutil
import subprocess
import threading
from contextlib import closing
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lookalike.core.errors import RunError, StorageError
from lookalike.core.files import storage_errors
from lookalike.core.journal import record
from lookalike.core.mesh import make_mesh, place
from lookalike.losses import ArcFace, CosFace
from lookalike.training.checkpoint import Checkpoints, hold_to, opened_run
from lookalike.training.config import BestConfig, FitStage, HeadStage, Optimizer, TrainConfig
from lookalike.training.optimizer import make_optimizer
from lookalike.training.step import Learner, Running, first_state

FACTS = {"classes": 3, "model": "ab"}


def state(step=0, seed=0):
    rng = np.random.default_rng(seed)
    weight, centers = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in [(4, 2), (3, 1, 2)])
    learner = Learner({}, {"weight": weight, "bias": jnp.zeros(2)}, {"weight": centers})
    optimizer = make_optimizer(Optimizer(), 10, {"projection.weight"})
    begun = first_state(learner, optimizer, Running({}, {}), averaged=True)
    return begun._replace(step=jnp.asarray(step, jnp.int32))


def save_and_wait(checkpoints, state):
    checkpoints.save(state)
    checkpoints.wait()


def head(**changes):
    return TrainConfig(data="a", model="b", stages=(HeadStage(**changes),))


def test_saved_and_restored_bit_for_bit(tmp_path):
    with closing(Checkpoints(tmp_path, "head", FACTS)) as checkpoints:
        assert checkpoints.latest(state()) is None
        checkpoints.save(state(5, seed=1))
        checkpoints.save(state(5, seed=2))  # the same step: there already
    with closing(Checkpoints(tmp_path, "head", FACTS)) as checkpoints:
        found = checkpoints.latest(state())
    assert jax.tree.structure(found) == jax.tree.structure(state())
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(state(5, seed=1)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


def test_the_last_two_are_kept_and_scraps_do_no_harm(tmp_path):
    with closing(Checkpoints(tmp_path, "head", FACTS)) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(state(step, seed=step))
    kept = {path.name for path in (tmp_path / "checkpoints" / "head").iterdir()}
    assert kept == {"2", "3"}
    scrap = tmp_path / "checkpoints" / "head" / "4.orbax-checkpoint-tmp-1"  # what a killed write leaves
    scrap.mkdir()
    (scrap / "half").write_text("x")
    with closing(Checkpoints(tmp_path, "head", FACTS)) as checkpoints:
        assert int(checkpoints.latest(state()).step) == 3
        checkpoints.save(state(4))
    assert {path.name for path in (tmp_path / "checkpoints" / "head").iterdir()} == {"3", "4"}


def test_what_is_not_finite_is_neither_saved_nor_taken_up(tmp_path, monkeypatch):
    bad = state(9)
    bad.learner.projection["weight"] = bad.learner.projection["weight"].at[1, 0].set(jnp.inf)
    with closing(Checkpoints(tmp_path, "head", FACTS)) as checkpoints:
        checkpoints.save(state(5))
        with pytest.raises(RunError, match="diverged: behind step 9"):
            checkpoints.save(bad)
        with monkeypatch.context() as patch:  # as versions before did
            patch.setattr("lookalike.training.checkpoint._finite", lambda state: True)
            checkpoints.save(bad)
            checkpoints.wait()
    with closing(Checkpoints(tmp_path, "head", FACTS)) as checkpoints:
        assert int(checkpoints.latest(state()).step) == 5
        checkpoints.save(state(9))
        assert int(checkpoints.latest(state()).step) == 9


def test_the_next_step_does_not_wait_for_a_save_and_does_not_spoil_it(tmp_path, monkeypatch):
    import orbax.checkpoint as ocp

    finalize, written, handed = ocp.CheckpointManager._finalize, threading.Event(), []

    def late(self, *given):
        assert written.wait(60), "the save was waited for"
        finalize(self, *given)

    monkeypatch.setattr(ocp.CheckpointManager, "_finalize", late)
    saved = ocp.args.StandardSave
    monkeypatch.setattr(ocp.args, "StandardSave", lambda state: handed.append(state) or saved(state))
    begun = state(3, seed=1)
    with closing(Checkpoints(tmp_path, "head", FACTS)) as checkpoints:
        checkpoints.save(begun)
        for mine, its in zip(jax.tree.leaves(begun), jax.tree.leaves(handed), strict=True):
            assert not np.shares_memory(np.asarray(mine), its)
            mine.delete()  # as the next step does
        written.set()
    with closing(Checkpoints(tmp_path, "head", FACTS)) as checkpoints:
        found = checkpoints.latest(state())
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(state(3, seed=1)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_goes_wrong_behind_the_steps_is_said_once(tmp_path, monkeypatch, capfd):
    import orbax.checkpoint as ocp

    def full(self, *given):
        raise OSError(errno.ENOSPC, "No space left on device")

    with closing(Checkpoints(tmp_path, "head", FACTS)) as checkpoints:
        with monkeypatch.context() as patch:
            patch.setattr(ocp.CheckpointManager, "_finalize", full)
            checkpoints.save(state(1))
            with pytest.raises(StorageError, match="the disk is full"), storage_errors(tmp_path):
                checkpoints.wait()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("before", "behind"), [(1, 8), (8, 1), (8, 2)])
def test_saved_on_some_devices_and_restored_on_others(tmp_path, devices, before, behind):
    with closing(Checkpoints(tmp_path, "head", FACTS)) as checkpoints:
        checkpoints.save(place(state(5, seed=1), make_mesh(devices[:before])))
    there = make_mesh(devices[:behind])
    with closing(Checkpoints(tmp_path, "head", FACTS)) as checkpoints:
        found = checkpoints.latest(place(state(), there))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(state(5, seed=1)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.sharding.device_set == set(devices[:behind])


def test_other_data_is_refused(tmp_path):
    with closing(Checkpoints(tmp_path, "head", FACTS)) as checkpoints:
        checkpoints.save(state(1))
    with closing(Checkpoints(tmp_path, "head", {**FACTS, "classes": 4})) as checkpoints:
        with pytest.raises(RunError, match="saved with classes 3, and now it is 4"):
            checkpoints.latest(state())


def test_another_config_is_refused_by_field(tmp_path):
    config = replace(head(), out=str(tmp_path / "run"))
    with opened_run(config) as run:
        assert json.loads((run / "config.json").read_text())["stages"][0]["loss"]["margin"] == 0.1
        (run / "metrics.jsonl").write_text('{"step": 0}\n')
    with opened_run(config):
        pass  # the same again is fine
    with pytest.raises(RunError, match=r"started with head\.loss\.margin 0\.1, and this command says 0\.5"):
        with opened_run(replace(config, stages=head(loss=ArcFace(0.5, 16.0)).stages)):
            pass
    with pytest.raises(RunError, match=r"head\.loss\.type 'ArcFace'"):
        with opened_run(replace(config, stages=head(loss=CosFace(0.1, 16.0)).stages)):
            pass
    (tmp_path / "run").rename(tmp_path / "moved")
    with opened_run(replace(config, out=str(tmp_path / "moved"))):
        pass


def test_another_spelling_of_the_same_place_is_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c").mkdir()
    config = TrainConfig(data="c", model="m", out="run", stages=(HeadStage(),))
    with opened_run(config) as run:
        (run / "metrics.jsonl").write_text('{"step": 0}\n')
    for data in ("./c", str(tmp_path / "c"), "c/../c/"):
        with opened_run(replace(config, data=data)):
            pass
    with pytest.raises(RunError, match="started with data 'c', and this command says 'd'"):
        with opened_run(replace(config, data="d")):
            pass
    (run / "checkpoints" / "head" / "12").mkdir(parents=True)  # its facts tell what lies in `d`
    with opened_run(replace(config, data="d", model="n")):
        pass
    (run / "model").mkdir()
    with pytest.raises(RunError, match="started with data"), opened_run(replace(config, data="d")):
        pass


def test_other_stages_are_another_run(tmp_path):
    config = replace(head(), out=str(tmp_path / "run"))
    with opened_run(config) as run:
        (run / "metrics.jsonl").write_text('{"step": 0}\n')
    with pytest.raises(RunError, match="was started with stages head, and this command says fit, head"):
        with opened_run(replace(config, stages=(FitStage(), *config.stages))):
            pass


def test_a_run_that_never_began_takes_another_config(tmp_path):
    config = replace(head(), out=str(tmp_path / "run"))
    with pytest.raises(RunError, match="too few"), opened_run(config):
        raise RunError("too few images")
    for begun in ("checkpoints/head/5", "stages/0", "model"):
        with opened_run(replace(config, dimension=8)) as run:
            assert json.loads((run / "config.json").read_text())["dimension"] == 8
            (run / begun).mkdir(parents=True)
        with pytest.raises(RunError, match="dimension 8"), opened_run(config):
            pass
        shutil.rmtree(run / begun)


def test_something_else_is_not_overwritten(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"x")
    with pytest.raises(StorageError, match="exists and is something else"):
        with opened_run(TrainConfig(out=str(tmp_path / "photos"))):
            pass
    assert (tmp_path / "photos" / "me.jpg").read_bytes() == b"x"


def test_two_at_once(tmp_path):
    config = TrainConfig(out=str(tmp_path / "run"))
    with opened_run(config), pytest.raises(StorageError, match="Another process"):
        with opened_run(config):
            pass


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount a small disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax leaves a coroutine behind
def test_a_full_disk_leaves_the_last_checkpoint(small_disk, monkeypatch, capfd):
    with closing(Checkpoints(small_disk, "head", FACTS)) as checkpoints:
        checkpoints.save(state(1))
        checkpoints.wait()
        (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - 65536))
        with pytest.raises(StorageError, match="the disk is full"), storage_errors(small_disk):
            checkpoints.save(state(2))
        (small_disk / "more").write_bytes(bytes(shutil.disk_usage(small_disk).free - 8192))
        monkeypatch.setattr("lookalike.training.checkpoint._AROUND", -(1 << 20))  # another program takes it meanwhile
        with pytest.raises(StorageError, match="the disk is full"), storage_errors(small_disk):
            save_and_wait(checkpoints, state(2))
    assert capfd.readouterr().err == ""
    (small_disk / "ballast").unlink()
    with closing(Checkpoints(small_disk, "head", FACTS)) as checkpoints:
        assert int(checkpoints.latest(state()).step) == 1
        checkpoints.save(state(2))
        assert int(checkpoints.latest(state()).step) == 2


def test_another_recipe_is_said_by_its_name(tmp_path):
    """Not as a run of a version that had no stages, which a run of `best` is not."""
    config = BestConfig(data="c", model="m", out=str(tmp_path / "run"), recipe="best")
    with opened_run(config) as run:
        (run / "metrics.jsonl").write_text('{"step": 0}\n')
    with pytest.raises(RunError, match="was started with recipe `best`, and this command says `head`"):
        with opened_run(replace(head(), recipe="head", out=config.out)):
            pass


def test_half_a_line_that_a_full_disk_left_is_dropped(tmp_path):
    config = replace(head(), out=str(tmp_path / "run"))
    with opened_run(config) as run:
        (run / "metrics.jsonl").write_text('{"step": 0, "loss": 1.5}\n{"step": 1, "lo')
    with opened_run(config) as run:
        record(run, 1, {"loss": 1.25})
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 0, "loss": 1.5}, {"step": 1, "loss": 1.25}]


@pytest.mark.parametrize("kept", ["checkpoints/head/5", "stages/0", "trials/pca-0"])
def test_what_a_run_keeps_is_of_its_own_data_and_model(tmp_path, kept):
    config = replace(head(), out=str(tmp_path / "run"))
    with opened_run(config) as run:
        hold_to(run, FACTS)
        record(run, 0, {"encoder": "untouched", "mp@5": 0.5})
        hold_to(run, FACTS)
        assert len((run / "metrics.jsonl").read_text().splitlines()) == 1
        (run / kept).mkdir(parents=True)
        with pytest.raises(RunError, match="was saved with model ab, and now it is cd"):
            hold_to(run, {**FACTS, "model": "cd"})
        (run / kept).rmdir()
        (run / kept).parent.rmdir()
        hold_to(run, {**FACTS, "model": "cd"})
        assert (run / "metrics.jsonl").read_text() == ""  # another encoder's


def test_other_values_for_trials_that_are_kept_are_another_run(tmp_path):
    config = BestConfig(data="c", model="m", out=str(tmp_path / "run"))
    with opened_run(config) as run:
        (run / "trials" / "pca-0").mkdir(parents=True)
    with pytest.raises(RunError, match="was started with dimension 64, and this command says 16"):
        with opened_run(replace(config, dimension=16)):
            pass
