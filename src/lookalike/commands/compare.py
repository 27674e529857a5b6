"""lookalike compare: several encoders on the same queries, their differences, and how sure those are."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lookalike.commands.outcome import tell
from lookalike.core.config import in_range, option
from lookalike.core.errors import UsageError
from lookalike.core.files import kind_of
from lookalike.core.journal import note

if TYPE_CHECKING:
    from lookalike.commands.measured import Measured, Setting
    from lookalike.data.collection import Collection
    from lookalike.evaluation.differences import Comparison


@dataclass(frozen=True)
class Config:
    """Compare encoders, or vectors made by anyone, on the same queries of a collection.

    A, B and so on are model directories, models by name, columns of the collection that hold vectors, or files of
    vectors (.npy, Parquet). Each is measured as `lookalike evaluate` does. The table says what each has more than
    the first, query by query, with the 95 % interval over classes and p; JSON has a - b of all pairs.
    """

    names: tuple[str, ...] = option(positional=True, metavar="A B [C ...]", default=())
    """What is compared; without --data the last one is the collection."""
    data: str | None = option(default=None, metavar="COLL")
    """The collection to measure on."""
    split: str = "test"
    """The rows that take part; "all" takes every row."""
    protocol: Literal["merged", "separate"] = "merged"
    """merged: one index of all domains. separate: each domain in its own."""
    metrics: tuple[str, ...] = option(default=(), metavar="NAME")
    """What is measured instead of mp@5, recall@1 and map@100: any of mp@K, p@K, recall@K, map@K, map@r, r-precision."""
    where: str = option(default="", metavar="EXPR")
    """Only rows that meet this condition over the columns take part, as for `lookalike evaluate`."""
    bootstrap: int = option(default=0, metavar="DRAWS")
    """Intervals by drawing classes, and p by drawing signs of their differences, so many times, instead of in closed
    form; 10000 is usual."""
    json: str | None = option(default=None, metavar="FILE", writes=True)
    """Write the comparison to this file; `-` writes it to stdout instead of the table."""
    html: str | None = option(default=None, metavar="FILE.html", writes=True)
    """Write a page of the queries that changed: what the first finds for them, and what each of the others does."""

    def __post_init__(self) -> None:
        in_range(self, 0.0, 1e6, "bootstrap")


def main(config: Config) -> None:
    """Measure all, and print the table."""
    from lookalike.commands.measured import Setting, compared, named, tell_shared
    from lookalike.data.collection import Collection

    names, place = _places(config)
    collection = Collection.open(place)
    tell_shared(collection, config.split)
    setting = Setting(config.split, config.protocol, config.metrics, where=config.where, bootstrap=config.bootstrap)
    both, found = compared({name: named(name, collection) for name in names}, collection, setting)
    if config.html is not None:
        write_changes(config.html, both, found, collection, setting)
        note(f"wrote `{config.html}`")
    tell(both.to_json(), both.table(), config.json)


def _places(config: Config) -> tuple[tuple[str, ...], str]:
    """What is compared, and on which collection."""
    names, place, hint = config.names, config.data, "lookalike compare A B --data COLL"
    if place is None:
        if not names or kind_of(names[-1]) != "collection":
            raise UsageError("There is no collection to compare on.", hint=hint)
        *rest, place = names
        names = tuple(rest)
    if not all(names):
        raise UsageError("The name of one that is compared is empty.", hint=hint)
    if len(names) < 2:
        raise UsageError(f"There is nothing to compare: {len(names)} were given.", hint=hint)
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"`{twice}` is given twice, and is no different from itself.", hint=hint)
    return names, place


def write_changes(
    file: str, both: "Comparison", found: "dict[str, Measured]", collection: "Collection", setting: "Setting"
) -> None:
    """The page of the queries whose mP@5 changed most, of each one against the first."""
    from lookalike.evaluation.examples import examples
    from lookalike.pages.queries import Changed, Pictures, write_changed

    def seen(one: "Measured") -> dict[int, Any]:
        found = examples(one.source.vectors, collection, setting.split, setting.protocol, **one.where)
        return {example.id: example for example in found}

    first, *others = found
    before, pictures, sections = seen(found[first]), Pictures(collection), []
    for other in others:
        after = seen(found[other])
        pairs = [(before[i], after[i]) for i in before if i in after and before[i].precision != after[i].precision]
        sections.append(Changed.of(first, other, [(vars(a), vars(b)) for a, b in pairs], len(before), pictures))
    write_changed(file, collection.path, both.rows(), sections)
