"""WebDataset: a tar file, or a folder of them, in which files of one name up to its first dot tell of one image.

    0001.jpg             an image of any kind; several in a sample are several rows
    0001.cls             its label, as text
    0001.json            or `label`, else `class`, of an object; img2dataset's `caption` and `url` are kept
    0001.txt             its caption, which goes before the object's

The domain is the tar file's name without its suffix, or the folder's. An image is called as in the tar, in a folder
behind the tar file's name. Samples may lie in any order.
"""

import io
import json
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from lookalike.core.errors import SourceError
from lookalike.core.journal import note
from lookalike.data.sources import Place, absolute, excluded, names_in, nfc, text
from lookalike.data.sources.beside import Members
from lookalike.data.sources.folder import SUFFIXES
from lookalike.data.sources.listed import BATCH, LISTED, Source, listed_place
from lookalike.data.sources.store import File, for_arrow, located

COLUMNS = pa.schema([("caption", pa.string()), ("url", pa.string())])


def open_source(path: str, exclude: Sequence[str] = ()) -> Source:
    """The tar file, or the folder of tar files, at `path`."""
    place = located(path)
    tars = (
        [place / n for n in sorted(names_in(place)) if n.endswith(".tar") and n[0] != "."]
        if place.is_dir()
        else [place]
    )
    for tar in tars:
        if (table := _table_of(tar)) is not None:
            raise SourceError(
                f"`{tar}` belongs to the table `{table.name}` beside it.",
                hint=f"give the table, whose column `path` names members of the tar: `{table}`",
            )
    return Source(path, "webdataset", partial(_batches, place, tars, exclude), COLUMNS)


def _table_of(tar: File) -> File | None:
    """The table whose images the tar holds. img2dataset writes one beside each too, which has no `path`."""
    table = tar.with_suffix(".parquet")
    try:
        if table.is_file() and "path" in pyarrow.parquet.read_schema(for_arrow(table)).names:
            return table
    except (pa.ArrowInvalid, OSError):
        pass
    return next((table for kind in (".csv", ".tsv") if (table := tar.with_suffix(kind)).is_file()), None)


def _batches(path: File, tars: Sequence[File], exclude: Sequence[str]) -> Iterator[pa.RecordBatch]:
    schema, found, labels = pa.schema([*LISTED, *COLUMNS]), 0, 0
    rows = (row for tar in tars for row in _rows(tar, path, exclude))
    while some := list(islice(rows, BATCH)):
        found, labels = found + len(some), labels + sum(row["label"] is not None for row in some)
        yield pa.RecordBatch.from_pylist(some, schema)
    if not found:
        raise SourceError(f"`{path}` holds no images.", hint="a sample is an image, such as 0001.jpg, and 0001.cls")
    if not labels:
        note(f"no image of `{path}` has a label: there is no .cls, and no .json with `label` or `class`")


def _rows(tar: File, path: File, exclude: Sequence[str]) -> Iterator[dict[str, Any]]:
    if excluded(text(tar.name), exclude):
        return
    members = Members(tar)
    before, domain = ("", tar.stem) if tar == path else (f"{text(tar.stem)}/", absolute(str(path)).name or "root")
    with tar.open("rb") as file:
        yield from _samples(members, file, exclude, before, nfc(text(domain)))


def _samples(
    members: Members, file: "io.BufferedReader[Any]", exclude: Sequence[str], before: str, domain: str
) -> Iterator[dict[str, Any]]:
    """The images of an open tar file; what tells of one mostly stands beside it, and is read with it."""
    for name in members.names():
        folder, slash, last = name.rpartition("/")
        if last.startswith(".") or not last.lower().endswith(SUFFIXES) or excluded(text(name), exclude):
            continue
        key = folder + slash + last.partition(".")[0]
        image, *beside = members.find([name, f"{key}.cls", f"{key}.json", f"{key}.txt"]).tolist()
        label, sample, caption = (_told(members, member, file) for member in beside)
        more = _object(members.path, f"{key}.json", sample)
        label = label or _word(more.get("label", more.get("class")))
        yield {
            **listed_place(_place(members, image), text(name)),
            "source": before + text(name),
            "label": nfc(label) if label else None,
            "domain": domain,
            "is_query": True,
            "is_gallery": True,
            "caption": caption or _word(more.get("caption")),
            "url": _word(more.get("url")),
        }


def _place(members: Members, member: int) -> Place:
    path, offset, size, stamp = members.place(member)
    return Place(path, stamp, offset, size)


def _told(members: Members, member: int, file: "io.BufferedReader[Any]") -> str | None:
    """The text of a member without blanks around it; None if there is none."""
    if member < 0:
        return None
    try:
        _, offset, size, _ = members.place(member)
        file.seek(offset)
        return file.read(size).decode("utf-8-sig").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"A member of `{members.path}` that tells of an image is no text in UTF-8: {error}."
        ) from error


def _object(tar: File, name: str, data: str | None) -> dict[str, Any]:
    try:
        told = json.loads(data) if data else {}
    except json.JSONDecodeError as error:
        raise SourceError(f"`{name}` in `{tar}` is no JSON: {error}.") from error
    return told if isinstance(told, dict) else {}


def _word(value: Any) -> str | None:
    """A text or a whole number as text; nothing else is a name."""
    return (str(value).strip() or None) if isinstance(value, str | int) and not isinstance(value, bool) else None
