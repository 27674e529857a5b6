"""Defaults that a project sets: lookalike.toml, or [tool.lookalike] in pyproject.toml, in this folder or one above it.

model = "models/shop"         # for LOOKALIKE_MODEL, index for LOOKALIKE_INDEX: relative to the file
index = "photos.lookalike"

[search]                      # options of a verb; [train.head]: of a recipe
k = 10
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lookalike.core.errors import UsageError

PLACES = {"model": "LOOKALIKE_MODEL", "index": "LOOKALIKE_INDEX"}
"""What a project names once for all verbs, and the environment variable that counts before it."""


@dataclass(frozen=True)
class Settings:
    """What a file says; nothing, where there is none."""

    file: Path | None = None
    told: dict[str, Any] = field(default_factory=dict)

    def flags(self, verb: str, argv: Sequence[str], letters: Mapping[str, str] = MappingProxyType({})) -> list[str]:
        """The options that are set for a verb, or the recipe that `argv` begins with, and are not in `argv`.

        `letters` are short names: letter -> the option's name in Python.
        """
        table = self.told.get(verb, {})
        recipe = table.get(argv[0]) if argv else None
        values = {name: value for name, value in table.items() if not isinstance(value, dict)}
        values |= _flat(recipe) if isinstance(recipe, dict) else {}
        given = {_option(word, letters) for word in argv if word.startswith("-")}
        return [word for name, value in values.items() if name not in given for word in flag(name, value)]

    @contextmanager
    def exported(self) -> Iterator[None]:
        """Inside the block model and index stand in the environment, where it says nothing of them."""
        told = {variable: name for name, variable in PLACES.items() if name in self.told and variable not in os.environ}
        for variable, name in told.items():
            os.environ[variable] = str((self.file or Path()).parent / str(self.told[name]))
        try:
            yield
        finally:
            for variable in told:
                os.environ.pop(variable, None)


def settings(folder: Path | None = None) -> Settings:
    """Of the nearest file from `folder` (None: the current one) upwards; UsageError if it is no TOML."""
    start = (folder or Path.cwd()).absolute()
    for place in (start, *start.parents):
        for name in ("lookalike.toml", "pyproject.toml"):
            if not (file := place / name).is_file():
                continue
            told = _read(file)
            if name == "pyproject.toml":
                told = told.get("tool", {}).get("lookalike")
            if told is not None:
                return Settings(file, told)
    return Settings()


def _flat(table: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Options by their dotted names: TOML makes tables of the dots."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
    return found


def _read(file: Path) -> Any:
    import tomllib

    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except PermissionError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"`{file}` is no TOML: {error}.", hint="mend it, or move it away") from error


def flag(name: str, value: Any) -> list[str]:
    """An option by its name in Python, as the command line has it: `mirror` = False is `--no-mirror`."""
    before, dot, last = name.replace("_", "-").rpartition(".")
    if isinstance(value, bool):
        return [f"--{before}{dot}{'' if value else 'no-'}{last}"]
    several = list(value) if isinstance(value, (list, tuple)) else [value]
    return [f"--{before}{dot}{last}", *(str(each) for each in several)]


def _option(word: str, letters: Mapping[str, str]) -> str:
    """The name in Python of the option that a word of the command line gives."""
    if not word.startswith("--"):  # -k 3 or -k3
        return letters.get(word[1:2], word[1:2])
    before, dot, last = word.split("=", 1)[0].lstrip("-").rpartition(".")
    return f"{before}{dot}{last.removeprefix('no-')}".replace("-", "_")
