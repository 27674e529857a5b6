"""Devices as a mesh, and arrays placed on it: batches split over it, all else copied to each device."""

from collections.abc import Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

T = TypeVar("T")


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The devices in one row, "data"; by default all accelerators, or one CPU device: virtual ones share its cores."""
    if devices is None:
        devices = jax.devices()
        devices = devices[:1] if devices[0].platform == "cpu" else devices
    return Mesh(np.array(devices), ("data",))


def put_batch(batch: T, mesh: Mesh) -> T:
    """The batch on the mesh, its first axis split over the devices; their number must divide it."""
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))


def place(tree: T, mesh: Mesh) -> T:
    """The arrays of `tree` on the mesh, a copy on each device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
