import io
import json
import sys
import time
from pathlib import Path

import pytest

from lookalike.core import journal
from lookalike.core.journal import Progress, note, record, rewind, said_at_first, said_if_slow, shown, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(journal.time, "monotonic", clock.monotonic)
    return clock


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_words_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    note("words")
    assert capsys.readouterr() == ("", "words\n")


def test_metrics_are_lines_of_json(tmp_path: Path) -> None:
    record(tmp_path, 0, {"mp@5": 0.5})
    record(tmp_path, 10, {"loss": 2.0, "phase": "warm"})
    assert lines(tmp_path) == [{"step": 0, "mp@5": 0.5}, {"step": 10, "loss": 2.0, "phase": "warm"}]


def test_going_on_drops_later_steps_and_half_a_line(tmp_path: Path) -> None:
    for step in (0, 10, 20, 30):
        record(tmp_path, step, {"loss": float(step)})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "lo')  # killed while writing
    rewind(tmp_path, 20)
    record(tmp_path, 30, {"loss": -1.0})
    assert lines(tmp_path) == [{"step": s, "loss": v} for s, v in [(0, 0.0), (10, 10.0), (20, 20.0), (30, -1.0)]]


@pytest.mark.parametrize("whole", [0, 2])
def test_half_a_line_is_not_written_on(tmp_path: Path, whole: int) -> None:
    """As where a run is killed at its first measurement, and goes on before it has a checkpoint to go back to."""
    for step in range(whole):
        record(tmp_path, step, {"loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "lo')
    record(tmp_path, 2, {"loss": 0.5})
    assert lines(tmp_path) == [*({"step": step, "loss": 1.0} for step in range(whole)), {"step": 2, "loss": 0.5}]


def test_progress_tells_rate_and_time_left_five_times_a_second(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with Progress("embed", "images", 1000, done=200) as bar:
        clock.now += 0.1
        bar.advance(10)
        assert screen.getvalue() == ""
        clock.now += 1.9
        bar.advance(90)
        assert screen.getvalue() == "\r\x1b[Kembed 300/1,000 images, 50.0 images/s, 0:14 left"
        clock.now += 0.1
        bar.advance(1)
    assert screen.getvalue().endswith("embed 301/1,000 images, 48.1 images/s, 0:14 left\n")
    assert screen.getvalue().count("\r") == 2


def test_progress_says_more(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("head", "steps", 100) as bar:
        for loss in (3.0, 2.0):
            bar.said = f"loss {loss}"
            clock.now += 10.0
            bar.advance(10)
    assert capsys.readouterr().err.splitlines()[:2] == [
        "head 10/100 steps, 1.0 steps/s, loss 3.0, 1:30 left",
        "head 20/100 steps, 1.0 steps/s, loss 2.0, 1:20 left",
    ]


def test_what_is_left_is_said_once_it_is_known(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the first of a thousand nor the first second tells how long the rest takes."""
    for seconds, words in (
        (0.01, "head 1/1,000 steps"),
        (2.0, "head 1/1,000 steps, 0.5 steps/s"),
        (3.0, "head 1/1,000 steps, 0.3 steps/s, 49:57 left"),
    ):
        with Progress("head", "steps", 1000) as bar:
            clock.now += seconds
            bar.advance(1)
        assert capsys.readouterr().err == f"{words}\n"


def test_what_is_silent_says_what_it_does(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(journal, "SILENCE", 0.02)
    with said_if_slow("opening the model"):
        time.sleep(0.3)
    with Progress("embed", "images", 10) as bar:
        time.sleep(0.3)
        bar.advance(10)
    first, second, third = capsys.readouterr().err.splitlines()
    assert (first, second) == ("opening the model", "embed 0/10 images")
    assert third.startswith("embed 10/10 images, ")
    monkeypatch.setattr(journal, "SILENCE", 10.0)
    with said_if_slow("opening the model"), Progress("embed", "images", 10):
        pass
    assert capsys.readouterr().err == ""


def test_a_verb_that_says_nothing_at_first_says_that_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """To a person at a terminal, and only if nothing else was said."""
    monkeypatch.setattr(journal, "SILENCE", 0.02)
    for stream, words, expected in (
        (Terminal(), "", "index: importing libraries\n"),
        (Terminal(), "something else", "something else\n"),
        (io.StringIO(), "", ""),
    ):
        monkeypatch.setattr(sys, "stderr", stream)
        with said_at_first("index: importing libraries"):
            if words:
                note(words)
            time.sleep(0.3)
        assert stream.getvalue() == expected


def test_the_rate_leaves_out_what_was_something_else(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("head", "steps", 100) as bar:
        clock.now += 60.0  # it is compiled
        bar.advance(1)
        bar.restart()
        clock.now += 10.0
        bar.advance(19)
    assert "head 20/100 steps, 1.9 steps/s, 0:42 left" in capsys.readouterr().err


def test_progress_is_rare_where_no_one_looks(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("prepare", "images") as bar:
        for _ in range(25):
            clock.now += 1.0
            bar.advance(10)
    words = capsys.readouterr().err.splitlines()
    assert words == [f"prepare {n} images, 10.0 images/s" for n in (100, 200, 250)]


def test_progress_over_hours(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("embed", "images", 1_000_000) as bar:
        clock.now += 100
        bar.advance(10_000)
    assert "embed 10,000/1,000,000 images, 100.0 images/s, 2:45:00 left" in capsys.readouterr().err


def test_no_progress_is_no_words(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("embed", "images", 10, done=10):
        clock.now += 100
    assert capsys.readouterr().err == ""


def test_a_table_is_aligned() -> None:
    text = table(["domain", "mp@5"], [["cars", 0.5], ["art and more", 12]])
    assert text == "domain        mp@5\n------------  ----\ncars           0.5\nart and more    12"


def test_words_stand_left_and_numbers_right() -> None:
    text = table(["id", "reason", "n"], [[7, "no image", "1,000"], [12, "cut off early", "-"]])
    assert text.splitlines()[2:] == [" 7  no image       1,000", "12  cut off early      -"]


def test_an_interrupt_while_it_is_opened_again_loses_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(tmp_path, 0, {"mp": 0.5})
    record(tmp_path, 10, {"loss": 1.0})
    before = (tmp_path / "metrics.jsonl").read_text()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for step in ("json_text", "write_bytes"):
        with monkeypatch.context() as patch:
            patch.setattr(journal, step, interrupt)
            with pytest.raises(KeyboardInterrupt):
                rewind(tmp_path, 10)
        assert (tmp_path / "metrics.jsonl").read_text() == before


def test_a_loss_that_is_no_number_is_json_too(tmp_path: Path) -> None:
    record(tmp_path, 1, {"loss": float("nan"), "length": float("inf")})
    assert lines(tmp_path) == [{"step": 1, "loss": None, "length": None}]


EVIL = "\x1b[2J\x9b31m\r\n\u202egpj.\u2028x\udcff"


def test_a_name_says_nothing_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown("é 日本 \U0001f98a \u200d a\u0308") == "é 日本 \U0001f98a \u200d a\u0308"
    assert shown(EVIL) == r"\x1b[2J\x9b31m\r\n\u202egpj.\u2028x\udcff"
    assert table(["name", EVIL], [[EVIL, 1]]).count("\n") == 2
    note(f"`{EVIL}` is left out\nand {EVIL[0]}")
    assert capsys.readouterr().err == "`" + shown(EVIL) + "` is left out\nand \\x1b\n"
