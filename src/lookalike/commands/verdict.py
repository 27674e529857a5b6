"""The end of a run in words: whether it is better than the untouched tower, how sure that is, and what to try next."""

import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lookalike.core.files import locked, read_card, write_json
from lookalike.core.journal import note, said_if_slow

if TYPE_CHECKING:
    from lookalike.encoders.encoder import Encoder
    from lookalike.evaluation.report import PerQuery
    from lookalike.training.config import TrainConfig
    from lookalike.training.rows import Rows

METRIC = "mp@5"
WORTH = 0.005  # of mP@5, from which on another way is told


def conclude(
    config: "TrainConfig",
    encoder: "Encoder",
    values: "Callable[[Encoder], PerQuery] | None",
    train: "Callable[[TrainConfig, Rows], Encoder]",
) -> None:
    """Say how `encoder`, which the run made, compares with the tower as it came, and write it into its card.

    `values` are what test queries find by an encoder; None: there are none, and `train` is asked for encoders of parts
    of the training rows, where that takes seconds. Nothing is said of a new tower, or of a run that was told before.
    """
    from lookalike.training.tasks import begun, viewing

    model = Path(config.out) / "model"
    if not config.model or "verdict" in read_card(model):
        return
    with locked(config.out, "train"):  # parts of the rows are trained on inside the run
        given = viewing(config, begun(config)).encoder  # with the same mirror image and zooms: a fair comparison
        if values is None:
            told = _by_folds(config, given, train)
        else:
            with said_if_slow("comparing with the untouched tower, and what else there is"):
                told = _by_queries(values(encoder), values(given))
                told["words"] = _words(told, encoder, given)
                told["next"] = _next(config, told["trained"], given, values)
        if told:
            note("\n".join([told["words"], *_mending(config, told["which"]), *told.get("next", [])]))
            write_json(model / "card.json", {**read_card(model), "verdict": told})


def _by_queries(trained: "PerQuery", untouched: "PerQuery") -> dict[str, Any]:
    from lookalike.evaluation.differences import Difference

    one, other = (each.summary()["metrics"][METRIC] for each in (trained, untouched))
    apart = Difference.between(trained, untouched)
    value, half = apart.values[METRIC], apart.half_width[METRIC]
    low, high = (value, value) if half is None else (value - half, value + half)
    which = "better" if low > 0 else "worse" if high < 0 else "same"
    found = {"metric": METRIC, "trained": one, "untouched": other, "difference": value}
    return {**found, "low": None if half is None else low, "high": None if half is None else high, "which": which}


def _words(told: dict[str, Any], encoder: "Encoder", given: "Encoder") -> str:
    judged = {
        "better": "Better than the untouched tower",
        "worse": "Worse than the untouched tower",
        "same": "No difference from the untouched tower that these images can tell",
    }[told["which"]]
    sure = "" if told["low"] is None else f", 95 % interval {told['low']:+.3f} to {told['high']:+.3f}"
    views = [name for name, there in (("mirror image", given.config.mirror), ("zooms", given.config.zooms)) if there]
    alike = f" (with {' and '.join(views)} as here)" if views else ""
    made, came = encoder.config.projection.dimension, given.config.projection.dimension
    return (
        f"{judged}: on classes never seen, {made} numbers have mP@5 {told['trained']:.3f}, its {came}{alike} "
        f"{told['untouched']:.3f}; {told['difference']:+.3f}{sure}."
    )


def _mending(config: "TrainConfig", which: str) -> list[str]:
    """What may mend an encoder that came out no better; the tower that was given is as it was."""
    from lookalike.training.config import TuneStage
    from lookalike.training.tasks import chooses_directions

    free = which != "better" and not config.unlabelled and any(map(chooses_directions, config.stages))
    lines = ["Images of what will be searched may help, and need no labels: `--unlabelled COLL`."] if free else []
    tuned = [stage for stage in config.stages if isinstance(stage, TuneStage)]
    if which != "worse" or not tuned:
        return lines
    model, data, run = (shlex.quote(place) for place in (config.model, config.data, f"{config.out}/model"))
    half, head = (shlex.quote(f"{config.out}-{word}") for word in ("half", "head"))
    back = f"`lookalike blend {model} {run} --way interpolate --data {data} --out {half}`"
    alike = not any(stage.size or stage.stride for stage in tuned)  # else weights can't be averaged
    return [
        *lines,
        *([f"Part of the way back may be better: {back}."] if alike else []),
        f"`lookalike train head --data {data} --model {model} --out {head}` leaves the tower as it is. "
        "docs/how-to/tune.md has more ways.",
    ]


