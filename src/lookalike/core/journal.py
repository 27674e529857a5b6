"""Metrics and notes, to the console and to JSON lines; progress with a rate and the time left.

Words go to stderr, so that stdout holds data alone.
"""

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lookalike.core.errors import RunError, UsageError
from lookalike.core.files import json_text, write_bytes

# What a terminal acts on or turns around: control characters, line ends, directions, halves of characters.
_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_QUOTED = re.compile("`[^`]*`")
_quiet = False
_spoken = 0  # how often something was said
SILENCE = 2.0  # seconds, after which what is done is said
STEADY = 3.0  # seconds of a rate that tells how long the rest takes


def shown(text: str) -> str:
    r"""`text` on one line: what a terminal would act on is written as in Python (`\x1b`, `\n`)."""
    return _UNSHOWN.sub(lambda found: repr(found[0])[1:-1], text)


def note(text: str, mark: str = "") -> None:
    """Words for the person at the terminal, `shown` line by line; a name, which stands in backticks, is one line.

    With a `mark` it is an error, whose first word is said so, and which is said in any case.
    """
    global _spoken
    if _quiet and not mark:
        return
    _spoken += 1
    lines = _QUOTED.sub(lambda name: shown(name[0]), text).split("\n")
    words = "\n".join(map(shown, lines))
    print(mark + words[words.index(" ") :] if mark else words, file=sys.stderr, flush=True)


def colored(text: str, code: str) -> str:
    """`text` in a color for stderr, where a terminal reads it or FORCE_COLOR is set, and NO_COLOR is not."""
    reads = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    wanted = reads or os.environ.get("FORCE_COLOR", "") not in ("", "0")
    return f"\x1b[{code}m{text}\x1b[0m" if wanted and not os.environ.get("NO_COLOR") else text


@contextmanager
def quiet() -> Iterator[None]:
    """Inside the block neither notes nor progress are said; errors are."""
    global _quiet
    before, _quiet = _quiet, True
    try:
        yield
    finally:
        _quiet = before


@contextmanager
def said_if_slow(words: str) -> Iterator[None]:
    """Inside the block `words` are said once it has taken `SILENCE`: what is quick needs no words."""
    timer = _begin(lambda: note(words))
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def said_at_first(words: str) -> Iterator[None]:
    """Inside the block `words` are said to a person at a terminal once `SILENCE` has passed and nothing else was said:
    libraries that are imported for the first time take seconds, and no place by itself knows how long.
    """
    before = _spoken
    timer = _begin(lambda: note(words) if before == _spoken and sys.stderr.isatty() else None)
    try:
        yield
    finally:
        timer.cancel()


