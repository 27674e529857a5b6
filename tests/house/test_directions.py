"""Imports go one way: every import of ours in every room, read from the syntax trees, against one table."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import lookalike

ROOT = Path(lookalike.__file__).parent

# What a room may import of ours; a name with a dot is that one module.
TABLE = {
    "core": set(),
    "imaging": {"core"},
    "towers": {"core", "imaging"},
    "encoders": {"core", "imaging", "towers"},
    "published": {"core", "imaging", "towers", "encoders"},
    "data": {"core", "imaging"},
    "losses": {"core"},
    "vectors": {"core", "imaging", "data", "towers", "encoders"},
    "training": {"core", "imaging", "data", "towers", "encoders", "losses", "vectors", "evaluation.trials"},
    "retrieval": {"core", "data"},
    "evaluation": {"core", "data", "encoders", "vectors", "retrieval"},
    "exploring": {"core", "retrieval"},
    "pages": {"core", "imaging", "data", "retrieval"},
    "recipes": {"core", "imaging", "data", "towers", "losses", "training.config"},
    "demo": {"core", "imaging", "data", "pages"},
    "targets": {"core", "imaging", "towers", "encoders", "published"},
}
FREE = {"commands"}  # wires siblings, reads argv, prints, exits


def imported(source: str, package: str) -> Iterator[str]:
    """Dotted names below `lookalike.` that `source` imports anywhere, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = parts[: len(parts) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        # `lookalike.__version__` is no room.
        ours = (name for name in names if name.startswith("lookalike.") and not name.startswith("lookalike.__"))
        yield from (name.removeprefix("lookalike.") for name in ours)


def violations(room: str, source: str, package: str | None = None) -> list[str]:
    """Imports of ours in `source`, a file of `room`, that the table does not allow."""
    allowed = TABLE[room] | {room}
    found = imported(source, package or f"lookalike.{room}")
    return [name for name in found if not any(name == way or name.startswith(way + ".") for way in allowed)]


def rooms() -> set[str]:
    return {path.parent.name for path in ROOT.glob("*/__init__.py")}


def test_every_room_is_in_the_table() -> None:
    assert rooms() == set(TABLE) | FREE


@pytest.mark.parametrize("room", sorted(TABLE))
def test_imports_go_one_way(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for file in files:
        package = "lookalike." + ".".join(file.relative_to(ROOT).parent.parts)
        assert violations(room, file.read_text(encoding="utf-8"), package) == [], file


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("core", "import lookalike.imaging.decode"),
        ("data", "from lookalike.retrieval import exact"),
        ("training", "def f():\n    from lookalike.evaluation.protocols import report"),
        ("recipes", "from lookalike.training.loop import train"),
        ("recipes", "from lookalike.training import loop"),
        ("retrieval", "if TYPE_CHECKING:\n    from lookalike.encoders.encoder import Encoder"),
        ("towers", "from ..data import batches"),
        ("data", "import lookalike.database"),  # a room's name is not a prefix of another's
    ],
)
def test_the_check_can_fail(room: str, source: str) -> None:
    assert violations(room, source)


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("recipes", "from lookalike.training.config import HeadStage"),
        ("evaluation", "import lookalike.retrieval.exact, numpy"),
        ("towers", "from . import vit\nfrom .vit import ViT\nfrom ..core import files"),
    ],
)
def test_the_check_can_pass(room: str, source: str) -> None:
    assert violations(room, source) == []


def test_only_commands_read_arguments_print_or_exit() -> None:
    spoken = {"core/journal.py"}  # the one way of words to stderr
    for file in sorted(ROOT.rglob("*.py")):
        name = file.relative_to(ROOT).as_posix()
        if name.startswith("commands/") or name in spoken:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            assert not (isinstance(called, ast.Name) and called.id in {"print", "exit", "input"}), (
                f"{name}:{node.lineno}"
            )
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sys":
                assert node.attr not in {"argv", "exit", "stdout"}, f"{name}:{node.lineno}"


def test_the_command_line_library_has_one_door() -> None:
    doors = [
        file.relative_to(ROOT).as_posix()
        for file in sorted(ROOT.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "tyro" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tyro")
    ]
    assert set(doors) == {"core/config.py"}
