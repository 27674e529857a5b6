"""A run on paper: whether its steps fit a chip, how long they take at least, and how long the whole probably does.

Each program is compiled in a process of its own, as compilers may ask for more memory than the machine has.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from lookalike.core.journal import note
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, tensor_shapes
from lookalike.encoders.fit import adapt
from lookalike.training.config import FitStage, Given, HeadStage, NewStage, StepStage, TrainConfig, TuneStage
from lookalike.training.cost import Traffic, embed_operations, roofline, step_operations, step_traffic
from lookalike.training.program import Compiled, Job, compile_job
from lookalike.training.tasks import chooses_directions, new_config, steps_of
from lookalike.training.watch import TooMuchError, watched
from lookalike.vectors.runtime import BATCH

_ROOM = 0.97  # share of a chip's memory up to which a batch is looked for: compilers keep some for themselves
_PRECISION = 16  # the largest batch is found to a part in so many

Compile = Callable[[Job], Compiled]


@dataclass(frozen=True)
class Question:
    """What is planned."""

    config: TrainConfig
    encoder: EncoderConfig | None  # to begin with; None: a stage makes a new one
    topology: str
    classes: int
    rows: int
    efficiency: float  # the share of the roofline that a step reaches
    search: bool = True  # whether the largest batch is looked for
    measure: int = 0  # steps to take and time, on local devices
    others: int = 0  # images that help to choose directions without labels


@dataclass(frozen=True)
class StagePlan:
    """One program: the steps of a stage, or embedding. Operations and bytes of a step are of all chips together."""

    name: str
    batch: int
    fits: bool
    bytes_per_chip: int | None  # None: the compiler found no way to fit it
    largest_batch: int | None  # None: it was not looked for, or not even one image a chip fits
    flops_per_step: int
    bytes_per_step: int
    roofline_s: float  # of a step
    images_per_s: float  # at the efficiency that was asked for
    steps: int
    embeds: int  # images whose features the stage needs before its first step
    hours: float  # of both
    compile_s: float
    measured_s: float | None = None  # of a step


@dataclass(frozen=True)
class Plan:
    """The whole run."""

    topology: str
    chip: str
    chips: int
    hbm_bytes: int
    flops_per_s: float  # of a chip at its peak
    efficiency: float
    stages: tuple[StagePlan, ...]

    @property
    def fits(self) -> bool:
        """Whether every program does."""
        return all(stage.fits for stage in self.stages)

    @property
    def hours(self) -> float:
        """Of all stages, without compiling, measuring and writing."""
        return sum(stage.hours for stage in self.stages)

    def as_json(self) -> dict[str, Any]:
        """One object: the run, the figures of its largest stage, and all stages."""
        largest = max(self.stages, key=lambda stage: (not stage.fits, stage.bytes_per_chip or 0))
        facts = {name: value for name, value in asdict(self).items() if name != "stages"}
        told = {"fits": self.fits, **facts, **asdict(largest), "hours": self.hours}
        return told | {"stages": [asdict(stage) for stage in self.stages]}


def make_plan(question: Question, memory: int, seconds: float) -> Plan:
    """Compile every program, each in a process that may hold so many bytes and take so many seconds; and reckon.

    TooMuchError: one of them took more. UsageError: there is no libtpu, no such topology.
    """

    def compile_one(job: Job) -> Compiled:
        words = "the images to embed" if job.stage is None else f"a batch of {job.stage.batch}"
        note(f"compiling for {job.topology}: {words} ...")
        return watched(compile_job, job, memory=memory, seconds=seconds, verb="Compiling")

    return reckon(question, compile_one)


def reckon(question: Question, compile_one: Compile) -> Plan:
    """The plan, by what `compile_one` says of each program."""
    config, plans = question.config, []
    encoders = list(encoders_of(config, question.encoder))
    embed = _job(question, encoders[0], None)
    found = compile_one(embed)
    plans.append(_embedding(question, found, encoders[0]))
    counts = embeds_of(config, question.rows, question.others)
    for name, stage, encoder, count in zip(config.names, config.stages, encoders, counts, strict=True):
        if isinstance(stage, FitStage):
            hours = count / plans[0].images_per_s / 3600
            plans.append(replace(plans[0], name=name, embeds=count, hours=hours, compile_s=0.0))
        elif not isinstance(stage, NewStage):
            plans.append(_stage(question, name, stage, encoder, count, plans[0].images_per_s, compile_one))
    chip = found.chip
    return Plan(question.topology, chip.name, found.chips, chip.memory, chip.flops, question.efficiency, tuple(plans))


def encoders_of(config: TrainConfig, given: EncoderConfig | None) -> Iterator[EncoderConfig]:
    """The encoder of each stage, with the projection of the run."""
    for stage in config.stages:
        if isinstance(stage, NewStage):
            given = new_config(stage, config.dimension)
        assert given is not None
        if isinstance(stage, TuneStage) and (stage.size or stage.stride):
            # Positions are interpolated: tensors that take no memory will do.
            hollow = {n: np.broadcast_to(np.float32(0), shape) for n, shape in tensor_shapes(given).items()}
            given, _ = adapt(given, hollow, size=stage.size or None, stride=stage.stride or None)
        projection = ProjectionConfig("linear", given.projection.features, config.dimension)
        given = replace(given, projection=projection, mirror=config.mirror)
        yield given


def embeds_of(config: TrainConfig, rows: int, others: int = 0) -> Iterator[int]:
    """How many images each stage embeds before its first step: features that it begins with, and augmented copies.

    Features of the tower as it was given are kept from stage to stage, those of a new or a tuned one are not; a stage
    that goes on from another's projection and centers needs none. `others` are looked at where directions are chosen.
    """
    given, known = True, False  # whether the tower is as it was given, and whether its features are kept
    for before, stage in zip((None, *config.stages), config.stages, strict=False):
        carried = isinstance(before, NewStage) or (
            isinstance(before, HeadStage | TuneStage)
            and isinstance(stage, HeadStage | TuneStage)
            and before.centers == stage.centers
        )
        spared = isinstance(stage, TuneStage) and isinstance(stage.start, Given) and carried
        images = rows + others * chooses_directions(stage)
        count = 0 if known or spared or isinstance(stage, NewStage) else images * config.views
        given = given and not isinstance(stage, NewStage | TuneStage)
        known = given and (known or count > 0)
        yield count + rows * getattr(stage, "copies", 0)


def largest_batch(fits: Callable[[int], int | None], start: int, unit: int, most: int, memory: int) -> int | None:
    """The largest batch up to `most`, to a sixteenth, that takes at most `memory` bytes; None: not even `unit`.

    `fits(batch)` says how many bytes a batch takes, None for more than there are. Memory grows with the batch in nearly
    a straight line, so that two batches that fit tell where to look; where that misleads, halving.
    """
    known: dict[int, int] = {}
    low, high, batch = 0, (most // unit + 1) * unit, start
    while True:
        needed = fits(batch)
        if needed is not None and needed <= memory:
            low, known[batch] = batch, needed
        else:
            high = batch
        step = max(unit, low // _PRECISION // unit * unit)
        if high - low <= step:
            return low or None
        guess = max(_on_line(known, memory), low + step) if len(known) > 1 else 2 * low
        batch = guess // unit * unit
        if not low < batch < high:
            batch = (low + high) // 2 // unit * unit


def _on_line(known: dict[int, int], memory: int) -> int:
    """Where the line through the two largest batches meets `memory`; at most eight times the larger."""
    (one, less), (other, more) = sorted(known.items())[-2:]
    slope = max((more - less) / (other - one), 1.0)
    return min(int(other + (memory - more) / slope), 8 * other)


def _job(question: Question, encoder: EncoderConfig, stage: StepStage | None) -> Job:
    q, new = question, "new" in question.config.names
    return Job(q.topology, q.config, encoder, stage, q.classes, q.rows, new, q.measure)


def _embedding(question: Question, found: Compiled, encoder: EncoderConfig) -> StagePlan:
    batch = -(-BATCH // found.chips) * found.chips
    flops = batch * embed_operations(encoder)
    traffic = Traffic(found.chips * found.fixed, 0)  # every chip reads the whole tower
    return _stage_plan(question, found, "embed", batch, None, flops, traffic, 0, 0, 0.0)


def _stage(
    question: Question,
    name: str,
    stage: StepStage,
    encoder: EncoderConfig,
    embeds: int,
    embeds_per_s: float,
    compile_one: Compile,
) -> StagePlan:
    """A stage that learns step by step."""
    found = compile_one(_job(question, encoder, stage))
    largest = None
    if question.search:
        largest = _searched(_job(question, encoder, stage), stage, found, compile_one)
    flops = step_operations(stage, encoder, question.classes)
    half = isinstance(stage, TuneStage) and stage.dtype == "bfloat16"
    traffic = step_traffic(found.state, found.learned, found.fixed, found.chips, half=half)
    steps, before = steps_of(stage, question.rows), embeds / embeds_per_s / 3600
    return _stage_plan(question, found, name, stage.batch, largest, flops, traffic, steps, embeds, before)


def _searched(job: Job, stage: StepStage, found: Compiled, compile_one: Compile) -> int | None:
    """The largest batch of the stage; the largest of those that were tried, if the compiler takes too much."""
    sizes = {stage.batch: found.bytes}

    def fits(batch: int) -> int | None:
        if batch not in sizes:
            sizes[batch] = compile_one(replace(job, stage=replace(stage, batch=batch), measure=0)).bytes
        return sizes[batch]

    room, unit = int(_ROOM * found.chip.memory), found.chips * getattr(stage, "accumulate", 1)
    try:
        return largest_batch(fits, stage.batch, unit, max(job.rows, stage.batch), room)
    except TooMuchError as error:
        note(f"{error.message} The largest batch is the largest of those that were tried.")
        return max((batch for batch, needed in sizes.items() if needed is not None and needed <= room), default=None)


def _stage_plan(
    question: Question,
    found: Compiled,
    name: str,
    batch: int,
    largest: int | None,
    flops: int,
    traffic: Traffic,
    steps: int,
    embeds: int,
    hours_before: float,
) -> StagePlan:
    least = roofline(found.chip, found.chips, float(flops), traffic)
    seconds = least / question.efficiency
    return StagePlan(
        name,
        batch,
        found.bytes is not None and found.bytes <= found.chip.memory,
        found.bytes,
        largest,
        flops,
        traffic.memory,
        least,
        batch / seconds,
        steps,
        embeds,
        hours_before + steps * seconds / 3600,
        found.seconds,
        found.measured,
    )
