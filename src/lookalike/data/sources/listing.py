"""Several sources as one listing, in which no two images have the same name."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any

import pyarrow as pa

from lookalike.core.errors import SourceError
from lookalike.data.sources import Source, SourceRow, absolute, open_source, text
from lookalike.data.splits import split_of


@dataclass(frozen=True)
class Listing:
    """All that the sources say."""

    rows: dict[str, SourceRow]
    """The images in order, by `NAME/` and what their source calls them; NAME is the source's."""
    sources: dict[str, dict[str, str]]
    """NAME -> its entry in the collection's card: name, path, layout."""
    columns: pa.Schema
    """Further columns of any source; null where no source has a value."""

    def covers(self, source: str) -> bool:
        """Whether a row called `source` came from one of these sources."""
        return source.partition("/")[0] in self.sources

    def stamp(self, source: str) -> str | None:
        """The stamp of the image of this name; None if the sources don't have it."""
        row = self.rows.get(source)
        return None if row is None else row.place.stamp


def list_images(paths: Sequence[str], known: dict[str, str], test: float) -> Listing:
    """The listing of the sources at `paths`.

    Args:
        paths: As given on the command line.
        known: Names that sources have had before: NAME -> path.
        test: Share of the labels that become split `test` where the source gives no split; 0: no splits are made.

    Raises:
        SourceError: A source is missing, empty, or says something impossible.
    """
    opened = [open_source(path) for path in paths]
    names = _names(opened, known)
    rows: dict[str, SourceRow] = {}
    for name, source in zip(names, opened, strict=True):
        for row in source:
            full = f"{name}/{row.source}"
            if full in rows:
                raise SourceError(f"Two images of `{source.path}` are both called `{row.source}`.", hint="rename one")
            split = split_of(row.domain, row.label, test) if test and row.split is None else row.split
            rows[full] = replace(row, source=full, split=split)
    entries = {
        name: {"name": name, "path": text(str(absolute(source.path))), "layout": source.layout}
        for name, source in zip(names, opened, strict=True)
    }
    return Listing(rows, entries, _columns(opened))


def _names(opened: Sequence[Source], known: dict[str, str]) -> list[str]:
    """The name of each source: that of its folder, or of its file without the suffix; numbered where it is taken.

    A name whose known path no longer exists is free: such a source was moved, and keeps its name elsewhere.
    """
    names: list[str] = []
    seen: set[str] = set()
    for source in opened:
        place = absolute(source.path)
        path = text(str(place))
        if path in seen:
            raise SourceError(f"The source `{source.path}` is given twice.", hint="name it once")
        seen.add(path)
        for name in _candidates(text(place.stem if source.layout == "table" else place.name or "root"), path, known):
            if name not in names and (known.get(name, path) == path or not Path(known[name]).exists()):
                names.append(name)
                break
    return names


def _candidates(base: str, path: str, known: dict[str, str]) -> Iterator[str]:
    return chain((n for n, place in known.items() if place == path), [base], (f"{base}-{i}" for i in count(2)))


def _columns(opened: Sequence[Source]) -> pa.Schema:
    kinds: dict[str, Any] = {}
    for source in opened:
        for name, kind in source.columns.items():
            common = common_type(kinds.get(name, pa.null()), kind) or common_type(kind, kinds[name])
            if common is None:
                raise SourceError(
                    f"Column `{name}` of `{source.path}` holds {kind}, that of another source {kinds[name]}.",
                    hint="rename it in one of them",
                )
            kinds[name] = common
    return pa.schema(list(kinds.items()))


def common_type(kind: Any, into: Any) -> Any:
    """The type of a column of type `into` that takes values of `kind`; None if it can't.

    Nothing fits everywhere; whole numbers fit among fractions.
    """
    if kind == pa.null() or kind == into or (pa.types.is_integer(kind) and pa.types.is_floating(into)):
        return into
    return kind if into == pa.null() else None
