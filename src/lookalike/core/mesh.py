"""Devices as a mesh, and arrays on it: batches split over it, all else copied to each device, or split by a rule."""

from collections.abc import Sequence, Set
from math import prod
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

T = TypeVar("T")

LEAST_SPLIT = 2**16
"""Numbers below which a tensor is copied: to fetch its parts takes longer than to read it."""


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


def sharding_of(shape: Sequence[int], mesh: Mesh, blocks: bool = False) -> NamedSharding:
    """Where a parameter of this shape lies: split over the mesh along its largest axis that the devices divide.

    The axis of stacked `blocks`, the first, stays whole, as a scan takes one block after the other. What is small, or
    has no such axis, is copied. Optimizer state lies where its parameter does (ZeRO; Rajbhandari et al., 2020).
    """
    axes = [axis for axis in range(int(blocks), len(shape)) if shape[axis] % mesh.size == 0]
    if not axes or mesh.size == 1 or prod(shape) < LEAST_SPLIT:
        return NamedSharding(mesh, PartitionSpec())
    longest = max(axes, key=lambda axis: shape[axis])
    return NamedSharding(mesh, PartitionSpec(*(None,) * longest, "data"))


def shardings_of(tree: Any, mesh: Mesh, stacked: Set[str]) -> Any:
    """`sharding_of` each array of `tree`; `stacked` are names of tensors whose blocks are stacked."""

    def one(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        return sharding_of(leaf.shape, mesh, bool(path) and getattr(path[-1], "key", None) in stacked)

    return jax.tree_util.tree_map_with_path(one, tree)
