"""lookalike train: a recipe, with flags over its leaves, becomes an encoder."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lookalike.commands import mirror
from lookalike.commands.outcome import tell
from lookalike.commands.recipe_flags import parsed, recipe_of
from lookalike.commands.verdict import METRIC
from lookalike.core.config import option
from lookalike.core.errors import RunError, UsageError
from lookalike.core.files import fingerprint, json_text, kind_of, read_card, read_json, refuse_unless, write_json
from lookalike.core.journal import note, table

if TYPE_CHECKING:
    import pyarrow as pa

    from lookalike.core.shapes import Vectors
    from lookalike.encoders.encoder import Encoder
    from lookalike.evaluation.report import PerQuery
    from lookalike.training.config import TrainConfig
    from lookalike.training.rows import Rows

_USAGE = """usage: lookalike train RECIPE --data COLL --model MODEL --out RUN [options]

Make an encoder from a collection, following a recipe.

{recipes}

`lookalike train RECIPE --help` lists the recipe's options and what it sets them to.
A run that was stopped goes on with the same command."""


@dataclass(frozen=True)
class Options:
    """What is asked beside the recipe."""

    leave_out: Literal["none", "domain"] = "none"
    """domain: train once for each domain without its images, and measure what each run finds of the domain that it has
    never seen, among all images of split "test". The runs are in RUN; no encoder of all domains is made."""
    json: str | None = option(default=None, metavar="FILE", writes=True)
    """Write how the encoder does on split "test", or the table of --leave-out, to this file; `-` writes it to stdout
    instead of the model's name or the table."""


@dataclass(frozen=True)
class Config:
    """The recipe, with its flags applied, and how it is run."""

    run: TrainConfig
    """What is trained."""
    options: Options = Options()
    """How."""
    decides: bool = False
    """Whether the run may do without the recipe's mirror image."""


def configure(argv: list[str]) -> Config:
    """The recipe that `argv` names, with its flags applied; UsageError if one is unknown, or missing."""
    from lookalike.recipes import ABOUT

    name = recipe_of(argv, _USAGE, "lookalike train RECIPE --data COLL --out RUN")
    prog = f"lookalike train {name}"
    config, options = parsed(name, argv[1:], prog, f"{ABOUT[name][0].upper()}{ABOUT[name][1:]}.", Options())
    new = "new" in config.names
    if new and config.model:
        raise UsageError(
            f"`{name}` makes a new tower, and `--model` gives one.",
            hint=f"`lookalike train tune --model {shlex.quote(config.model)} ...` tunes a given one",
        )
    needed = ["data", "out"] if new else ["data", "model", "out"]
    if missing := [f"`--{field}`" for field in needed if not getattr(config, field)]:
        raise UsageError(f"Missing: {', '.join(missing)}.", hint=f"`{prog} --help` lists the options")
    return Config(config, options, mirror.is_open(config, argv))


@dataclass(frozen=True)
class Done:
    """What came of a run, or of one for each domain."""

    model: str | None  # the model directory; None where domains were left out, which makes none of all
    words: str  # of a terminal
    document: dict[str, Any]  # of `--json`


def main(config: Config) -> None:
    """Train, with every encoder measured on split "test" if the collection has one; print where the encoder is."""
    done = run(config)
    tell(done.document, done.words, config.options.json)


def run(config: Config) -> Done:
    """Train; what came of it."""
    from lookalike.commands.models import named_model
    from lookalike.core.devices import start
    from lookalike.data.collection import Collection

    if config.options.leave_out == "none":
        refuse_unless(config.run.out, ("missing", "empty", "run"), "run")
    start(config.run.device)  # before what measures starts JAX
    for path in (config.run.data, config.run.unlabelled):
        if path:
            Collection.open(path)  # what is wrong with it is told before a model is downloaded
    if config.run.model:
        config = replace(config, run=replace(config.run, model=named_model(config.run.model)))
    if config.decides:
        config = replace(config, run=mirror.decided(config.run))
    return leave_out(config.run) if config.options.leave_out == "domain" else _whole(config.run)


def _whole(config: TrainConfig) -> Done:
    """One run, and its end in words."""
    from lookalike.commands.verdict import conclude
    from lookalike.training.loop import train

    measured = evaluation(config)
    encoder = _train(config, measured)
    values = measured.values(encoder) if measured else None
    conclude(config, encoder, measured.values if measured else None, lambda part, rows: train(part, rows=rows))
    model = f"{config.out}/model"
    found = None if values is None else {**values.summary(), "n_queries": len(values.label)}
    return Done(model, model, {"model": model, "test": found, "verdict": read_card(model).get("verdict")})


