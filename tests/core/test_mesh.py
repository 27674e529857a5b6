import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as Spec

from lookalike.core.mesh import make_mesh, place, put_batch, sharding_of, shardings_of


def test_an_ordinary_cpu_run_uses_one_device():
    assert make_mesh().size == 1


def test_a_batch_is_split_and_the_rest_copied(devices):
    mesh = make_mesh(devices)
    batch = put_batch({"x": np.arange(48.0).reshape(16, 3)}, mesh)
    assert [shard.data.shape for shard in batch["x"].addressable_shards] == [(2, 3)] * 8
    np.testing.assert_array_equal(batch["x"], np.arange(48.0).reshape(16, 3))
    tree = place({"a": jnp.ones((8, 2))}, mesh)
    assert all(shard.data.shape == (8, 2) for shard in tree["a"].addressable_shards)


@pytest.mark.parametrize(
    ("shape", "blocks", "expected"),
    [
        ((1280, 5120), False, Spec(None, "data")),  # the largest axis
        ((32, 1280, 1280), True, Spec(None, "data")),  # the first of two that are as large, behind the blocks
        ((4096, 16, 16), True, Spec(None, "data")),  # never the axis of blocks
        ((4096, 16, 16), False, Spec("data")),
        ((17691, 1, 64), False, Spec(None, None, "data")),  # 17,691 is no multiple of 8
        ((17691, 1, 63), False, Spec()),
        ((64, 64), False, Spec()),  # small
        ((), False, Spec()),
    ],
)
def test_where_parameters_lie(devices, shape, blocks, expected):
    assert sharding_of(shape, make_mesh(devices), blocks).spec == expected
    assert sharding_of(shape, make_mesh(devices[:1]), blocks).spec == Spec()


def test_state_of_an_optimizer_lies_where_its_parameter_does(devices):
    tower = {"tower.blocks.weight": jnp.zeros((512, 16, 16)), "tower.weight": jnp.zeros((512, 256))}
    state = (jnp.zeros((), jnp.int32), {"mu": tower, "nu": tower})
    found = shardings_of((tower, state), make_mesh(devices), {"tower.blocks.weight"})
    assert found[0] == found[1][1]["mu"] == found[1][1]["nu"]
    assert found[0]["tower.blocks.weight"].spec == Spec(None, "data")
    placed = jax.device_put(tower, found[0])
    assert placed["tower.weight"].addressable_shards[0].data.shape == (64, 256)
    assert placed["tower.blocks.weight"].addressable_shards[0].data.shape == (512, 2, 16)
