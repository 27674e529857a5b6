from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as Spec

from lookalike.core.mesh import born, in_rows, make_mesh, place, put_batch, sharding_of, shardings_of
from lookalike.training.learner import Fixed
from lookalike.training.step import Learner


def test_an_ordinary_cpu_run_uses_one_device():
    assert make_mesh().size == 1


def test_a_batch_is_split_and_the_rest_copied(devices):
    mesh = make_mesh(devices)
    batch = put_batch({"x": np.arange(48.0).reshape(16, 3)}, mesh)
    assert [shard.data.shape for shard in batch["x"].addressable_shards] == [(2, 3)] * 8
    np.testing.assert_array_equal(batch["x"], np.arange(48.0).reshape(16, 3))
    tree = place({"a": jnp.ones((8, 2))}, mesh)
    assert all(shard.data.shape == (8, 2) for shard in tree["a"].addressable_shards)


def test_rows_of_a_mesh_lie_within_a_host():
    """As long as a power of two allows; hosts one below the other, whatever order their devices come in."""
    eight = [SimpleNamespace(process_index=host, id=4 * host + i) for host in (1, 0) for i in (2, 0, 3, 1)]
    assert [[device.id for device in row] for row in in_rows(eight)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert in_rows([SimpleNamespace(process_index=0, id=i) for i in range(6)]).shape == (3, 2)


ALL = ("data", "model")


@pytest.mark.parametrize(
    ("name", "shape", "blocks", "expected"),
    [
        ("tower.a", (1280, 5120), False, Spec(None, ALL)),  # the largest axis
        ("tower.a", (32, 1280, 1280), True, Spec(None, ALL)),  # the first of two that are as large, behind the blocks
        ("tower.a", (4096, 16, 16), True, Spec(None, ALL)),  # never the axis of blocks
        ("tower.a", (4096, 16, 16), False, Spec(ALL)),
        ("tower.a", (1281, 511), False, Spec()),
        ("centers.weight", (17692, 1, 64), False, Spec(("model",))),  # over four, whatever is over two
        ("centers.weight", (17691, 1, 64), False, Spec(None, None, ("model",))),  # 17,691 is no multiple of 4
        ("centers.weight", (17691, 1, 63), False, Spec()),
        ("projection.weight", (1280, 64), False, Spec()),
        ("tower.a", (64, 64), False, Spec()),  # small
        ("", (), False, Spec()),
    ],
)
def test_where_parameters_lie(devices, name, shape, blocks, expected):
    mesh = Mesh(np.array(devices).reshape(2, 4), ALL)
    assert sharding_of(name, shape, mesh, blocks).spec == expected
    assert sharding_of(name, shape, make_mesh(devices[:1]), blocks).spec == Spec()


def test_state_of_an_optimizer_lies_where_its_parameter_does(devices):
    """Whatever it is part of: by its name alone."""
    tower = {"tower.blocks.weight": jnp.zeros((512, 16, 16)), "tower.weight": jnp.zeros((512, 256))}
    learner = Learner(tower, {"weight": jnp.zeros((2048, 64))}, {"weight": jnp.zeros((4096, 2, 64))})
    state = optax.adam(1e-3).init(learner)
    mesh = make_mesh(devices)
    found = shardings_of((learner, state, Fixed({}, tower)), mesh, {"tower.blocks.weight"})
    assert found[0] == found[1][0].mu == found[1][0].nu
    assert found[2].back == found[0].tower
    assert found[0].tower["tower.blocks.weight"].spec == Spec(None, ALL)
    assert found[0].centers["weight"].spec == Spec(("model",))
    assert found[0].projection["weight"].spec == found[1][0].count.spec == Spec()
    made, places = born(lambda x: jax.tree.map(jnp.copy, x), mesh, {"tower.blocks.weight"}, learner)
    assert places == found[0]
    assert made.tower["tower.weight"].addressable_shards[0].data.shape == (64, 256)
    assert made.tower["tower.blocks.weight"].addressable_shards[0].data.shape == (512, 2, 16)
