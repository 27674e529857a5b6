"""Plain argv over a flat dataclass, without the CLI library, whose import is a sixth of a cold search.

Only what can mean one thing is read here: known flags, values of the right type, positional arguments in one piece.
Everything else (help, what is missing or wrong, nested configs) is left to `core.config.parse`, which has the words.
"""

import dataclasses
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin

T = TypeVar("T")


def read_plainly(kind: type[T], argv: Sequence[str]) -> T | None:
    """An instance of `kind`, which is what the CLI library would make of `argv`; None where that must be asked.

    UsageError if the values do not go together, as `kind` says.
    """
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    positional = [name for name, field in fields.items() if field.metadata.get("positional")]
    flags = _flags(fields, hints)
    if flags is None:
        return None
    pieces = _pieces(argv, flags, hints)
    if pieces is None:
        return None
    words, given = pieces
    found: dict[str, Any] = {}
    for name in positional:
        some = get_origin(hints[name]) is tuple
        given[name], words = (words, []) if some else (words[:1], words[1:])
        if not given[name]:
            given.pop(name)  # its default, if it has one
    if words:
        return None
    for name, values in given.items():
        value = _value(hints[name], values)
        if value is None:
            return None
        found[name] = value[0]
    required = [n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]
    return kind(**found) if found.keys() >= set(required) else None


def _flags(fields: dict[str, Any], hints: dict[str, Any]) -> dict[str, tuple[str, bool | None]] | None:
    """Flag -> its field, and the value that it stands for where it takes none; None if a field is no plain one."""
    flags: dict[str, tuple[str, bool | None]] = {}
    for name, field in fields.items():
        if dataclasses.is_dataclass(hints[name]) or field.metadata.get("fixed") or field.metadata.get("flat"):
            return None
        if field.metadata.get("positional"):
            continue
        option = name.rstrip("_").replace("_", "-")
        truth = True if hints[name] is bool else None
        flags[f"--{option}"] = (name, truth)
        if truth:
            flags[f"--no-{option}"] = (name, False)
        if short := field.metadata.get("short"):
            flags[f"-{short}"] = (name, truth)
    return flags


def _pieces(
    argv: Sequence[str], flags: dict[str, tuple[str, bool | None]], hints: dict[str, Any]
) -> tuple[list[str], dict[str, list[Any]]] | None:
    """The positional arguments, and the values of each option; None where anything is unknown, or may be two things."""
    words, given, at, closed = list[str](), dict[str, list[Any]](), 0, False
    while at < len(argv):
        word = argv[at]
        at += 1
        if not word.startswith("-"):
            if closed:
                return None  # positional arguments in two places
            words.append(word)
            continue
        flag, equals, inline = word.partition("=")
        name, truth = flags.get(flag.replace("_", "-") if flag.startswith("--") else flag, ("", None))
        if not name or name in given or (equals and not (flag.startswith("--") and truth is None)):
            return None
        closed = bool(words)
        if truth is not None:
            given[name] = [truth]
            continue
        rest = list[str]()
        while at < len(argv) and not argv[at].startswith("-"):
            rest.append(argv[at])
            at += 1
        if get_origin(hints[name]) is tuple:
            if equals or not rest:
                return None
            given[name] = rest
        else:
            given[name] = [inline] if equals else rest[:1]
            at -= len(rest) - (0 if equals else 1) if given[name] and rest else 0
            if not given[name]:
                return None
    return words, given


def _value(hint: Any, values: list[Any]) -> tuple[Any] | None:
    """`values` as what `hint` says, in a tuple of one; None if they are not plainly that."""
    origin, kinds = get_origin(hint), get_args(hint)
    if origin is tuple and len(kinds) == 2 and kinds[1] is Ellipsis:
        each = [_value(kinds[0], [value]) for value in values]
        return None if None in each else (tuple(one[0] for one in each if one),)
    if origin in (typing.Union, types.UnionType):
        kinds = tuple(kind for kind in kinds if kind is not type(None))
        return _value(kinds[0], values) if len(kinds) == 1 and values != ["None"] else None
    if origin is tuple:
        return None
    (value,) = values
    if origin is Literal:
        return (value,) if value in kinds and isinstance(value, str) else None
    if hint is bool:
        return (value,) if isinstance(value, bool) else None
    if hint is str:
        return (value,)
    if hint in (int, float):
        try:
            return (hint(value),)
        except ValueError:
            return None
    return None
