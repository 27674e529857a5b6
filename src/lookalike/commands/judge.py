"""lookalike judge: the challenge's eleven kinds of object, rebuilt from public data sets, and what a model finds."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lookalike.commands.outcome import tell
from lookalike.core.config import option
from lookalike.core.errors import CollectionError, UsageError
from lookalike.core.files import read_card
from lookalike.core.journal import note, table

if TYPE_CHECKING:
    from lookalike.evaluation.report import Report


@dataclass(frozen=True)
class Config:
    """Measure a model as the Google Universal Image Embedding challenge did, at home.

    Draws 455 queries and 18,182 images to search among of each kind of object (apparel, packaged goods, landmarks, ...)
    from public data sets, keeps them as a collection, and prints mP@5 in one index of all with its 95 % interval. The
    same rule draws the same images on every machine; a version, judge-RULE-DRAWN, names what was drawn.
    """

    given: tuple[str, ...] = option(positional=True, metavar="[MODEL]", default=())
    """The same as --model."""
    model: str = option(default="", metavar="MODEL")
    """The model: a directory, a short name of `lookalike pull --list`, or ORG/NAME on the Hub."""
    from_: str = option(default="", metavar="DIR")
    """The folder in which the data sets lie, each in a folder of its name: abo, gldv2, met, food101, cars196. A folder
    named as a kind, with a folder for each thing in it, holds images of yours."""
    kinds: tuple[str, ...] = option(default=(), metavar="KIND")
    """Judge by these kinds alone; unless given, by all that are there."""
    out: str = option(default="judge.lookalike", metavar="COLL")
    """The collection of what is drawn; it is made once, and serves every model."""
    list_: bool = False
    """Show the kinds, where their images come from, under which licence, and how to get them."""
    json: str | None = option(default=None, metavar="FILE", writes=True)
    """Write the whole report to this file; `-` writes it to stdout instead of the table."""


def main(config: Config) -> None:
    """Judge, and print the report."""
    if config.list_:
        print(_listed())
        return
    report = run(config)
    name = report.definition["judge"]
    document = {"judge": name, **report.to_json()}
    tell(document, f"{report.table()}\n{name}", config.json)


def run(config: Config) -> "Report":
    """What the model finds; the version of the judge is in its definition."""
    from lookalike.commands.models import named_model, only_model

    usage = "lookalike judge --model MODEL --from DIR; `lookalike judge --list` says what lies there"
    model = only_model(config.given, config.model, usage)
    if not model or not config.from_:
        raise UsageError("A model and the folder of the data sets are needed.", hint=usage)
    from lookalike.commands.measured import measured
    from lookalike.data.collection import Collection

    model = named_model(model)
    name = drawn(config)
    report = measured(model, Collection.open(config.out)).report
    return replace(report, definition={**report.definition, "judge": name})


def drawn(config: Config) -> str:
    """Make the collection, unless it is there; its version."""
    from lookalike.data.prepare import prepare
    from lookalike.data.sources.judged import KINDS, judged_source, parts_at, version

    parts = parts_at(config.from_, config.kinds)
    sources = [judged_source(part, config.out) for part in parts]
    before = {entry["name"] for entry in read_card(config.out).get("sources", [])}
    if more := before - {part.place.name for part in parts}:
        raise CollectionError(
            f"`{config.out}` holds images of {', '.join(sorted(more))} too, which are not judged by now.",
            hint="give another `--out`",
        )
    report = prepare(sources, config.out)
    if not report.rows:
        raise CollectionError(
            f"`{config.from_}` has no class with two images of any kind that is judged.",
            hint="`lookalike judge --list` says what each kind needs",
        )
    note(report.sentence(config.out))
    facts = {entry["name"]: entry for entry in read_card(config.out)["sources"]}
    found = {kind: told for entry in facts.values() for kind, told in entry.get("judge", {}).items()}
    rows = [
        [kind, *(f"{found[kind][n]:,}" for n in ("queries", "classes", "index"))] for kind in KINDS if kind in found
    ]
    note(table(["kind", "queries", "things", "index images"], rows))
    if absent := [kind for kind in KINDS if kind not in found]:
        note(f"not judged: {', '.join(absent)}; scores of other kinds do not compare with this one")
    return version(facts)


def _listed() -> str:
    from lookalike.data.sources.dataset import dataset_of
    from lookalike.data.sources.judged import INDEX, KINDS, QUERIES, rule

    rows = [
        [name, kind.dataset or "yours", "" if kind.dataset is None else kind.licence, "yes" if kind.is_open else "no"]
        for name, kind in KINDS.items()
    ]
    sets = [dataset_of(name) for name in sorted({kind.dataset for kind in KINDS.values() if kind.dataset})]
    places = [f"{one.name}: {one.get}; {one.page}" for one in sets]
    places.append("yours: a folder named as the kind, with a folder for each thing in it")
    told = table(["kind", "data set", "licence", "free for all"], rows)
    counts = f"rule {rule()}: {QUERIES} queries and {INDEX:,} images to search among of each kind"
    return "\n".join([told, "", *places, "", counts])