def _train(config: TrainConfig, evaluate: Evaluation | None) -> Encoder:
    """One run, with its page."""
    from lookalike.core.devices import described, start
    from lookalike.pages.report import write_report
    from lookalike.training.best import best
    from lookalike.training.config import BestConfig
    from lookalike.training.loop import train

    machine = described(start(config.device))

    def whole(run: TrainConfig, rows: Rows | None = None) -> Encoder:
        def report(which: str) -> None:
            if evaluate and which:
                evaluate.keep(run.out, which)
            write_report(run.out, run.data, machine, config.out)

        return train(run, evaluate, report=report, rows=rows)

    return best(config, whole) if isinstance(config, BestConfig) else whole(config)


def leave_out(config: TrainConfig) -> Done:
    """A run for each domain that has images to learn from and images of split "test"; then what all of them tell.

    RUN/left-out.json holds the same: each domain, means over domains, and half of their 95 % intervals. UsageError if
    fewer than two domains have both; RunError if a finished run had another config, rows or model.
    """
    domains, content = _both(config), _content(config)
    found = [_fold(config, number, domain, content) for number, domain in enumerate(domains, 1)]
    facts = [
        {"domain": domain or None, "run": str(_place(config, number, domain)), "n_queries": len(fold["label"])}
        for number, (domain, fold) in enumerate(zip(domains, found, strict=True), 1)
    ]
    each, mean = [_compared([fold]) for fold in found], _compared(found)
    folds = [{**fact, **sides} for fact, sides in zip(facts, each, strict=True)]
    document = {"metric": METRIC, "folds": folds, "mean": mean}
    write_json(Path(config.out) / "left-out.json", document)
    entries = zip([*(domain or "none" for domain in domains), "mean over domains"], [*each, mean], strict=True)
    lines = [[name, *(_words(*side) for side in sides.items())] for name, sides in entries]
    return Done(None, table(["domain never seen", *mean], lines), document)


def _both(config: TrainConfig) -> list[str]:
    """The names of the domains that have rows to learn from, and queries of split "test" that count."""
    from lookalike.data.collection import Collection
    from lookalike.evaluation.roles import COLUMNS, Roles
    from lookalike.training.tasks import rows_of

    if kind_of(config.out) == "run":
        raise UsageError(f"`{config.out}` is a run of its own.", hint="give `--leave-out` another `--out`")
    rows = Collection.open(config.data).table(COLUMNS)
    tested: set[str] = set()
    with suppress(UsageError):  # nothing counts
        roles = Roles.of(rows, "test")
        tested = {name or "" for name in rows.take(roles.rows[roles.measurable()])["domain"].to_pylist()}
    labelled = rows_of(replace(config, unlabelled=""))  # of whose rows a fold's may be all that help it
    found = sorted(tested & set(labelled.domain.tolist()))
    if len(found) < 2:
        raise UsageError(
            f"`--leave-out domain` needs two domains with images to learn from and to be measured on; "
            f"`{config.data}` has {len(found)}.",
            hint=f"`lookalike info {shlex.quote(config.data)}` counts rows by domain and split",
        )
    return found


def _content(config: TrainConfig) -> str:
    """A fingerprint of all that is learned from and measured on, and of the model that is begun with."""
    from lookalike.data.collection import Collection
    from lookalike.encoders.encoder import Encoder

    columns = [
        column
        for path in (config.data, config.unlabelled)
        if path
        for column in Collection.open(path).table(["id", "label", "domain", "split"]).columns
    ]
    given = Encoder.load(config.model).fingerprint if config.model else ""
    return fingerprint(given, *(json_text(column.to_pylist(), None) for column in columns))


def _fold(config: TrainConfig, number: int, domain: str, content: str) -> dict[str, Any]:
    """Of the queries of `domain`: their labels, and what the untouched encoder and one trained without it find."""
    from lookalike.encoders.encoder import Encoder
    from lookalike.training.checkpoint import same_run

    quoted = domain.replace("'", "''")
    away = f"(domain IS NULL OR domain != '{quoted}')" if domain else "domain IS NOT NULL"
    where = f"({config.where}) AND {away}" if config.where else away
    out = _place(config, number, domain)
    file, fold = out / "left-out.json", replace(config, out=str(out), where=where)
    if file.exists():
        same_run(fold, out, resumed=False)
        if read_json(file).get("content", content) != content:
            raise RunError(
                f"Run `{out}` was measured before the rows of `{config.data}`, or the model, changed.",
                hint="`--out ANOTHER` measures anew",
            )
    else:
        note(f"Without {domain or 'rows of no domain'}, domain {number}:")
        evaluate = evaluation(fold, domain)
        assert evaluate  # `_both` has seen its rows
        trained = evaluate.values(_train(fold, evaluate))
        sides = {"trained": trained} | (
            {"untouched": evaluate.values(Encoder.load(config.model))} if config.model else {}
        )
        values = {name: each.values[METRIC].tolist() for name, each in sides.items()}
        write_json(file, {"domain": domain, "content": content, "label": trained.label.tolist(), **values})
    found: dict[str, Any] = read_json(file)
    return found


