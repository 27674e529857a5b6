"""The steps of a stage: resumed, looked at, saved and measured on the way."""

import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import jax
from jax.sharding import Mesh

from lookalike.core.journal import Progress, note, said_if_slow
from lookalike.core.mesh import born, put, put_batch, whole
from lookalike.data.sampling import share
from lookalike.losses import Pairs
from lookalike.training.checkpoint import Checkpoints, diverged
from lookalike.training.config import StepStage, TrainConfig
from lookalike.training.measuring import Measuring
from lookalike.training.step import Batch, Metrics, State, first_state
from lookalike.training.tasks import Made, Task


def take_steps(
    config: TrainConfig, stage: StepStage, name: str, task: Task, measuring: Measuring, offset: int, mesh: Mesh
) -> tuple[Made, int]:
    """What a stage makes, and the run's step behind it; `offset` are the steps before it."""
    first = partial(first_state, optimizer=task.optimizer, averaged=stage.ema > 0)
    given = put((task.learner, task.running), mesh, task.stacked)
    state, places = born(lambda learner, running: first(learner, running=running), mesh, task.stacked, *given)
    del given
    task = replace(task, fixed=put(task.fixed, mesh, task.stacked))
    step = jax.jit(task.step, donate_argnums=0, out_shardings=(places, None))
    parts, run = getattr(stage, "accumulate", 1), measuring.run
    items = share(stage.batch, parts, mesh.size, jax.process_index(), jax.process_count())
    with closing(Checkpoints(run, name, task.facts)) as checkpoints:
        state = checkpoints.latest(state) or state
        start = int(state.step)
        measuring.rewind(offset + start)
        guard = Guard(config, name, task, measuring, offset)
        bar, drawn = Progress(name, "steps", task.steps, start), closing(task.batches(start, items))
        with closing(guard), bar, drawn as batches:
            guard.begin(state)
            pace, before = Pace(stage.batch, bar), dict[str, jax.Array]()
            try:
                for done in range(start, task.steps):
                    if config.evaluate_every and done and done % config.evaluate_every == 0:
                        if guard.is_worse(state):
                            return guard.best(state), offset + done
                        pace.rest()
                    compiles = said_if_slow(f"{name}: compiling the step") if done == start else nullcontext()
                    with _whole(), compiles:
                        batch = put_batch(pace.draw(batches, before), mesh, axis=int(parts > 1))
                        state, metrics = step(state, task.fixed, batch)
                        pace.count()
                        found = _finite(run, offset + done, before)  # looked at while the next step runs
                        before, last = metrics, done + 1 == task.steps
                        if last or (done + 1) % config.log_every == 0:
                            found = _finite(run, offset + done + 1, metrics)
                            measuring.record(offset + done + 1, found | pace.lap())
                        if last or (done + 1) % config.save_every == 0:
                            checkpoints.save(state)
                    bar.said = _words(stage, found, pace)
                    bar.advance()
            except KeyboardInterrupt:
                if jax.process_count() > 1:  # the others may be at another step, and all of them save, or none
                    raise
                checkpoints.save(state)
                checkpoints.wait()
                note(f"\nsaved after step {offset + int(state.step)} ({name}: {int(state.step)} of {task.steps})")
                raise
            if config.stop_if_worse and guard.is_worse(state):
                return guard.best(state), offset + task.steps
    return made(task, state), offset + task.steps


def made(task: Task, state: State) -> Made:
    """What a state is: its running mean, where there is one."""
    return task.made(*whole((state.average or state.learner, state.running, task.fixed)))


class Guard:
    """Measures a stage on its way, and with `stop_if_worse` keeps the state that did best."""

    def __init__(self, config: TrainConfig, name: str, task: Task, measuring: Measuring, offset: int) -> None:
        self._name, self._task, self._measuring, self._offset = name, task, measuring, offset
        self._kept = Checkpoints(measuring.run, f"{name}-best", task.facts, 1) if config.stop_if_worse else None
        self.close = self._kept.close if self._kept else lambda: None

    def begin(self, state: State) -> None:
        """Measure the first values of a run; of each stage, where one may end at them."""
        if int(state.step) == 0 and (self._offset == 0 or self._kept):
            self._measuring.measure(self._offset, "start", made(self._task, state).encoder)
            self._keep(state)

    def is_worse(self, state: State) -> bool:
        """Measure `state`, which a killed run may have done; whether the stage ends as it is below the untouched."""
        step = self._offset + int(state.step)
        self._measuring.measure(step, self._name, made(self._task, state).encoder)
        if self._kept is None:
            return False
        metric, value = self._measuring.score(step, self._name)
        (_, untouched), (_, start) = self._measuring.score(0, "untouched"), self._measuring.score(self._offset, "start")
        best = self._measuring.best(self._offset, step, self._name)
        if best == step:
            self._keep(state)
        if value >= min(untouched, start):  # few numbers may begin below the many of the untouched encoder
            return False
        note(
            f"step {step}: {metric} is {value:.4f}, below the untouched encoder's {untouched:.4f} and the {start:.4f} "
            f"of the stage's start, so stage `{self._name}` ends; what it makes are its weights of step {best}, "
            "its best."
        )
        return True

    def best(self, like: State) -> Made:
        """What the best measured state is; that of `like`, if it is this one."""
        assert self._kept is not None
        found = self._kept.latest(like)
        assert found is not None
        return made(self._task, found)

    def _keep(self, state: State) -> None:
        if self._kept is not None:
            self._kept.save(state)
            self._kept.wait()  # before the step's own checkpoint, behind which nothing is measured again


class Pace:
    """How fast steps go, and how much of the time the device waits for batches."""

    def __init__(self, batch: int, bar: Progress) -> None:
        self._batch, self._bar, self._compiled = batch, bar, False
        self.last: dict[str, float] = {}  # what the last lap found
        self.rest()

    def rest(self) -> None:
        """Begin to count anew, as something else was done; so does the line of progress."""
        self._bar.restart()
        self._lap()

    def draw(self, batches: Iterator[Batch], before: Mapping[str, Any]) -> Batch:
        """The next batch. The device waited for it if it had done the step `before` when the batch came."""
        begun = time.monotonic()
        batch = next(batches)
        if all(value.is_ready() for value in before.values()):
            self._waited += time.monotonic() - begun
        return batch

    def count(self) -> None:
        """A step was begun; the first one is compiled, which says nothing of the others."""
        self._steps += 1
        if not self._compiled:
            self._compiled = True
            self.rest()

    def lap(self) -> dict[str, float]:
        """Images a second, and the share of time waited, since the last lap; without a step what that one found."""
        if self._steps:
            seconds = max(time.monotonic() - self._begun, 1e-9)
            images, waited = self._steps * self._batch / seconds, min(self._waited / seconds, 1.0)
            self.last = {"images_per_second": round(images, 1), "waiting": round(waited, 4)}
        self._lap()
        return self.last

    def _lap(self) -> None:
        self._begun, self._steps, self._waited = time.monotonic(), 0, 0.0


def _words(stage: StepStage, found: dict[str, float], pace: Pace) -> str:
    """What the line of progress says of the last step that was looked at."""
    words = [f"loss {found['loss']:.4f}"] if found else []
    if found and not isinstance(stage.loss, Pairs):
        angle = math.degrees(math.acos(max(-1.0, min(1.0, found["cosine"]))))
        words.append(f"{angle:.1f} degrees to the own center")
    if pace.last:
        words += [f"{pace.last['images_per_second']:,.0f} images/s", f"waits {pace.last['waiting']:.0%}"]
    return ", ".join(words)


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
