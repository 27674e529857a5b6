"""From which score on a first match is to be trusted: precision against coverage, and a threshold."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lookalike.evaluation.trials import First

PRECISION = 0.95
LEAST = 20  # queries that must be answered at a threshold: of fewer, 95 % says nothing
POINTS = 20  # of the curve that is kept


def calibrate(first: First, precision: float = PRECISION) -> dict[str, Any]:
    """Precision of first matches over coverage, and the score from which on `precision` of them are right.

    Queries are put in the order of their first match's score. Answering those at least at a score gives a coverage (how
    many are answered) and a precision (how many answers are right). `threshold` is the lowest score at which precision
    is reached, by 20 answers or more; None where none is. `absent` is how many of the queries would be answered all the
    same if no image of their thing were in the index: their best wrong match is at the threshold or above it.

    All queries that count are in it, and all of them have their thing in the index: where half of the questions are
    about things that are not there, precision at the threshold is less, which is what `absent` is for.
    """
    order = np.argsort(-first.score, kind="stable")
    score, right = first.score[order], np.cumsum(first.hit[order])
    answered = np.arange(1, len(score) + 1)
    ends = np.append(score[1:] != score[:-1], True)  # equal scores are answered together
    score, share, coverage = score[ends], (right / answered)[ends], (answered / len(ends))[ends]
    good = np.flatnonzero((share >= precision) & (answered[ends] >= LEAST))
    at = int(good[-1]) if len(good) else None
    some = sorted({round(place) for place in np.linspace(0, len(score) - 1, POINTS).tolist()})
    return {
        "precision": precision,
        "threshold": None if at is None else float(score[at]),
        "coverage": 0.0 if at is None else float(coverage[at]),
        "absent": None if at is None else float((first.wrong >= score[at]).mean()),
        "n_queries": len(ends),
        "curve": [
            {"score": float(score[i]), "coverage": float(coverage[i]), "precision": float(share[i])} for i in some
        ],
    }


def in_words(calibration: Mapping[str, Any]) -> str:
    """A sentence."""
    wanted = f"{100 * calibration['precision']:.0f} %"
    if calibration["threshold"] is None:
        return f"no score is so high that {wanted} of the first matches at or above it are right"
    return (
        f"{wanted} of the first matches at a score of {calibration['threshold']:.3f} or more are right: "
        f"{calibration['coverage']:.0%} of the queries; {calibration['absent']:.0%} would have one so high "
        "if nothing of their class were in the index"
    )
