"""Plans: what is compiled is the step of training; what is counted is what a compiler counts without a scan."""

import importlib.util
import json
import math
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from lookalike.core.errors import UsageError
from lookalike.core.mesh import make_mesh, place, put_batch
from lookalike.data.sampling import share
from lookalike.encoders.config import EncoderConfig, ProjectionConfig
from lookalike.imaging.preprocess import Preprocess
from lookalike.losses import ArcFace, Geometry, L2Sp, Projecting, SimilarityDistillation, SupCon, TwoViews
from lookalike.towers import ConvNetConfig, ConvNeXtConfig, MobileNetV2Config, SwinConfig, ViTConfig
from lookalike.towers.ops import operations, places
from lookalike.training.checkpoint import opened_run
from lookalike.training.chips import CHIPS, Chip, topology_of
from lookalike.training.config import (
    FitStage,
    Given,
    HeadStage,
    Lda,
    NewStage,
    Optimizer,
    Pca,
    Random,
    TrainConfig,
    Trained,
    TuneStage,
)
from lookalike.training.cost import Traffic, _counted, embed_operations, roofline, step_operations, step_traffic
from lookalike.training.plan import Question, embeds_of, encoders_of, largest_batch, reckon
from lookalike.training.program import Compiled, Job, compile_job, embed_program, train_program
from lookalike.training.step import first_state
from lookalike.training.tasks import begun, make_task, rows_of
from lookalike.training.watch import TooMuchError, watched
from lookalike.vectors.runtime import BATCH

VIT = ViTConfig(size=32, patch=8, width=128, layers=2, heads=2, hidden=512, activation="gelu")
RATES = Optimizer(learning_rate=1e-3, centers_learning_rate=1e-2, tower_learning_rate=1e-3)


def encoder_of(tower, size=32, dimension=16, pooling=None):
    preprocess = Preprocess(size, "squash", size, "bilinear", (0.5,) * 3, (0.5,) * 3)
    return EncoderConfig(
        tower, pooling or tower.poolings[0], preprocess, ProjectionConfig("linear", tower.features, dimension)
    )


def job(stage, encoder=None, classes=40, rows=400):
    config = TrainConfig(stages=(stage,), dimension=16)
    return Job("local", config, encoder or encoder_of(VIT), stage, classes, rows)


def lowered(stage, encoder=None, mesh=None):
    program = train_program(job(stage, encoder), stage, mesh or make_mesh())
    return program.function.lower(*program.arguments)


TUNE = TuneStage(batch=8, start=Given(), optimizer=RATES)


def test_matrices_are_fetched_in_the_dtype_of_the_tower(devices):
    """And nothing else of it: norms and biases are as they lie."""
    for dtype, kind in (("float32", "f32"), ("bfloat16", "bf16")):
        text = lowered(replace(TUNE, dtype=dtype), mesh=make_mesh(devices)).as_text()
        fetched = re.findall(r"sharding_constraint .*\[\{\}, \{\}\]> : tensor<(\d+)x(\d+)x(\w+)>", text)
        matrices = {("128", "384"), ("128", "128"), ("128", "512"), ("512", "128")}  # of a block
        assert {each for each in fetched if each[:2] in matrices} == {(*sides, kind) for sides in matrices}
    assert re.search(r"sharding_constraint .*\[\{\}\]> : tensor<128xf32>", text)


@pytest.mark.parametrize("changes", [{}, {"batch": 16, "accumulate": 2}], ids=["at once", "in parts"])
def test_no_device_has_a_whole_gradient(devices, changes):
    """All that a step needs beside its arguments is less than one."""
    stage, encoder = replace(TUNE, remat=True, **changes), encoder_of(WIDE, 64)
    program = train_program(job(stage, encoder), stage, make_mesh(devices))
    learned = program.arguments[1].learner.tower
    whole = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(learned))
    assert program.function.lower(*program.arguments).compile().memory_analysis().temp_size_in_bytes < whole


HEAD = HeadStage(batch=256, optimizer=RATES)
WIDE = ViTConfig(size=64, patch=8, width=512, layers=4, heads=8, hidden=2048, activation="gelu")
SWIN = SwinConfig(2, 256, (5, 2), (4, 8), (8, 8), (4, 0))


