"""Ctrl-C as a terminal sends it: to the command and to its worker processes at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

LOOKALIKE = [sys.executable, "-c", "from lookalike.commands import run; run()"]


def images(folder: Path, count: int) -> None:
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    Image.fromarray(noise).save(folder / "0.png", compress_level=1)
    for i in range(1, count):
        os.link(folder / "0.png", folder / f"{i}.png")


def ends(group: int, seconds: float = 10) -> bool:
    """Whether every process of the group ends in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_prepare_says_so_and_goes_on(number: signal.Signals, tmp_path: Path) -> None:
    images(tmp_path / "images", 40)
    command = [*LOOKALIKE, "prepare", str(tmp_path / "images"), "--out", str(tmp_path / "c"), "--workers", "2"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not (tmp_path / "c" / "card.json").exists():  # it is written when the work begins
        time.sleep(0.02)
    assert process.poll() is None, "too quick to be interrupted"
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert out == ""
    assert err.strip().endswith("interrupted; the same command goes on where it stopped")
    assert "Traceback" not in err
    assert ends(process.pid), "a worker is left behind"
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "40"
