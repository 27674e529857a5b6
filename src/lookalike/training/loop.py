"""Training: the whole story. A run is a function of its config; killed, the same command goes on where it stopped."""

import math
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from jax.sharding import Mesh

from lookalike.core.errors import UsageError
from lookalike.core.files import read_card, storage_errors
from lookalike.core.journal import Progress, note, read_metrics, record, rewind
from lookalike.core.mesh import make_mesh, place, put_batch
from lookalike.encoders.config import TextSide
from lookalike.encoders.directory import read_text
from lookalike.encoders.encoder import Encoder
from lookalike.training.checkpoint import Checkpoints, diverged, last_stage, opened_run, save_stage
from lookalike.training.config import FitStage, NewStage, StepStage, TrainConfig
from lookalike.training.optimizer import make_optimizer
from lookalike.training.rows import Rows
from lookalike.training.step import Metrics, State, first_state, make_step
from lookalike.training.tasks import Made, begun, closed_form, make_task, rows_of

Evaluate = Callable[[Encoder], Mapping[str, float]]  # given by the command, as training knows no evaluation


def train(
    config: TrainConfig, evaluate: Evaluate | None = None, *, mesh: Mesh | None = None, rows: Rows | None = None
) -> Encoder:
    """Train as `config` says; go on from `config.out` if it holds a checkpoint, do nothing if it is finished.

    `evaluate` is asked before training (of the encoder as it was given, and of the first values) and behind each stage.
    Devices are those of `mesh`, by default of `make_mesh`; `rows` take the place of those that `config` says. Returns
    the encoder, which is also in `config.out`/model.
    """
    with storage_errors(config.out), opened_run(config) as run:
        if (run / "model").exists():
            note(f"Run `{run}` is finished; its encoder is `{run / 'model'}`.")
            return Encoder.load(run / "model")
        rows, untouched = rows_of(config) if rows is None else rows, begun(config)
        done, step, made = 0, 0, untouched
        if kept := last_stage(run):
            done, step, made = kept[0] + 1, kept[1], Made(*kept[2:])
        measure = partial(_measure, run, evaluate)
        if done == 0:
            measure(0, "untouched", untouched.encoder)
        for number in range(done, len(config.stages)):
            stage, name = config.stages[number], config.names[number]
            match stage:
                case NewStage():
                    continue
                case FitStage():
                    made = closed_form(config, stage, rows, made)
                case _:
                    made, step = _fit(
                        config, stage, name, rows, made, untouched, run, step, measure, mesh or make_mesh()
                    )
            measure(step, "trained" if number == len(config.stages) - 1 else name, made.encoder)
            if number < len(config.stages) - 1:
                save_stage(run, number, step, made.encoder, made.centers, made.path)
        made.encoder.save(run / "model", _card(config, run), _text(config, made.encoder))
        for left in ("stages", "copies"):
            shutil.rmtree(run / left, ignore_errors=True)
        note(f"The encoder is `{run / 'model'}`.")
    return made.encoder


