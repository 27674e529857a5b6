"""Folds of the training rows, by which a choice is judged on classes and on domains that it has not seen.

A fold keeps back a part of the domains wholly, where there are three or more, and a part of the classes of the others.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32

from lookalike.core.errors import RunError
from lookalike.evaluation.trials import Same, Trial
from lookalike.training.rows import Rows

COUNT = 3  # folds
METRIC = "mp@5"


class Score(NamedTuple):
    """mP@5 in one index of all held-back rows, each the mean over domains."""

    classes: float  # of classes never seen, in domains that were
    domains: float  # of domains never seen; that of classes where all domains were

    @property
    def mean(self) -> float:
        """What choices are made by."""
        return (self.classes + self.domains) / 2


@dataclass(frozen=True)
class Fold:
    """What is learned from and what is kept back, as masks of the rows."""

    learned: Bool[np.ndarray, "N"]
    held: Bool[np.ndarray, "N"]
    unseen: frozenset[str]  # domains that are kept back wholly

    def score(self, vectors: Float32[np.ndarray, "H D"], rows: Rows) -> Score:
        """How well vectors of unit length of the held-back rows bring their classes together.

        RunError if no class of them has two images.
        """
        label, domain = rows.label[self.held].astype(np.int64), rows.domain[self.held]
        places = np.arange(len(label))
        relevant, found = Trial(vectors, vectors, Same(label, label), (Same(places, places),)).measure()
        counted, values = relevant > 0, found[METRIC]
        if not counted.any():
            raise RunError("No class that was kept back has two images, so that there is nothing to choose by.")
        means = {d: float(values[counted & (domain == d)].mean()) for d in sorted(set(domain[counted].tolist()))}
        seen = [value for name, value in means.items() if name not in self.unseen]
        new = [value for name, value in means.items() if name in self.unseen]
        return Score(float(np.mean(seen or new)), float(np.mean(new or seen)))


def folds(rows: Rows, count: int = COUNT, seed: int = 0) -> list[Fold]:
    """Folds in which every class is kept back once at least; RunError if there are fewer than two classes a fold."""
    classes = sorted(set(rows.label[rows.label >= 0].tolist()))
    if len(classes) < 2 * count:
        raise RunError(f"{len(classes)} classes are too few to choose by: {2 * count} are the least.")
    rng = np.random.default_rng((seed, count))
    domains = rng.permutation(sorted(set(rows.domain.tolist())))
    part_of_domain = {name: i % count for i, name in enumerate(domains)} if len(domains) >= count else {}
    part_of_class = dict(zip(rng.permutation(classes).tolist(), np.arange(len(classes)) % count, strict=True))
    part = np.array([part_of_class.get(c, -1) for c in rows.label.tolist()])
    found = []
    for number in range(count):
        unseen = frozenset(str(name) for name, at in part_of_domain.items() if at == number)
        away = np.isin(rows.domain, sorted(unseen))
        held = (rows.label >= 0) & (away | (part == number))
        found.append(Fold(~held & ~away, held, unseen))
    return found
