import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lookalike.towers import ConvNetConfig, ConvNeXtConfig, SwinConfig, ViTConfig
from lookalike.towers.ops import declare
from lookalike.training.config import Optimizer
from lookalike.training.optimizer import make_optimizer, schedule
from lookalike.training.step import Learner


@pytest.fixture(autouse=True)
def as_in_a_step():
    with jax.numpy_dtype_promotion("standard"):
        yield


def test_the_schedule():
    rate = schedule(Optimizer(warmup=0.1), 0.5, steps=100)
    values = np.array([float(rate(step)) for step in range(101)])
    assert values[0] == pytest.approx(0.5 / 11)  # the first step already moves
    assert values[10] == pytest.approx(0.5)
    assert (np.diff(values[:11]) > 0).all()
    assert (np.diff(values[10:]) < 0).all()
    assert values[55] == pytest.approx(0.25)
    assert values[100] == pytest.approx(0.0, abs=1e-7)
    assert float(schedule(Optimizer(warmup=0.0), 0.5, steps=100)(0)) == pytest.approx(0.5)
    assert float(schedule(Optimizer(warmup=1.0), 0.5, steps=1)(0)) > 0


def test_the_schedule_of_the_seed():
    """2e-7 up to 2e-6 in four of ten parts, and down again in straight lines."""
    rate = schedule(Optimizer(schedule="linear", warmup=0.4, floor=0.1), 2e-6, steps=100)
    for step, expected in ((0, 2e-7), (20, 1.1e-6), (40, 2e-6), (70, 1.1e-6), (100, 2e-7)):
        assert float(rate(step)) == pytest.approx(expected, rel=1e-5)
    still = schedule(Optimizer(schedule="constant", warmup=0.1), 0.5, steps=100)
    assert [float(still(step)) for step in (10, 50, 100)] == pytest.approx([0.5] * 3)


def parts():
    ones = jnp.ones((3, 2))
    return Learner(
        {"tower.conv.weight": ones, "tower.norm.bias": jnp.ones(2)},
        {"weight": ones, "bias": jnp.ones(2)},
        {"weight": jnp.ones((4, 1, 2))},
    )


DECAYS = {"tower.conv.weight", "projection.weight"}


def moved(config, gradient):
    optimizer = make_optimizer(config, 100, DECAYS)
    learner = parts()
    updates, _ = step(optimizer, gradient, learner)
    return optax.apply_updates(learner, updates)


def step(optimizer, gradient, learner):
    """The first one, and the state behind it; compiled, which is quicker than one operation at a time."""
    return jax.jit(lambda g, x: optimizer.update(g, optimizer.init(x), x))(gradient, learner)


def test_each_part_at_its_own_rate():
    config = Optimizer(
        learning_rate=0.01, centers_learning_rate=0.02, tower_learning_rate=0.03, weight_decay=0.0, warmup=0.0
    )
    after = moved(config, parts())
    np.testing.assert_allclose(after.projection["weight"], 1 - 0.01, rtol=1e-5)
    np.testing.assert_allclose(after.centers["weight"], 1 - 0.02, rtol=1e-5)
    np.testing.assert_allclose(after.tower["tower.norm.bias"], 1 - 0.03, rtol=1e-5)


@pytest.mark.parametrize("algorithm", ["adamw", "sgd", "lion", "muon"])
def test_decay_takes_kernels_and_weights_alone(algorithm):
    rates = {"learning_rate": 0.01, "centers_learning_rate": 0.01, "tower_learning_rate": 0.01}
    config = Optimizer(algorithm, **rates, weight_decay=0.5, warmup=0.0)
    zero = Learner(*({k: 0 * v for k, v in p.items()} for p in parts()))
    after = moved(config, zero)
    np.testing.assert_allclose(after.projection["weight"], 1 - 0.005, rtol=1e-5)
    np.testing.assert_allclose(after.tower["tower.conv.weight"], 1 - 0.005, rtol=1e-5)
    for still in (after.projection["bias"], after.tower["tower.norm.bias"], after.centers["weight"]):
        np.testing.assert_array_equal(still, np.ones(still.shape))


def test_first_steps_by_hand():
    """Adam and Lion look at signs, plain descent at the gradient, Muon at its rotation: U V' of its U S V'."""
    gradient = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)), jnp.float32)
    given = Learner({}, {"weight": gradient, "bias": jnp.ones(2)}, {"weight": jnp.ones((4, 1, 2))})

    def update(algorithm):
        optimizer = make_optimizer(Optimizer(algorithm, learning_rate=0.01, warmup=0.0), 100, DECAYS)
        found, _ = step(optimizer, given, given)
        return np.asarray(found.projection["weight"]) / -0.01

    np.testing.assert_allclose(update("adamw"), np.sign(gradient), rtol=1e-4)
    np.testing.assert_array_equal(update("lion"), np.sign(gradient))
    np.testing.assert_allclose(update("sgd"), gradient, rtol=1e-5)
    left, _, right = np.linalg.svd(gradient, full_matrices=False)
    turned = left.T @ update("muon") @ right.T
    np.testing.assert_allclose(turned, np.diag(np.diag(turned)), atol=0.02)
    assert (np.abs(np.diag(turned) - 1) < 0.35).all()  # its five iterations come no nearer