def _fit(
    config: TrainConfig,
    stage: StepStage,
    name: str,
    rows: Rows,
    before: Made,
    untouched: Made,
    run: Path,
    offset: int,
    measure: Callable[[int, str, Encoder], None],
    mesh: Mesh,
) -> tuple[Made, int]:
    """What a stage that learns step by step makes, and the run's step behind it; `offset` are those before it."""
    if stage.batch % mesh.size:
        raise UsageError(
            f"`--batch` is {stage.batch}; expected a multiple of {mesh.size}, as many as there are devices.",
            hint=f"--batch {-(-stage.batch // mesh.size) * mesh.size}",
        )
    task = make_task(config, stage, rows, before, untouched, run)
    optimizer = make_optimizer(stage.optimizer, task.steps, task.decays, task.factors)
    step = make_step(task.objective, optimizer, stage, config.seed, task.epoch_steps)
    state = place(first_state(task.learner, optimizer, task.running, averaged=stage.ema > 0), mesh)
    fixed = place(task.fixed, mesh)
    with closing(Checkpoints(run, name, task.facts)) as checkpoints:
        state = checkpoints.latest(state) or state
        start = int(state.step)
        said, drawn = Progress(name, "steps", task.steps, start), closing(task.batches(start))
        before_metrics: Metrics = {}
        rewind(run, offset + start)
        with said as bar, drawn as batches:
            if start == offset == 0:
                measure(0, "start", _made(task, state).encoder)
            try:
                for done in range(start, task.steps):
                    if done and config.evaluate_every and done % config.evaluate_every == 0:
                        which = "trained" if stage is config.stages[-1] else name
                        measure(offset + done, which, _made(task, state).encoder)  # a killed run may lack the last
                    with _whole():
                        state, metrics = step(state, fixed, put_batch(next(batches), mesh))
                        _finite(run, offset + done, before_metrics)  # looked at while the next step runs
                        before_metrics, last = metrics, done + 1 == task.steps
                        if last or (done + 1) % config.log_every == 0:
                            record(run, offset + done + 1, _finite(run, offset + done + 1, metrics))
                        if last or (done + 1) % config.save_every == 0:
                            checkpoints.save(state)
                    bar.advance()
            except KeyboardInterrupt:
                checkpoints.save(state)
                note(f"\nsaved after step {offset + int(state.step)} ({name}: {int(state.step)} of {task.steps})")
                raise
    return _made(task, state), offset + task.steps


def _made(task: Any, state: State) -> Made:
    """What a state is: its running mean, where there is one."""
    made: Made = task.made(state.average or state.learner, state.running)
    return made


def _finite(run: Path, step: int, metrics: Metrics) -> dict[str, float]:
    """The metrics of a step, on the host; RunError where one is not finite."""
    found = {name: float(value) for name, value in metrics.items()}
    if not all(map(math.isfinite, found.values())):
        raise diverged(run, step)
    return found


@contextmanager
def _whole() -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM wait: a step takes over its state's memory, so that half of one can't be saved."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[tuple[int, FrameType | None]] = []
    before = {s: signal.signal(s, lambda *late: arrived.append(late)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
    for number, frame in arrived[:1]:
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        elif handler == signal.SIG_DFL:
            raise KeyboardInterrupt


def _measure(run: Path, evaluate: Evaluate | None, step: int, which: str, encoder: Encoder) -> None:
    """Score `encoder` as of `step`, unless that was done; `which` is "untouched", "start", a stage or "trained"."""
    done = {(line["step"], line["encoder"]): line for line in read_metrics(run) if "encoder" in line}
    if evaluate is None or (step, which) in done:
        return
    found = {name: float(value) for name, value in evaluate(encoder).items()}
    dimension, words = encoder.config.projection.dimension, ""
    record(run, step, {"encoder": which, "dimension": dimension, **found})
    for name, value in found.items():
        untouched = done.get((0, "untouched"), {}).get(name)
        words += f"  {name} {value:.4f}" + (f" ({value - untouched:+.4f})" if untouched is not None else "")
    note(f"step {step}, {which} ({dimension} numbers):{words[1:]}")


def _card(config: TrainConfig, run: Path) -> dict[str, Any]:
    """How the encoder was made, how it and the untouched one do on split "test", and the card of what it began from."""
    collection, before = read_card(config.data), read_card(config.model) if config.model else None
    card = {
        "name": run.name,
        "recipe": config.recipe,
        "data": config.data,
        "images": {
            "rows": collection.get("rows", 0),
            "licences": collection.get("licences", {}),
            "sources": [source["name"] for source in collection.get("sources", ())],
        },
        "metrics": {
            line["encoder"]: {n: v for n, v in line.items() if n not in ("step", "encoder", "dimension")}
            for line in read_metrics(run)
            if line.get("encoder") in ("untouched", "trained")
        },
    }
    if before is not None:
        card |= {n: v for n, v in before.items() if n == "license"} | {"began_from": before}
    return card


def _text(config: TrainConfig, encoder: Encoder) -> TextSide | None:
    """The text side of what was begun from, if it still belongs to the features that the encoder makes."""
    side = read_text(config.model) if config.model else None
    if side is None or side.image == encoder.features_fingerprint:
        return side
    note(f"The text side of `{config.model}` is left out: its texts don't belong to a tower that was trained further.")
    return None
