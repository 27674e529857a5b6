"""Files of at most 400 lines, functions of at most 60; what is longer is listed here with its reason."""

import ast
from pathlib import Path

import lookalike

ROOT = Path(lookalike.__file__).parent
FILE, FUNCTION = 400, 60

# "room/file.py" or "room/file.py:function" -> why it is longer.
EXCEPTIONS: dict[str, str] = {}


def sizes(name: str, text: str) -> dict[str, int]:
    """Lines of a file and of each of its functions, docstrings included."""
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {name: len(text.splitlines())} | {f"{name}:{n.name}": n.end_lineno - n.lineno + 1 for n in functions}


def too_long(found: dict[str, int]) -> set[str]:
    return {name for name, lines in found.items() if lines > (FUNCTION if ":" in name else FILE)}


def test_sizes() -> None:
    found: dict[str, int] = {}
    for file in ROOT.rglob("*.py"):
        found |= sizes(file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8"))
    long = too_long(found)
    assert long - set(EXCEPTIONS) == set(), "split it, or list it here with its reason"
    assert set(EXCEPTIONS) - long == set(), "no longer an exception"


def test_the_check_can_fail() -> None:
    body = "    x = 1\n" * FUNCTION
    assert too_long(sizes("a.py", f"def f():\n{body}")) == {"a.py:f"}
    assert too_long(sizes("a.py", "x = 1\n" * (FILE + 1))) == {"a.py"}
    assert too_long(sizes("a.py", "x = 1\n" * FILE)) == set()
