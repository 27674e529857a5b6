"""The step: golden losses, the same on one device and on eight, compiled once, memory taken over."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lookalike.core.mesh import make_mesh, place, put_batch
from lookalike.losses import (
    AdaCos,
    AdaFace,
    ArcFace,
    BySize,
    CosFace,
    CurricularFace,
    Geometry,
    GramDistillation,
    Growing,
    Margin,
    Projecting,
    RkdAngle,
    RkdDistance,
    SimilarityDistillation,
    SupCon,
    first_memory,
    memory_of,
)
from lookalike.training.config import HeadStage, Optimizer
from lookalike.training.learner import Fixed
from lookalike.training.optimizer import make_optimizer
from lookalike.training.step import Batch, Learner, Running, first_state, make_objective, make_step

GOLDEN = Path(__file__).parents[1] / "golden" / "losses" / "head.json"
STEPS = 20


def config(**changes):
    values = {
        "loss": ArcFace(0.3, 16.0),
        "centers": 2,
        "geometry": Geometry(SimilarityDistillation(0.5, 0.2)),
        "projecting": Projecting(dropout=0.1),
        "optimizer": Optimizer(learning_rate=1e-2, centers_learning_rate=2e-2, weight_decay=0.1, warmup=0.2, clip=1.0),
    }
    return HeadStage(**(values | changes))


def learner(count=2, seed=0):
    rng = np.random.default_rng(seed)
    weight, centers = rng.normal(size=(12, 4)), rng.normal(size=(6, count, 4))
    projection = {"weight": jnp.asarray(weight, jnp.float32), "bias": jnp.zeros(4)}
    return Learner({}, projection, {"weight": jnp.asarray(centers, jnp.float32)})


def batch(step, rows=16):
    rng = np.random.default_rng((5, step))
    features = np.abs(rng.normal(size=(2, rows, 12))).astype(np.float32)
    label = rng.integers(0, 6, rows).astype(np.int32)
    return Batch(features.swapaxes(0, 1), label)


FIXED = Fixed({}, {})
NONE = Running({}, {})


def objective(values):
    return make_objective(values, lambda _tower, _fixed, inputs: inputs, np.full(6, 8))


def made_step(values, steps=STEPS, seed=3):
    optimizer = make_optimizer(values.optimizer, steps, {"projection.weight"})
    step = make_step(objective(values), optimizer, values, seed, epoch_steps=4.0)
    return step, lambda learner: first_state(learner, optimizer, NONE, values.ema > 0)


def run(steps, mesh, **changes):
    values = config(**changes)
    step, first = made_step(values)
    state, losses = place(first(learner(values.centers)), mesh), []
    for i in range(steps):
        state, metrics = step(state, FIXED, put_batch(batch(i), mesh))
        losses.append(float(metrics["loss"]))
    assert step._cache_size() == 1
    return state, losses


def test_golden_losses():
    """To 1e-5: the machine that wrote the file agrees to the last digit, other CPUs and XLA versions round otherwise.

    If a change is meant to change them, delete the file and run this once.
    """
    _, losses = run(STEPS, make_mesh())
    if not GOLDEN.exists():
        GOLDEN.parent.mkdir(parents=True, exist_ok=True)
        GOLDEN.write_text(json.dumps({"jax": jax.__version__, "losses": losses}, indent=2) + "\n")
        pytest.fail("the golden losses were missing; they have been written")
    np.testing.assert_allclose(losses, json.loads(GOLDEN.read_text())["losses"], rtol=1e-5)


def test_one_device_and_eight(devices):
    """To 1e-5 relative in losses and 1e-4 absolute in numbers after 10 steps: sums are taken in another order."""
    one, losses_one = run(10, make_mesh(devices[:1]))
    eight, losses_eight = run(10, make_mesh(devices))
    np.testing.assert_allclose(losses_eight, losses_one, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(one.learner), jax.tree.leaves(eight.learner), strict=True):
        assert len(b.sharding.device_set) == 8
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_the_old_state_is_given_up():
    step, first = made_step(config())
    before = first(learner())
    after, _ = step(before, FIXED, batch(0))
    assert before.learner.projection["weight"].is_deleted()
    assert int(after.step) == 1


def test_each_part_of_the_loss_counts():
    def loss(**changes):
        values = config(**changes)
        given = jax.tree.map(jnp.asarray, batch(0))
        key, epoch = jax.random.key(0), jnp.float32(0)
        return float(jax.jit(objective(values))(learner(values.centers), FIXED, given, NONE, key, epoch)[0])

    losses = {
        "all": loss(),
        "no dropout": loss(projecting=Projecting()),
        "no geometry": loss(geometry=Geometry()),
        "other margin": loss(loss=CosFace(0.3, 16.0)),
        "one center": loss(centers=1),
    }
    assert len(set(losses.values())) == len(losses)
    assert losses["no geometry"] < losses["all"]


def test_a_margin_grows_with_the_epochs():
    """An epoch has four steps here: the loss behind three is that of the first margin, behind eleven of the third."""

    def losses(**changes):
        values = config(**changes)
        step, first = made_step(values)
        states = (first(learner())._replace(step=jnp.int32(done)) for done in (3, 11))
        return [float(step(state, FIXED, batch(0))[1]["loss"]) for state in states]

    grown = losses(margin=Growing(0.1, 0.2, 0.8))
    assert grown[0] == pytest.approx(losses(loss=ArcFace(0.1, 16.0))[0], rel=1e-6)
    assert grown[1] == pytest.approx(losses(loss=ArcFace(0.5, 16.0))[1], rel=1e-6)


def test_each_row_has_the_margin_of_its_class():
    """Row by row in NumPy, with the margins of Ha et al., 2020, for sizes that differ."""
    sizes = np.array([1, 16, 81, 256, 625, 1296])
    values = config(loss=CosFace(0.3, 16.0), margin=BySize(), centers=1, projecting=Projecting(), geometry=Geometry())
    given, start = batch(0)._replace(inputs=batch(0).inputs[:, :1]), learner(1)
    found = make_objective(values, lambda _tower, _fixed, inputs: inputs, sizes)(
        start, FIXED, jax.tree.map(jnp.asarray, given), NONE, jax.random.key(0), jnp.float32(0)
    )[0]
    margins = 0.05 + 0.45 * (sizes**-0.25 - 1 / 6) / (1 - 1 / 6)
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    embedding = unit(unit(np.asarray(given.inputs[:, 0], np.float64)) @ np.asarray(start.projection["weight"]))
    logits = 16 * embedding @ unit(np.asarray(start.centers["weight"][:, 0], np.float64)).T
    logits[np.arange(16), given.label] -= 16 * margins[given.label]
    expected = [np.log(np.exp(row).sum()) - row[own] for row, own in zip(logits, given.label, strict=True)]
    assert float(found) == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.reference("torch")
def test_one_step_as_torch_would_take_it():
    """The plain step (no dropout, mirror or geometry) against torch autograd and torch's AdamW."""
    import torch

    values = config(
        projecting=Projecting(),
        geometry=Geometry(),
        centers=1,
        optimizer=Optimizer(learning_rate=1e-2, centers_learning_rate=1e-2, weight_decay=0.0, warmup=0.0),
    )
    step, first = made_step(values, steps=10**6)
    start, given = learner(1), batch(0)
    given = given._replace(inputs=given.inputs[:, :1])
    weight, centers = (np.asarray(x) for x in (start.projection["weight"], start.centers["weight"][:, 0]))
    state = first(start)
    for _ in range(3):
        state, metrics = step(state, FIXED, given)

    w, b, c = (torch.nn.Parameter(torch.tensor(x)) for x in (weight, np.zeros(4, np.float32), centers))
    adam = torch.optim.AdamW([w, b, c], lr=1e-2, weight_decay=0.0)
    label = torch.tensor(given.label, dtype=torch.int64)
    l2_normalize = torch.nn.functional.normalize
    for _ in range(3):
        cosine = l2_normalize(l2_normalize(torch.tensor(given.inputs[:, 0])) @ w + b) @ l2_normalize(c).T
        angle = torch.arccos(cosine.gather(1, label[:, None]))
        logits = 16.0 * cosine.scatter(1, label[:, None], torch.cos(angle + 0.3))
        loss = torch.nn.functional.cross_entropy(logits, label)
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert float(metrics["loss"]) == pytest.approx(loss.item(), rel=1e-5)
    np.testing.assert_allclose(state.learner.projection["weight"], w.detach(), atol=1e-4)
    np.testing.assert_allclose(state.learner.centers["weight"][:, 0], c.detach(), atol=1e-4)


