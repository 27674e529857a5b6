"""`best`: tries and proves. Closed forms, heads, gentle tuning, and averages of tuned and untouched weights, on folds
that keep classes and domains back; what wins on what it has not seen is trained on everything, and a table tells it
beside the untouched tower.

Every trial is an ordinary run below `RUN/trials`, so that a killed command goes on with the trial that it was in.
"""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

from lookalike.core.errors import UsageError
from lookalike.core.files import read_card, read_json, storage_errors, write_json
from lookalike.core.journal import note, record, table
from lookalike.core.mesh import shared
from lookalike.encoders.directory import read_text
from lookalike.encoders.encoder import Encoder
from lookalike.towers.ops import places
from lookalike.training.checkpoint import clear, hold_to, opened_run
from lookalike.training.config import EVENED, BestConfig, FitStage, Pca, Stage, TrainConfig, TuneStage
from lookalike.training.folds import COUNT, Fold, Score, folds
from lookalike.training.learner import stacked
from lookalike.training.loop import train
from lookalike.training.rows import Rows, features_of, mean_of
from lookalike.training.tasks import (
    Made,
    begun,
    closed_form,
    facts_of,
    resized,
    rows_of,
    viewing,
    with_tensors,
)
from lookalike.vectors.rows import filled, stored_images
from lookalike.vectors.runtime import BATCH

GRADIENT = 3.5  # times as long as a forward, what a step takes for the blocks that learn; measured on CPUs
Final = Callable[[TrainConfig, Rows], Encoder]
_LEFT = "trials", "final/model", "final/checkpoints"  # what a finished run no longer needs
LEAST = 4.0
"""Epochs below which the whole tower is not tuned; the last blocks have as many in half of the time."""
KEPT = 0.003
"""What a longer way must be better by: mP@5 that differ by less are one."""
PART = 0.01
"""What the last blocks must be better than the whole tower by. A fold has less to learn from, which is in favour of
what learns less: one said +.006 of a MobileNetV2 that was then .013 worse on test classes, and no better elsewhere.
"""


@dataclass(frozen=True)
class Way:
    """One thing to try."""

    name: str
    stages: tuple[Stage, ...]  # none: the untouched encoder
    folds: int  # on how many folds it is tried
    half_of: str = ""  # the tuned way whose weights it averages with the untouched ones, instead of learning anew


def best(config: BestConfig, final: Final | None = None) -> Encoder:
    """Try what the time allows, keep what wins on what it has not seen; the encoder is in `config.out`/model.

    `final` trains what won on all rows, in `config.out`/final, and looks on; by default `train` does it. RunError where
    there are too few classes to keep any back.
    """
    if jax.process_count() > 1:
        raise UsageError(
            "`best` is for one process, and there are several.", hint="`lookalike train head`, or `tune`, is for all"
        )
    if config.stop_if_worse:
        raise UsageError(
            "`--stop-if-worse` ends a stage by test classes, and `best` chooses by classes that it keeps back itself.",
            hint="leave it out, or `lookalike train tune --stop-if-worse`",
        )
    with storage_errors(config.out), opened_run(config) as run:
        if (run / "model").exists():
            note(f"Run `{run}` is finished; its encoder is `{run / 'model'}`.")
            clear(run, *_LEFT)  # what it was killed over
            return Encoder.load(run / "model")
        rows, untouched = rows_of(config), begun(config)
        hold_to(run, facts_of(rows, untouched))
        found = folds(rows, seed=config.seed)
        ways, scores = _ways(config, rows, found, untouched, run), {}
        for way in ways:
            tried = found[: way.folds]
            scores[way.name] = [
                _trial(config, way, number, fold, rows, untouched, run) for number, fold in enumerate(tried)
            ]
            _say(way, scores[way.name])
        won = _winner(ways, scores)
        _tell(ways, scores, won)
        whole = replace(_plain(config, won), out=str(run / "final"))
        whole = replace(whole, evaluate_every=config.evaluate_every, track=config.track)
        encoder = (final or _train)(whole, rows)
        card = read_card(run / "final" / "model")
        trials = {name: [list(score) for score in each] for name, each in scores.items()}
        card |= {"name": run.name, "recipe": f"best: {won.name}", "trials": trials}
        encoder.save(run / "model", card, read_text(run / "final" / "model"))
        record(run, 0, {"best": won.name})
        clear(run, *_LEFT)
        note(f"The encoder is `{run / 'model'}`.")
    return encoder


