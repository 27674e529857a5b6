"""Training: the whole story. A run is a function of its config; killed, the same command goes on where it stopped."""

import math
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
from lookalike.core.journal import Journal, Progress, note, read_metrics
from lookalike.core.mesh import make_mesh, place, put_batch
from lookalike.encoders.config import TextSide
from lookalike.encoders.directory import read_text
from lookalike.encoders.encoder import Encoder
from lookalike.training.checkpoint import Checkpoints, diverged, opened_run
from lookalike.training.config import HeadConfig, PcaConfig, PixelsConfig, TrainConfig
from lookalike.training.step import Metrics, first_state, make_optimizer, make_step
from lookalike.training.tasks import closed_form, make_task

Evaluate = Callable[[Encoder], Mapping[str, float]]  # given by the command, as training knows no evaluation


def train(config: TrainConfig, evaluate: Evaluate | None = None, *, mesh: Mesh | None = None) -> Encoder:
    """Train as `config` says; go on from `config.out` if it holds a checkpoint, do nothing if it is finished.

    `evaluate` is asked before training (of the encoder as it was given, and of the first values) and after. Devices are
    those of `mesh`, by default of `make_mesh`. Returns the encoder, which is also in `config.out`/model.
    """
    with storage_errors(config.out), opened_run(config) as run:
        if (run / "model").exists():
            note(f"Run `{run}` is finished; its encoder is `{run / 'model'}`.")
            return Encoder.load(run / "model")
        if isinstance(config, PcaConfig):
            untouched, encoder = closed_form(config)
            with Journal(run) as journal:
                _measure(journal, evaluate, 0, "untouched", untouched)
                _measure(journal, evaluate, 0, "trained", encoder)
        else:
            encoder = _fit(config, run, evaluate, mesh or make_mesh())
        encoder.save(run / "model", _card(config, run), _text(config, encoder))
        note(f"The encoder is `{run / 'model'}`.")
    return encoder


def _fit(config: HeadConfig | PixelsConfig, run: Path, evaluate: Evaluate | None, mesh: Mesh) -> Encoder:
    if config.batch % mesh.size:
        raise UsageError(
            f"`--batch` is {config.batch}; expected a multiple of {mesh.size}, as many as there are devices.",
            hint=f"--batch {-(-config.batch // mesh.size) * mesh.size}",
        )
    task = make_task(config)
    optimizer = make_optimizer(config.optimizer, task.steps, task.decays)
    step = make_step(task.objective, optimizer, config.seed)
    state = place(first_state(task.learner, optimizer), mesh)
    with closing(Checkpoints(run, task.facts)) as checkpoints:
        state = checkpoints.latest(state) or state
        start = int(state.step)
        said, drawn = Progress("train", "steps", task.steps, start), closing(task.batches(start))
        before: Metrics = {}
        with Journal(run, start) as journal, said as bar, drawn as batches:
            measure = partial(_measure, journal, evaluate)
            if start == 0:
                measure(0, "untouched", task.untouched)
                measure(0, "start", task.encoder(state.learner))
            try:
                for done in range(start, task.steps):
                    if done and config.evaluate_every and done % config.evaluate_every == 0:
                        measure(done, "trained", task.encoder(state.learner))  # a killed run may lack the last
                    with _whole():
                        state, metrics = step(state, put_batch(next(batches), mesh))
                        _finite(run, done, before)  # looked at while the next step runs
                        before, last = metrics, done + 1 == task.steps
                        if last or (done + 1) % config.log_every == 0:
                            journal.metrics(done + 1, _finite(run, done + 1, metrics))
                        if last or (done + 1) % config.save_every == 0:
                            checkpoints.save(state)
                    bar.advance()
            except KeyboardInterrupt:
                checkpoints.save(state)
                note(f"\nsaved after step {int(state.step)} of {task.steps}")
                raise
            encoder = task.encoder(state.learner)
            measure(task.steps, "trained", encoder)
    return encoder


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


def _measure(journal: Journal, evaluate: Evaluate | None, step: int, which: str, encoder: Encoder) -> None:
    """Score `encoder` as of `step`, unless that was done; `which` is "untouched", "start" or "trained"."""
    done = {(line["step"], line["encoder"]): line for line in read_metrics(journal.path.parent) if "encoder" in line}
    if evaluate is None or (step, which) in done:
        return
    found = {name: float(value) for name, value in evaluate(encoder).items()}
    dimension, words = encoder.config.projection.dimension, ""
    journal.metrics(step, {"encoder": which, "dimension": dimension, **found})
    for name, value in found.items():
        untouched = done.get((0, "untouched"), {}).get(name)
        words += f"  {name} {value:.4f}" + (f" ({value - untouched:+.4f})" if untouched is not None else "")
    note(f"step {step}, {which} ({dimension} numbers):{words[1:]}")


def _card(config: TrainConfig, run: Path) -> dict[str, Any]:
    """How the encoder was made, how it and the untouched one do on split "test", and the card of what it began from."""
    collection, before = read_card(config.data), read_card(config.model) if config.model else None
    card = {
        "name": run.name,
        "recipe": type(config).__name__.removesuffix("Config"),
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
