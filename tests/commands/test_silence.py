"""What is silent says what it does: verbs on a terminal, watched by scripts/silence."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "silence"

# A verb whose libraries take a second, and one that says something at once.
SLOW = """
import sys, time
from lookalike.core import journal
from lookalike.commands import info, main
journal.SILENCE = 0.1
def wait(config):
    if config.path == "loud":
        journal.note("at work")
    time.sleep(1.0)
info.main = wait
sys.exit(main(["info", sys.argv[1]]))
"""


def watched(*command: str) -> list[str]:
    """The lines of scripts/silence about a command."""
    line = [sys.executable, str(SCRIPT), "--seconds", "0.8", *command]
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout.splitlines()


def test_a_verb_that_takes_time_to_begin_says_so() -> None:
    found = watched(sys.executable, "-c", SLOW, "quiet")
    assert any("behind `info: importing libraries, and opening what is given`" in line for line in found), found
    found = watched(sys.executable, "-c", SLOW, "loud")
    assert any("behind `at work`" in line for line in found), found
    assert not any("importing" in line for line in found), found


def test_pauses_are_measured() -> None:
    code = "import time; print('one', flush=True); time.sleep(1.2); print('two')"
    *pauses, last = watched(sys.executable, "-c", code)
    assert pauses[-1].endswith("behind `one`, before `two`")
    assert float(pauses[-1].split()[0]) >= 1.1
    assert last.endswith("exit 0")
