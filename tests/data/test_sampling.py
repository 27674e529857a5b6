"""Laws of sampling: every row once an epoch, every class equally often, any step without those before it."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from lookalike.data.sampling import generator, group, positions

seeds = st.integers(0, 2**32)


def uniform(n, batch, seed, step):
    return positions("uniform", group(np.zeros(n, int)), batch, seed, step)


def balanced(groups, batch, seed, step):
    return positions("balanced", groups, batch, seed, step)


def stream(draw, steps):
    return np.concatenate([draw(step) for step in range(steps)])


@hypothesis.given(st.integers(1, 50), st.integers(1, 20), seeds)
def test_each_epoch_is_a_permutation(n, batch, seed):
    rows = stream(lambda step: uniform(n, batch, seed, step), 3 * n)  # `batch` x 3 epochs
    for epoch in rows.reshape(-1, n):
        assert sorted(epoch) == list(range(n))


@hypothesis.given(st.integers(1, 50), st.integers(1, 8), st.integers(1, 8), seeds)
def test_the_stream_does_not_depend_on_how_it_is_cut(n, batch, pieces, seed):
    whole = uniform(n, batch * pieces, seed, 1)
    parts = [uniform(n, batch, seed, pieces + piece) for piece in range(pieces)]
    assert np.array_equal(whole, np.concatenate(parts))


@hypothesis.given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(1, 20), st.integers(1, 30), seeds)
def test_classes_come_equally_often_within_one(labels, batch, steps, seed):
    labels = np.array(labels)
    rows = stream(lambda step: balanced(group(labels), batch, seed, step), steps)
    counts = [np.sum(labels[rows] == label) for label in np.unique(labels)]
    assert max(counts) - min(counts) <= 1


@hypothesis.given(st.lists(st.integers(0, 4), min_size=1, max_size=40), seeds)
def test_within_a_class_no_row_twice_before_all_once(labels, seed):
    labels = np.array(labels)
    classes, sizes = np.unique(labels, return_counts=True)
    rows = stream(lambda step: balanced(group(labels), len(classes), seed, step), 3 * int(sizes.max()))
    for label, size in zip(classes, sizes, strict=True):
        mine = rows[labels[rows] == label]
        for first in range(0, len(mine) - size + 1, size):
            assert len(set(mine[first : first + size])) == size


@pytest.mark.parametrize(
    "draw", [lambda s, t: uniform(97, 13, s, t), lambda s, t: balanced(group(np.arange(97) % 9), 13, s, t)]
)
def test_pure_in_seed_and_step(draw):
    late = draw(3, 5000)
    assert late.dtype == np.int64
    [draw(7, step) for step in range(40)]  # what was drawn in between leaves no trace
    assert np.array_equal(draw(3, 5000), late)
    assert not np.array_equal(draw(4, 5000), late)
    assert not np.array_equal(draw(3, 5001), late)


def test_rows_of_a_class_do_not_keep_company():
    """All classes of one size: the rows that share an epoch must change from round to round."""
    labels = np.repeat(np.arange(40), 4)
    epochs = [frozenset(balanced(group(labels), 40, 0, step).tolist()) for step in range(80)]
    assert len(set(epochs)) == 80


def test_every_row_is_equally_likely():
    counts = np.bincount(stream(lambda step: uniform(10, 1, 5, 10 * step), 2000), minlength=10)  # first of each epoch
    assert abs(counts - 200).max() < 5 * np.sqrt(200)
    labels = np.repeat([0, 1], [3, 7])
    first = [balanced(group(labels), 2, seed, 0) for seed in range(2100)]
    counts = np.bincount(np.concatenate(first), minlength=10)
    assert abs(counts[:3] - 700).max() < 5 * np.sqrt(700)
    assert abs(counts[3:] - 300).max() < 5 * np.sqrt(300)


def test_generators_are_apart():
    places = [(seed, step, item) for seed in range(3) for step in range(3) for item in range(3)]
    assert len({generator(*place).integers(2**62) for place in places}) == 27
    assert generator(1, 2, 3).random() == generator(1, 2, 3).random()


def test_nothing_to_sample_from():
    with pytest.raises(ValueError, match="no rows"):
        uniform(0, 4, 0, 0)