def _train(config: TrainConfig, rows: Rows) -> Encoder:
    return train(config, rows=rows)


def _ways(config: BestConfig, rows: Rows, found: Sequence[Fold], untouched: Made, run: Path) -> list[Way]:
    """What the minutes allow, the cheap before the dear; decided once, so that a run that goes on does the same."""
    forward = _forward(untouched.encoder, rows, run)
    looks = config.views * len(rows.ids) * forward  # each tower that is new looks at all rows
    ways = [
        Way("untouched", (), COUNT),
        Way("pca", (FitStage(Pca(power=-0.125)),), COUNT),
        Way("fit", (FitStage(EVENED),), COUNT),
        Way("head", (config.head,), COUNT),
    ]
    tuned, left = _tuned(config, rows, float(found[0].learned.mean()), untouched, forward)
    halves = list(tuned)[: int(left / looks)]
    for name, (stage, trials) in sorted(tuned.items()):
        ways.append(Way(name, (stage, FitStage(EVENED)), trials))
        if name in halves:
            half = replace(stage, interpolate=0.5)
            ways.append(Way(f"half {name}", (half, FitStage(EVENED)), 1, half_of=name))
    return ways


def _tuned(
    config: BestConfig, rows: Rows, learned: float, untouched: Made, forward: float
) -> tuple[dict[str, tuple[TuneStage, int]], float]:
    """What is learned from images: each stage, and on how many folds; and the seconds that are left.

    The whole tower has the first claim to the minutes, as it brings most: for a trial on a fold, which learns from a
    share `learned` of the rows, and for what is kept, from all. The last blocks have what it leaves, or everything if
    that is too little for it.
    """
    images, looks = len(rows.ids), config.views * len(rows.ids) * forward
    count = places(untouched.encoder.config.tower)
    blocks = max(1, round(count * config.share))
    last = replace(config.last, trained=replace(config.last.trained, blocks=blocks))
    epoch, copies = images * GRADIENT * forward, images * last.copies * forward
    left, tuned, trials = 60 * config.minutes - looks, dict[str, TuneStage](), 0.0
    for name, stage, once, pace in (
        ("whole", config.whole, 0.0, epoch),
        ("last", last, copies, epoch * blocks / count),
    ):
        asked = stage.steps * stage.batch / images if stage.steps else stage.epochs
        if not asked:
            note(f"`{name}` is left out, as it has no steps.")
            continue
        kept = 0.0 if tuned else 1.0  # one of the two is kept, and the whole tower takes longer
        least = min(LEAST, asked)
        enough = (learned + kept) * (once + least * pace) + (1.0 + kept) * looks
        if left < enough:
            minutes = f"{enough / 60:.0f} minutes of the {max(left, 0.0) / 60:.0f} that there are"
            note(f"`{name}` is left out: it takes {minutes}. More: `--minutes`")
            continue
        epochs = min(asked, least + (left - enough) / ((learned + kept) * pace))
        if epochs < asked:
            stage = replace(stage, epochs=round(epochs, 1), steps=0)
        trial = learned * (once + epochs * pace) + looks
        left -= kept * (once + epochs * pace + looks) + trial
        tuned[name], trials = stage, trials + trial
    more = int(min(COUNT - 1.0, left / trials)) if tuned else 0  # on as many folds each, as they are compared
    return {name: (stage, 1 + more) for name, stage in tuned.items()}, left - more * trials


def _forward(encoder: Encoder, rows: Rows, run: Path) -> float:
    """Seconds that the tower takes for an image here, as it was measured when the run began."""
    file = run / "machine.json"
    if not file.exists():
        features = shared(Encoder.features, encoder, stacked(encoder.config))
        images = filled(next(stored_images(encoder.config, rows.collection, rows.ids[:BATCH])))
        features(images)
        begun = time.monotonic()
        features(images)
        write_json(file, {"forward": (time.monotonic() - begun) / BATCH})
    return float(read_json(file)["forward"])


