"""A run's directory: opened once, locked while it is written, its checkpoints whole or absent.

RUN/config.json         the resolved config, which a later command must repeat
RUN/facts.json          what its data and its model were when it began, which a later command must find again
RUN/metrics.jsonl       the journal
RUN/checkpoints/NAME/   the last two states of the stage that is running (Orbax)
RUN/stages/             what the last finished stage left, until the run is: an encoder, centers
RUN/copies/             features or maps of augmented copies, until the run is finished
RUN/model/              the finished encoder
"""

import errno
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os.path import realpath
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from safetensors.numpy import load_file, save_file

from lookalike.core.config import from_json, to_json
from lookalike.core.errors import RunError
from lookalike.core.files import kind_of, locked, new_directory, read_json, refuse_unless, write_json
from lookalike.core.journal import mend, rewind
from lookalike.core.mesh import from_first, in_turn, is_first, on_host
from lookalike.encoders.directory import read_model
from lookalike.encoders.encoder import Encoder
from lookalike.training.config import BestConfig, TrainConfig
from lookalike.training.step import State

KEPT = 2
_AROUND = 128 << 10  # bytes that Orbax writes beside the numbers, and more
Facts = dict[str, int | str]  # what the data and the model were, by which a checkpoint tells that they still are


@contextmanager
def opened_run(config: TrainConfig) -> Iterator[Path]:
    """The directory `config.out`, made or found again, and held alone.

    StorageError: something else lies there, or another process trains in it. RunError: it has another config. Of the
    processes of one run the first opens it, the others then read what is there.
    """
    out = Path(config.out)
    if not is_first():
        with in_turn():
            yield out
        return
    if refuse_unless(out, ("missing", "empty", "run"), "run") != "run":
        with new_directory(out, "run") as directory:
            write_json(directory / "config.json", to_json(config))
            (directory / "metrics.jsonl").touch()
    with locked(out, "train"):
        mend(out)
        if has_begun(out):
            same_run(config, out, resumed=_keeps(out) and not (out / "model").exists())
        else:  # what was refused before its first step may be asked again in other words
            write_json(out / "config.json", to_json(config))
        with in_turn():
            pass
        yield out


def has_begun(out: Path) -> bool:
    """Whether `out` is a run that has taken a step, or measured something: it takes no other config."""
    return kind_of(out) == "run" and (
        _keeps(out) or (out / "model").exists() or (out / "metrics.jsonl").stat().st_size > 0
    )


def _keeps(out: Path) -> bool:
    """Whether something that was made of data and model is kept in an unfinished run."""
    places = [*(out / "checkpoints").glob("*/*"), *(out / "stages").glob("*")]
    return any(path.name.isdigit() for path in places) or (out / "trials").exists()  # scraps of a killed write are not


def hold_to(out: Path, facts: Facts) -> None:
    """RunError if the run `out` keeps something that it made of other data or another model than those of `facts`.

    Of a run that keeps nothing what was measured is forgotten then: it is begun anew.
    """
    if not is_first():
        return
    file = out / "facts.json"
    saved = read_json(file) if file.exists() else facts  # versions before wrote none
    if saved != facts:
        if _keeps(out):
            _refuse_other(out, saved, facts)
        rewind(out, -1)
    write_json(file, facts)


def _refuse_other(out: Path, saved: Mapping[str, Any], facts: Facts) -> None:
    """RunError, naming the first fact that is no longer what was saved."""
    for name, value in facts.items():
        if saved.get(name) != value:
            raise RunError(
                f"Run `{out}` was saved with {name} {saved.get(name)}, and now it is {value}.",
                hint="train into another `--out`, or give back what this run began with",
            )


def same_run(config: TrainConfig, out: Path, resumed: bool) -> None:
    """RunError, naming the first field that differs from what was saved, in the words of whichever version.

    Device and tracker may differ, and where the run lies, as directories get moved; so may the paths of its
    collections and its model, if they lead to the same place, or if the run is `resumed`, whose facts tell that what
    lies there is the same.
    """
    saved = read_json(out / "config.json")
    if saved.get("type") != type(config).__name__:
        known = saved.get("type") in (TrainConfig.__name__, BestConfig.__name__)
        began = f"with recipe `{saved.get('recipe')}`" if known else "by a version whose recipes had no stages"
        said = f", and this command says `{config.recipe}`" if known else ""
        raise RunError(f"Run `{out}` was started {began}{said}.", hint="`--out ANOTHER` starts a new run")
    begun: TrainConfig = from_json(type(config), saved)
    if begun.names != config.names:
        names = (", ".join(each.names) or "none" for each in (begun, config))
        raise RunError(
            "Run `{}` was started with stages {}, and this command says {}.".format(out, *names),
            hint="`--out ANOTHER` starts a new run",
        )
    for name, was, asked in _changes(_named(begun), _named(config)):
        moved = (
            name in ("data", "model", "unlabelled") and was and asked and (resumed or realpath(was) == realpath(asked))
        )
        if name not in ("out", "device", "track") and not moved:
            raise RunError(
                f"Run `{out}` was started with {name} {was!r}, and this command says {asked!r}.",
                hint="`--out ANOTHER` starts a new run; the first command given again goes on with this one",
            )


def _named(config: TrainConfig) -> dict[str, Any]:
    """As JSON, each stage below its name."""
    found = to_json(config)
    return found | dict(zip(config.names, found.pop("stages"), strict=True))


