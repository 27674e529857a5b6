"""Precision over coverage, and the threshold: against a loop over every score."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.evaluation.calibration import LEAST, calibrate, in_words
from lookalike.evaluation.trials import First


def firsts(score, hit, wrong=None):
    score = np.asarray(score, np.float32)
    wrong = np.full(len(score), -np.inf, np.float32) if wrong is None else np.asarray(wrong, np.float32)
    return First(np.arange(len(score)), np.asarray(hit, bool), score, wrong, np.zeros(len(score), bool))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 80), st.sampled_from([3, 1000]))
def test_the_threshold_is_the_lowest_that_holds(seed, count, levels):
    rng = np.random.default_rng(seed)
    score = rng.integers(0, levels, count) / 1024
    hit = rng.random(count) < 0.5 + 0.5 * score * 1024 / levels
    wrong = np.where(hit, score - 0.01, score)
    told = calibrate(firsts(score, hit, wrong), 0.9)
    good = []
    for level in sorted(set(score.tolist())):
        answered = [h for s, h in zip(score, hit, strict=True) if s >= level]
        if len(answered) >= LEAST and sum(answered) / len(answered) >= 0.9:
            good.append((level, len(answered) / count))
    if not good:
        assert told["threshold"] is None
        assert told["coverage"] == 0
        return
    level, coverage = good[0]
    assert (told["threshold"], told["coverage"]) == (pytest.approx(level), pytest.approx(coverage))
    assert told["absent"] == pytest.approx(np.mean(np.float32(wrong) >= np.float32(level)))


def test_words_and_curve():
    told = calibrate(firsts(np.linspace(1, 0, 101), np.arange(101) < 60))
    assert told["precision"] == 0.95
    assert told["curve"][-1] == {"score": 0.0, "coverage": 1.0, "precision": pytest.approx(60 / 101)}
    assert told["curve"][0]["precision"] == 1
    assert "95 % of the first matches at a score of 0.380" in in_words(told)
    assert "no score is so high" in in_words(calibrate(firsts([0.9] * 30, [False] * 30)))