def _next(config: "TrainConfig", now: float, given: "Encoder", values: "Callable[[Encoder], PerQuery]") -> list[str]:
    """What else is worth a try, as measured by closed forms on stored features, which takes seconds each."""
    from lookalike.training.config import EVENED, FitStage, HeadStage
    from lookalike.training.tasks import Made, closed_form, rows_of

    if not config.stages or not all(isinstance(stage, (FitStage, HeadStage)) for stage in config.stages):
        return []
    rows, width = rows_of(config), given.config.tower.features
    if not (rows.label >= 0).all() or len(rows.ids) <= config.dimension:
        return []

    def score(dimension: int, mirror: bool) -> float:
        tried = replace(config, dimension=dimension, mirror=mirror)
        seen = replace(given, config=replace(given.config, mirror=mirror))
        made = closed_form(tried, FitStage(EVENED), rows, Made(seen, path=config.model))
        return float(values(made.encoder).summary()["metrics"][METRIC])

    lines = []
    for dimension in (2 * config.dimension, 4 * config.dimension):
        if dimension < min(width, len(rows.ids)) and (found := score(dimension, config.mirror)) > now + WORTH:
            lines.append(f"More numbers find more: {dimension} have {found:.3f} (`--dimension {dimension}`).")
    if config.mirror:
        both, alone = score(config.dimension, True), score(config.dimension, False)
        if alone > both - WORTH:
            lines.append(
                f"The mirror image, for which every image is looked at twice, is worth {both - alone:+.3f} here: "
                "`--no-mirror` leaves it out."
            )
    return lines


def _by_folds(
    config: "TrainConfig", given: "Encoder", train: "Callable[[TrainConfig, Rows], Encoder]"
) -> dict[str, Any]:
    """Without test classes: the same run on two thirds of the training classes, judged by the others, three times."""
    from lookalike.core.errors import CollectionError, RunError, UsageError
    from lookalike.training.config import FitStage, HeadStage
    from lookalike.training.folds import folds
    from lookalike.training.rows import features_of, mean_of
    from lookalike.training.tasks import rows_of

    rows, advice = rows_of(config), "`lookalike prepare ... --test 0.2` keeps classes back to be measured on"
    if not (rows.label >= 0).any():
        note(f"Without labels nothing tells whether it is better than the untouched tower; {advice.split(' keeps')[0]}")
        return {}
    if not config.stages or not all(isinstance(stage, (FitStage, HeadStage)) for stage in config.stages):
        note(f"How good it is was not measured, as no classes of split test can be measured on: {advice}.")
        return {}
    place, scores = Path(config.out) / "folds", []
    try:
        for number, part in enumerate(folds(rows, seed=config.seed)):
            made = train(replace(config, out=str(place / str(number)), track="none"), rows.only(part.learned))
            held = rows.only(part.held)
            both = []
            for one in (made, given):
                features = mean_of(features_of(one, config.model, held, config.mirror))
                both.append(part.score(np.asarray(one.project(features)), rows).classes)
            scores.append(both)
    except (RunError, CollectionError, UsageError) as error:  # of classes, images, domains a fold has too few
        note(f"How good it is was not measured: {error.message} {advice}.")
        return {}
    finally:
        shutil.rmtree(place, ignore_errors=True)
    trained, untouched = np.mean(scores, axis=0).tolist()
    wins = sum(one > other for one, other in scores)
    words = (
        "Without classes of split test to measure on, the same training was done three times on two thirds of the "
        f"classes: on the others {config.dimension} numbers have mP@5 {trained:.3f}, the untouched "
        f"{given.config.projection.dimension} {untouched:.3f}; better in {wins} of 3."
    )
    which = "better" if wins == len(scores) else "worse" if wins == 0 else "same"
    found = {"metric": METRIC, "trained": trained, "untouched": untouched, "difference": trained - untouched}
    return {**found, "low": None, "high": None, "which": which, "words": words}
