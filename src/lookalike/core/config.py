"""argv over a frozen dataclass, and the same dataclass to JSON and back; the only file that imports the CLI library.

A command's options, a recipe and a saved `config.json` are one thing: a tree of frozen dataclasses with a
docstring under each field. Flags override its leaves.
"""

import ast
import contextlib
import dataclasses
import difflib
import io
import linecache
import math
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from lookalike.core.arguments import read_plainly
from lookalike.core.errors import UsageError

T = TypeVar("T")


def option(
    *,
    positional: bool = False,
    short: str = "",
    metavar: str = "",
    was: str = "",
    added: bool = False,
    fixed: bool = False,
    flat: bool = False,
    writes: bool = False,
    flag: str = "",
    words: str = "",
    **default: Any,
) -> Any:
    """A dataclass field that says how it looks on the command line, and in files written by earlier versions.

    `was` is the name that those have for it; `added` says that they lack it: it is then written only where it is not
    the default, so that what has a fingerprint keeps it. `fixed` is no flag; the flags of a `flat` one lack its name;
    one that `writes` names a file to be written. `flag` and `words` are its flag and its help where these are not the
    field's name and docstring.
    """
    metadata = {"positional": positional, "short": short, "metavar": metavar, "was": was, "added": added}
    metadata |= {"fixed": fixed, "flat": flat, "writes": writes, "flag": flag, "words": words}
    return dataclasses.field(metadata=metadata, **default)


def files_to_write(config: Any) -> Iterator[str]:
    """The files that options of `config`, and of dataclasses in it, name to be written; `-` is none."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from files_to_write(value)
        elif field.metadata.get("writes") and value and value != "-":
            yield value


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """` Did you mean `x`?` for the nearest of `words` (with its leading space), or nothing if none is near."""
    near = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f" Did you mean `{near[0]}`?" if near else ""


def in_range(config: Any, low: float, high: float, *names: str) -> None:
    """UsageError if one of these fields of `config` is neither None nor from `low` to `high`, or is infinite; for
    `__post_init__`.
    """
    for name in names:
        value, kind = getattr(config, name), type(config).__name__
        if value is not None and not (low <= value <= high and value < math.inf):  # NaN is neither
            most = f"{high:,.0f}" if 1e6 <= high < math.inf else f"{high:g}"
            wanted = f"{low:g} or more" if high == math.inf else f"{low:g} to {most}"
            told = f"`--{name.replace('_', '-')}`" if kind == "Config" else f"`{name}` of {kind}"
            raise UsageError(f"{told} is {value}; expected {wanted}.")


def parse(kind: type[T], argv: Sequence[str], *, prog: str, description: str, default: T | None = None) -> T:
    """An instance of the dataclass `kind` from `argv`; nested dataclasses become dotted flags (`--loss.margin`).

    The values of `default` hold where `argv` says nothing; a union in the tree keeps the member that it has. The help,
    which begins with `description`, ends in SystemExit 0; what isn't allowed is a UsageError.
    """
    if default is None and (plain := read_plainly(kind, argv)) is not None:
        return plain
    import tyro

    hint, words = f"`{prog} --help` lists the options", io.StringIO()
    _refuse_flags(argv, sorted(_flags(kind, default)), hint)
    try:
        with contextlib.redirect_stderr(words):
            value: T = tyro.cli(
                kind,
                args=list(argv),
                prog=prog,
                description=description,
                config=(tyro.conf.AvoidSubcommands, tyro.conf.DisallowNone, tyro.conf.SuppressFixed),
                registry=_registry(),
                default=tyro.MISSING_NONPROP if default is None else default,
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise UsageError(_sentence(words.getvalue()), hint=hint) from None
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        required = field.default is dataclasses.MISSING and field.metadata.get("positional")
        if required and getattr(value, field.name) == ():  # tyro takes none as well
            raise UsageError(f"Missing: `{field.metadata['metavar']}...`.", hint=hint)
    return value


def _registry() -> Any:
    """Tyro's own reading of dataclasses, with the fields' `option` metadata put where tyro looks for it."""
    from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructTypeInfo

    registry, inside = ConstructorRegistry(), False

    @registry.struct_rule
    def dataclass_with_options(info: StructTypeInfo) -> StructConstructorSpec | None:
        nonlocal inside
        if inside or not dataclasses.is_dataclass(info.type):
            return None
        inside = True  # so that the next line reaches tyro's own rule instead of this one again
        spec = ConstructorRegistry.get_struct_spec(info)
        inside = False
        if not isinstance(spec, StructConstructorSpec):
            return None
        metadata = {field.name: field.metadata for field in dataclasses.fields(info.type)}
        helps = {name: given.get("words") or partial(_words, info.type, name) for name, given in metadata.items()}
        fields = (dataclasses.replace(f, helptext=helps[f.name]) for f in spec.fields)
        return dataclasses.replace(spec, fields=tuple(_told(field, metadata[field.name]) for field in fields))

    return registry


def _words(kind: type, name: str) -> str | None:
    """A field's docstring without its line breaks, which tyro would keep: the terminal is wide as it is.

    Tyro reads a file once for each of its classes, which takes half of the time that the help of `train head` does.
    """
    for owner in kind.__mro__:
        file = getattr(sys.modules.get(owner.__module__), "__file__", None)
        if file and (words := _docstrings(file).get((owner.__qualname__, name))):
            return words
    return None


@lru_cache
def _docstrings(file: str) -> dict[tuple[str, str], str]:
    """Class and field -> the docstring below the field, of the classes at the top of a Python file."""
    classes = [node for node in ast.parse("".join(linecache.getlines(file))).body if isinstance(node, ast.ClassDef)]
    told = [(owner.name, *pair) for owner in classes for pair in pairwise(owner.body)]
    return {
        (owner, field.target.id): " ".join(words.value.value.split())
        for owner, field, words in told
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(words, ast.Expr) and isinstance(words.value, ast.Constant) and isinstance(words.value.value, str)
    }


def _told(field: Any, metadata: Any) -> Any:
    """Tyro's field with what `option` says of it."""
    import tyro

    positional, metavar, short = (metadata.get(key) for key in ("positional", "metavar", "short"))
    hint = "" if field.default is None or field.default in ((), "") else None  # "(default: None)" says nothing
    if positional and get_origin(field.type) is tuple:
        metavar += "..."
        hint = hint if field.default == () else "(required)"
    named = metadata.get("flag") or field.name.removesuffix("_")  # a field can't be called `from`
    mark = tyro.conf.arg(
        name="" if metadata.get("flat") else named if named != field.name else None,
        metavar=metavar or None,
        aliases=(f"-{short}",) if short else None,
        help_behavior_hint=hint,
    )
    marks = [tyro.conf.Positional] * bool(positional) + [tyro.conf.Fixed] * bool(metadata.get("fixed"))
    marked = Annotated[(field.type, mark, *marks)]
    return dataclasses.replace(field, type=marked)


