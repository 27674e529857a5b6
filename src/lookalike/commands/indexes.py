"""Which index a command takes: the one that is named, or the only one in the current folder."""

import os
import shlex
from pathlib import Path

from lookalike.core.errors import CollectionError, UsageError
from lookalike.core.files import found_at, kind_of, read_card

VARIABLE = "LOOKALIKE_INDEX"
SUFFIX = ".lookalike"


def index_of(asked: str) -> str:
    """The index that `--index` names, else LOOKALIKE_INDEX, else the only one here.

    CollectionError, whose hint is the next command, if there is none; UsageError if there are several.
    """
    named = asked or os.environ.get(VARIABLE, "")
    if not named:
        return index_here("-i")
    if kind_of(named) == "collection":
        return named
    is_folder = kind_of(named) == "something else" and Path(named).is_dir()
    found = f"`{named}` is a folder" if is_folder else found_at(named)
    hint = f"lookalike index {shlex.quote(named)}" if is_folder else "`lookalike index FOLDER` makes one"
    if kind_of(made := named.rstrip("/") + SUFFIX) == "collection":
        hint = f"-i {shlex.quote(made)}"
    raise CollectionError(f"{found}, not an index.", hint=hint)


def index_here(command: str) -> str:
    """The only index in the current folder; `command` is what one is named behind."""
    found = sorted(path.name for path in Path.cwd().iterdir() if kind_of(path) == "collection")
    made = [name for name in found if "model" in read_card(name)]
    if len(made) == 1:
        return made[0]
    if made:
        raise UsageError(
            f"There are {len(made)} indexes here: {', '.join(f'`{name}`' for name in made)}.",
            hint=f"{command} {shlex.quote(made[0])}",
        )
    if found:
        raise CollectionError(
            f"`{found[0]}` is a collection without embeddings, and there is no index here.",
            hint=f"lookalike index {shlex.quote(found[0])}",
        )
    raise CollectionError(
        "There is no index in this folder.",
        hint=f"`lookalike index FOLDER` makes one of a folder of images; `-i INDEX` or {VARIABLE} names one elsewhere",
    )


def index_for(sources: tuple[str, ...]) -> str:
    """The index that is made of a source: beside it, called like it; UsageError if there are several."""
    if len(sources) > 1:
        raise UsageError(
            f"{len(sources)} sources make one index, which needs a name.",
            hint=f"lookalike index {shlex.join(sources)} --out all{SUFFIX}",
        )
    source = sources[0].rstrip("/") or "/"
    if "://" in source:
        return source.rpartition("/")[2] + SUFFIX  # here: it can't lie in the store
    path = Path(source)
    if not path.name or path.name == "..":  # `.`, `..` and `/`
        path = path.resolve()
    if not path.name:
        raise UsageError("The index of `/` needs a name.", hint=f"lookalike index / --out all{SUFFIX}")
    return str(path if path.is_dir() else path.with_suffix("")) + SUFFIX
