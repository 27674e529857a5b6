"""lookalike split: the column `split`, so that nothing that belongs together stands on two sides."""

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lookalike.commands.outcome import tell
from lookalike.core.config import in_range, option
from lookalike.core.errors import CollectionError, UsageError
from lookalike.core.journal import note, table

if TYPE_CHECKING:
    import pyarrow as pa

    from lookalike.data.collection import Collection
    from lookalike.data.splitting import Options
    from lookalike.exploring.results import Split


@dataclass(frozen=True)
class Config:
    """Keep images back to measure on: write the column `split`.

    No class, no group and no near duplicates stand in two splits. What belongs together is judged by its own name, or
    by what its file holds, on every machine alike: what is added later moves nothing, and a larger share keeps all of a
    smaller one. With seed 0 classes get what `lookalike prepare --test` gives them. Near duplicates are what
    `duplicate_of` says: `lookalike prepare` marks by looks, `lookalike duplicates` by vectors too.

    `lookalike prepare` keeps to it from then on, and gives new images their splits. Images that had no role, as sources
    leave it for what they learn from, become queries and index images both.
    """

    collection: str = option(positional=True, metavar="COLL")
    """The collection or index."""
    test: float = 0.2
    """Share that becomes split `test`."""
    val: float = 0.0
    """Share that becomes split `val`; all else becomes `train`."""
    by: Literal["class", "group", "duplicates"] = "class"
    """What is never cut. class: a label of a domain, so that tests are of things that training never saw; images
    without a label get no split. group: a `group` of the source; classes are on both sides. duplicates: near
    duplicates; classes are on both sides."""
    seed: int = 0
    """Another number, another split."""
    replace: bool = False
    """Replace the split that is there."""
    check: bool = False
    """Change nothing: say what the splits that are there share. The exit code is 1 if it is anything."""
    json: str | None = option(default=None, metavar="FILE", writes=True)
    """Write counts and what is shared to this file; `-` writes them to stdout instead of the table."""

    def __post_init__(self) -> None:
        in_range(self, 0.0, 1.0, "test", "val")
        if not (0 < self.test + self.val < 1 or self.check):
            raise UsageError(
                f"`--test` and `--val` together are {self.test + self.val:g}; expected more than 0 and less than 1.",
                hint="--test 0.2 --val 0.1",
            )


def main(config: Config) -> None:
    """Split, and print the counts."""
    found = run(config)
    tell(found.to_json(), _table(found), config.json)
    if config.check and _leaks(config, found):
        raise SystemExit(1)


def run(config: Config) -> "Split":
    """Split, or only look: counts, and what is shared."""
    from lookalike.commands.stored import opened
    from lookalike.data.splitting import ENTRY, Options, continue_split, table_of, write_split

    collection, options = opened(config.collection), Options(config.test, config.val, config.by, config.seed)
    if config.check:
        return _found(collection, options, config.by)
    with collection.locked("split"):
        collection = opened(config.collection)
        rows = table_of(collection)
        _refuse_without(config, rows)
        there = len(rows) - rows["split"].null_count
        if collection.card.get(ENTRY) == options.to_json() and there and not config.replace:
            note(f"the split is there with these options; newly split: {continue_split(collection):,} images")
        elif there and not config.replace:
            raise CollectionError(
                f"{there:,} of {len(rows):,} images of `{config.collection}` have a split already.",
                hint=f"`lookalike split {shlex.quote(config.collection)} --replace` replaces it; `--check` looks at it",
            )
        else:
            import numpy as np

            from lookalike.data.splitting import splits_of

            write_split(collection, rows, splits_of(rows, options), np.arange(len(rows)))
            collection.update_card({ENTRY: options.to_json()})
        _refresh(collection)
        found = _found(collection, options, config.by)
    _tell(config, found)
    return found


def _refuse_without(config: Config, rows: "pa.Table") -> None:
    """CollectionError if there is nothing of what is not to be cut."""
    column = {"class": "label", "group": "group"}.get(config.by)
    if column and rows[column].null_count == len(rows):
        raise CollectionError(
            f"No image of `{config.collection}` has a {column}.",
            hint=f"lookalike split {shlex.quote(config.collection)} --by duplicates",
        )


def _refresh(collection: "Collection") -> None:
    """The card's counts by split, and what it tells of images that are like some to learn from."""
    import numpy as np
    import pyarrow.compute as pc

    from lookalike.data.card import finish
    from lookalike.data.duplicates import MARK, SEEN, mark

    finish(collection, 0, 0, 0, 0)
    told = collection.card.get("duplicates")
    if not told or not {*MARK.names, *SEEN.names} <= {*collection.columns}:
        return
    rows = collection.table(["id", *MARK.names])
    ids, marks = rows["id"].to_numpy(), pc.fill_null(rows[MARK.names[0]], -1).to_numpy()
    at = np.minimum(np.searchsorted(ids, marks), len(ids) - 1)
    now = mark(collection, groups=np.where((marks >= 0) & (ids[at] == marks), at, -1))
    if "embedding" in told:  # which images to learn from are like others by vectors is not known any more
        now["embedding"] = {key: value for key, value in told["embedding"].items() if key != "learned_too"}
    collection.update_card({"duplicates": now})


def _found(collection: "Collection", options: "Options", by: str) -> "Split":
    from lookalike.data.splitting import largest_unit, shared, table_of
    from lookalike.exploring.results import Split

    rows = table_of(collection)
    counts: dict[str, dict[str, int]] = {}
    for domain, split in zip(rows["domain"].to_pylist(), rows["split"].to_pylist(), strict=True):
        splits = counts.setdefault(domain or "none", {})
        splits[split or "none"] = splits.get(split or "none", 0) + 1
    told = {name: number for name, number in shared(rows).items() if by == "class" or name != "class"}
    return Split(dict(sorted(counts.items())), told, largest_unit(rows, options))


def _leaks(config: Config, found: "Split") -> bool:
    leaks = {name: number for name, number in found.shared.items() if number}
    words = ", ".join(f"{name} {number:,}" for name, number in leaks.items())
    note(f"`{config.collection}` leaks: what stands in more than one split: {words}" if leaks else "no split leaks")
    return bool(leaks)


def _tell(config: Config, found: "Split") -> None:
    _leaks(config, found)
    images = sum(sum(splits.values()) for splits in found.counts.values())
    if found.largest > max(1, config.test * images) and config.by != "class":
        note(f"{found.largest:,} of {images:,} images belong together and can't be cut: the shares are rough")
    for name, wanted in (("test", config.test), ("val", config.val)):
        if wanted and not any(splits.get(name) for splits in found.counts.values()):
            note(f"no image became split `{name}`: there is too little that can be told apart; another `--seed` may do")


def _table(found: "Split") -> str:
    from lookalike.data.sources import SPLITS

    counts = found.counts
    splits = [name for name in (*SPLITS, "none") if any(name in each for each in counts.values())]
    body = [[d, *(c.get(name, 0) for name in splits), sum(c.values())] for d, c in counts.items()]
    if len(body) > 1:
        body.append(["all", *(sum(column) for column in list(zip(*body, strict=True))[1:])])
    return table(["domain", *splits, "images"], body)
