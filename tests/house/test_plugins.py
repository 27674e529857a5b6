"""Plug-ins are tables written by hand: each entry is there, each file of the room is in its table."""

import ast
import dataclasses
import inspect
from importlib import import_module
from pathlib import Path

import pytest

import lookalike
from lookalike.commands import COMMANDS
from lookalike.targets import TARGETS
from lookalike.targets.parts import Target, target_of

ROOT = Path(lookalike.__file__).parent

# What several verbs mean, say or do alike.
SHARED = {"evaluation_pages", "indexes", "measured", "mirror", "models", "outcome", "recipe_flags", "stored", "verdict"}

# Room -> the name of its table, whose values are module paths or things of the room's modules, and files that are none.
TABLES: dict[str, tuple[str, set[str]]] = {
    "data.sources": (
        "SOURCES",
        {
            *("archive", "beside", "cells", "checksums", "classes", "csv_table", "dataset", "listed", "lists", "once"),
            *("judged", "presets", "selection", "store", "tfrecord", "tree"),
        },
    ),
    "published.layouts": ("WEIGHTS", {"text"}),
    "recipes": ("RECIPES", set()),
    "targets": (
        "TARGETS",
        {"lines", "model_card", "parity", "parts", "pixels", "torch_program", "writing"},
    ),
}


def files(room: str) -> set[str]:
    return {path.stem for path in (ROOT / room.replace(".", "/")).glob("*.py") if path.stem != "__init__"}


def test_every_verb_is_a_file_and_every_file_a_verb() -> None:
    assert files("commands") - SHARED == set(COMMANDS)
    for verb, line in COMMANDS.items():
        assert 0 < len(line) <= 66, verb
        assert not line.endswith("."), verb


@pytest.mark.parametrize("verb", sorted(COMMANDS))
def test_every_verb_has_what_the_table_promises(verb: str) -> None:
    module = import_module(f"lookalike.commands.{verb}")
    assert list(inspect.signature(module.main).parameters) == ["config"]
    if hasattr(module, "configure"):
        assert list(inspect.signature(module.configure).parameters) == ["argv"]
        return
    assert dataclasses.is_dataclass(module.Config)
    assert module.Config.__dataclass_params__.frozen
    tree = next(
        n for n in ast.parse(inspect.getsource(module)).body if isinstance(n, ast.ClassDef) and n.name == "Config"
    )
    assert ast.get_docstring(tree)
    for field, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign):
            told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            assert told, f"{verb}: {ast.unparse(field.target)} has no docstring"


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_what_is_known_of_a_target_stands_in_its_file(name: str) -> None:
    assert isinstance(target_of(name), Target)
    assert name in (import_module("lookalike.commands.export").Config.__doc__ or "")
    general = ("targets/parts.py", "targets/writing.py", "targets/model_card.py", "targets/parity.py")
    for file in (*general, "commands/export.py", "commands/push.py", "encoders/readme.py"):
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value != name, f"{file}:{node.lineno} knows {name}"


@pytest.mark.parametrize("room", sorted(TABLES))
def test_every_entry_resolves_and_every_file_is_used(room: str) -> None:
    name, other = TABLES[room]
    table = getattr(import_module(f"lookalike.{room}"), name)
    assert table
    used = set()
    for key, entry in table.items():
        assert key == key.lower(), key
        if isinstance(entry, str):
            module = entry.partition(":")[0]
            import_module(module)
            used.add(module.rsplit(".", 1)[-1])
    source = ast.parse((ROOT / room.replace(".", "/") / "__init__.py").read_text(encoding="utf-8"))
    for node in ast.walk(source):
        if isinstance(node, ast.ImportFrom) and node.module == f"lookalike.{room}":
            used |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"lookalike.{room}."):
            used.add((node.module or "").rsplit(".", 1)[-1])
    assert files(room) - other - used == set(), "a file of a plug-in room that its table does not know"
