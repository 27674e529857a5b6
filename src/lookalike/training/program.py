"""The steps of a run from shapes alone: compiled for devices that are here, or for a TPU that is not.

The step is the one of `tasks.step_of`, traced with shapes in the place of tensors, images and classes, each of which
says where on the devices it would lie.
"""

import importlib.util
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lookalike.core.errors import UsageError
from lookalike.core.mesh import AXES, make_mesh, shardings_of
from lookalike.data.sampling import share
from lookalike.encoders.config import EncoderConfig, declared
from lookalike.encoders.encoder import Encoder, init_tensors
from lookalike.losses import first_memory
from lookalike.training.chips import LOCAL, Chip, Topology, topology_of
from lookalike.training.config import HeadStage, StepStage, TrainConfig, TuneStage
from lookalike.training.learner import Division, Tensors, divide, stacked
from lookalike.training.sources import Part, part_of
from lookalike.training.step import Batch, first_state
from lookalike.training.tasks import first_values, holds, step_of
from lookalike.vectors.runtime import BATCH

# libtpu would ask the cloud which machine this is, complain that nobody says, and refuse to be loaded twice, as no two
# processes can hold one TPU: none is held here.
_NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",  # of this machine; what is compiled for is said by name
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
_FULL = "RESOURCE_EXHAUSTED"  # what the compiler says of a program that does not fit


@dataclass(frozen=True)
class Job:
    """What is compiled: the step of a stage, or the embedding of images."""

    topology: str
    config: TrainConfig
    encoder: EncoderConfig  # as it is in the stage
    stage: StepStage | None  # None: embed
    classes: int
    rows: int
    new: bool = False  # whether there is no untouched tower to hold to
    measure: int = 0  # steps that are taken and timed; on local devices


@dataclass(frozen=True)
class Compiled:
    """What became of a job."""

    chip: Chip
    chips: int
    bytes: int | None  # that a chip needs; None: the compiler found no way to fit it
    seconds: float  # to compile
    state: int  # bytes of what steps change, of all chips together
    learned: int  # of what is learned
    fixed: int  # of what stays
    measured: float | None = None  # seconds of a step


class Program(NamedTuple):
    """A function with the shapes of what it takes."""

    function: Any  # jitted
    arguments: tuple[Any, ...]
    values: Callable[[], tuple[Any, ...]]  # such arguments


def compile_job(job: Job) -> Compiled:
    """Compile, and take the steps that are to be measured. UsageError: there is no libtpu, or no such topology."""
    devices, chip = _devices(job.topology)
    mesh = make_mesh(list(devices))
    program = embed_program(job, mesh) if job.stage is None else train_program(job, job.stage, mesh)
    state, learned, fixed = 0, 0, _bytes(program.arguments[0])
    if job.stage is not None:
        _, kept, still, _ = program.arguments
        state, learned, fixed = _bytes(kept), _bytes(kept.learner), _bytes(still)
    begun, measured = time.monotonic(), None
    try:
        found = program.function.lower(*program.arguments).compile()
        memory = found.memory_analysis()
        needed = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        needed += memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    except jax.errors.JaxRuntimeError as error:
        if _FULL not in str(error):
            raise
        needed = None
    seconds = time.monotonic() - begun
    if job.measure and needed is not None:
        measured = _measured(found, program.values(), job.measure)
    return Compiled(chip or local_chip(devices[0]), mesh.size, needed, seconds, state, learned, fixed, measured)


