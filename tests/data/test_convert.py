import gc
import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from lookalike.data import convert as module
from lookalike.data.convert import CHUNK, WORTH, Converted, Failed, Outcome, Same, Task, convert, convert_all
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
    with PIL.Image.open(io.BytesIO(outcome.image)) as stored:
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

    def exhausted(data: bytes, size: int, border: int) -> None:
        raise MemoryError

    monkeypatch.setattr(module, "store", exhausted)
    monkeypatch.setattr("lookalike.data.sources.MAX_BYTES", 500)
    assert "MemoryError" in convert(Task(Place(str(tmp_path / "text.jpg"), "s")), 256).reason


def test_several_processes_give_the_same_in_the_same_order(tmp_path: Path) -> None:
    todo = tasks(tmp_path, WORTH + 1)
    todo[5] = Task(Place("absent", "s"))
    alone = list(convert_all(todo, 16, workers=1))
    assert [isinstance(outcome, Failed) for outcome in alone] == [i == 5 for i in range(len(todo))]
    assert list(convert_all(todo, 16, workers=2)) == alone
    assert list(convert_all([], 16, workers=2)) == []


def test_few_images_start_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_Worker", None)
    assert len(list(convert_all(tasks(tmp_path, WORTH), 16, workers=8))) == WORTH


def test_few_chunks_are_in_flight_however_slow_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted = 0

    def submit(self: object, function: object, chunk: list[Task]) -> "Future[list[Same]]":
        nonlocal submitted
        submitted += 1
        done: Future[list[Same]] = Future()
        done.set_result([Same()] * CHUNK)
        return done

    monkeypatch.setattr(module.ThreadPoolExecutor, "submit", submit)
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


def test_a_worker_that_the_system_ends_costs_no_image(tmp_path: Path) -> None:
    (good,) = tasks(tmp_path, 1)
    outcomes = convert_all([good] * CHUNK * 40, 16, workers=2)
    found = [next(outcomes)]
    victims = [p for p in children() if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()]
    os.kill(victims[0], signal.SIGKILL)
    found.extend(outcomes)
    assert len(found) == CHUNK * 40
    assert set(found) == {convert(good, 16)}


class Torn(Place):
    """Bytes whose reader is killed in the middle of what it writes."""

    def read(self) -> bytes:
        for pipe in [thing for thing in gc.get_objects() if isinstance(thing, Connection) and thing.writable]:
            os.write(pipe.fileno(), (10_000).to_bytes(4) + b"half of it")
        os.kill(os.getpid(), signal.SIGKILL)
        return b""


def test_half_a_message_is_not_waited_for(tmp_path: Path) -> None:
    todo = tasks(tmp_path, WORTH + CHUNK)
    todo[7] = Task(Torn("x", "s"))
    found: list[Outcome] = []
    thread = threading.Thread(target=lambda: found.extend(convert_all(todo, 16, workers=2)), daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert [isinstance(outcome, Failed) for outcome in found] == [i == 7 for i in range(len(todo))]


class Deadly(Place):
    """Bytes that end the process that reads them, as a crash in a C library does."""

    def read(self) -> bytes:
        os.kill(os.getpid(), signal.SIGSEGV)
        return b""


class Odd(Place):
    """Bytes that make a decoder raise what nobody expects."""

    def read(self) -> bytes:
        raise {"a": AssertionError("not so"), "r": RecursionError(), "s": SystemError("c")}[self.path]


def test_an_image_that_ends_its_process_costs_itself_alone(tmp_path: Path) -> None:
    todo = tasks(tmp_path, WORTH + CHUNK)
    bad = {3: Task(Deadly("x", "s")), 4: Task(Odd("a", "s")), 40: Task(Odd("r", "s")), 77: Task(Deadly("x", "s"))}
    for place, task in bad.items():
        todo[place] = task
    outcomes = list(convert_all(todo, 16, workers=2))
    assert {i for i, outcome in enumerate(outcomes) if isinstance(outcome, Failed)} == set(bad)
    assert "ended the process" in outcomes[3].reason
    assert "ended the process" in outcomes[77].reason
    assert "AssertionError: not so." in outcomes[4].reason
    assert outcomes[5] == convert(todo[5], 16)


@pytest.mark.parametrize("error", [AssertionError, OverflowError, SystemError, RecursionError, KeyError, TypeError])
def test_any_exception_of_a_decoder_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def broken(data: bytes, size: int, border: int) -> None:
        raise error("inside\nof it")

    monkeypatch.setattr(module, "store", broken)
    failed = convert(tasks(tmp_path, 1)[0], 16)
    assert isinstance(failed, Failed)
    assert error.__name__ in failed.reason
    assert "\n" not in failed.reason


def children() -> list[int]:
    return [int(p) for t in Path("/proc/self/task").iterdir() for p in (t / "children").read_text().split()]
