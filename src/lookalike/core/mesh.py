"""Devices as a mesh of named axes, and arrays on it: batches split over it, parameters by rules over their names.

Batches are split over all devices, whatever the axes: over "model" a softmax has its classes apart, and no tower is.
"""

from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import lru_cache
from math import prod
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

T = TypeVar("T")

AXES = ("data", "model")
RULES = {"tower.*": AXES, "centers.*": ("model",)}
"""Over which axes parameters of such names are split; all else is copied to each device."""
LEAST_SPLIT = 2**16
"""Numbers below which a tensor is copied: to fetch its parts takes longer than to read it."""


def make_mesh(devices: Sequence[jax.Device] | None = None, everywhere: bool = False) -> Mesh:
    """The devices in rows, "data", of columns, "model"; by default all accelerators of this process, or `everywhere`.

    Of CPUs it is one device of a process: virtual ones share its cores.
    """
    if devices is None:
        devices = jax.devices() if everywhere else jax.local_devices()
        if devices[0].platform == "cpu":
            devices = list({device.process_index: device for device in reversed(devices)}.values())
    return Mesh(in_rows(devices), AXES)


def in_rows(devices: Sequence[Any]) -> np.ndarray:
    """The devices, host by host, in rows that lie within one, as long as a power of two allows.

    What the devices of a row exchange in a softmax is little, and the more there are, the fewer classes has each.
    """
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    each = len(devices) // len({device.process_index for device in devices})
    return np.array(devices, object).reshape(-1, each & -each)


def put_batch(batch: T, mesh: Mesh, axis: int = 0) -> T:
    """The batch on the mesh, this axis split over all devices; their number must divide it.

    Of several processes each has its share, in the order of their numbers.
    """
    split = NamedSharding(mesh, PartitionSpec(*(None,) * axis, AXES))
    found: T = jax.tree.map(lambda x: jax.make_array_from_process_local_data(split, np.asarray(x)), batch)
    return found


