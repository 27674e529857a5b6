"""Files that standard input names, one a line, or with zero bytes between them as `find -print0` writes them.

    find photos -name '*.jpg' -print0 | lookalike prepare - --out COLL

The innermost folder that holds all of them is the source, as if it held nothing else: names, labels and domains are
those that `folder` gives there. Folders that `find` names on its way do not count, a file that is no image is left
out, and a name that leads nowhere is refused.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from lookalike.core.errors import SourceError
from lookalike.core.journal import note
from lookalike.data.sources import excluded, nfc, text
from lookalike.data.sources.folder import is_image, row_of
from lookalike.data.sources.listed import BATCH, LISTED, Source

_HINT = "find photos -name '*.jpg' -print0 | lookalike prepare - --out COLL"


def open_source(_: str, exclude: Sequence[str] = ()) -> Source:
    """What standard input names, which is read to its end."""
    if sys.stdin is None or sys.stdin.isatty():
        raise SourceError("`-` reads names of files from standard input, and nothing is piped into it.", hint=_HINT)
    data = sys.stdin.buffer.read()
    names = data.split(b"\0") if b"\0" in data else [line.removesuffix(b"\r") for line in data.split(b"\n")]
    paths = {os.path.abspath(os.fsdecode(name)) for name in names if name}  # noqa: PTH100  of a million
    paths = {path for path in paths if not os.path.isdir(path)}  # noqa: PTH112
    if not paths:
        raise SourceError("Standard input names no file.", hint=_HINT)
    root = os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
    files = sorted(path.removeprefix(root).lstrip("/").split("/") for path in paths)

    def batches() -> Iterator[pa.RecordBatch]:
        rows = _rows(root, files, exclude)
        while some := list(islice(rows, BATCH)):
            yield pa.RecordBatch.from_pylist(some, LISTED)

    return Source(root, "piped", batches)


def _rows(root: str, files: Sequence[Sequence[str]], exclude: Sequence[str]) -> Iterator[dict[str, Any]]:
    name, found, left_out = nfc(text(Path(root).name or "root")), 0, 0
    for parts in files:
        if exclude and any(excluded(text(path), exclude) for path in accumulate(parts, "{}/{}".format)):
            continue
        path = "/".join((root.rstrip("/"), *parts))
        try:
            status: os.stat_result | None = os.stat(path)  # noqa: PTH116  a path object costs more than the look
        except (FileNotFoundError, NotADirectoryError) as error:
            raise SourceError(
                f"Standard input names `{text(path)}`, which is not there.",
                hint="paths are relative to the folder that you are in; `find -print0` writes them whatever they hold",
            ) from error
        except OSError:
            status = None
        if is_image(path, status):
            found += 1
            yield row_of(name, parts, path, status)
        else:
            left_out += 1
    if left_out:
        note(f"files of standard input that are not images, left out: {left_out:,}")
    if not found:
        raise SourceError("Standard input names no image.", hint=_HINT)
