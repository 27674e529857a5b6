"""Lists as publishers write them: words below a header, JSON, structs of MATLAB."""

import io
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from lookalike.core.errors import SourceError
from lookalike.data.sources.dataset import read_blanks, text_of
from lookalike.data.sources.tree import Tree

_BETWEEN = re.compile(r"[\s,]*")


def first_of(tree: Tree, *names: str) -> str | None:
    """The first of these names that is there; None if none is."""
    return next((name for name in names if tree.has(name)), None)


def read_words(tree: Tree, name: str, *columns: str, skip: int = 0) -> Iterator[tuple[str, ...]]:
    """These columns of a list that blanks separate, by their names in its header, which stands behind `skip` lines.

    SourceError, with the line: a column is missing, a row is short.
    """
    header = next(read_blanks(tree, name, skip=skip), [])
    if absent := [column for column in columns if column not in header]:
        raise SourceError(
            f"`{name}` of `{tree.place}` has no column `{absent[0]}`; its columns are {', '.join(header) or 'none'}."
        )
    places = [header.index(column) for column in columns]
    for words in read_blanks(tree, name, skip=skip + 1, least=max(places) + 1):
        yield tuple(words[i] for i in places)


def read_objects(tree: Tree, name: str, *needed: str) -> Iterator[dict[str, Any]]:
    """The objects of a list in JSON, one after the other: all at once they would take ten times the file's size.

    SourceError, with the line: it is no list of objects, an object lacks a key that is `needed`, the file ends early.
    """
    text, decoder, at = text_of(tree, name), json.JSONDecoder(), 1
    if not text.startswith("["):
        raise SourceError(f"`{name}` of `{tree.place}` is no list in JSON.")
    while not text.startswith("]", at := _behind(text, at)):
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise _broken(tree, name, error) from error
        if absent := [key for key in needed if not isinstance(value, dict) or key not in value]:
            line = text.count("\n", 0, at) + 1
            raise SourceError(f"`{name}` of `{tree.place}`, line {line}: an entry has no `{absent[0]}`.")
        yield value
        at = end


def read_json(tree: Tree, name: str, *keys: str) -> Any:
    """What a file in JSON says, of each object these keys alone: the others are most of its memory."""
    kept = frozenset(keys)
    try:
        return json.loads(
            text_of(tree, name), object_pairs_hook=lambda pairs: {key: value for key, value in pairs if key in kept}
        )
    except json.JSONDecodeError as error:
        raise _broken(tree, name, error) from error


def read_structs(tree: Tree, name: str, struct: str, *fields: str) -> Iterator[tuple[Any, ...]]:
    """These fields of an array of structs in a file of MATLAB's (before 7.3): numbers and texts.

    SourceError: it is no such file, there is no such array, or no such field.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    data = tree.read(name)
    try:
        found = loadmat(io.BytesIO(data), squeeze_me=True)
    except (MatReadError, ValueError, TypeError, IndexError, NotImplementedError, OSError, zlib.error) as error:
        raise SourceError(
            f"`{name}` of `{tree.place}` can't be read as a file of MATLAB's: {error}.", hint="download it again"
        ) from error
    table: Any = np.atleast_1d(found[struct]) if struct in found else np.empty(0)
    there = table.dtype.names or ()
    if absent := [field for field in fields if field not in there]:
        raise SourceError(
            f"`{name}` of `{tree.place}` has no `{struct}.{absent[0]}`; it has {', '.join(there) or 'no such array'}."
        )
    yield from zip(*(table[field].tolist() for field in fields), strict=True)


def _behind(text: str, at: int) -> int:
    found = _BETWEEN.match(text, at)
    return found.end() if found else at


def _broken(tree: Tree, name: str, error: json.JSONDecodeError) -> SourceError:
    return SourceError(
        f"`{name}` of `{tree.place}`, line {error.lineno}: the JSON breaks off or is none: {error.msg}.",
        hint="download it again",
    )