def test_parts_of_a_batch_are_the_batch():
    """Without terms within the batch, the mean over parts is that over the batch; to 1e-5, as sums have an order."""
    from lookalike.training.config import TuneStage

    def state(parts):
        values = TuneStage(loss=ArcFace(0.3, 16.0), optimizer=config().optimizer, batch=16, accumulate=parts)
        step, first = made_step(values)
        found = first(learner(1))
        for i in range(3):
            given = batch(i)._replace(inputs=batch(i).inputs[:, :1])
            if parts > 1:
                given = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), given)
            found, metrics = step(found, FIXED, given)
        return found, metrics

    (whole, one), (parted, four) = state(1), state(4)
    for a, b in zip(jax.tree.leaves(whole.learner), jax.tree.leaves(parted.learner), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert float(one["loss"]) == pytest.approx(float(four["loss"]), rel=1e-5)


def test_the_running_mean_is_that_of_a_slow_loop():
    values = config(ema=0.8)
    step, first = made_step(values)
    state = first(learner())
    mean = np.asarray(state.learner.projection["weight"])
    for i in range(8):
        state, _ = step(state, FIXED, batch(i))
        decay = min(0.8, (1 + i) / (10 + i))
        mean = decay * mean + (1 - decay) * np.asarray(state.learner.projection["weight"])
    np.testing.assert_allclose(state.average.projection["weight"], mean, rtol=1e-5)


def test_sharpness_aware_steps_take_the_gradient_nearby():
    """Foret et al., 2021: the gradient at w + rho g / |g|, by plain steps of gradient descent."""
    plain = Optimizer(
        "sgd", learning_rate=0.1, centers_learning_rate=0.1, momentum=0.0, schedule="constant", warmup=0.0
    )
    values = config(optimizer=plain, projecting=Projecting(), geometry=Geometry())
    key, epoch = jax.random.fold_in(jax.random.key(3), 0), jnp.float32(0)
    loss = jax.jit(
        jax.grad(lambda x: objective(values)(x, FIXED, jax.tree.map(jnp.asarray, batch(0)), NONE, key, epoch)[0])
    )
    before = learner()
    here = loss(before)
    length = np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(here)))
    there = loss(jax.tree.map(lambda x, g: x + 0.5 * g / length, before, here))
    expected = jax.tree.map(lambda x, g: x - 0.1 * g, before, there)
    from dataclasses import replace

    step, first = made_step(replace(values, optimizer=replace(plain, sam=0.5)))
    after, _ = step(first(before), FIXED, batch(0))
    for a, b in zip(jax.tree.leaves(after.learner), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss": AdaFace(), "projecting": Projecting(batch_norm=True)},
        {"loss": AdaCos(), "projecting": Projecting(eight_bits=True)},
        {"loss": CurricularFace(), "geometry": Geometry(distance=RkdDistance(1.0), angle=RkdAngle(1.0))},
        {"loss": SupCon(), "geometry": Geometry(gram=GramDistillation(1.0))},
    ],
    ids=["plain", "AdaFace", "AdaCos", "CurricularFace", "SupCon"],
)
def test_rows_that_fill_a_batch_up_count_nothing(changes):
    """In no loss, term, statistic or gradient: whatever they are, all is as without them."""
    values = config(batch=16, **changes)
    running = Running(
        memory_of(values.loss) if isinstance(values.loss, Margin) else {}, first_memory(values.projecting, 12)
    )
    key, epoch = jax.random.key(0), jnp.float32(0)
    value = jax.jit(jax.value_and_grad(lambda x, b: objective(values)(x, FIXED, b, running, key, epoch), has_aux=True))
    small = jax.tree.map(jnp.asarray, batch(0))
    more = jax.tree.map(lambda x, y: jnp.concatenate([x, 3 * y[:5]]), small, batch(1))
    found, expected = value(learner(), more), value(learner(), small)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