BLOCK = {"attention.qkv.weight", "attention.out.weight", "mlp.up.weight", "mlp.down.weight"}
TOWERS = {
    "vit": (
        ViTConfig(
            32, 8, 24, 3, 2, 40, "gelu", registers=2, patch_bias=True, layer_scale=True, norm_pooled=True, head=8
        ),
        {"patch.weight", "head.weight", *(f"blocks.{name}" for name in BLOCK)},
    ),
    "probe": (
        ViTConfig(32, 8, 24, 3, 2, 40, "gelu", class_token=False, positions="patches", pool_heads=2, pool_hidden=24),
        {"patch.weight", *(f"{part}.{name}" for part in ("blocks", "pool") for name in BLOCK)},
    ),
    "swin 1": (
        SwinConfig(1, 8, (2, 2), (2, 2), (4, 4), (0, 2)),
        {"patch.weight", "stages.0.merge.reduction.weight", *(f"stages.{i}.blocks.{n}" for i in (0, 1) for n in BLOCK)},
    ),
    "swin 2": (
        SwinConfig(2, 8, (2,), (2,), (4,), (2,)),
        {
            "patch.weight",
            *(
                f"stages.0.blocks.{n}"
                for n in BLOCK | {"attention.position.up.weight", "attention.position.down.weight"}
            ),
        },
    ),
    "convnext": (
        ConvNeXtConfig((8, 16), (2, 3)),
        {
            f"stages.{i}.{name}.weight"
            for i in (0, 1)
            for name in ("patch", "blocks.depthwise.conv", "blocks.mlp.up", "blocks.mlp.down")
        },
    ),
    "convnet": (ConvNetConfig(widths=(8, 16), depths=(0, 1)), None),
}


@pytest.mark.parametrize("name", TOWERS)
def test_decay_of_real_towers(name):
    """A zero gradient moves what decays and nothing else, however many blocks are stacked in one tensor.

    What should decay is written out by hand, and for the small tower, which stacks nothing, it is what has two axes.
    """
    tower, decaying = TOWERS[name]
    declared = declare(tower)
    expected = {n for n, tensor in declared.items() if len(tensor.shape) > 1} if decaying is None else decaying
    rng = np.random.default_rng(0)
    start = {f"tower.{n}": jnp.asarray(rng.uniform(0.5, 2, t.shape), jnp.float32) for n, t in declared.items()}
    learner = parts()._replace(tower=start)
    config = Optimizer(tower_learning_rate=0.01, weight_decay=0.5, warmup=0.0)
    optimizer = make_optimizer(config, 100, {f"tower.{n}" for n, tensor in declared.items() if tensor.decays})
    updates, _ = step(optimizer, jax.tree.map(jnp.zeros_like, learner), learner)
    moved = {n for n, update in updates.tower.items() if float(jnp.abs(update).max()) > 0}
    assert moved == {f"tower.{n}" for n in expected}
    for n in moved:
        np.testing.assert_allclose(updates.tower[n], -0.005 * start[n], rtol=1e-5)


def test_a_gradient_is_cut_before_adam_sees_it():
    """Two gradients of one direction, both too long: the same first step, and the same state of Adam behind it.

    Cut behind Adam the steps would be the same and the states not, as Adam divides lengths out.
    """
    config = Optimizer(learning_rate=0.01, centers_learning_rate=0.01, tower_learning_rate=0.01, clip=1.0, warmup=0.0)
    optimizer, learner = make_optimizer(config, 100, DECAYS), parts()
    rng = np.random.default_rng(0)
    short = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), learner)
    long = jax.tree.map(lambda leaf: 50 * leaf, short)
    found = [step(optimizer, gradient, learner) for gradient in (short, long)]
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-9)
    length = np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(short)))
    moments = [leaf for leaf in jax.tree.leaves(found[0][1]) if leaf.shape == (4, 1, 2)]  # of the centers
    np.testing.assert_allclose(moments[0], 0.1 * short.centers["weight"] / length, rtol=1e-5)


def test_a_long_gradient_is_cut():
    config = Optimizer(learning_rate=0.01, centers_learning_rate=0.01, tower_learning_rate=0.01, clip=1e-12, warmup=0.0)
    after = moved(config, parts())  # so short that Adam's epsilon outweighs it
    assert float(jnp.abs(after.projection["weight"] - 1).max()) < 1e-4