def _changes(was: Any, asked: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted name and both values of all in which two JSON trees differ."""
    if isinstance(was, dict) and isinstance(asked, dict):
        for key in {**asked, **was}:
            yield from _changes(was.get(key), asked.get(key), f"{name}.{key}".lstrip("."))
    elif was != asked:
        yield name, was, asked


class Checkpoints:
    """Saves and restores states of a stage of the run in `directory`, the last `kept` of them.

    A save is written behind the steps that follow it. What goes wrong there is raised by the next `save`, `wait` or
    `close`; a state whose write was cut off was never there. Of several processes the first one writes and reads, and
    all must ask for it.
    """

    def __init__(self, directory: Path, stage: str, facts: Facts, kept: int = KEPT) -> None:
        import orbax.checkpoint as ocp  # takes a second; a closed form does not need it

        self._args, self._run, self._facts = ocp.args, directory, facts
        self._manager: Any = None
        self.wait = self.close = lambda: None
        if not is_first():
            return
        place = (directory / "checkpoints" / stage).absolute()
        place.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=kept,
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,
            create=False,
            multiprocessing_options=ocp.options.MultiprocessingOptions(active_processes={0}),
        )
        self._manager = ocp.CheckpointManager(place, options=options)
        logging.getLogger("absl").addFilter(_no_failures_of_orbax)  # once, however often it is added
        self.wait, self.close = self._manager.wait_until_finished, self._manager.close

    def save(self, state: State) -> None:
        """Begin to write `state`, whole or not at all, unless its step is there; RunError if it is not finite.

        It is copied first, as the next step takes over its memory. A write that is still going on is waited for.
        """
        step = int(state.step)
        if jax.process_count() == 1 and step in self._manager.all_steps():
            return
        copy = jax.tree.map(on_host, state)
        if self._manager is None or step in self._manager.all_steps():
            return
        if not _finite(copy):
            raise diverged(self._run, step)
        self.wait()
        # Asked first, as Orbax meets a full disk in each of its threads, loudly, and without the errno that tells it.
        if shutil.disk_usage(self._run).free < sum(leaf.nbytes for leaf in jax.tree.leaves(copy)) + _AROUND:
            raise OSError(errno.ENOSPC, "no room for a checkpoint")
        items = {"state": self._args.StandardSave(copy), "facts": self._args.JsonSave(self._facts)}
        self._manager.save(step, args=self._args.Composite(**items), force=True)

    def latest(self, like: State) -> State | None:
        """The last finite state, placed as `like` is, or None; RunError if it is of other data or another model."""
        if jax.process_count() > 1:
            return from_first(self._latest(jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)), like)
        return self._latest(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like))

    def _latest(self, shapes: Any) -> State | None:
        for step in sorted(self._manager.all_steps() if self._manager else (), reverse=True):
            saved = self._restore(step, facts=self._args.JsonRestore())
            _refuse_other(self._run, saved, self._facts)
            restored: State = self._restore(step, state=self._args.StandardRestore(shapes))
            if _finite(restored):
                return restored
            self._manager.delete(step)  # versions before saved what had diverged
        return None

    def _restore(self, step: int, **item: Any) -> Any:
        return self._manager.restore(step, args=self._args.Composite(**item))[next(iter(item))]


def _no_failures_of_orbax(record: logging.LogRecord) -> bool:
    """Whether something else is logged: Orbax writes the traceback of an error in each thread that it passes through.

    It is raised too, and told as a sentence.
    """
    return "orbax" not in record.pathname or record.exc_info is None


def save_stage(run: Path, number: int, step: int, encoder: Encoder, centers: Array | None, path: str) -> None:
    """Keep what stage `number` left, in place of what the one before it left; `path` as in `Made`."""
    with new_directory(run / "stages" / str(number), "stage") as directory:
        encoder.save(directory / "model")
        if centers is not None:
            save_file({"centers.weight": np.asarray(centers)}, directory / "centers.safetensors")
        write_json(directory / "stage.json", {"step": step, "path": path})
    shutil.rmtree(run / "stages" / str(number - 1), ignore_errors=True)
    shutil.rmtree(run / "checkpoints", ignore_errors=True)


def last_stage(run: Path) -> tuple[int, int, Encoder, Array | None, str] | None:
    """Number of the last finished stage, and what was kept of it; None if none is finished."""
    numbers = [int(found.name) for found in (run / "stages").glob("*") if found.name.isdigit()]
    if not numbers:
        return None
    directory = run / "stages" / str(max(numbers))
    kept, file = read_json(directory / "stage.json"), directory / "centers.safetensors"
    centers = jnp.asarray(load_file(file)["centers.weight"]) if file.exists() else None
    return max(numbers), kept["step"], Encoder(*read_model(directory / "model")), centers, kept["path"]


def clear(run: Path, *names: str) -> None:
    """Remove these directories of a run, as far as they are there; the first process does."""
    for name in names if is_first() else ():
        shutil.rmtree(run / name, ignore_errors=True)


def _finite(state: State) -> bool:
    # On the host, where a checkpoint goes anyway: in JAX a program for each shape would be compiled, for seconds.
    return all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(state))


def diverged(run: Path, step: int) -> RunError:
    """What is said of a run whose numbers are no longer finite."""
    return RunError(
        f"Training diverged: behind step {step} the loss or a weight is not finite. Nothing of it is saved in `{run}`.",
        hint="`--out ANOTHER` with a lower `--optimizer.learning-rate`, or with `--optimizer.clip 1`, starts again",
    )
