import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from lookalike.core.errors import LookalikeError
from lookalike.data import convert as module
from lookalike.data.convert import CHUNK, WORTH, Converted, Failed, Same, Task, convert, convert_all
from lookalike.data.sources import Place


def tasks(folder: Path, count: int) -> list[Task]:
    made = []
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 255, (20 + i % 7, 30, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{i}.png")
        made.append(Task(Place(str(folder / f"{i}.png"), "stamp")))
    return made


def test_an_image_is_read_hashed_and_stored(tmp_path: Path) -> None:
    (task,) = tasks(tmp_path, 1)
    data = (tmp_path / "0.png").read_bytes()
    outcome = convert(task, 10)
    assert isinstance(outcome, Converted)
    assert outcome.sha256 == hashlib.sha256(data).digest()
    assert (outcome.width, outcome.height) == (30, 20)
    with PIL.Image.open(io.BytesIO(outcome.data)) as stored:
        assert (stored.format, stored.size) == ("JPEG", (15, 10))
    assert convert(Task(task.place, outcome.sha256), 10) == Same()
    assert isinstance(convert(Task(task.place, b"another"), 10), Converted)


def test_what_goes_wrong_with_one_image_is_its_own_affair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    for name in ("text.jpg", "absent.jpg", "."):
        failed = convert(Task(Place(str(tmp_path / name), "s")), 256)
        assert isinstance(failed, Failed)
        assert failed.reason.endswith(".")
    monkeypatch.setattr("lookalike.data.sources.MAX_BYTES", 5)
    assert "larger" in convert(Task(Place(str(tmp_path / "text.jpg"), "s")), 256).reason

    def exhausted(data: bytes, size: int) -> None:
        raise MemoryError

    monkeypatch.setattr(module, "store", exhausted)
    monkeypatch.setattr("lookalike.data.sources.MAX_BYTES", 500)
    assert "memory" in convert(Task(Place(str(tmp_path / "text.jpg"), "s")), 256).reason


def test_several_processes_give_the_same_in_the_same_order(tmp_path: Path) -> None:
    todo = tasks(tmp_path, WORTH + 1)
    todo[5] = Task(Place("absent", "s"))
    alone = list(convert_all(todo, 16, workers=1))
    assert [isinstance(outcome, Failed) for outcome in alone] == [i == 5 for i in range(len(todo))]
    assert list(convert_all(todo, 16, workers=2)) == alone
    assert list(convert_all([], 16, workers=2)) == []


def test_few_images_start_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_pool", None)
    assert len(list(convert_all(tasks(tmp_path, WORTH), 16, workers=8))) == WORTH


def test_few_chunks_are_in_flight_however_slow_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted = 0

    class Pool:
        def submit(self, work: object, chunk: list[Task], size: int) -> "Pool":
            nonlocal submitted
            submitted += 1
            self.chunk = chunk
            return self

        def result(self) -> list[Same]:
            return [Same()] * CHUNK

        def __enter__(self) -> "Pool":
            return self

        def __exit__(self, *args: object) -> None: ...

    monkeypatch.setattr(module, "_pool", lambda workers: Pool())
    outcomes = convert_all([Task(Place("x", "s"))] * CHUNK * 50, 16, workers=3)
    for seen in range(CHUNK * 20):
        next(outcomes)
        assert submitted <= seen // CHUNK + 2 * 3 + 2


SCRIPT = """
import sys, time
from lookalike.data.convert import Task, convert_all
from lookalike.data.sources import Place
if __name__ == "__main__":
    outcomes = convert_all([Task(Place(sys.argv[1], "s"))] * 100_000, 16, workers=2)
    for _ in range(40):
        next(outcomes)
    print("begun", flush=True)
    for _ in outcomes:
        pass
"""


def start(tmp_path: Path) -> "subprocess.Popen[str]":
    tasks(tmp_path, 1)
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "0.png")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def session(leader: int) -> list[int]:
    """Processes of a session that still run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, _, number = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(number) == leader and state != "Z":
                found.append(int(entry.name))
    return found


def all_end(leader: int) -> bool:
    for _ in range(200):
        if not session(leader):
            return True
        time.sleep(0.05)
    return False


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        assert len(session(process.pid)) >= 3
        process.kill()
        process.wait()
    assert all_end(process.pid)


@pytest.mark.parametrize("pause", [0.0, 0.5])
def test_an_interrupt_is_answered_once_and_by_the_parent(tmp_path: Path, pause: float) -> None:
    with start(tmp_path) as process:
        time.sleep(pause)  # without one, the second worker may still be starting
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, errors = process.communicate(timeout=30)
    assert errors.count("KeyboardInterrupt") == 1
    assert all_end(process.pid)


def test_a_worker_that_the_system_ends_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = convert_all([Task(Place(__file__, "s"))] * CHUNK * 1000, 16, workers=2)
    next(outcomes)
    victims = [p for p in children() if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()]
    os.kill(victims[0], signal.SIGKILL)
    with pytest.raises(LookalikeError, match="ended from outside") as caught:
        list(outcomes)
    assert "--workers" in caught.value.hint


def children() -> list[int]:
    return [int(p) for t in Path("/proc/self/task").iterdir() for p in (t / "children").read_text().split()]
