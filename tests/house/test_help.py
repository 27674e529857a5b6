"""The help of every command, word for word: a new or changed option shows in review.

`UPDATE_GOLDEN=1 scripts/test tests/house/test_help.py` writes them anew.
"""

import os
from pathlib import Path

import pytest

from lookalike.commands import COMMANDS, main
from lookalike.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "help"
PAGE = ROOT / "docs" / "reference" / "commands.md"

HEAD = """# Commands

Data goes to stdout, words and progress to stderr; `--json` writes one document and nothing else. Exit codes: 0 done;
2 something you can mend, told in one sentence and a hint; 130 interrupted; 1 a bug of ours. What follows is the
programs' own help; a test keeps it so.
"""

HELPS = {"lookalike": []} | {verb: [verb] for verb in COMMANDS} | {f"train-{name}": ["train", name] for name in RECIPES}
HELPS |= {"plan-pca": ["plan", "pca"]}  # its own options; those of recipes are the same as in train


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


def page() -> str:
    """The reference page: every help, verbs in the order of their table."""
    parts = [HEAD]
    for name, argv in HELPS.items():
        text = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8").rstrip()
        parts.append(f"## {' '.join(['lookalike', *argv])}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def test_the_reference_page_shows_the_same_help() -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page()


def test_no_help_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(HELPS)