def place(tree: T, mesh: Mesh) -> T:
    """The arrays of `tree` on the mesh, a copy on each device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def spread(x: Shaped[Array, "N *shape"], mesh: Mesh | None, axis: str) -> Shaped[Array, "N *shape"]:
    """In a compiled program: `x` with its first axis split over this one of the mesh, if it divides, and nothing else.

    None: there is no mesh, and `x` lies as it does.
    """
    if mesh is None or mesh.size == 1:
        return x
    over = axis if len(x) % mesh.shape[axis] == 0 else None
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(over)))


def used(parameter: Array, dtype: Any = None) -> Array:
    """A parameter where it is used: whole on each device, in a program traced inside `jax.sharding.use_abstract_mesh`.

    So a scan fetches the parts of one block after the other (FSDP; Zhao et al., 2023, arXiv:2304.11277). By itself the
    compiler may fetch the parts of the batch instead, and split what a matrix multiplies. With a `dtype` it is brought
    there first: half the bytes pass in bfloat16.
    """
    parameter = parameter if dtype is None else parameter.astype(dtype)
    return parameter if jax.sharding.get_abstract_mesh().size < 2 else _fetched(parameter)


@jax.custom_vjp
def _fetched(parameter: Array) -> Array:
    """Its gradient need not be whole: each device may keep the part that it sums."""
    return jax.lax.with_sharding_constraint(parameter, PartitionSpec())


_fetched.defvjp(lambda parameter: (_fetched(parameter), None), lambda _, gradient: (gradient,))


def born(make: Callable[..., T], mesh: Mesh, stacked: Set[str], *given: Any) -> tuple[T, Any]:
    """What `make` makes of `given`, and its `shardings_of`: each array lies so from the first moment on."""
    places = shardings_of(jax.eval_shape(make, *given), mesh, stacked)
    return jax.jit(make, out_shardings=places)(*given), places


def put(tree: T, mesh: Mesh, stacked: Set[str]) -> T:
    """The arrays of `tree` on the mesh, where `sharding_of` says; of one in NumPy no device sees more than its part.

    Of several processes each has all of them.
    """

    def one(x: Any, place: NamedSharding) -> jax.Array:
        if isinstance(x, jax.Array) and place.is_fully_addressable:
            return jax.device_put(x, place)
        held = np.asarray(x)
        return jax.make_array_from_callback(held.shape, place, lambda index: held[index])

    found: T = jax.tree.map(one, tree, shardings_of(tree, mesh, stacked))
    return found


def shared(run: Callable[[T, Any], jax.Array], parameters: T, stacked: Set[str]) -> Callable[[np.ndarray], np.ndarray]:
    """`run(parameters, batch)` by all devices of this process: batches are split, and parameters lie as in training."""
    mesh = make_mesh()
    placed, program = put(parameters, mesh, stacked), _compiled(run, mesh)

    def found(batch: np.ndarray) -> np.ndarray:
        missing = -len(batch) % mesh.size
        filled = np.pad(batch, ((0, missing), *((0, 0),) * (batch.ndim - 1))) if missing else batch
        return np.asarray(program(placed, put_batch(filled, mesh)))[: len(batch)]

    return found


@lru_cache(maxsize=4)  # a measurement asks for the same program each time
def _compiled(run: Callable[[Any, Any], jax.Array], mesh: Mesh) -> Callable[[Any, Any], jax.Array]:
    def program(parameters: Any, batch: Any) -> jax.Array:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return run(parameters, batch)

    return jax.jit(program)


def shardings_of(tree: Any, mesh: Mesh, stacked: Set[str]) -> Any:
    """`sharding_of` each array of `tree`; `stacked` are names of tensors whose blocks are stacked.

    Optimizer state lies where its parameter does (ZeRO; Rajbhandari et al., 2020), as it has its name.
    """

    def one(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = str(getattr(path[-1], "key", "")) if path else ""
        part = getattr(path[-2], "name", "") if len(path) > 1 else ""
        name = name if name.startswith("tower.") else f"{part}.{name}"
        return sharding_of(name, leaf.shape, mesh, name in stacked)

    return jax.tree_util.tree_map_with_path(one, tree)


def sharding_of(name: str, shape: Sequence[int], mesh: Mesh, blocks: bool = False) -> NamedSharding:
    """Where a parameter of this name and shape lies: split as `RULES` say, along its largest axis that divides.

    The axis of stacked `blocks`, the first, stays whole, as a scan takes one block after the other. What is small, or
    has no such axis, is copied.
    """
    over = next((axes for pattern, axes in RULES.items() if fnmatchcase(name, pattern)), ())
    count = prod(mesh.shape[axis] for axis in over)
    fits = [axis for axis in range(int(blocks), len(shape)) if shape[axis] % count == 0]
    if not fits or count == 1 or prod(shape) < LEAST_SPLIT:
        return NamedSharding(mesh, PartitionSpec())
    longest = max(fits, key=lambda axis: shape[axis])
    return NamedSharding(mesh, PartitionSpec(*(None,) * longest, over))


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


@contextmanager
def in_turn() -> Iterator[None]:
    """What is inside the first process does before the others, which find what it has written."""
    if not is_first():
        multihost_utils.sync_global_devices("in turn")
    yield
    if is_first() and jax.process_count() > 1:
        multihost_utils.sync_global_devices("in turn")


def on_host(x: jax.Array) -> np.ndarray:
    """A copy of an array in NumPy; where its parts lie with several processes, all of them must ask for it."""
    if x.is_fully_addressable:
        return np.array(x)
    everywhere = NamedSharding(x.sharding.mesh, PartitionSpec())  # type: ignore[attr-defined]
    return np.array(jax.jit(lambda x: x, out_shardings=everywhere)(x).addressable_data(0))


def whole(tree: T) -> T:
    """The arrays of `tree` as each process can use them by itself: as they are, or in NumPy, fetched from all."""
    found: T = jax.tree.map(lambda x: x if x.is_fully_addressable else on_host(x), tree)
    return found


def from_first(tree: Any, like: Any) -> Any:
    """What the first process has, placed as `like` is, or None if that is what it has; the others give None."""
    if not multihost_utils.broadcast_one_to_all(np.int32(tree is not None)):
        return None

    def one(like: jax.Array, x: Any) -> jax.Array:
        found = multihost_utils.broadcast_one_to_all(np.zeros(like.shape, like.dtype) if x is None else np.asarray(x))
        return jax.make_array_from_callback(like.shape, like.sharding, lambda index: found[index])

    leaves, form = jax.tree.flatten(like)
    given = [None] * len(leaves) if tree is None else jax.tree.leaves(tree)
    return jax.tree.unflatten(form, [one(*each) for each in zip(leaves, given, strict=True)])
