"""argv over a frozen dataclass, and the same dataclass to JSON and back; the only file that imports the CLI library.

A command's options, a recipe and a saved `config.json` are one thing: a tree of frozen dataclasses with a
docstring under each field. Flags override its leaves.

    @dataclass(frozen=True)
    class Config:
        collection: str = option(positional=True, metavar="COLL")
        k: int = option(default=5, short="k")
"""

import contextlib
import dataclasses
import difflib
import io
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from lookalike.core.errors import UsageError

T = TypeVar("T")

__all__ = ["did_you_mean", "from_json", "in_range", "option", "parse", "to_json"]


def option(
    *,
    default: Any = dataclasses.MISSING,
    default_factory: Any = dataclasses.MISSING,
    positional: bool = False,
    short: str | None = None,
    metavar: str | None = None,
    name: str | None = None,
    was: str | None = None,
    added: bool = False,
) -> Any:
    """A dataclass field that says how it looks on the command line.

    Args:
        default: The value without the flag; a field without one is required.
        default_factory: Makes the default.
        positional: Given by place, without a flag.
        short: One letter for a short flag: "k" allows `-k 5`.
        metavar: What the help calls the value: "COLL".
        name: The flag's name where the field can't have it (`--for` is no field's name).
        was: The name that files written by earlier versions have for it.
        added: Whether such files lack it. It is then written only where it is not the default, so that what has a
            fingerprint keeps it.
    """
    metadata = {"lookalike": {"positional": positional, "short": short, "metavar": metavar, "name": name, "was": was}}
    metadata["lookalike"]["added"] = added
    if default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=default_factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """` Did you mean `x`?` for the nearest of `words` (with its leading space), or nothing if none is near."""
    near = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f" Did you mean `{near[0]}`?" if near else ""


def in_range(config: Any, low: float, high: float, *names: str) -> None:
    """UsageError if one of these fields of `config` is not a number from `low` to `high`; for `__post_init__`."""
    for name in names:
        value = getattr(config, name)
        if not low <= value <= high:  # NaN is neither
            wanted = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
            kind = type(config).__name__
            option_of_a_command = f"`--{name.replace('_', '-')}`"
            told = option_of_a_command if kind == "Config" else f"`{name}` of {kind}"
            raise UsageError(f"{told} is {value}; expected {wanted}.")


# ---------------------------------------------------------------------------------------------- argv


