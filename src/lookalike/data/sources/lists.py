"""Lists as publishers write them: tables, words that blanks separate, JSON, structs of MATLAB; packed ones too."""

import csv
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from lookalike.core.errors import SourceError
from lookalike.data.sources.tree import Tree

_BETWEEN = re.compile(r"[\s,]*")


def read_csv(tree: Tree, name: str, *columns: str, delimiter: str = ",") -> Iterator[tuple[str, ...]]:
    """These columns of a list, by their names in its first line: others may stand beside them, in any order.

    SourceError, with the line: a column is missing, a row is short, the text is not UTF-8.
    """
    csv.field_size_limit(2**30)  # GLDv2's lists have all images of a landmark in one value
    lines = io.StringIO(text_of(tree, name), newline="")
    reader = csv.reader(lines, delimiter=delimiter)
    header = [column.strip() for column in next(reader, [])]
    if absent := [column for column in columns if column not in header]:
        raise SourceError(
            f"`{name}` of `{tree.place}` has no column `{absent[0]}`; its columns are {', '.join(header) or 'none'}."
        )
    places = [header.index(column) for column in columns]
    for row in reader:
        if row and len(row) <= max(places):
            raise SourceError(
                f"`{name}` of `{tree.place}`, line {reader.line_num}: {len(row)} values where the columns are "
                f"{len(header)}."
            )
        if row:
            yield tuple(row[i] for i in places)


def read_blanks(tree: Tree, name: str, *, skip: int = 0, least: int = 1) -> Iterator[list[str]]:
    """The words of each line of a list that blanks separate, behind its first `skip` lines; empty lines say nothing."""
    for number, line in enumerate(text_of(tree, name).splitlines(), 1):
        words = line.split()
        if number <= skip or not words:
            continue
        if len(words) < least:
            raise SourceError(
                f"`{name}` of `{tree.place}`, line {number}: {len(words)} words, and {least} are expected."
            )
        yield words


def read_box(tree: Tree, name: str) -> list[float] | None:
    """The numbers of a file of boxes, `x y w h` a line; None if there is no such file."""
    if tree.find([name])[0] is None:
        return None
    numbers = [word for words in read_blanks(tree, name, least=4) for word in words]
    try:
        return [float(number) for number in numbers]
    except ValueError as error:
        raise SourceError(f"`{name}` of `{tree.place}` holds no box of numbers: {' '.join(numbers)}.") from error


def text_of(tree: Tree, name: str) -> str:
    """The text of a list, which may be a .gz or .xz file; SourceError if it is damaged or not UTF-8."""
    data = tree.read(name)
    try:
        data = (
            gzip.decompress(data) if name.endswith(".gz") else lzma.decompress(data) if name.endswith(".xz") else data
        )
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise SourceError(
            f"`{name}` of `{tree.place}` can't be unpacked: {error}.", hint="download it again if it is not whole"
        ) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SourceError(f"`{name}` of `{tree.place}`, line {line}: the text is not UTF-8.") from error


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
