"""What a collection says of itself: `card.json`, and the report of a `prepare`.

    what, made_by, created, updated
    options     that later calls must repeat: size, test
    sources     name, path and layout of each, and the patterns that were left out
    rows, errors, counts (domain -> split -> rows), licences (licence -> rows)

Other rooms add entries of their own (`index` adds `model` and `indexed`), and each keeps those of the others.
"""

import shlex
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from lookalike import __version__
from lookalike.core.errors import CollectionError
from lookalike.core.files import read_card
from lookalike.core.journal import note, table
from lookalike.data.collection import Collection
from lookalike.data.sources import SPLITS


@dataclass(frozen=True)
class Report:
    """What `prepare` did, and what the collection holds now."""

    added: int
    edited: int  # rows whose labels or other descriptions, or only the file's time, are new
    gone: int
    failed: int  # images that could not be read this time; the errors table also has those of earlier runs
    counts: dict[str, dict[str, int]]  # domain -> split ("none" where there is none) -> rows
    errors: int  # rows of the errors table
    same: int = 0  # rows whose pixels are those of an earlier row

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
        done = [f"{n:,} {what}" for what in ("added", "edited", "gone") if (n := getattr(self, what))]
        failed = (
            f"; {self.errors:,} could not be read, see `lookalike info {shlex.quote(str(out))}`" if self.errors else ""
        )
        same = f"; {self.same:,} {'is' if self.same == 1 else 'are'} the same picture as an earlier one" * (
            self.same > 0
        )
        return f"`{out}` holds {self.rows:,} images: {', '.join(done) or 'nothing was new'}{same}{failed}"


def card_of(out: str, options: dict[str, Any]) -> dict[str, Any]:
    """The card of the collection `out`, or a new one; CollectionError if its rows were made with other options."""
    card, made_by = read_card(out), f"lookalike {__version__}"
    for name, value in options.items():
        if (was := card.get("options", {}).get(name, value)) != value:
            hint = f"give `--{name} {was}`, or another `--out`"
            if name == "test":
                hint += f"; `lookalike split {shlex.quote(out)} --test {value}` makes the splits of what is there anew"
            raise CollectionError(f"`{out}` was made with `--{name} {was}`, not {value}.", hint=hint)
    return card or {"what": "a collection of images", "made_by": made_by, "created": _now(), "options": options}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def note_small(collection: Collection, pixels: int) -> None:
    """Say so if a model reads images of `pixels` px and the collection keeps smaller ones."""
    if (stored := collection.card.get("options", {}).get("size", pixels)) < pixels:
        note(
            f"`{collection.path}` stores images at {stored} px and the model reads {pixels} px: they are enlarged; "
            f"`lookalike prepare SOURCE --size {pixels} --out NEW` keeps what it can see"
        )


def finish(collection: Collection, added: int, edited: int, gone: int, failed: int) -> Report:
    """Report what was done and what there is now, and write it to the card unless that says so already."""
    counts: dict[str, dict[str, int]] = {}
    for (domain, split), rows in sorted(_grouped(collection, "domain", "split").items()):
        counts.setdefault(domain or "none", {})[split or "none"] = rows
    same = int(collection.card.get("duplicates", {}).get("same", 0))
    report = Report(added, edited, gone, failed, counts, len(collection.errors()), same)
    licence = next((name for name in ("licence", "license") if name in collection.columns), None)
    licences = {name: rows for (name,), rows in _grouped(collection, licence).items() if name} if licence else {}
    entries = {"rows": report.rows, "errors": report.errors, "counts": counts, "licences": licences}
    if edited or gone or any(collection.card.get(name) != told for name, told in entries.items()):
        collection.update_card({**entries, "updated": _now()})
    return report


def _grouped(collection: Collection, *columns: str) -> Counter[tuple[str, ...]]:
    """How many rows have each combination of values in these columns; null is an empty text."""
    found: Counter[tuple[str, ...]] = Counter()
    for batch in collection.scan(columns, batch_rows=2**16):
        for row in pa.table(batch).group_by(list(columns)).aggregate([([], "count_all")]).to_pylist():
            found[tuple("" if row[name] is None else str(row[name]) for name in columns)] += row["count_all"]
    return found
