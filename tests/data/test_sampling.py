"""Laws of sampling: every row once an epoch, every class equally often, any step without those before it."""

from functools import partial

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.optimize

from lookalike.core.errors import UsageError
from lookalike.data.sampling import Mixture, bounded, generator, sampler, share

quick = hypothesis.settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**32)
labels_of = lambda most, size: st.lists(st.integers(0, most), min_size=1, max_size=size).map(np.array)


def uniform(n, batch, seed):
    labels = np.arange(n) % 3  # must not matter
    return sampler(Mixture(classes="uniform"), labels, labels, batch, seed)


def balanced(labels, batch, seed):
    return sampler(Mixture(), labels, np.zeros(len(labels), int), batch, seed)


def stream(draw, steps):
    return np.concatenate([draw(step) for step in range(steps)])


@hypothesis.given(st.integers(1, 50), st.integers(1, 20), seeds)
@quick
def test_each_epoch_is_a_permutation(n, batch, seed):
    rows = stream(uniform(n, batch, seed), 2 * -(-n // batch))
    for epoch in rows[: len(rows) // n * n].reshape(-1, n):
        assert sorted(epoch) == list(range(n))


@hypothesis.given(st.integers(1, 50), st.integers(1, 8), st.integers(1, 8), seeds)
@quick
def test_the_stream_does_not_depend_on_how_it_is_cut(n, batch, pieces, seed):
    whole = uniform(n, batch * pieces, seed)(1)
    parts = [uniform(n, batch, seed)(pieces + piece) for piece in range(pieces)]
    assert np.array_equal(whole, np.concatenate(parts))


@hypothesis.given(labels_of(6, 60), st.integers(1, 20), st.integers(1, 8), seeds)
@quick
def test_classes_come_equally_often_within_one(labels, batch, steps, seed):
    rows = stream(balanced(labels, batch, seed), steps)
    counts = [np.sum(labels[rows] == label) for label in np.unique(labels)]
    assert max(counts) - min(counts) <= 1


@hypothesis.given(labels_of(4, 40), seeds)
@quick
def test_within_a_class_no_row_twice_before_all_once(labels, seed):
    classes, sizes = np.unique(labels, return_counts=True)
    rows = stream(balanced(labels, len(classes), seed), 3 * int(sizes.max()))
    for label, size in zip(classes, sizes, strict=True):
        mine = rows[labels[rows] == label]
        for first in range(0, len(mine) - size + 1, size):
            assert len(set(mine[first : first + size])) == size


MIXTURES = [
    Mixture(),
    Mixture(classes="uniform"),
    Mixture("balanced", classes="uniform"),
    Mixture("single"),
    Mixture(floor=0.2, cap=0.4, per_class=4),
    Mixture("single", classes="uniform", per_class=3),
]


@pytest.mark.parametrize("mixture", MIXTURES)
def test_pure_in_seed_and_step(mixture):
    labels = np.arange(97) % 11

    def draw(seed):
        return sampler(mixture, labels, labels % 3, 12, seed)

    late, used = draw(3)(5000), draw(3)
    assert late.dtype == np.int64
    [used(step) for step in range(40)]  # what was drawn in between leaves no trace
    assert np.array_equal(used(5000), late)
    assert not np.array_equal(draw(4)(5000), late)
    assert not np.array_equal(used(5001), late)


@pytest.mark.parametrize("mixture", MIXTURES)
def test_every_row_comes_and_about_as_often_as_others_of_its_class(mixture):
    labels = np.repeat(np.arange(6), [3, 4, 5, 6, 7, 8])
    rows = stream(sampler(mixture, labels, labels // 2, 720, 1), 20)
    for label in range(6):
        counts = np.bincount(rows, minlength=len(labels))[labels == label]
        assert counts.min() > 0.8 * counts.mean()
        assert counts.max() < 1.2 * counts.mean()


def test_rows_of_a_class_do_not_keep_company():
    """All classes of one size: the rows that share an epoch must change from round to round."""
    draw = balanced(np.repeat(np.arange(40), 4), 40, 0)
    assert len({frozenset(draw(step).tolist()) for step in range(80)}) == 80


def test_every_row_is_equally_likely():
    draw = uniform(10, 1, 5)
    counts = np.bincount([draw(10 * step)[0] for step in range(500)], minlength=10)  # first of each epoch
    assert abs(counts - 50).max() < 5 * np.sqrt(50)
    labels = np.repeat([0, 1], [3, 7])
    counts = np.bincount(np.concatenate([balanced(labels, 2, seed)(0) for seed in range(150)]), minlength=10)
    assert abs(counts[:3] - 50).max() < 5 * np.sqrt(50)
    assert abs(counts[3:] - 150 / 7).max() < 5 * np.sqrt(150 / 7)


@hypothesis.given(
    st.lists(st.integers(1, 10**6), min_size=1, max_size=12), st.floats(0, 1, width=32), st.floats(0, 1, width=32)
)
@quick
def test_shares_are_in_proportion_between_their_bounds(weights, low, high):
    n = len(weights)
    weights, floor, cap = np.array(weights, float), low / n, 1 / n + high * (1 - 1 / n)
    shares = bounded(weights, floor, cap)
    excess = lambda factor: np.clip(factor * weights, floor, cap).sum() - 1
    ends = (0.0, 2 / weights.min())
    if excess(ends[0]) < 0 < excess(ends[1]):
        wanted = scipy.optimize.brentq(excess, *ends, xtol=1e-18, rtol=1e-14)
        np.testing.assert_allclose(shares, np.clip(wanted * weights, floor, cap), atol=1e-6)
    assert shares.sum() == pytest.approx(1)
    assert floor - 1e-9 <= shares.min()
    assert shares.max() <= cap + 1e-9


LABELS = np.repeat(np.arange(20), [30] * 2 + [10] * 8 + [5] * 10)
DOMAINS = np.array(["a", "b", "c"])[np.repeat([0, 1, 2], [60, 80, 50])]


@pytest.mark.parametrize(
    ("mixture", "wanted"),
    [
        (Mixture("balanced"), [1 / 3, 1 / 3, 1 / 3]),
        (Mixture(), [0.1, 0.4, 0.5]),  # classes
        (Mixture(classes="uniform"), [60 / 190, 80 / 190, 50 / 190]),  # images
        (Mixture(floor=0.2), [0.2, 0.8 * 4 / 9, 0.8 * 5 / 9]),
        (Mixture(floor=0.15, cap=0.45), [0.15, 0.4, 0.45]),
        (Mixture(cap=0.4), [0.2, 0.4, 0.4]),
        (Mixture("balanced", per_class=4), [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_domains_have_their_shares(mixture, wanted):
    rows = stream(sampler(mixture, LABELS, DOMAINS, 900, 0), 10)
    shares = [np.mean(DOMAINS[rows] == name) for name in "abc"]
    np.testing.assert_allclose(shares, wanted, atol=0.005)
    if mixture.classes == "balanced":
        for name in "abc":  # and every class of a domain equally often
            counts = np.bincount(LABELS[rows[DOMAINS[rows] == name]])
            assert np.ptp(counts[counts > 0]) <= max(mixture.per_class, 1)


def test_a_batch_of_one_domain_each_in_turn():
    draw = sampler(Mixture("single", classes="uniform"), LABELS, DOMAINS, 10, 2)
    names = []
    for step in range(90):
        (name,) = set(DOMAINS[draw(step)])
        names.append(name)
    assert all(sorted(names[i : i + 3]) == ["a", "b", "c"] for i in range(0, 90, 3))
    assert len({tuple(names[i : i + 3]) for i in range(0, 90, 3)}) > 1
    mine = stream(lambda i: draw([j for j, name in enumerate(names) if name == "b"][i]), 24)
    for epoch in mine.reshape(-1, 80):
        assert sorted(epoch) == np.flatnonzero(DOMAINS == "b").tolist()


@hypothesis.given(
    labels_of(8, 60), st.integers(2, 5), st.integers(1, 6), st.sampled_from(["balanced", "uniform"]), seeds
)
@quick
def test_so_many_of_each_class(labels, each, classes, kind, seed):
    mixture = Mixture(classes=kind, per_class=each)
    sizes = np.bincount(labels, minlength=9)
    draw = sampler(mixture, labels, labels * 0, each * classes, seed)
    rows = stream(draw, -(-3 * len(labels) // classes)).reshape(-1, each)
    seen = {label: [] for label in range(9)}
    for taken in rows:
        (label,) = set(labels[taken])
        seen[label].append(taken.tolist())
        assert len(set(taken)) == min(each, sizes[label])  # distinct, or all that there are
    for label, size in enumerate(sizes):
        visits = max(1, size // each)
        for first in range(0, len(seen[label]) - visits + 1 if kind == "balanced" else 0, visits):  # a round
            came = np.concatenate(seen[label][first : first + visits]).tolist()
            assert len(set(came)) == min(size, visits * each)
    counts = np.array([len(seen[label]) for label in np.unique(labels)])
    if kind == "balanced":
        assert np.ptp(counts) <= 1
    else:  # as often as it has images
        epochs = len(rows) // len(labels)
        assert np.array_equal(np.bincount(labels[rows[: epochs * len(labels), 0]], minlength=9), epochs * sizes)


@pytest.mark.parametrize("hosts", [1, 2, 3, 6])
def test_the_hosts_of_a_run_share_a_step(hosts):
    """What a step holds does not depend on their number, and no item is missing or comes twice."""
    whole = sampler(Mixture("balanced"), LABELS, DOMAINS, 12, 5)(7)
    draw = partial(sampler, Mixture("balanced"), LABELS, DOMAINS, 12, 5)
    shared = [draw()(7)[share(12, 1, hosts, host, hosts)[0]] for host in range(hosts)]
    assert {len(rows) for rows in shared} == {12 // hosts}
    assert np.array_equal(np.concatenate(shared), whole)


@pytest.mark.parametrize(
    ("batch", "parts", "devices", "hosts"), [(12, 3, 8, 2), (10, 2, 4, 4), (3, 1, 8, 4), (16, 2, 8, 1)]
)
def test_parts_are_filled_up(batch, parts, devices, hosts):
    """By hand: each part has its items in order, then some of them again, as many as the devices need."""
    whole = np.concatenate([share(batch, parts, devices, host, hosts) for host in range(hosts)], axis=1)
    assert len(whole) == parts
    assert whole.shape[1] % devices == 0
    assert whole.shape[1] - batch // parts < devices
    for number, row in enumerate(whole.tolist()):
        own = list(range(number * batch // parts, (number + 1) * batch // parts))
        assert row[: len(own)] == own
        assert set(row) == set(own)


def test_generators_are_apart():
    places = [(*place,) for place in np.ndindex(3, 3, 3, 3)]
    assert len({generator(*place).integers(2**62) for place in places}) == 81
    assert generator(1, 2, 3).random() == generator(1, 2, 3, 0).random()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Mixture(floor=1.5), "`floor` of Mixture is 1.5; expected 0 to 1"),
        (lambda: Mixture(floor=0.5, cap=0.2), "expected no more than its `cap`, 0.2"),
        (lambda: Mixture(per_class=-1), "`per_class` of Mixture is -1; expected 0 or more"),
        (lambda: Mixture("single", cap=0.5), "where each is `single`"),
        (
            lambda: sampler(Mixture(floor=0.4), LABELS, DOMAINS, 8, 0),
            "`floor` .* with 3 domains expected at most 0.3333",
        ),
        (lambda: sampler(Mixture(cap=0.3), LABELS, DOMAINS, 8, 0), "`cap` .* with 3 domains expected at least 0.3333"),
        (lambda: sampler(Mixture(per_class=3), LABELS, DOMAINS, 8, 0), "`per_class` .* is 3; expected a divisor"),
    ],
)
def test_what_cannot_be_is_said(make, words):
    with pytest.raises(UsageError, match=words):
        make()


def test_nothing_to_sample_from():
    with pytest.raises(ValueError, match="no rows"):
        uniform(0, 4, 0)
