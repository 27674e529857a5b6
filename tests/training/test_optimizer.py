import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lookalike.losses.centers import Centers
from lookalike.training.config import AdamW
from lookalike.training.optimizer import make_optimizer, schedule
from lookalike.training.state import Learner


def test_the_schedule():
    rate = schedule(0.5, warmup=0.1, steps=100)
    values = np.array([float(rate(step)) for step in range(101)])
    assert values[0] == pytest.approx(0.5 / 11)  # the first step already moves
    assert values[10] == pytest.approx(0.5)
    assert (np.diff(values[:11]) > 0).all()
    assert (np.diff(values[10:]) < 0).all()
    assert values[55] == pytest.approx(0.25)
    assert values[100] == pytest.approx(0.0, abs=1e-7)
    assert float(schedule(0.5, warmup=0.0, steps=100)(0)) == pytest.approx(0.5)
    assert float(schedule(0.5, warmup=1.0, steps=1)(0)) > 0


def parts():
    ones = jnp.ones((3, 2))
    return Learner(
        {"tower.conv.weight": ones, "tower.norm.bias": jnp.ones(2)},
        {"weight": ones, "bias": jnp.ones(2)},
        Centers(jnp.ones((4, 1, 2))),
    )


def moved(config, gradient):
    optimizer = make_optimizer(config, 100)
    learner = parts()
    updates, _ = optimizer.update(gradient, optimizer.init(learner), learner)
    return optax.apply_updates(learner, updates)


def test_each_part_at_its_own_rate():
    config = AdamW(
        learning_rate=0.01, centers_learning_rate=0.02, tower_learning_rate=0.03, weight_decay=0.0, warmup=0.0
    )
    after = moved(config, parts())
    np.testing.assert_allclose(after.projection["weight"], 1 - 0.01, rtol=1e-5)
    np.testing.assert_allclose(after.centers.weight, 1 - 0.02, rtol=1e-5)
    np.testing.assert_allclose(after.tower["tower.norm.bias"], 1 - 0.03, rtol=1e-5)


def test_decay_takes_kernels_and_weights_alone():
    config = AdamW(
        learning_rate=0.01, centers_learning_rate=0.01, tower_learning_rate=0.01, weight_decay=0.5, warmup=0.0
    )
    zero = Learner(
        *(
            type(p)(jnp.zeros_like(p.weight)) if isinstance(p, Centers) else {k: 0 * v for k, v in p.items()}
            for p in parts()
        )
    )
    after = moved(config, zero)
    np.testing.assert_allclose(after.projection["weight"], 1 - 0.005, rtol=1e-5)
    np.testing.assert_allclose(after.tower["tower.conv.weight"], 1 - 0.005, rtol=1e-5)
    for still in (after.projection["bias"], after.tower["tower.norm.bias"], after.centers.weight):
        np.testing.assert_array_equal(still, np.ones(still.shape))


def test_a_long_gradient_is_cut():
    config = AdamW(learning_rate=0.01, centers_learning_rate=0.01, tower_learning_rate=0.01, clip=1e-12, warmup=0.0)
    after = moved(config, parts())  # so short that Adam's epsilon outweighs it
    assert float(jnp.abs(after.projection["weight"] - 1).max()) < 1e-4