def _plain(config: BestConfig, way: Way) -> TrainConfig:
    """The run that a way is."""
    names = "data", "model", "where", "unlabelled", "dimension", "mirror", "zooms", "seed"
    told = "save_every", "log_every", "device"
    return TrainConfig(**{n: getattr(config, n) for n in (*names, *told)}, recipe=way.name, stages=way.stages)


def _trial(config: BestConfig, way: Way, number: int, fold: Fold, rows: Rows, untouched: Made, run: Path) -> Score:
    """How a way does on what a fold keeps back; of a finished trial only the score is kept."""
    place = run / "trials" / f"{way.name}-{number}"
    if (place / "score.json").exists():
        return Score(*read_json(place / "score.json"))
    encoder, path = viewing(config, untouched).encoder, config.model
    if way.half_of:
        trial = run / "trials" / f"{way.half_of}-{number}"
        encoder, path = _half(config, way, untouched, trial, rows.only(fold.learned)), ""
    elif way.stages:
        encoder = train(replace(_plain(config, way), out=str(place)), rows=rows.only(fold.learned))
        path = config.model if not any(isinstance(stage, TuneStage) for stage in way.stages) else ""
    held = rows.only(fold.held)
    features = mean_of(features_of(encoder, path, held, config.mirror))
    score = fold.score(np.asarray(encoder.project(features)), rows)
    shutil.rmtree(place / "checkpoints", ignore_errors=True)
    write_json(place / "score.json", list(score))
    return score


def _half(config: BestConfig, way: Way, untouched: Made, trial: Path, learned: Rows) -> Encoder:
    """A trial's weights averaged with the untouched ones (WiSE-FT, Wortsman et al., 2022), and a new projection."""
    tuned = Encoder.load(trial / "model")
    before = next(resized(untouched, stage).encoder for stage in way.stages if isinstance(stage, TuneStage))
    names = {name for name in before.tensors if name.startswith("tower.")}
    mixed = {name: (before.tensors[name] + tuned.tensors[name]) / 2 for name in names}
    return closed_form(config, FitStage(EVENED), learned, Made(with_tensors(tuned, mixed))).encoder


def _winner(ways: Sequence[Way], scores: Mapping[str, Sequence[Score]]) -> Way:
    """The way that is best on the folds that it shares with the best before it, by more than chance gives.

    The closed form that looks at labels is asked first, and the last blocks behind the whole tower: where folds, which
    have fewer classes to learn from, told little, these two did better on test classes (results/tuned.md).
    """
    won = next(way for way in ways if way.name == "fit")
    for way in sorted(ways, key=lambda way: way.name.endswith("last")):
        shared = min(len(scores[way.name]), len(scores[won.name]))
        mine, best = (float(np.mean([s.mean for s in scores[each.name][:shared]])) for each in (way, won))
        part = way.name.endswith("last") and won.name.endswith("whole")
        if way.stages and mine > best + (PART if part else KEPT):
            won = way
    return won


def _say(way: Way, scores: Sequence[Score]) -> None:
    classes, domains = (float(np.mean(column)) for column in zip(*scores, strict=True))
    note(f"{way.name}: classes never seen {classes:.4f}, domains never seen {domains:.4f} ({len(scores)} folds)")


def _tell(ways: Sequence[Way], scores: Mapping[str, Sequence[Score]], won: Way) -> None:
    """All that was tried, on the folds that each was tried on, beside the untouched encoder on the same."""
    lines = []
    for way in ways:
        mine = scores[way.name]
        base = scores["untouched"][: len(mine)]
        cells = [float(np.mean([score[i] for score in mine])) for i in (0, 1)]
        differences = [cell - float(np.mean([score[i] for score in base])) for i, cell in enumerate(cells)]
        marks = [f"{cell:.4f} ({more:+.4f})" for cell, more in zip(cells, differences, strict=True)]
        lines.append([way.name + (" *" if way is won else ""), *marks, len(mine)])
    note(table(["way", "classes never seen", "domains never seen", "folds"], lines))
    shared = len(scores[won.name])
    kept, raw = (float(np.mean([s.mean for s in scores[name][:shared]])) for name in (won.name, "untouched"))
    verdict = "better than" if kept > raw else "not as good as"
    note(f"`{won.name}` is kept; on what it has not seen it is {verdict} the untouched encoder ({kept - raw:+.4f}).")
