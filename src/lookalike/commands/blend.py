"""lookalike blend: weights of models that came from one, averaged, and kept if that is better."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lookalike.core.config import option
from lookalike.core.errors import UsageError
from lookalike.core.files import refuse_unless

if TYPE_CHECKING:
    from lookalike.encoders.encoder import Encoder
    from lookalike.evaluation.report import Report

METRIC = "mp@5"


@dataclass(frozen=True)
class Config:
    """Average the weights of models that were trained from the same one, and keep the average if it is better.

    Ways: uniform, the mean of all; greedy, which begins with the best and takes up each that makes it better;
    interpolate, which goes from the first model to the second in steps, as from the untouched tower to the tuned one.
    The last model gives the projection where the others have none.

    With --data every candidate is measured on classes that training did not see, by domain; it is written only if no
    model given is as good. Without, --shares must say what to average.
    """

    models: tuple[str, ...] = option(positional=True, metavar="MODEL", default=())
    """The same as --model."""
    model: tuple[str, ...] = option(metavar="MODEL...", default=())
    """Two or more models: directories, short names of `lookalike pull --list`, or ORG/NAME on the Hub."""
    out: str = option(default="", metavar="MODEL")
    """The model directory to write."""
    data: str = option(default="", metavar="COLL")
    """The collection to measure on."""
    split: str = "test"
    """Its rows that are measured."""
    way: Literal["uniform", "greedy", "interpolate"] = "uniform"
    """Which averages are tried."""
    shares: tuple[float, ...] = ()
    """One average alone, of so much of each model, in their order."""
    steps: int = 10
    """Parts into which `interpolate` cuts the way."""


@dataclass(frozen=True)
class Candidate:
    """An average, and what it has of each model."""

    shares: tuple[float, ...]
    encoder: Encoder
    report: Report | None = None

    @property
    def score(self) -> float:
        """Its metric on domains and classes; the mean over domains."""
        return self.report.metrics[METRIC] if self.report else 0.0


def main(config: Config) -> None:
    """Measure what is given and what is tried; write the best average, or say that there is none."""
    config = replace(config, models=(), model=(*config.models, *config.model))
    _refuse(config)
    from lookalike.commands.models import named_model
    from lookalike.core.journal import note, table
    from lookalike.encoders.blend import refuse_unless_alike
    from lookalike.encoders.encoder import Encoder

    config = replace(config, model=tuple(map(named_model, config.model)))
    encoders = [Encoder.load(path) for path in config.model]
    refuse_unless_alike({path: encoder.config for path, encoder in zip(config.model, encoders, strict=True)})
    measure = _measure(config)
    count = len(encoders)
    given = (
        [_measured(tuple(float(i == j) for j in range(count)), encoders, measure) for i in range(count)]
        if measure
        else []
    )
    tried: list[Candidate] = []
    for shares in _ways(config, given, tried):
        tried.append(_measured(shares, encoders, measure))
    if measure:
        domains = sorted(given[0].report.per_domain) if given[0].report else []
        print(table(["shares", METRIC, *domains], [_row(each, domains) for each in [*given, *tried]]))
    best, known = max(tried, key=lambda each: each.score), max((each.score for each in given), default=-1.0)
    if measure and best.score <= known:
        better = config.model[[each.score for each in given].index(known)]
        note(f"No average is better than `{better}` ({METRIC} {known:.4f}); nothing is written.")
        return
    best.encoder.save(config.out, _card(config, best))
    note(f"`{config.out}` has {_words(best.shares)} of {', '.join(f'`{path}`' for path in config.model)}.")
    print(config.out)


def _refuse(config: Config) -> None:
    hint = "lookalike blend --model UNTOUCHED TUNED --way interpolate --data COLL --out MODEL"
    if len(config.model) < 2 or not config.out:
        raise UsageError(f"Two models and `--out` are the least; there are {len(config.model)} models.", hint=hint)
    if config.way == "interpolate" and len(config.model) != 2:
        raise UsageError(f"`interpolate` goes from one model to another; there are {len(config.model)}.", hint=hint)
    fit = len(config.shares) == len(config.model) and min(config.shares) >= 0 and 0 < sum(config.shares) < math.inf
    if config.shares and not fit:
        raise UsageError(
            f"`--shares` are {list(config.shares)}; expected one for each of {len(config.model)} models, 0 or more.",
            hint="--shares 0.3 0.7",
        )
    if not config.data and not config.shares and config.way != "uniform":
        raise UsageError(f"`{config.way}` chooses by measuring, and there is no `--data`.", hint=hint)
    if config.steps < 2:
        raise UsageError(f"`--steps` is {config.steps}; expected 2 or more.", hint="--steps 10")
    refuse_unless(config.out, ("missing", "empty"), "encoder")


def _measure(config: Config) -> Callable[[Encoder], Report] | None:
    if not config.data:
        return None
    from lookalike.data.collection import Collection
    from lookalike.evaluation.encoders import measure_on

    collection = Collection.open(config.data)
    measure = measure_on(collection, config.split, None)
    if measure is None:
        raise UsageError(
            f"`{config.data}` has no rows of split `{config.split}` to measure on.",
            hint=f"`lookalike info {shlex.quote(config.data)}` counts rows by split",
        )
    return measure


def _measured(
    shares: tuple[float, ...], encoders: Sequence[Encoder], measure: Callable[[Encoder], Report] | None
) -> Candidate:
    from lookalike.encoders.blend import blended

    shares = tuple(share / sum(shares) for share in shares)
    whole = [i for i, share in enumerate(shares) if share == 1.0]
    if whole:
        encoder = encoders[whole[0]]
    else:
        encoder = replace(encoders[-1], tensors=blended([each.tensors for each in encoders], shares))
    return Candidate(shares, encoder, measure(encoder) if measure else None)


def _ways(config: Config, given: Sequence[Candidate], tried: Sequence[Candidate]) -> Iterator[tuple[float, ...]]:
    """The shares to try; those of `greedy` depend on the last that was `tried`, which grows on the way."""
    count = len(config.model)
    if config.shares:
        yield config.shares
    elif config.way == "uniform":
        yield (1 / count,) * count
    elif config.way == "interpolate":
        for step in range(1, config.steps):
            yield 1 - step / config.steps, step / config.steps
    else:
        order = sorted(range(count), key=lambda i: -given[i].score)
        taken, best = {order[0]}, given[order[0]].score
        for one in order[1:]:
            more = taken | {one}
            shares = tuple((i in more) / len(more) for i in range(count))
            yield shares
            if (score := tried[-1].score) > best:
                taken, best = more, score


def _row(candidate: Candidate, domains: Sequence[str]) -> list[str]:
    assert candidate.report is not None
    per_domain = candidate.report.per_domain
    return [_words(candidate.shares), f"{candidate.score:.4f}", *(f"{per_domain[d][METRIC]:.3f}" for d in domains)]


def _words(shares: Sequence[float]) -> str:
    return " ".join(f"{share:.3g}" for share in shares)


def _card(config: Config, best: Candidate) -> dict[str, Any]:
    from lookalike.core.files import read_card

    shares = {path: share for path, share in zip(config.model, best.shares, strict=True) if share}
    measured = {"metrics": {"trained": dict(best.report.metrics)}} if best.report else {}
    # What a model began from is told of all that have a share, as its data and its licence count.
    blend = [{"model": path, "share": shares[path], "card": read_card(path)} for path in shares]
    return {"name": Path(config.out).name, "recipe": "blend", "blend": blend, **measured}
