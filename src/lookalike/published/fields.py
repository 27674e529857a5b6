"""Field tables: what a published config calls the facts of a tower, read in both directions.

A row says which of our fields is which of theirs, and what theirs is where a config leaves it out. Reading a config
and writing it follow the same rows, as tensors follow the same key table (`table.Key`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from lookalike.core.errors import EncoderError


def kept(value: Any, _: Path) -> Any:
    """A `form` for what only other rows read."""
    return value


@dataclass(frozen=True)
class Field:
    """One row of a table. With nothing but a name and a value it is a fact that all towers of the layout share."""

    ours: str | None
    """Field of the tower's config; None: the value is fixed, or other rows read it."""
    theirs: str
    """Key of their config."""
    default: Any
    """What a config that leaves it out means; its type is the type of the value (None: any)."""
    form: Mapping[Any, Any] | Callable[[Any, Path], Any] | None = None
    """Their words and ours; or a function of their value and of the path for its errors."""
    back: Callable[[dict[str, Any]], Any] | None = None
    """Our value from all of theirs, where it takes more than this one."""
    there: Callable[[Any], Any] | None = None
    """Their value from our tower, where it takes more than our field."""

    @property
    def fixed(self) -> bool:
        """Whether only the default is known."""
        return self.ours is None and self.form is None and self.there is None and self.default is not None

    def read(self, data: Mapping[str, Any], path: Path) -> Any:
        """Their value, in our words."""
        value = data.get(self.theirs, self.default)
        if isinstance(self.form, Mapping):
            known = isinstance(value, str | bool) and value in self.form
            _expect(known, self.theirs, value, " or ".join(map(str, self.form)))
            return self.form[value]
        if self.form is not None:
            return self.form(value, path)
        _expect(value == self.default or not self.fixed, self.theirs, value, self.default)
        _expect(_alike(value, self.default), self.theirs, value, f"something like {self.default!r}")
        return float(value) if isinstance(self.default, float) else value

    def write(self, tower: Any) -> dict[str, Any]:
        """Their key and value; nothing if others write it. LookupError if they have no word for ours."""
        if self.there is not None:
            return {self.theirs: self.there(tower)}
        if self.ours is None:
            return {self.theirs: self.default} if self.fixed else {}
        value = getattr(tower, self.ours)
        if isinstance(self.form, Mapping):
            value = {ours: theirs for theirs, ours in reversed(list(self.form.items()))}[value]
        return {self.theirs: list(value) if isinstance(value, tuple) else value}


def read_fields(fields: Sequence[Field], data: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Our fields from their config `data`, which lies in `path`.

    Raises:
        EncoderError: It says something that no tower of ours has; the message names it.
    """
    try:
        theirs = {field.theirs: field.read(data, path) for field in fields}
        return {f.ours: f.back(theirs) if f.back else theirs[f.theirs] for f in fields if f.ours is not None}
    except EncoderError as error:
        raise EncoderError(f"The tower of `{path}` is not one that is known: {error.message}") from error


def write_fields(fields: Sequence[Field], tower: Any) -> dict[str, Any] | None:
    """Their config of our tower; None if they have no word for something."""
    try:
        return {key: value for field in fields for key, value in field.write(tower).items()}
    except LookupError:
        return None


def _expect(good: bool, name: str, found: Any, expected: Any) -> None:
    """EncoderError unless `good`."""
    if not good:
        raise EncoderError(f"{name}={_short(found)}; expected {expected}.")


def refuse(found: Mapping[str, Any]) -> None:
    """EncoderError that names all of `found`, if there is any."""
    if found:
        raise EncoderError(f"{', '.join(f'{name}={_short(value)}' for name, value in found.items())}.")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _alike(value: Any, default: Any) -> bool:
    """Whether a value is of the type of the default."""
    if default is None:
        return True
    if isinstance(default, list | tuple):
        return isinstance(value, list | tuple) and all(_alike(item, (*default, 0)[0]) for item in value)
    if isinstance(default, bool) or isinstance(value, bool):
        return type(value) is type(default)
    return (
        isinstance(value, int | float) and isfinite(value)
        if isinstance(default, float)
        else isinstance(value, type(default))
    )