@pytest.mark.parametrize(
    ("tower", "stage"),
    [
        (WIDE, TUNE),
        (WIDE, replace(TUNE, trained=Trained(blocks=1))),
        (WIDE, replace(TUNE, trained=Trained(blocks=2), remat=True)),
        (WIDE, replace(TUNE, trained=Trained(blocks=1), copies=2)),
        (WIDE, replace(TUNE, trained=Trained(lora=2))),
        (WIDE, replace(TUNE, remat=True, optimizer=replace(RATES, sam=0.05))),
        (WIDE, replace(TUNE, geometry=Geometry(views=TwoViews(0.1, 0.1)), loss=SupCon())),
        (replace(WIDE, layer_scale=True), replace(TUNE, remat=True)),
        (SWIN, replace(TUNE, trained=Trained(blocks=3))),
        (SWIN, replace(TUNE, remat=True)),
        (ConvNeXtConfig((256, 512), (2, 4)), TUNE),
        (WIDE, replace(HEAD, centers=3)),
        (WIDE, replace(HEAD, projecting=Projecting(dropout=0.1, samples=3, nested=(256, 512)))),
    ],
)
def test_operations_are_those_that_xla_counts_where_nothing_is_scanned(tower, stage, monkeypatch):
    """But for norms, activations and the optimizer, which XLA counts, too: 5 % at most, as towers are wide here."""
    monkeypatch.setattr(jax.lax, "scan", partial(jax.lax.scan, unroll=True))
    encoder = encoder_of(tower, tower.only_size or 128, dimension=512)
    program = train_program(job(stage, encoder, classes=400, rows=4000), stage, make_mesh())
    counted = program.function.lower(*program.arguments).cost_analysis()["flops"]
    assert 0.95 * counted <= step_operations(stage, encoder, 400) <= 1.01 * counted


@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_operations_of_embedding_are_those_that_xla_counts(pooling, monkeypatch):
    monkeypatch.setattr(jax.lax, "scan", partial(jax.lax.scan, unroll=True))
    encoder = encoder_of(WIDE, 64, pooling=pooling)
    program = embed_program(replace(job(HEAD, encoder), stage=None), make_mesh())
    counted = program.function.lower(*program.arguments).cost_analysis()["flops"]
    assert 0.95 * counted <= BATCH * embed_operations(encoder) <= 1.01 * counted


@pytest.mark.parametrize(
    "tower",
    [VIT, SwinConfig(1, 16, (2, 2), (2, 4), (4, 4), (2, 2)), ConvNetConfig((8, 16), (1, 2)), MobileNetV2Config(0.35)],
)
def test_places_divide_the_operations(tower):
    """Each has more than the one before; the last has all but for what is behind the blocks."""
    encoder = encoder_of(tower, tower.only_size or 64)
    found = [_counted(encoder, place).front for place in range(places(tower) + 1)]
    assert found == sorted(found)
    assert found[-1] <= operations(tower, encoder.preprocess.size) <= found[-1] * 1.6


def test_half_of_a_vit_is_half_of_its_blocks():
    large = encoder_of(replace(VIT, layers=4))
    two_blocks = _counted(large, 4).front - _counted(large, 2).front
    assert two_blocks == operations(large.tower, 32) - operations(VIT, 32)


def test_the_roofline_by_hand():
    chip = Chip("made up", flops=1e12, bandwidth=1e9, memory=2**30, links=1e8)
    assert roofline(chip, 4, 8e12, Traffic(0, 0)) == 2.0  # 8 of 4 x 1 T a second
    assert roofline(chip, 4, 8e12, Traffic(12 * 10**9, 0)) == 3.0
    assert roofline(chip, 4, 8e12, Traffic(12 * 10**9, 5 * 10**8)) == 5.0
    assert step_traffic(300, 100, 40, 1) == Traffic(2 * 300 + 2 * 100 + 40, 0)
    assert step_traffic(300, 100, 40, 4).links == round(0.75 * (3 * 100 + 2 * 40))
    assert step_traffic(300, 100, 40, 4, half=True).links == round(0.75 * (2 * 100 + 40))


