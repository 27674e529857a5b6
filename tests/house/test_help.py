"""The help of every command, word for word: a new or changed option shows in review.

`UPDATE_GOLDEN=1 scripts/test tests/house/test_help.py` writes them anew.
"""

import os
from pathlib import Path

import pytest

from likeness.commands import COMMANDS, main
from likeness.recipes import RECIPES

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "help"

HELPS = {"likeness": []} | {verb: [verb] for verb in COMMANDS} | {f"train-{name}": ["train", name] for name in RECIPES}


@pytest.mark.parametrize("name", sorted(HELPS))
def test_help_is_what_it_was(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main([*HELPS[name], "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    text = "\n".join(line.rstrip() for line in out.splitlines()) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.mkdir(parents=True, exist_ok=True)
        (GOLDEN / f"{name}.txt").write_text(text, encoding="utf-8")
    assert text == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


def test_no_help_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(HELPS)
