"""Images a second and the share of the time that the device waits, on a clock that the test moves."""

import json
import math
import re
import time

import pytest

from lookalike.core.journal import Progress
from lookalike.training.loop import train
from lookalike.training.step import Batch
from lookalike.training.steps import Pace


class Done:
    """A metric of a step that the device has done, or not."""

    def __init__(self, ready):
        self._ready = ready

    def is_ready(self):
        return self._ready


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def batches(clock, seconds):
    while True:
        clock[0] += seconds
        yield Batch(None, None, None)


def test_compiling_counts_for_nothing_and_waiting_only_for_an_idle_device(clock):
    pace = Pace(32, Progress("head", "steps"))
    slow = batches(clock, 0.3)
    pace.draw(slow, {})
    clock[0] += 60.0  # it is compiled
    pace.count()
    assert pace.lap() == {}
    for ready in (True, False, True, True):
        pace.draw(slow, {"loss": Done(ready)})
        clock[0] += 0.7
        pace.count()
    assert pace.lap() == {"images_per_second": 32.0, "waiting": pytest.approx(0.9 / 4, abs=1e-4)}
    pace.rest()
    clock[0] += 100.0
    pace.rest()  # behind a measurement
    pace.draw(slow, {"loss": Done(False)})
    clock[0] += 0.1
    pace.count()
    assert pace.lap() == {"images_per_second": 80.0, "waiting": 0.0}


def test_the_line_says_loss_angle_images_and_waiting(made, tmp_path, capsys):
    """Of a run; the angle is that of the cosine in the journal."""
    train(made.head(tmp_path / "run", steps=6, log_every=2))
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    words = [line for line in capsys.readouterr().err.splitlines() if line.startswith("head 6/6 steps")]
    found = re.search(r"loss ([\d.]+), ([\d.]+) degrees to the own center, ([\d,]+) images/s, waits (\d+)%", words[-1])
    assert found is not None
    assert float(found[1]) == pytest.approx(last["loss"], abs=1e-4)
    assert math.cos(math.radians(float(found[2]))) == pytest.approx(last["cosine"], abs=2e-3)
    assert float(found[3].replace(",", "")) == pytest.approx(last["images_per_second"], abs=1.0)
    assert int(found[4]) == pytest.approx(100 * last["waiting"], abs=1.0)