def test_topologies():
    kaggle = topology_of("v5e:2x4")
    assert (kaggle.count, kaggle.chip, kaggle.host) == (8, CHIPS["v5e"], [2, 2, 1])
    assert topology_of("v5e:1x1").host == [1, 1, 1]
    assert topology_of("v5p:2x2x2").count == 8
    for wrong in ("v5:2x4", "v5e", "v5e:8", "v5e:2x4x1", "v5p:2x4", "v5e:0x4", "v5e:2x4 "):
        with pytest.raises(UsageError, match="--topology"):
            topology_of(wrong)


@pytest.mark.parametrize("unit", [1, 8])
@pytest.mark.parametrize("start", [8, 64, 4096])
@pytest.mark.parametrize("bend", [0.0, 0.3])
def test_the_largest_batch(unit, start, bend):
    """Against all batches one by one; with a memory that is no straight line, and few tries."""
    tried = []

    def bytes_of(batch):
        return int(1000 + 37 * batch ** (1 + bend))

    def fits(batch):
        tried.append(batch)
        return bytes_of(batch) if batch < 3000 else None

    best = max(b for b in range(unit, 3000, unit) if bytes_of(b) <= 60_000)
    found = largest_batch(fits, start, unit, 10**6, 60_000)
    assert best * 15 / 16 - unit <= found <= best
    assert found % unit == 0
    assert len(tried) == len(set(tried)) <= 16
    assert all(batch % unit == 0 for batch in tried)


def test_no_batch_fits_and_every_batch_fits():
    assert largest_batch(lambda _: None, 64, 8, 1000, 10) is None
    assert largest_batch(lambda batch: batch, 64, 8, 1000, 10**6) >= 1000 * 15 / 16 - 8


# What is compiled


def test_the_step_is_that_of_training(made, tmp_path):
    """Its text is the same as that of the step that the loop takes, but for where things lie."""
    stage = TuneStage(batch=16, steps=3, start=Pca(), optimizer=RATES, trained=Trained(blocks=1), ema=0.9)
    run = made.run(tmp_path / "run", stage)
    with opened_run(run) as path:
        rows = rows_of(run)
        task = make_task(run, stage, rows, begun(run), begun(run), path)
    state, mesh = first_state(task.learner, task.optimizer, task.running, averaged=True), make_mesh()
    batch = next(iter(task.batches(0, share(16))))
    real = task.step.lower(place(state, mesh), place(task.fixed, mesh), put_batch(batch, mesh))

    encoder = next(encoders_of(run, begun(run).encoder.config))
    planned = train_program(Job("local", run, encoder, stage, len(rows.classes), len(rows.ids)), stage, mesh)
    found = planned.function.lower(*planned.arguments)
    shapes = partial(jax.tree.map, lambda x: (x.shape, np.dtype(x.dtype)))
    assert shapes(planned.arguments[1:]) == shapes((state, task.fixed, batch))
    assert found.cost_analysis()["flops"] == pytest.approx(real.cost_analysis()["flops"], rel=1e-3)
    one, other = (each.compile().memory_analysis() for each in (found, real))
    assert one.temp_size_in_bytes == pytest.approx(other.temp_size_in_bytes, rel=0.01)
    assert one.argument_size_in_bytes == pytest.approx(other.argument_size_in_bytes, rel=0.01)


def test_eight_chips_hold_an_eighth_of_the_state(devices):
    """And the next state lies where the state lay."""
    wide = encoder_of(replace(VIT, width=256, hidden=1024, layers=2))
    made = []
    for mesh in (make_mesh(devices[:1]), make_mesh(devices)):
        program = train_program(job(replace(TUNE, ema=0.9), wide), replace(TUNE, ema=0.9), mesh)
        compiled = program.function.lower(*program.arguments).compile()
        placed = compiled.input_shardings[0][1]
        assert jax.tree.leaves(compiled.output_shardings[0]) == jax.tree.leaves(placed)
        made.append(compiled.memory_analysis())
    assert made[1].argument_size_in_bytes < 0.2 * made[0].argument_size_in_bytes
    assert made[1].alias_size_in_bytes == pytest.approx(made[1].argument_size_in_bytes, rel=0.1)