def letters_of(kind: Any) -> dict[str, str]:
    """The short names of the options of the dataclass `kind`: letter -> field."""
    return {letter: field.name for field in dataclasses.fields(kind) if (letter := field.metadata.get("short"))}


def flags_of(kind: Any, default: Any = None) -> list[str]:
    """Every flag that the dataclass `kind` understands, in order."""
    return list(dict.fromkeys(_flags(kind, default)))


def _flags(kind: Any, default: Any, before: str = "") -> Iterator[str]:
    """Every flag that `kind` understands, dotted; the member of a union is the one that `default` has."""
    for field in dataclasses.fields(kind):
        made = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        value, name = getattr(default, field.name, made), field.metadata.get("flag")
        name = name or field.name.rstrip("_").replace("_", "-")
        if field.metadata.get("fixed"):
            continue
        if dataclasses.is_dataclass(value):
            yield from _flags(type(value), value, before if field.metadata.get("flat") else f"{before}{name}.")
        elif not field.metadata.get("positional"):
            yield f"--{before}{name}"
        if isinstance(value, bool):
            yield f"--{before}no-{name}"
        if short := field.metadata.get("short"):
            yield f"-{short}"


def _refuse_flags(argv: Sequence[str], known: Sequence[str], hint: str) -> None:
    given = [word.split("=", 1)[0] for word in argv if word.startswith("--") and word != "--"]
    flags = [word.replace("_", "-") for word in given]
    for i, (word, flag) in enumerate(zip(given, flags, strict=True)):
        if flag in flags[:i]:
            raise UsageError(f"`{flag}` is given twice.", hint=hint)
        if flag not in known and flag != "--help":
            raise UsageError(f"Unknown option `{word}`.{did_you_mean(flag, known)}", hint=hint)


