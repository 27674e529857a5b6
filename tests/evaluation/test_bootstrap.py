"""Intervals and p by drawing: against the closed form, and against counting every case."""

from itertools import product

import numpy as np
import pytest

from lookalike.evaluation.bootstrap import interval, intervals, sign_test
from lookalike.evaluation.intervals import half_width
from lookalike.evaluation.report import PerQuery


def drawn(seed=0):
    rng = np.random.default_rng(seed)
    domains = np.repeat(["a", "b"], [300, 600])
    classes = np.concatenate([rng.integers(7, 57, 300), rng.integers(100, 200, 600)])
    easy = rng.uniform(size=200)
    return np.clip(easy[classes] + rng.normal(0, 0.2, 900), 0, 1), classes, domains


def test_percentiles_of_classes_agree_with_the_closed_form():
    values, classes, domains = drawn()
    low, high = interval(values, classes, domains, 4000)
    mean = np.mean([values[domains == name].mean() for name in ("a", "b")])
    assert (high - low) / 2 == pytest.approx(half_width(values, classes, domains), rel=0.06)
    assert (high + low) / 2 == pytest.approx(mean, abs=0.1 * (high - low))


def test_queries_look_surer_than_classes_and_a_seed_repeats_them():
    values, classes, domains = drawn()
    told = intervals(PerQuery({"mp@5": values}, domains, classes), 500)
    wide, narrow = (told[what]["mp@5"] for what in ("classes", "queries"))
    assert narrow[1] - narrow[0] < 0.7 * (wide[1] - wide[0])
    assert narrow[1] - narrow[0] == pytest.approx(2 * half_width(values, np.arange(900), domains), rel=0.15)
    assert told == intervals(PerQuery({"mp@5": values}, domains, classes), 500)
    assert told["classes"] != intervals(PerQuery({"mp@5": values}, domains, classes), 500, seed=1)["classes"]


def test_one_class_is_drawn_again_and_again():
    values = np.array([0.2, 0.4, 0.9])
    assert interval(values, np.array([3, 3, 3]), np.array(["a"] * 3), 50) == pytest.approx([0.5, 0.5])


def test_signs_are_counted():
    """Of 2^6 assignments of signs to classes, those whose mean is as far from 0."""
    rng = np.random.default_rng(2)
    classes, domains = np.repeat(np.arange(6), [3, 5, 2, 4, 6, 1]), np.repeat(["a", "b"], [10, 11])
    apart = rng.normal(0.2, 0.5, 21)
    sums = np.bincount(classes, apart) / np.repeat([10, 11], 3) / 2
    every = [abs(float(np.array(signs) @ sums)) for signs in product([1, -1], repeat=6)]
    share = np.mean([one >= abs(sums.sum()) - 1e-12 for one in every])
    assert sign_test(apart, classes, domains, 20_000) == pytest.approx(share, abs=0.012)
    assert sign_test(np.zeros(21), classes, domains, 100) == 1.0
    assert sign_test(np.ones(21), classes, domains, 20_000) == pytest.approx(2 / 64, abs=0.005)


def test_what_was_found_is_one_of_the_cases():
    """So that p is never 0: of 9 draws none has all 40 signs alike, and the one found is the tenth case."""
    assert sign_test(np.ones(40), np.arange(40), np.array(["a"] * 40), 9) == 0.1


def test_p_agrees_with_the_normal_distribution():
    from lookalike.evaluation.differences import Difference

    values, classes, domains = drawn()
    rng = np.random.default_rng(5)
    effects = rng.normal(0.035, 0.12, 200)
    one, other = (PerQuery({"mp@5": v}, domains, classes) for v in (values + effects[classes], values))
    closed, by_draws = Difference.between(one, other), Difference.between(one, other, 20_000)
    assert 0.001 < closed.p["mp@5"] < 0.5
    assert by_draws.p["mp@5"] == pytest.approx(closed.p["mp@5"], rel=0.25)
    assert by_draws.interval("mp@5") == pytest.approx(closed.interval("mp@5"), abs=0.1 * closed.half_width["mp@5"])