def embed_program(job: Job, mesh: Mesh) -> Program:
    """Features of a batch of images, which is split over the chips; each has the whole tower."""
    size, count = job.encoder.preprocess.size, -(-BATCH // mesh.size) * mesh.size
    shape = count, size, size, 3

    def embed(tensors: Tensors, images: jax.Array) -> jax.Array:
        return Encoder(job.encoder, tensors).features(images)

    def values() -> tuple[Any, ...]:
        images = jax.device_put(np.zeros(shape, np.uint8), NamedSharding(mesh, PartitionSpec(AXES)))
        return jax.device_put(_drawn(job.encoder), NamedSharding(mesh, PartitionSpec())), images

    images = jax.ShapeDtypeStruct(shape, np.uint8, sharding=NamedSharding(mesh, PartitionSpec(AXES)))
    return Program(jax.jit(embed), (_copied(_tensors(job.encoder), mesh), images), values)


def train_program(job: Job, stage: StepStage, mesh: Mesh) -> Program:
    """The step: batches split over the chips, parameters and optimizer state by `sharding_of`."""
    config, encoder = job.config, job.encoder
    sizes = np.full(job.classes, job.rows // job.classes)
    sizes[: job.rows % job.classes] += 1
    shape = job.classes, stage.centers, encoder.projection.dimension

    def part(tensors: Tensors) -> Part:
        return part_of(stage, divided(config, stage, encoder, tensors))

    def begin(tensors: Tensors) -> tuple[Any, Any]:
        own, projection = part(tensors), (tensors["projection.weight"], tensors["projection.bias"])
        statistics = first_memory(stage.projecting, encoder.projection.features)
        learner, running = first_values(stage, own, projection, jnp.ones(shape), statistics)
        optimizer, _ = step_of(config, stage, own, encoder, sizes)
        return first_state(learner, optimizer, running, averaged=stage.ema > 0), own.fixed

    def step(tensors: Tensors, state: Any, fixed: Any, batch: Batch) -> Any:
        return step_of(config, stage, part(tensors), encoder, sizes, mesh)[1](state, fixed, batch)

    tensors = _tensors(encoder)
    found = jax.eval_shape(begin, tensors)
    places = shardings_of(found, mesh, stacked(encoder))
    batch = batch_of(job, stage, mesh)
    state, fixed = (jax.tree.map(_at, tree, place) for tree, place in zip(found, places, strict=True))

    def values() -> tuple[Any, ...]:
        drawn = _drawn(encoder)
        first = jax.jit(begin, out_shardings=places)(drawn)
        zeros = jax.tree.map(lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), batch)
        return drawn, *first, zeros

    function = jax.jit(step, donate_argnums=1, out_shardings=(places[0], None))
    return Program(function, (_copied(tensors, mesh), state, fixed, batch), values)


def divided(config: TrainConfig, stage: StepStage, encoder: EncoderConfig, tensors: Tensors) -> Division | None:
    """The tower as a stage on images divides it."""
    if not isinstance(stage, TuneStage):
        return None
    return divide(Encoder(encoder, tensors, stage.dtype, stage.remat), stage.trained, config.seed)


def batch_of(job: Job, stage: StepStage, mesh: Mesh) -> Batch:
    """The shapes of a batch, as `tasks` makes them, split over the chips."""
    parts = getattr(stage, "accumulate", 1)
    encoder, count = job.encoder, share(stage.batch, parts, mesh.size).shape[1]
    size, width = encoder.preprocess.size, encoder.projection.features
    images = jax.ShapeDtypeStruct((count, size, size, 3), np.uint8)
    features = jax.ShapeDtypeStruct((count, width), np.float32)
    if isinstance(stage, HeadStage):
        inputs = jax.ShapeDtypeStruct((count, 1 + job.config.mirror + stage.copies, width), np.float32)
    elif stage.copies:
        inputs = jax.eval_shape(lambda tensors, x: _maps(job, stage, tensors, x), _tensors(encoder), images)
    else:
        inputs = images
        if stage.geometry.views.weight:
            inputs = jax.ShapeDtypeStruct((count, 2, size, size, 3), np.uint8)
    found = Batch(
        inputs,
        jax.ShapeDtypeStruct((count,), np.int32),
        features if holds(stage) and not job.new else None,
        features if stage.geometry.vectors.weight else None,  # as wide as ours, for want of the collection
    )
    lead, place = ((parts,), PartitionSpec(None, AXES)) if parts > 1 else ((), PartitionSpec(AXES))
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((*lead, *x.shape), x.dtype, sharding=NamedSharding(mesh, place)), found
    )


def _maps(job: Job, stage: StepStage, tensors: Tensors, images: jax.Array) -> jax.Array:
    division = divided(job.config, stage, job.encoder, tensors)
    assert division is not None
    maps: jax.Array = division.maps(division.fixed.front, images).astype(jnp.float16)
    return maps


def _measured(compiled: Any, values: tuple[Any, ...], count: int) -> float:
    """Seconds of a step, the least of `count` behind the first."""
    times = []
    for _ in range(count + 1):
        begun = time.monotonic()
        found = jax.block_until_ready(compiled(*values))
        times.append(time.monotonic() - begun)
        if len(values) == 4:  # a step of training takes over its state
            values = (values[0], found[0], *values[2:])
    return min(times[1:])


def _devices(topology: str) -> tuple[Any, Chip | None]:
    """Devices to compile for, and their data sheet; None: they are here, to be measured."""
    if topology == LOCAL:
        return make_mesh().devices.flatten(), None
    wanted = topology_of(topology)
    return tpu_devices(wanted), wanted.chip


def tpu_devices(topology: Topology) -> Any:
    """The devices of a TPU that is not here; UsageError without libtpu, or if the compiler knows no such topology."""
    if importlib.util.find_spec("libtpu") is None:
        raise UsageError(
            f"`--topology {topology.name}` needs the compiler for TPUs, libtpu, and it is not installed.",
            hint='pip install "lookalike[tpu]"',
        )
    from jax.experimental import topologies

    os.environ |= _NO_TPU
    jax.config.update("jax_platforms", "cpu")
    try:
        found = topologies.get_topology_desc(topology.name, "tpu", chips_per_host_bounds=topology.host)
    except (jax.errors.JaxRuntimeError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"libtpu does not know the topology `{topology.name}`: {reason}", hint="v5e:2x4") from error
    return found.devices


def local_chip(device: Any) -> Chip:
    """What a device here reaches in a large product, and in reading and writing; its memory."""
    cpu = device.platform == "cpu"
    side, dtype = (2048, jnp.float32) if cpu else (8192, jnp.bfloat16)
    x = jax.device_put(jnp.ones((side, side), dtype), device)
    product = _least_seconds(jax.jit(lambda x: x @ x), x)
    y = jax.device_put(jnp.ones(2**26, jnp.float32), device)
    copy = _least_seconds(jax.jit(lambda y: y + 1), y)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if not cpu:
        memory = device.memory_stats()["bytes_limit"]
    return Chip(device.device_kind, 2 * side**3 / product, 2 * y.nbytes / copy, memory)


def _least_seconds(function: Callable[[Any], Any], x: Any) -> float:
    times = []
    for _ in range(4):
        begun = time.monotonic()
        jax.block_until_ready(function(x))
        times.append(time.monotonic() - begun)
    return min(times)


def _tensors(encoder: EncoderConfig) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct(tensor.shape, np.float32) for name, tensor in declared(encoder).items()}


def _drawn(encoder: EncoderConfig) -> Tensors:
    return init_tensors(declared(encoder), jax.random.key(0))


def _copied(tree: Any, mesh: Mesh) -> Any:
    return jax.tree.map(lambda x: _at(x, NamedSharding(mesh, PartitionSpec())), tree)


def _at(x: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
