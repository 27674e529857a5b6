"""A run's directory: opened once, locked while it is written, its checkpoints whole or absent.

RUN/config.json     the resolved config, which a later command must repeat
RUN/metrics.jsonl   the journal
RUN/checkpoints/    the last two states (Orbax)
RUN/model/          the finished encoder
"""

import errno
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os.path import realpath
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from lookalike.core.config import from_json, to_json
from lookalike.core.errors import RunError
from lookalike.core.files import locked, new_directory, read_json, refuse_unless, write_json
from lookalike.training.config import TrainConfig
from lookalike.training.state import State

KEPT = 2
_AROUND = 128 << 10  # bytes that Orbax writes beside the numbers, and more

Facts = dict[str, int | str]
"""What the data and the model were, by which a checkpoint tells that they still are."""


@contextmanager
def opened_run(config: TrainConfig) -> Iterator[Path]:
    """The directory `config.out`, made or found again, and held alone.

    Raises:
        StorageError: Something else lies there, or another process is training in it.
        RunError: The run there was started with another config.
    """
    out = Path(config.out)
    if refuse_unless(out, ("missing", "empty", "run"), "run") != "run":
        with new_directory(out, "run") as directory:
            write_json(directory / "config.json", to_json(config))
            (directory / "metrics.jsonl").touch()
    with locked(out, "train"):
        if _begun(out):
            _same(out, read_json(out / "config.json"), config)
        else:  # what was refused before its first step may be asked again in other words
            write_json(out / "config.json", to_json(config))
        yield out


class Checkpoints:
    """Saves and restores states below `directory`; the last two are kept."""

    def __init__(self, directory: Path, facts: Facts) -> None:
        import orbax.checkpoint as ocp  # takes a second; a closed form does not need it

        self._ocp, self._run, self._facts = ocp, directory, facts
        options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager((directory / "checkpoints").absolute(), options=options)

    def save(self, state: State) -> None:
        """Write `state` unless its step is there already; a killed write leaves no checkpoint.

        Raises:
            RunError: A number in it is not finite; the states saved before stay.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        if not _finite(state):
            raise diverged(self._run, step)
        items = self._ocp.args.Composite(
            state=self._ocp.args.StandardSave(state), facts=self._ocp.args.JsonSave(self._facts)
        )
        # Asked first, as Orbax meets a full disk in each of its threads, loudly, and without the errno that tells it.
        if shutil.disk_usage(self._run).free < sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + _AROUND:
            raise OSError(errno.ENOSPC, "no room for a checkpoint")
        self._manager.save(step, args=items, force=True)

    def latest(self, like: State) -> State | None:
        """The last state saved that is finite, placed as `like` is; None if there is none.

        Raises:
            RunError: It was saved for other data or another model.
        """
        args = self._ocp.args
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        for step in sorted(self._manager.all_steps(), reverse=True):
            self._same_facts(self._manager.restore(step, args=args.Composite(facts=args.JsonRestore()))["facts"])
            items = args.Composite(state=args.StandardRestore(shapes))
            restored: State = self._manager.restore(step, args=items)["state"]
            if _finite(restored):
                return restored
            self._manager.delete(step)  # versions before saved what had diverged
        return None

    def close(self) -> None:
        """Let go of Orbax's threads."""
        self._manager.close()

    def _same_facts(self, saved: Mapping[str, Any]) -> None:
        for name, value in self._facts.items():
            if saved.get(name) != value:
                raise RunError(
                    f"Run `{self._run}` was saved with {name} {saved.get(name)}, and now it is {value}.",
                    hint="train into another `--out`, or give back what this run began with",
                )


def _finite(state: State) -> bool:
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state))


def diverged(run: Path, step: int) -> RunError:
    """What is said of a run whose numbers are no longer finite."""
    return RunError(
        f"Training diverged: behind step {step} the loss or a weight is not finite. Nothing of it is saved in `{run}`.",
        hint="`--out ANOTHER` with a lower `--optimizer.learning-rate`, or with `--optimizer.clip 1`, starts again",
    )


def _begun(out: Path) -> bool:
    """Whether anything in `out` follows from its config: metrics, a checkpoint, the encoder."""
    return _saved(out) or (out / "model").exists() or (out / "metrics.jsonl").stat().st_size > 0


def _saved(out: Path) -> bool:
    """Whether there is a checkpoint; a killed write's scraps have no number for a name."""
    checkpoints = out / "checkpoints"
    return checkpoints.is_dir() and any(path.name.isdigit() for path in checkpoints.iterdir())


def _same(out: Path, saved: dict[str, Any], config: TrainConfig) -> None:
    """RunError, naming the first field that differs from what was `saved`, in the words of whichever version.

    Where the run lies may differ, as directories get moved; so may the paths of its data and its model, if they lead
    to the same place, or if there is a checkpoint whose facts tell that what lies there is the same.
    """
    told = saved.get("type") == type(config).__name__
    before, now = _leaves(to_json(from_json(type(config), saved)) if told else saved), _leaves(to_json(config))
    resumed = _saved(out) and not (out / "model").exists()
    for name in [*now, *(name for name in before if name not in now)]:
        was, asked = before.get(name), now.get(name)
        moved = name in ("data", "model") and was and asked and (resumed or realpath(was) == realpath(asked))
        if name != "out" and was != asked and not moved:
            raise RunError(
                f"Run `{out}` was started with {name} {was!r}, and this command says {asked!r}.",
                hint="`--out ANOTHER` starts a new run; the first command given again goes on with this one",
            )


def _leaves(tree: Any, before: str = "") -> dict[str, Any]:
    """The values of a JSON tree by dotted name."""
    if not isinstance(tree, dict):
        return {before: tree}
    return {
        name: leaf for key, item in tree.items() for name, leaf in _leaves(item, f"{before}.{key}".lstrip(".")).items()
    }