def _place(config: TrainConfig, number: int, domain: str) -> Path:
    return Path(config.out) / f"{number:02}-{re.sub(r'[^A-Za-z0-9_.-]', '_', domain) or 'none'}"


def _compared(folds: list[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Means over domains of both encoders and of their difference, each with half of its 95 % interval."""
    from lookalike.evaluation.intervals import half_width

    labels = np.concatenate([np.array(fold["label"], np.int64) for fold in folds])
    domains = np.repeat(np.arange(len(folds)), [len(fold["label"]) for fold in folds])
    names: list[str] = [name for name in ("untouched", "trained") if name in folds[0]]
    sides = {name: np.concatenate([np.array(fold[name]) for fold in folds]) for name in names}
    if "untouched" in sides:
        sides["difference"] = sides["trained"] - sides["untouched"]
    return {
        name: {
            "value": float(np.mean([values[domains == number].mean() for number in range(len(folds))])),
            "half_width": half_width(values, labels, domains),
        }
        for name, values in sides.items()
    }


def _words(side: str, found: dict[str, float | None]) -> str:
    mean, half = found["value"], found["half_width"]
    return f"{mean:{'+' if side == 'difference' else ''}.4f}" + (
        "" if half is None else f" \N{PLUS-MINUS SIGN}{half:.4f}"
    )


@dataclass
class Evaluation:
    """Measures encoders on the classes of split "test", and keeps what the page of the run shows."""

    rows: pa.Table
    vectors: Callable[[Encoder], Vectors]  # of `rows`
    domain: str | None = None  # the only one whose queries count; None: all
    last: dict[str, Any] = field(default_factory=dict)
    _seen: tuple[Encoder, Vectors] | None = None  # of the encoder asked last

    def __call__(self, encoder: Encoder) -> Mapping[str, float]:
        """The metrics, means over domains."""
        from lookalike.evaluation.examples import examples

        found = self.values(encoder).summary()
        queries = [asdict(example) for example in examples(self._vectors(encoder), self.rows)]
        self.last = {"metrics": found["metrics"], "per_domain": found["per_domain"], "queries": queries}
        metrics: Mapping[str, float] = found["metrics"]
        return metrics

    def values(self, encoder: Encoder) -> PerQuery:
        """What the queries find."""
        from lookalike.evaluation.protocols import evaluate
        from lookalike.evaluation.roles import NO_DOMAIN

        found = evaluate(self._vectors(encoder), self.rows, split="test").per_query
        assert found  # `evaluate` gives it
        return found if self.domain is None else found.only(self.domain or NO_DOMAIN)

    def _vectors(self, encoder: Encoder) -> Vectors:
        if self._seen is None or self._seen[0] is not encoder:
            self._seen = encoder, self.vectors(encoder)
        return self._seen[1]

    def keep(self, run: str, which: str) -> None:
        """Write the last measurement into `run`, as that of encoder `which`."""
        name = which if which == "untouched" else "latest"
        write_json(Path(run) / "evaluation" / f"{name}.json", {"encoder": which, **self.last})


def evaluation(config: TrainConfig, domain: str | None = None) -> Evaluation | None:
    """How an encoder does on the classes of split "test", which training never sees; None if they measure nothing.

    With a `domain`, how its queries do among all images.
    """
    from lookalike.data.collection import Collection
    from lookalike.evaluation.encoders import vectors_on
    from lookalike.evaluation.roles import COLUMNS, Roles
    from lookalike.vectors.runtime import load

    collection = Collection.open(config.data)
    rows = collection.table(COLUMNS)
    rows = rows.take(np.flatnonzero([split == "test" for split in rows["split"].to_pylist()]))
    if not len(rows):
        return None
    try:
        roles = Roles.of(rows, "test")
    except UsageError as error:
        note(f"Nothing is measured on split test. {error.message}")
        return None
    if not roles.measurable().any():
        note("Nothing is measured on split test. No label of it has two images, of different groups.")
        return None
    given = load(config.model, precision="float32") if config.model else None
    return Evaluation(rows, vectors_on(collection, rows["id"].to_numpy(), given), domain)
