import jax.numpy as jnp
import numpy as np

from lookalike.core.mesh import make_mesh, place, put_batch


def test_an_ordinary_cpu_run_uses_one_device():
    assert make_mesh().size == 1


def test_a_batch_is_split_and_the_rest_copied(devices):
    mesh = make_mesh(devices)
    batch = put_batch({"x": np.arange(48.0).reshape(16, 3)}, mesh)
    assert [shard.data.shape for shard in batch["x"].addressable_shards] == [(2, 3)] * 8
    np.testing.assert_array_equal(batch["x"], np.arange(48.0).reshape(16, 3))
    tree = place({"a": jnp.ones((8, 2))}, mesh)
    assert all(shard.data.shape == (8, 2) for shard in tree["a"].addressable_shards)
