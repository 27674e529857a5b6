"""Whether the mirror image, for which every image is looked at twice from then on, is worth it for these images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lookalike.commands.verdict import WORTH
from lookalike.core.errors import RunError
from lookalike.core.files import read_json
from lookalike.core.journal import note, said_if_slow

if TYPE_CHECKING:
    from lookalike.training.config import TrainConfig
    from lookalike.training.rows import Rows

MOST = 50_000  # rows to learn from, up to which it takes seconds


def is_open(config: TrainConfig, argv: Sequence[str]) -> bool:
    """Whether it is for the run to decide: a frozen tower, and a mirror image that the user did not ask for."""
    from lookalike.training.config import HeadStage

    asked = {"--mirror", "--no-mirror"} & {word.split("=", 1)[0] for word in argv}
    return config.mirror and not asked and bool(config.stages) and all(isinstance(s, HeadStage) for s in config.stages)


def decided(config: TrainConfig) -> TrainConfig:
    """`config` without the mirror image, if it was worth less than `WORTH` on each third of the classes to learn from,
    kept back in turn, by closed forms on features that the run needs anyway; what is said then. A run that has begun
    stays as it is, and so does one with too few classes, or too many rows.
    """
    from lookalike.training.checkpoint import has_begun
    from lookalike.training.tasks import rows_of

    if has_begun(Path(config.out)):
        return replace(config, mirror=bool(read_json(Path(config.out) / "config.json").get("mirror", config.mirror)))
    rows = rows_of(replace(config, unlabelled=""))
    if len(rows.ids) > MOST:
        return config
    try:
        gains = _gains(config, rows)
    except RunError:  # classes are too few, or of single images: nothing to decide by
        return config
    if max(gains) >= WORTH:
        return config
    told = ", ".join(f"{gain:+.3f}" for gain in gains)
    note(
        "Without the mirror image: images would be looked at twice from then on, and on classes kept back from "
        f"training it changed mP@5 by {told}; `--mirror` takes it."
    )
    return replace(config, mirror=False)


def _gains(config: TrainConfig, rows: Rows) -> list[float]:
    """MP@5 of classes kept back with the mirror image, less that without, of each fold."""
    from lookalike.training.config import EVENED, FitStage
    from lookalike.training.folds import folds
    from lookalike.training.rows import features_of, mean_of
    from lookalike.training.tasks import begun, closed_form, viewing

    gains, parts = [], folds(rows, seed=config.seed)
    note("trying whether the mirror image is worth it")
    features_of(viewing(config, begun(config)).encoder, config.model, rows, True)  # made now, with words of their own
    with said_if_slow("fitting projections with the mirror image and without, on thirds of the classes"):
        for part in parts:
            found = []
            for mirror in (True, False):
                tried = replace(config, mirror=mirror)
                made = closed_form(tried, FitStage(EVENED), rows.only(part.learned), viewing(tried, begun(tried)))
                features = mean_of(features_of(made.encoder, config.model, rows.only(part.held), mirror))
                found.append(part.score(np.asarray(made.encoder.project(features)), rows).classes)
            gains.append(found[0] - found[1])
    return gains
