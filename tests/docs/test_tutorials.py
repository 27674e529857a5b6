"""The tutorials' blocks, word for word, each page in an empty folder of its own.

A ```console block: lines that begin with `$ ` are run by a shell, those below are what it must print, where `...`
stands for anything; a command without lines below may print what it likes. ```python blocks that follow one another run
as one program.
"""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [*sorted((DOCS / "tutorials").glob("*.md")), DOCS / "how-to" / "explore.md"]
NEEDS = {  # what stands before the last blocks of a page -> what they import
    "<!-- needs torch and transformers -->": ("torch", "transformers"),
    "<!-- needs scikit-learn and pacmap -->": ("sklearn", "pacmap"),
}
FENCE = re.compile(r"^ *```(console|python)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[tuple[str, str]]:
    """Kind and text of the blocks in their order, python blocks in a row as one."""
    found: list[tuple[str, str]] = []
    for kind, body in FENCE.findall(text):
        if kind == "python" and found and found[-1][0] == "python":
            found[-1] = (kind, found[-1][1] + body)
        else:
            found.append((kind, body))
    return found


def commands(body: str) -> list[tuple[str, str]]:
    """Command and expected output of every `$ ` line; a backslash at a line's end goes on."""
    parts = re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]
    found = []
    for part in parts:
        command, rest = re.match(r"((?:[^\n]*\\\n)*[^\n]*)\n?(.*)", part, re.DOTALL).groups()  # type: ignore[union-attr]
        found.append((command, rest.strip("\n")))
    return found


def agrees(expected: str, printed: str) -> bool:
    """Whether `printed` is `expected`, with `...` for anything and any run of spaces for another."""
    words = [re.escape(" ".join(piece.split())) for piece in expected.split("...")]
    return re.fullmatch(r".*?".join(words), " ".join(printed.split()), re.DOTALL) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_does_what_it_says(page: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    text, left = page.read_text(encoding="utf-8"), ""
    for mark, libraries in NEEDS.items():
        if mark in text and not all(map(find_spec, libraries)):
            text, _, left = text.partition(mark)
    found = blocks(text)
    assert found
    for kind, body in found:
        for command, expected in commands(body) if kind == "console" else [(body, "")]:
            start = (
                ["bash", "-euo", "pipefail", "-c", command] if kind == "console" else [sys.executable, "-c", command]
            )
            done = subprocess.run(start, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            if expected:
                assert agrees(expected, done.stdout), f"$ {command}\n{done.stdout}\n--- expected\n{expected}"
    if left:
        pytest.skip("the last blocks need libraries that are not here, and all before them was run")


def test_the_reader_of_blocks() -> None:
    text = "a\n```console\n$ echo a \\\n    b\na b\n$ true\n```\n"
    text += "```python\nx = 1\n```\n```python\ny = x\n```\n```text\n$ no\n```\n"
    console, python = blocks(text)
    assert commands(console[1]) == [("echo a \\\n    b", "a b"), ("true", "")]
    assert python == ("python", "x = 1\ny = x\n")
    assert agrees("a ... c", "a  b\nb c")
    assert not agrees("a ... c", "a b d")
