"""Chunks of classes give what all at once give, in value and gradient, on one device and on eight."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from lookalike.core.mesh import make_mesh
from lookalike.losses import AdaCos, AdaFace, ArcFace, CosFace, CurricularFace, NormFace, class_loss, memory_of

MARGINS = [
    ArcFace(0.3, 30.0),
    ArcFace(0.5, 64.0),
    CosFace(0.2, 16.0),
    NormFace(16.0),
    AdaCos(),
    AdaFace(),
    CurricularFace(0.3, 20.0),
]


def drawn(rows, classes, count, dimension=8, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    embedding = rng.normal(size=(rows, dimension))
    lengths = np.linalg.norm(embedding, axis=1)
    centers = rng.normal(size=(classes, count, dimension)).astype(np.float32)
    embedding = jnp.asarray(embedding / lengths[:, None], dtype)
    label = jnp.asarray(rng.integers(0, classes, rows), jnp.int32)
    return embedding, jnp.asarray(lengths, jnp.float32), jnp.asarray(centers), label


@partial(jax.jit, static_argnames=("margin", "chunk", "shards", "classes"))
def everything(margin, embedding, lengths, centers, label, memory=None, chunk=0, shards=1, classes=0):
    """Losses, true cosines, memory, and the gradients of a weighted sum."""
    weights = jnp.arange(1, len(label) + 1, dtype=jnp.float32)

    def total(embedding, centers):
        how = {"memory": memory, "chunk": chunk, "shards": shards, "classes": classes}
        loss, *rest = class_loss(margin, embedding, lengths, centers, label, **how)
        return jnp.sum(loss * weights), (loss, *rest)

    (_, found), gradients = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(embedding, centers)
    return found, gradients


def assert_same(found, expected, rtol=2e-5):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        one, other = np.asarray(one, np.float32), np.asarray(other, np.float32)
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol * max(1.0, np.abs(other).max()))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("margin", MARGINS, ids=repr)
def test_chunks_give_the_same(margin, count):
    given = drawn(6, 23, count)
    memory = {name: jnp.float32(0.3) for name in memory_of(margin)}
    plain = everything(margin, *given, memory)
    for chunk in (5, 100) if count == 1 else (7,):
        assert_same(everything(margin, *given, memory, chunk=chunk), plain)


def test_sub_centers_against_a_slow_loop():
    embedding, lengths, centers, label = drawn(6, 5, 3, dtype=np.float32)
    (found, own, _), _ = everything(ArcFace(0.3, 16.0), embedding, lengths, centers, label)
    for b in range(6):
        cosines = [max(float(embedding[b] @ w / np.linalg.norm(w)) for w in np.asarray(centers[c])) for c in range(5)]
        true = int(label[b])
        assert float(own[b]) == pytest.approx(cosines[true], abs=1e-6)
        logits = [16.0 * (np.cos(np.arccos(c) + 0.3) if j == true else c) for j, c in enumerate(cosines)]
        assert float(found[b]) == pytest.approx(np.log(np.exp(logits).sum()) - logits[true], rel=1e-4)


@pytest.mark.parametrize("margin", [ArcFace(0.3, 30.0), CurricularFace(), AdaCos()], ids=repr)
@pytest.mark.parametrize("chunk", [0, 3])
def test_finite_where_directions_coincide(margin, chunk):
    """Zero rows and centers, equal rows, equal and opposite centers; one class alone; in bfloat16 too."""
    axis = jnp.zeros((1, 8)).at[0, 0].set(1.0)
    centers = jnp.concatenate([axis, axis, -axis, 0 * axis, jnp.roll(axis, 1)])[:, None, :]
    for row in (axis, -axis, 0 * axis, 1.0000001 * axis):
        for dtype in (jnp.float32, jnp.bfloat16):
            embedding = jnp.tile(row, (5, 1)).astype(dtype)
            for label in (jnp.arange(5, dtype=jnp.int32), jnp.zeros(5, jnp.int32)):
                found = everything(margin, embedding, jnp.ones(5), centers, label, chunk=chunk)
                assert all(np.isfinite(np.asarray(x, np.float32)).all() for x in jax.tree.leaves(found))
    alone = everything(margin, axis, jnp.ones(1), centers[:1], jnp.zeros(1, jnp.int32), chunk=chunk)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(alone))
    assert float(alone[0][0][0]) < 1e-30


@pytest.mark.parametrize("chunk", [0, 7])
def test_products_of_bfloat16(chunk):
    """Rounding embeddings and centers to 8 bits of precision moves the mean loss by less than a thousandth of it."""
    given = drawn(64, 40, 1, 64)
    rounded = everything(ArcFace(0.3, 16.0), given[0].astype(jnp.bfloat16), *given[1:], chunk=chunk)
    exact = everything(ArcFace(0.3, 16.0), *given)
    assert rounded[0][0].dtype == jnp.float32
    assert rounded[1][0].dtype == jnp.bfloat16
    np.testing.assert_allclose(rounded[0][0].mean(), exact[0][0].mean(), rtol=1e-3)


@pytest.mark.parametrize("margin", [ArcFace(0.3, 30.0), CurricularFace(), AdaCos()], ids=repr)
@pytest.mark.parametrize("split_batch", [False, True])
def test_centers_over_eight_devices(margin, split_batch, devices):
    """Every device sums over its own classes in chunks; nothing of the centers moves."""
    mesh = make_mesh(devices)
    embedding, lengths, centers, label = drawn(16, 48, 2)
    expected = everything(margin, embedding, lengths, centers, label)
    rows = NamedSharding(mesh, PartitionSpec("model") if split_batch else PartitionSpec())
    placed = [jax.device_put(x, rows) for x in (embedding, lengths, label)]
    split = jax.device_put(centers, NamedSharding(mesh, PartitionSpec("model")))
    given = margin, placed[0], placed[1], split, placed[2]
    found = everything(*given, chunk=4, shards=8)
    assert_same(found, expected)
    assert found[1][1].sharding.is_equivalent_to(split.sharding, 3)
    assert_same(everything(*given, chunk=0), expected)
    program = everything.lower(*given, chunk=4, shards=8).compile().as_text()
    if not split_batch:
        assert "all-gather" not in program


@pytest.mark.parametrize("chunk", [0, 4])
@pytest.mark.parametrize("margin", MARGINS, ids=repr)
def test_what_fills_shards_up_is_no_class(margin, chunk):
    embedding, lengths, centers, label = drawn(6, 23, 2)
    expected = everything(margin, embedding, lengths, centers, label)
    filled = jnp.concatenate([centers, jnp.zeros((1, *centers.shape[1:]))])
    found, (to_embedding, to_centers) = everything(
        margin, embedding, lengths, filled, label, chunk=chunk, shards=4, classes=23
    )
    assert not to_centers[23].any()
    assert_same((found, (to_embedding, to_centers[:23])), expected)


def test_the_logits_never_exist():
    """Temporary memory: all at once holds B x C numbers several times, chunks of 1 / 64 of the classes do not once."""
    given = drawn(64, 16384, 1)
    temporary = {}
    for chunk in (0, 256):
        compiled = everything.lower(ArcFace(0.3, 30.0), *given, chunk=chunk).compile()
        temporary[chunk] = compiled.memory_analysis().temp_size_in_bytes
    logits = 4 * 64 * 16384
    assert temporary[0] > logits
    assert temporary[256] < logits