@pytest.mark.parametrize("stage", [TUNE, replace(TUNE, accumulate=2, remat=True)], ids=["whole", "in parts"])
def test_chips_fetch_parts_of_weights_and_never_of_a_batch(devices, stage, monkeypatch):
    """Blocks one by one: of what arrives from other chips, nothing is larger than a matrix."""
    monkeypatch.setattr("lookalike.core.mesh.LEAST_SPLIT", 2**12)
    program = train_program(job(replace(stage, batch=128)), replace(stage, batch=128), make_mesh(devices))
    text = program.function.lower(*program.arguments).compile().as_text()
    fetched = [
        math.prod(map(int, shape.split(",")))
        for line in text.splitlines()
        if re.search(r" (all-gather|all-to-all|collective-permute)(-start)?\(", line)
        for shape in re.findall(r"\w+\[([\d,]+)\]", line.partition("(%")[0])
    ]
    matrix, tokens = VIT.width * VIT.hidden, 64 * 17 * VIT.width
    assert max(fetched) == matrix < tokens


@pytest.mark.parametrize(
    "stage",
    [
        replace(TUNE, trained=Trained(lora=2), accumulate=2),
        replace(TUNE, geometry=Geometry(SimilarityDistillation(0.1, 0.1), weights=L2Sp(0.1))),
    ],
)
def test_stages_of_many_kinds_are_lowered(stage):
    assert lowered(stage, encoder_of(replace(VIT, width=32, hidden=64))).cost_analysis()["flops"] > 0


def test_steps_are_taken_and_timed():
    found = compile_job(replace(job(HeadStage(batch=16, optimizer=RATES)), measure=2))
    assert 0 < found.measured < 60
    assert found.chips == 1
    assert found.chip.flops > 1e9
    assert found.bytes > found.state > found.learned > 0


def test_a_batch_that_the_chips_do_not_divide(devices):
    """Each part is filled up."""
    stage = replace(TUNE, batch=12, accumulate=2)
    program = train_program(job(stage), stage, make_mesh(devices))
    assert program.arguments[3].inputs.shape == (2, 8, 32, 32, 3)
    program.function.lower(*program.arguments)


# What is reckoned


def test_stages_are_reckoned():
    """Hours by hand, from a compiler that is made up: 1 MB for each image."""
    chip, asked = Chip("made up", 1e12, 1e12, 2**30), []

    def compiled(job):
        asked.append(job)
        batch = 64 if job.stage is None else job.stage.batch
        return Compiled(chip, 1, batch * 2**20, 1.0, 3000, 1000, 0)

    stages = FitStage(), replace(TUNE, steps=100, remat=True, size=64)
    question = Question(
        TrainConfig(stages=stages, dimension=16), encoder_of(VIT, pooling="mean"), "local", 40, 4000, 0.5
    )
    plan = reckon(question, compiled)
    assert [stage.name for stage in plan.stages] == ["embed", "fit", "tune"]
    embed, fit, tune = plan.stages
    assert fit.hours == pytest.approx(4000 * operations(VIT, 32) / (0.5e12) / 3600)
    assert tune.roofline_s == pytest.approx(
        step_operations(stages[1], encoder_of(replace(VIT, size=64), 64, pooling="mean"), 40) / 1e12
    )
    assert tune.images_per_s == pytest.approx(0.5 * 8 / tune.roofline_s)
    assert tune.embeds == 0  # the tower's features are known from the stage before
    assert tune.hours == pytest.approx(100 * tune.roofline_s / 0.5 / 3600)
    assert 0.9 * 1024 < tune.largest_batch <= 0.97 * 1024
    assert plan.fits
    assert plan.hours == embed.hours + fit.hours + tune.hours
    told = json.loads(json.dumps(plan.as_json()))
    assert {"fits", "topology", "bytes_per_chip", "hbm_bytes", "largest_batch", "flops_per_step"} <= told.keys()
    assert told["name"] == "embed"  # 64 MB, the most
    small = reckon(question, lambda job: replace(compiled(job), bytes=None if job.stage else 1))
    assert not small.fits
    assert small.as_json()["name"] == "tune"
    assert small.stages[2].largest_batch is None


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ((HeadStage(copies=2),), [2 * 10 + 20]),  # with mirror images
        ((FitStage(), HeadStage()), [20, 0]),
        ((HeadStage(start=Given()), TuneStage()), [20, 0]),
        ((HeadStage(start=Given()), TuneStage(start=Pca())), [20, 0]),
        ((TuneStage(), TuneStage()), [20, 0]),
        ((TuneStage(), TuneStage(start=Pca())), [20, 20]),
        ((NewStage(), TuneStage()), [0, 0]),
        ((TuneStage(), FitStage(), HeadStage()), [20, 20, 20]),  # a tuned tower's are computed each time
        ((NewStage(), FitStage(), TuneStage()), [0, 20, 20]),
    ],
)
def test_images_embedded_before_a_stage(stages, expected):
    assert list(embeds_of(TrainConfig(stages=stages, mirror=True), 10)) == expected