def parse(kind: type[T], argv: Sequence[str], *, prog: str, description: str, default: T | None = None) -> T:
    """An instance of the dataclass `kind` from `argv`.

    Args:
        kind: A frozen dataclass; nested ones become dotted flags (`--loss.margin`).
        argv: The arguments behind the verb.
        prog: What the help calls the program: "lookalike search".
        description: The help's first words.
        default: An instance whose values hold where `argv` says nothing. A union in the tree keeps the member
            that the default has.

    Raises:
        UsageError: An unknown option, a missing one, or a value that isn't allowed.
        SystemExit: With code 0, once the help is printed.
    """
    import tyro

    known = sorted(_flags(kind, default))
    _refuse_unknown(argv, known, prog)
    words = io.StringIO()
    arguments: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(words):
            value: T = tyro.cli(
                kind,
                args=list(argv),
                prog=prog,
                description=description,
                config=(tyro.conf.AvoidSubcommands, tyro.conf.DisallowNone),
                registry=_registry(),
                **arguments,
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise UsageError(_sentence(words.getvalue()), hint=f"`{prog} --help` lists the options") from None
    _refuse_empty(value, prog)
    return value


def _registry() -> Any:
    """Tyro's own reading of dataclasses, with the fields' `option` metadata put where tyro looks for it."""
    from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructTypeInfo

    registry = ConstructorRegistry()
    inside = False

    @registry.struct_rule
    def dataclass_with_options(info: StructTypeInfo) -> StructConstructorSpec | None:
        nonlocal inside
        if inside or not dataclasses.is_dataclass(info.type):
            return None
        inside = True  # so that the next line reaches tyro's own rule instead of this one again
        try:
            spec = ConstructorRegistry.get_struct_spec(info)
        finally:
            inside = False
        if not isinstance(spec, StructConstructorSpec):
            return None
        metadata = {field.name: field.metadata.get("lookalike", {}) for field in dataclasses.fields(info.type)}
        fields = (
            dataclasses.replace(f, type=_annotated(f.type, f.default, metadata[f.name]), helptext=_flowing(f.helptext))
            for f in spec.fields
        )
        return dataclasses.replace(spec, fields=tuple(fields))

    return registry


def _flowing(text: Any) -> Any:
    """A field's docstring without its line breaks, which tyro would keep: the terminal is wide as it is."""
    if callable(text):
        return lambda: _flowing(text())
    return " ".join(text.split()) if text else text


def _annotated(kind: Any, default: Any, metadata: dict[str, Any]) -> Any:
    import tyro

    metavar, hint = metadata.get("metavar"), None
    if default is None or default in ((), ""):
        hint = ""  # "(default: None)" says nothing
    if metavar and metadata["positional"] and get_origin(kind) is tuple:
        metavar += "..."
        hint = hint if default == () else "(required)"  # by `_refuse_empty`; tyro takes none as well
    mark = tyro.conf.arg(
        metavar=metavar,
        aliases=(f"-{metadata['short']}",) if metadata.get("short") else None,
        name=metadata.get("name"),
        help_behavior_hint=hint,
    )
    return Annotated[(kind, mark, *((tyro.conf.Positional,) if metadata.get("positional") else ()))]


def _flags(kind: Any, default: Any, before: str = "") -> Iterator[str]:
    """Every flag that `kind` understands, dotted; the member of a union is the one that `default` has."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        metadata = field.metadata.get("lookalike", {})
        if metadata.get("positional"):
            continue
        made = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        value = getattr(default, field.name, made)
        name = before + (metadata.get("name") or field.name).replace("_", "-")
        inner = type(value) if dataclasses.is_dataclass(value) else hints[field.name]
        if dataclasses.is_dataclass(inner):
            yield from _flags(inner, value, name + ".")
            continue
        yield f"--{name}"
        if hints[field.name] is bool:
            yield f"--{before}no-{name.removeprefix(before)}"
        if metadata.get("short"):
            yield f"-{metadata['short']}"


def _refuse_unknown(argv: Sequence[str], known: Sequence[str], prog: str) -> None:
    given: set[str] = set()
    for word in argv:
        if not word.startswith("--") or word == "--":
            continue
        flag = word.split("=", 1)[0].replace("_", "-")
        if flag in given:
            raise UsageError(f"`{flag}` is given twice.", hint=f"`{prog} --help` lists the options")
        given.add(flag)
        if flag not in known and flag != "--help":
            raise UsageError(
                f"Unknown option `{word.split('=', 1)[0]}`.{did_you_mean(flag, known)}",
                hint=f"`{prog} --help` lists the options",
            )


def _refuse_empty(value: Any, prog: str) -> None:
    """A list by place, without a default, needs at least one."""
    for field in dataclasses.fields(value):
        metadata = field.metadata.get("lookalike", {})
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and metadata.get("positional") and getattr(value, field.name) == ():
            name = metadata["metavar"] or field.name
            raise UsageError(f"Missing: `{name}...`.", hint=f"`{prog} --help` lists the options")


_REWORDED = (
    (
        r"Invalid choice: invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)\.",
        r"`\2` is '\1'; expected one of \3.",
    ),
    (
        r"Value error: Error parsing (\S+): no type matching (\S+) could be .* \['(.*)'\]\. .*",
        r"`\1` is '\3'; expected a \2.",
    ),
    (
        r"Value error: Error parsing (\S+): invalid literal for int.*: '(.*)'.*",
        r"`\1` is '\2'; expected a whole number.",
    ),
    (
        r"Value error: Error parsing (\S+): could not convert string to float: '(.*)'.*",
        r"`\1` is '\2'; expected a number.",
    ),
    (r"Value error: Error parsing (\S+): (.*?)(?: Argument helptext: .*)?", r"`\1` can't be read: \2."),
    (r"Unrecognized options: (?:Unrecognized options: )?(.*)", r"Unknown argument `\1`."),
    (r"Missing argument: Missing value for argument '(.*)'\. .*", r"`\1` needs a value."),
)


def _sentence(box: str) -> str:
    """Tyro's framed message as one plain sentence."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [re.sub(r"^[╭│╰─|+]+ ?|[\s╮│╯─|+]+$", "", line) for line in text.splitlines()]
    lines = [line for line in lines if line.strip(" -") and "--help" not in line and "full helptext" not in line]
    title, *rest = lines or ["The command line can't be understood"]
    if title.strip() == "Required options":  # names stand four spaces in, their help eight
        names = [line.strip() for line in rest if line.startswith("    ") and not line.startswith("     ")]
        return f"Missing: {', '.join(f'`{name}`' for name in names)}."
    sentence = ": ".join(part for part in (title.strip(), " ".join(line.strip() for line in rest)) if part)
    for pattern, wording in _REWORDED:
        if match := re.fullmatch(pattern, sentence):
            return re.sub(r"(?<=one of )'.*'", _sorted, match.expand(wording))
    return sentence if sentence.endswith((".", "?", "!")) else sentence + "."


def _sorted(choices: re.Match[str]) -> str:
    """In one order: tyro's differs from run to run, and has 'None' for an option that may be left out."""
    return ", ".join(sorted(choice for choice in choices[0].split(", ") if choice != "'None'"))


# ---------------------------------------------------------------------------------------------- JSON


def to_json(value: Any) -> Any:
    """`value` as what `json` writes; a dataclass becomes an object that names its class under "type"."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: to_json(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if not (_added(field) and getattr(value, field.name) == field.default)
        }
        return {"type": type(value).__name__, **fields}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise TypeError(f"a config can't hold a {type(value).__name__}")


def from_json(kind: Any, data: Any, where: str = "") -> Any:
    """The value of type `kind` that `to_json` turned into `data`.

    Nothing is guessed: every field must be there, and nothing else.

    Args:
        kind: A dataclass, a union of them, a tuple or Literal of what JSON has, or None.
        data: What `json` read.
        where: The place of `data` in the whole, for the errors: "tower.depth".

    Raises:
        UsageError: A field is missing, unknown or of another type.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _object(kind, data, where)
    if origin in (typing.Union, types.UnionType):
        return _member(arguments, data, where)
    if origin is Literal:
        return _checked(data in arguments and type(data) in {type(a) for a in arguments}, kind, data, where)
    if origin is tuple:
        return _tuple(kind, data, where)
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    wanted = type(None) if kind is None else kind
    return _checked(type(data) is wanted, kind, data, where)


def _checked(good: bool, kind: Any, data: Any, where: str) -> Any:
    if not good:
        expected = f"one of {', '.join(map(repr, get_args(kind)))}" if get_origin(kind) is Literal else _name(kind)
        raise UsageError(f"`{where or 'config'}` is {data!r}; expected {expected}.")
    return data


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def _object(kind: Any, data: Any, where: str) -> Any:
    _checked(isinstance(data, dict), kind, data, where)
    place = f"`{where}`" if where else "the config"
    if data.get("type", kind.__name__) not in _tags(kind):
        raise UsageError(f"{place} is of type {data['type']!r}; expected {kind.__name__!r}.")
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    earlier = {field.metadata.get("lookalike", {}).get("was"): name for name, field in fields.items()}
    data = {earlier.get(name, name): value for name, value in data.items()}
    names = list(fields)
    unknown = sorted(set(data) - set(names) - {"type"})
    if unknown:
        raise UsageError(f"{place} has no field `{unknown[0]}`.{did_you_mean(unknown[0], names)}")
    missing = [name for name in names if name not in data and not _added(fields[name])]
    if missing:
        raise UsageError(f"{place} lacks {', '.join(f'`{name}`' for name in missing)}.")
    hints = typing.get_type_hints(kind)
    given = (name for name in names if name in data)
    return kind(**{name: from_json(hints[name], data[name], f"{where}.{name}".lstrip(".")) for name in given})


def _added(field: dataclasses.Field[Any]) -> bool:
    """Whether files of earlier versions lack the field; see `option`."""
    return bool(field.metadata.get("lookalike", {}).get("added", False))


def _tags(kind: Any) -> tuple[str, ...]:
    """What `type` may say of a dataclass: its name, and the one that it had in files of earlier versions (`WAS`)."""
    return (kind.__name__, *([kind.WAS] if hasattr(kind, "WAS") else []))


def _member(members: tuple[Any, ...], data: Any, where: str) -> Any:
    """The member of a union: by its tag if it is an object, else the first that fits."""
    if data is None and type(None) in members:
        return None
    classes = {tag: member for member in members if dataclasses.is_dataclass(member) for tag in _tags(member)}
    if isinstance(data, dict) and classes:
        tag = data.get("type")
        if tag not in classes:
            known = ", ".join(sorted(classes))
            raise UsageError(f"`{where or 'config'}` is of type {tag!r}; expected one of {known}.")
        return from_json(classes[tag], data, where)
    for member in members:
        with contextlib.suppress(UsageError):
            return from_json(member, data, where)
    return _checked(False, " | ".join(_name(member) for member in members), data, where)


def _tuple(kind: Any, data: Any, where: str) -> tuple[Any, ...]:
    kinds = get_args(kind)
    _checked(isinstance(data, list), kind, data, where)
    if kinds[1:] == (Ellipsis,):
        kinds = kinds[:1] * len(data)
    _checked(len(data) == len(kinds), kind, data, where)
    return tuple(from_json(k, item, f"{where}[{i}]") for i, (k, item) in enumerate(zip(kinds, data, strict=True)))