_WRONG = r"Value error: Error parsing (\S+): "
_REWORDED = {
    r"Invalid choice: .*? '(.*)' for argument '(.*)'\. .* \((.*)\)\.": r"`\2` is '\1'; expected one of \3.",
    _WRONG + r"no type matching (\S+) could be .* \['(.*)'\]\. .*": r"`\1` is '\3'; expected a \2.",
    _WRONG + r"invalid literal for int.*: '(.*)'.*": r"`\1` is '\2'; expected a whole number.",
    _WRONG + r"could not convert string to float: '(.*)'.*": r"`\1` is '\2'; expected a number.",
    _WRONG + r"(.*?)(?: Argument helptext: .*)?": r"`\1` can't be read: \2.",
    r"Unrecognized options: (?:Unrecognized options: )?(.*)": r"Unknown argument `\1`.",
    r"Missing argument: Missing value for argument '(.*)'\. .*": r"`\1` needs a value.",
}


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
    for pattern, wording in _REWORDED.items():
        if match := re.fullmatch(pattern, sentence):
            return re.sub(r"(?<=one of )'.*'", _sorted, match.expand(wording))
    return sentence if sentence.endswith((".", "?", "!")) else sentence + "."


def _sorted(choices: re.Match[str]) -> str:
    """In one order: tyro's differs from run to run, and has 'None' for an option that may be left out."""
    return ", ".join(sorted(choice for choice in choices[0].split(", ") if choice != "'None'"))


def to_json(value: Any) -> Any:
    """`value` as what `json` writes; a dataclass becomes an object that names its class under "type"."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        told = {field.name: (field, getattr(value, field.name)) for field in dataclasses.fields(value)}
        kept = {name: v for name, (f, v) in told.items() if not (f.metadata.get("added") and v == f.default)}
        return {"type": type(value).__name__, **to_json(kept)}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise TypeError(f"a config can't hold a {type(value).__name__}")


def from_json(kind: Any, data: Any, where: str = "") -> Any:
    """The value of type `kind` that `to_json` turned into `data`; UsageError unless all fields are there, and no more.

    Errors tell the place of `data` in the whole, `where`: "tower.depth".
    """
    origin, kinds, expected = get_origin(kind), get_args(kind), _name(kind)
    if dataclasses.is_dataclass(kind):
        if isinstance(data, dict):
            return _object(kind, data, where)
    elif origin in (typing.Union, types.UnionType):
        if isinstance(data, dict) and (classes := {tag: k for k in kinds for tag in _tags(k)}):
            if member := classes.get(str(tag := data.get("type"))):
                return _object(member, data, where)
            raise UsageError(f"`{where or 'config'}` is of type {tag!r}; expected one of {', '.join(sorted(classes))}.")
        for member in kinds:
            with contextlib.suppress(UsageError):
                return from_json(member, data, where)
        expected = " | ".join(map(_name, kinds))
    elif origin is tuple:
        kinds = kinds[:1] * len(data) if kinds[1:] == (...,) and isinstance(data, list) else kinds
        if isinstance(data, list) and len(data) == len(kinds):
            return tuple(from_json(kinds[i], item, f"{where}[{i}]") for i, item in enumerate(data))
    elif origin is Literal:
        if (type(data), data) in [(type(value), value) for value in kinds]:
            return data
        expected = f"one of {', '.join(map(repr, kinds))}"
    elif type(data) is kind or (kind is float and type(data) is int):
        return kind(data) if kind is float else data
    raise UsageError(f"`{where or 'config'}` is {data!r}; expected {expected}.")


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def _tags(kind: Any) -> tuple[str, ...]:
    """What `type` may say of a dataclass: its name, and the one that it had in files of earlier versions (`WAS`)."""
    return (_name(kind), getattr(kind, "WAS", _name(kind))) if dataclasses.is_dataclass(kind) else ()


def _object(kind: Any, data: dict[str, Any], where: str) -> Any:
    place = f"`{where}`" if where else "the config"
    if data.get("type", kind.__name__) not in _tags(kind):
        raise UsageError(f"{place} is of type {data['type']!r}; expected {kind.__name__!r}.")
    fields = {field.name: field.metadata for field in dataclasses.fields(kind) if field.init}
    earlier = {metadata["was"]: name for name, metadata in fields.items() if metadata.get("was")}
    data = {earlier.get(name, name): value for name, value in data.items() if name != "type"}
    if unknown := sorted(data.keys() - fields.keys()):
        raise UsageError(f"{place} has no field `{unknown[0]}`.{did_you_mean(unknown[0], fields)}")
    if missing := [name for name in fields if name not in data and not fields[name].get("added")]:
        raise UsageError(f"{place} lacks {', '.join(f'`{name}`' for name in missing)}.")
    hints = typing.get_type_hints(kind)
    return kind(**{name: from_json(hints[name], data[name], f"{where}.{name}".lstrip(".")) for name in data})