def _begin(speak: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(SILENCE, speak)
    timer.daemon = True
    timer.start()
    return timer


def read_metrics(directory: str | Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` in `directory`, but for half a line that a killed process left; RunError: damage."""
    path = Path(directory) / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    try:
        return [json.loads(line) for line in lines if line]
    except json.JSONDecodeError as error:
        raise RunError(f"`{path}` is damaged: {error}.") from error


def record(directory: str | Path, step: int, values: Mapping[str, float | int | str]) -> None:
    """Append one line to `metrics.jsonl` in `directory`, in the place of half a line that a killed process left; the
    values are as of `step`.
    """
    mend(directory)
    with (Path(directory) / "metrics.jsonl").open("ab") as file:
        file.write(f"{json_text({'step': step, **values}, None)}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def mend(directory: str | Path) -> None:
    """Drop the half of a line that a killed process or a full disk left at the end of `metrics.jsonl`."""
    with (Path(directory) / "metrics.jsonl").open("a+b") as file:
        if not file.tell():
            return
        file.seek(-1, os.SEEK_END)
        if file.read() != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def rewind(directory: str | Path, step: int) -> None:
    """Drop the lines of later steps: a run that was killed behind its last checkpoint writes those again."""
    path = Path(directory) / "metrics.jsonl"
    kept = [line for line in read_metrics(directory) if line["step"] <= step]
    write_bytes(path, "".join(json_text(line, None) + "\n" for line in kept).encode())  # whole, or as it was


class Progress(AbstractContextManager["Progress"]):
    """Says how far something long is: in the block `as bar` it is told by `bar.advance(32)`.

    `bar.said` are further words of the line, as they are at the moment. In the first `patience` seconds nothing is
    said, and nothing at all of what takes no longer. How long the rest takes is said once it is known: after a
    twentieth, or `STEADY`. Where the first of them is slow to come, that it has begun is said.
    """

    def __init__(self, verb: str, unit: str, total: int | None = None, done: int = 0, *, patience: float = 0.0) -> None:
        self.verb, self.unit, self.total, self.done = verb, unit, total, done
        self._silent_until = time.monotonic() + patience
        self._first = self._counted = done
        self._begun = self._last = time.monotonic()
        self._live = sys.stderr.isatty()
        self.said = ""
        self._waiting: threading.Timer | None = None

    def __enter__(self) -> "Progress":
        self._waiting = _begin(lambda: self._say("" if self._live else "\n"))
        return self

    def _arrived(self) -> None:
        """What was waited for is there: nothing more is said of it."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def advance(self, count: int = 1) -> None:
        """Count `count` more, and say so at most five times a second (every ten seconds where no one looks)."""
        self._arrived()
        self.done += count
        now = time.monotonic()
        if now - self._last >= (0.2 if self._live else 10.0) and now >= self._silent_until:
            self._last = now
            self._say("" if self._live else "\n")

    def restart(self) -> None:
        """Measure the rate from here on: what came before took its time with something else."""
        self._counted, self._begun = self.done, time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._arrived()
        if (self.done > self._first or self._live) and time.monotonic() >= self._silent_until:
            self._say("\n")

    def _say(self, end: str) -> None:
        global _spoken
        if _quiet:
            return
        _spoken += 1
        seconds, counted = time.monotonic() - self._begun, self.done - self._counted
        rate = counted / max(seconds, 1e-9)
        words = f"{self.verb} {self.done:,}" + ("" if self.total is None else f"/{self.total:,}") + f" {self.unit}"
        if counted > 0 and (seconds >= 0.1 or self.done == self.total):  # else one of them says nothing of the others
            words += f", {rate:,.1f} {self.unit}/s"
        words += f", {self.said}" if self.said else ""
        enough = seconds >= STEADY or (seconds >= 1 and 20 * counted >= (self.total or 0) - self._counted)
        if self.total and counted > 0 and enough and self.done < self.total:
            minutes, second = divmod(int((self.total - self.done) / rate), 60)
            clock = f"{minutes // 60}:{minutes % 60:02}:{second:02}" if minutes >= 60 else f"{minutes}:{second:02}"
            words += f", {clock} left"
        print(("\r\x1b[K" if self._live else "") + words, end=end, file=sys.stderr, flush=True)


def html_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table as `table` has it, in HTML, for notebooks."""

    def line(cells: Sequence[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(shown(str(cell)))}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line(headers, "th") + "".join(line(row, "td") for row in rows) + "</table>"


def frame_of(rows: Any) -> Any:
    """A table of Arrow as a DataFrame; UsageError where pandas is not installed, which nothing else here needs."""
    if find_spec("pandas") is None:
        raise UsageError(
            "`to_pandas` needs pandas, which is not installed here.",
            hint="pip install pandas; or `to_arrow()`, whose `to_pylist()` needs nothing more",
        )
    return rows.to_pandas()


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Plain aligned text, a line a row whatever the cells hold: numbers to the right, words to the left."""
    cells = [[shown(str(cell)) for cell in row] for row in [headers, *rows]]
    words = [any(re.search("[A-Za-z]{2}", row[i]) for row in cells[1:]) for i in range(len(headers))]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    lines = [
        "  ".join(c.ljust(w) if left else c.rjust(w) for c, w, left in zip(row, widths, words, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])
