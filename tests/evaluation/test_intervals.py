"""Intervals over classes, against a bootstrap that draws classes one by one."""

import numpy as np

from lookalike.evaluation.intervals import NORMAL, half_width


def drawn(values, classes, domains, rng):
    """The mean over domains of a sample whose classes were drawn with replacement, domain by domain."""
    means = []
    for domain in np.unique(domains):
        mine = np.unique(classes[domains == domain])
        taken = [values[classes == c] for c in rng.choice(mine, len(mine))]
        means.append(np.concatenate(taken).mean())
    return np.mean(means)


def test_half_widths_are_those_of_a_bootstrap_of_classes():
    rng = np.random.default_rng(3)
    domains = np.repeat(["a", "b"], [300, 900])
    classes = np.concatenate([rng.integers(5, 65, 300), rng.integers(100, 220, 900)])
    easy = rng.uniform(size=classes.max() + 1)  # queries of one class are easy or hard together
    values = np.clip(easy[classes] + rng.normal(0, 0.1, 1200), 0, 1)
    slow = np.std([drawn(values, classes, domains, rng) for _ in range(1000)])
    assert abs(half_width(values, classes, domains) / (NORMAL * slow) - 1) < 0.08
    apart = half_width(values, np.arange(1200), domains)  # queries drawn one by one would look far more sure
    assert apart < 0.6 * half_width(values, classes, domains)


def test_few_classes_by_hand():
    """Cochran's estimate, class by class; of three classes that differs by a fifth from that of infinitely many."""
    values, classes = np.array([0.0, 0.2, 0.4, 1.0, 1.0, 0.5]), np.array([4, 4, 7, 7, 7, 9])
    mean = values.mean()
    sums = [sum(v - mean for v, c in zip(values, classes, strict=True) if c == own) for own in (4, 7, 9)]
    variance = 3 / 2 * sum(one**2 for one in sums) / 6**2
    found = half_width(values, classes, np.array(["a"] * 6))
    np.testing.assert_allclose(found, NORMAL * np.sqrt(variance), rtol=1e-12)
    twice = half_width(np.tile(values, 2), np.tile(classes, 2), np.repeat(["a", "b"], 6))
    np.testing.assert_allclose(twice, NORMAL * np.sqrt(2 * variance) / 2, rtol=1e-12)


def test_one_class_tells_nothing_of_others():
    domains = np.array(["a", "a", "b", "b"])
    assert half_width(np.array([0.0, 1.0, 0.0, 1.0]), np.array([1, 1, 2, 3]), domains) is None
    assert half_width(np.array([0.5, 0.5, 0.5, 0.5]), np.array([0, 1, 2, 3]), domains) == 0.0
