"""Numbers of a run, streamed to TensorBoard or to Weights & Biases, where a run asks for that."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from lookalike.core.config import to_json
from lookalike.core.errors import UsageError
from lookalike.core.files import fingerprint, write_bytes
from lookalike.training.config import TrainConfig

Track = Callable[[int, Mapping[str, float | int | str]], None]  # step, values; words among them are left out


@contextmanager
def tracked(config: TrainConfig, run: Path) -> Iterator[Track]:
    """What tells the tracker of `config` the numbers of `run`; nobody, where there is none.

    UsageError if its library is not there.
    """
    match config.track:
        case "tensorboard":
            writer = _library("tensorboard", "tensorboard.summary").Writer(str(run / "tensorboard"))
            try:
                yield lambda step, values: _add(writer, step, values)
            finally:
                writer.close()
        case "wandb":
            with _library("wandb", "wandb").init(
                project="lookalike",
                name=run.name,
                dir=str(run),
                id=_identity(run),
                resume="allow",
                config=to_json(config),
            ) as session:
                yield lambda step, values: session.log(_named(values), step=step)
        case _:
            yield lambda _step, _values: None


def _library(name: str, module: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != name:
            raise
        raise UsageError(
            f"`--track {name}` needs the library `{name}`, and it is not installed.",
            hint="`pip install 'lookalike[track]'`, or leave `--track` out: `metrics.jsonl` has the same numbers",
        ) from None


def _named(values: Mapping[str, float | int | str]) -> dict[str, float]:
    """The numbers among `values`; those of a measurement below the word for the encoder that was measured."""
    before = f"{values['encoder']}/" if "encoder" in values else "train/"
    return {before + name: float(value) for name, value in values.items() if not isinstance(value, str)}


def _add(writer: Any, step: int, values: Mapping[str, float | int | str]) -> None:
    for name, value in _named(values).items():
        writer.add_scalar(name, value, step)
    writer.flush()  # a killed run keeps what it said


def _identity(run: Path) -> str:
    """The run's id at the tracker: drawn once, so that a run that goes on is the same one there."""
    path = run / "wandb.id"
    if not path.exists():
        import secrets

        write_bytes(path, fingerprint(secrets.token_bytes(16))[:16].encode())
    return path.read_text()
