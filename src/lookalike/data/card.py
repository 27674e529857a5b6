"""What a collection says of itself: `card.json`, and the report of a `prepare`.

    what, made_by, created, updated
    options     that later calls must repeat: size, test
    sources     name, path and layout of each
    rows, errors, counts (domain -> split -> rows), licences (licence -> rows)

Other rooms add entries of their own (`index` adds `model`), and each keeps those of the others.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from lookalike import __version__
from lookalike.core.errors import CollectionError
from lookalike.core.journal import note, table
from lookalike.data.collection import Collection
from lookalike.data.sources import SPLITS


@dataclass(frozen=True)
class Report:
    """What `prepare` did, and what the collection holds now."""

    added: int = 0
    edited: int = 0
    """Rows whose labels or other descriptions, or only the file's time, are new."""
    gone: int = 0
    failed: int = 0
    """Images that could not be read this time; the errors table also has those of earlier runs."""
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Domain -> split ("none" where there is none) -> rows."""
    errors: int = 0
    """Rows of the errors table."""

    @property
    def rows(self) -> int:
        """Rows that are not gone."""
        return sum(sum(splits.values()) for splits in self.counts.values())

    def table(self) -> str:
        """Rows per domain and split, as text."""
        splits = [s for s in (*SPLITS, "none") if any(s in counts for counts in self.counts.values())]
        body = [[d, *(c.get(s, 0) for s in splits), sum(c.values())] for d, c in self.counts.items()]
        if len(body) > 1:
            body.append(["all", *(sum(column) for column in list(zip(*body, strict=True))[1:])])
        return table(["domain", *splits, "rows"], body)

    def sentence(self, out: str) -> str:
        """What was done, in words."""
        done = [
            f"{n:,} {what}" for n, what in ((self.added, "added"), (self.edited, "edited"), (self.gone, "gone")) if n
        ]
        failed = f"; {self.errors:,} could not be read, see `lookalike info {out}`" if self.errors else ""
        return f"`{out}` holds {self.rows:,} images: {', '.join(done) or 'nothing was new'}{failed}"


def first_card(options: dict[str, Any]) -> dict[str, Any]:
    """The card of a new collection."""
    return {
        "what": "a collection of images",
        "made_by": f"lookalike {__version__}",
        "created": _now(),
        "options": options,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def check_options(out: str, recorded: dict[str, Any], wanted: dict[str, Any]) -> None:
    """CollectionError if the collection `out` was made with other options: it would hold two kinds of rows."""
    for name, value in wanted.items():
        if recorded.get(name, value) != value:
            raise CollectionError(
                f"`{out}` was made with `--{name} {recorded[name]}`, not {value}.",
                hint=f"give `--{name} {recorded[name]}`, or another `--out`",
            )


def note_small(collection: Collection, pixels: int) -> None:
    """Say that a model reads images of `pixels` px and the collection keeps smaller ones, if that is so."""
    stored = collection.card.get("options", {}).get("size")
    if stored is not None and stored < pixels:
        note(
            f"`{collection.path}` stores images at {stored} px and the model reads {pixels} px: they are enlarged; "
            f"`lookalike prepare SOURCE --size {pixels} --out NEW` keeps what it can see"
        )


def counts_of(collection: Collection) -> dict[str, dict[str, int]]:
    """Domain -> split -> rows; "none" stands for a row without one."""
    counts: dict[str, dict[str, int]] = {}
    for (domain, split), rows in sorted(_grouped(collection, "domain", "split").items(), key=_by_name):
        counts.setdefault(domain or "none", {})[split or "none"] = rows
    return counts


def _by_name(entry: tuple[tuple[Any, ...], int]) -> list[str]:
    return [name or "" for name in entry[0]]


def _grouped(collection: Collection, *columns: str) -> Counter[tuple[Any, ...]]:
    """How many rows have each combination of values in these columns."""
    found: Counter[tuple[Any, ...]] = Counter()
    for batch in collection.scan(columns, batch_rows=2**16):
        grouped = pa.table(batch).group_by(list(columns)).aggregate([([], "count_all")])
        for row in grouped.to_pylist():
            found[tuple(row[column] for column in columns)] += row["count_all"]
    return found


def _licences(collection: Collection) -> dict[str, int]:
    """Rows per licence, if the sources have such a column."""
    for name in ("licence", "license"):
        if name in collection.columns:
            return {str(value): rows for (value,), rows in _grouped(collection, name).items() if value is not None}
    return {}


def finish_card(collection: Collection, report: Report) -> None:
    """Write what the collection holds now, unless the card says so already."""
    entries = {
        "rows": report.rows,
        "errors": report.errors,
        "counts": report.counts,
        "licences": _licences(collection),
    }
    if {name: collection.card.get(name) for name in entries} != entries or report.edited or report.gone or report.added:
        collection.update_card({**entries, "updated": _now()})
