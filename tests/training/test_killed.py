"""kill -9 at random moments: between steps, while states, copies, stages and the model are written.

A moment is a file operation inside the run's directory: the process kills itself at the n-th of them, in whichever
thread it happens. A parent that has imported everything forks one process a life, before JAX starts.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from lookalike.core.config import to_json
from lookalike.training.config import HeadStage, Pca, Trained, TuneStage

PARENT = """
import json, os, signal, sys, threading

import jax, orbax.checkpoint
from lookalike.core.config import from_json
from lookalike.training.config import TrainConfig
from lookalike.training.loop import train

EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


def live(config, last):
    count, lock, inside = 0, threading.Lock(), os.path.realpath(config.out) + os.sep

    def hook(event, given):
        nonlocal count
        if event not in EVENTS or not isinstance(given[0], (str, os.PathLike)):
            return
        if not os.fspath(given[0]).startswith(inside) or (event == "open" and not given[2] & 3):
            return
        with lock:
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    train(config, lambda encoder: {"norm": float(abs(encoder.tensors["tower.stages.1.down.conv.weight"]).sum())})
    return count


for line in sys.stdin:
    data, last = json.loads(line)
    config = from_json(TrainConfig, data)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, str(live(config, last)).encode())
        os._exit(0)
    os.close(write)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([code, int(os.read(read, 20) or 0)]), flush=True)
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """`live(config, last)`: train in a process that dies at its file operation `last`; exit code, operations."""
    cache = str(tmp_path_factory.mktemp("compiled"))
    small = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0"}
    environment = {**os.environ, **small, "JAX_COMPILATION_CACHE_DIR": cache}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", PARENT], env=environment, **pipes) as parent:

        def one(config, last):
            parent.stdin.write(json.dumps([to_json(config), last]) + "\n")
            parent.stdin.flush()
            return json.loads(parent.stdout.readline())

        yield one
        parent.stdin.close()


def left(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("images_per_second", None), line.pop("waiting", None)
    return lines, (run / "model" / "model.safetensors").read_bytes()


def test_killed_at_random_moments_it_ends_as_if_nothing_had_happened(made, live, tmp_path):
    head = HeadStage(start=Pca(-0.125), batch=16, steps=4, copies=1)
    tune = TuneStage(batch=16, steps=5, copies=2, trained=Trained(blocks=1), ema=0.5)
    config = made.run(tmp_path / "whole", head, tune, save_every=2, log_every=1, evaluate_every=3)
    code, operations = live(config, 0)
    assert code == 0
    assert operations > 100
    expected, rng = left(tmp_path / "whole"), np.random.default_rng(0)
    for chain in range(2):
        mine, killed = replace(config, out=str(tmp_path / str(chain))), 0
        for last in [*rng.integers(1, operations, 2).tolist(), 0]:
            code, _ = live(mine, last)
            assert code in (0, -9)
            killed += code == -9
        assert code == 0
        assert killed
        assert left(tmp_path / str(chain)) == expected
        assert {path.name for path in (tmp_path / str(chain)).iterdir()} == {
            path.name for path in (tmp_path / "whole").iterdir()
        }