def test_images_without_labels_are_embedded_where_directions_are_chosen():
    for stages, expected in [
        ((HeadStage(),), [2 * (10 + 7)]),
        ((HeadStage(start=Random()),), [20]),
        ((FitStage(Lda()),), [20]),
        ((TuneStage(start=Pca()), FitStage()), [34, 34]),
    ]:
        assert list(embeds_of(TrainConfig(stages=stages, mirror=True), 10, 7)) == expected


# The watched process


def hold(mebibytes):
    held = np.ones(mebibytes * 2**17)  # written, so that the system counts them
    time.sleep(60)
    return held


def fail(kind):
    raise kind("what was asked is wrong")


def test_a_process_that_takes_too_much_is_ended():
    begun = time.monotonic()
    with pytest.raises(TooMuchError, match=r"Compiling took .* of this machine's memory"):
        watched(hold, 1200, memory=1000 * 2**20, seconds=50.0, verb="Compiling")
    assert time.monotonic() - begun < 40
    with pytest.raises(TooMuchError, match="minutes"):
        watched(time.sleep, 60.0, memory=2**40, seconds=0.5, verb="Compiling")


def test_what_a_process_says_arrives():
    assert watched(divmod, 7, 2, memory=2**40, seconds=60.0, verb="Dividing") == (3, 1)
    with pytest.raises(UsageError, match="is wrong"):
        watched(fail, UsageError, memory=2**40, seconds=60.0, verb="Failing")
    with pytest.raises(RuntimeError, match="Traceback"):
        watched(fail, KeyError, memory=2**40, seconds=60.0, verb="Failing")
    with pytest.raises(TooMuchError, match="exit code 3"):
        watched(os._exit, 3, memory=2**40, seconds=60.0, verb="Ending")


# A TPU that is not here

has_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_a_missing_compiler_is_a_sentence():
    with pytest.raises(UsageError, match="libtpu") as error:
        compile_job(replace(job(TUNE), topology="v5e:2x4"))
    assert error.value.hint == 'pip install "lookalike[tpu]"'


@has_libtpu
def test_a_small_tower_on_tpus_that_are_not_here(capfd):
    """Two compilers at once, which say nothing of their own."""
    stage = TuneStage(batch=16, optimizer=RATES, dtype="bfloat16", remat=True, loss=ArcFace(0.3, 16.0))

    def compiled(topology):
        asked = replace(job(stage), topology=topology)
        return watched(compile_job, asked, memory=4 * 2**30, seconds=500.0, verb="Compiling")

    topologies = "v5e:1x1", "v5e:2x4"
    with ThreadPoolExecutor(2) as pool:
        for topology, found in zip(topologies, pool.map(compiled, topologies), strict=True):
            assert found.chips == topology_of(topology).count
            assert found.state / found.chips < found.bytes < found.chip.memory / 10
    assert capfd.readouterr().err == ""


@has_libtpu
def test_what_does_not_fit_is_no_error():
    huge = encoder_of(ViTConfig(32, 8, 8192, 24, 64, 32768, "gelu"))
    found = watched(
        compile_job, replace(job(TUNE, huge), topology="v5e:1x1"), memory=6 * 2**30, seconds=500.0, verb="Compiling"
    )
    assert found.bytes is None or found.bytes > found.chip.memory
