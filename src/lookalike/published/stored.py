"""The files of a published directory: safetensors read tensor by tensor, and JSON whose values may be of any kind."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.core.files import read_json

INDEX = ".index.json"
"""What follows the name of a file of tensors in that of the index of several that take its place."""


def described_by(path: Path) -> dict[str, Any]:
    """The object in a file of JSON; empty if it holds something else. StorageError if it is no JSON."""
    data = read_json(path)
    return data if isinstance(data, dict) else {}


def part(described: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The object that a config has under `name`; empty if there is none."""
    value = described.get(name)
    return value if isinstance(value, dict) else {}


def shard_names(index: Path) -> list[str]:
    """The files beside an index of sharded tensors that hold them; EncoderError if it does not say so."""
    named = part(described_by(index), "weight_map")
    if not named or not all(isinstance(name, str) and "/" not in name for name in named.values()):
        raise EncoderError(f"`{index}` does not say which files beside it hold the tensors.", hint="get it again")
    return sorted(set(named.values()))


@contextmanager
def understood(path: Path, name: str) -> Iterator[None]:
    """EncoderError for what goes wrong in the block with values of the file `name` in `path`: they may be anything."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise EncoderError(
            f"`{path / name}`, or what describes the preprocessing or the tokens beside it, can't be understood: "
            f"{type(error).__name__}, {error}.",
            hint="get them again from where the model comes from",
        ) from error


class Published:
    """The safetensors of a directory, one file or several with an index, read tensor by tensor."""

    def __init__(self, path: Path, name: str, renamed: Sequence[tuple[str, str]] = ()) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = path
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._where: dict[str, tuple[Any, str, str]] = {}
        several = (path / f"{name}{INDEX}").exists() and not (path / name).exists()
        for file_name in shard_names(path / f"{name}{INDEX}") if several else [name]:
            try:
                file = safe_open(path / file_name, "np")
            except (SafetensorError, FileNotFoundError) as error:
                raise EncoderError(f"`{path / file_name}` can't be read: {error}.", hint="get it again") from error
            for stored in file.keys():  # noqa: SIM118  not a dict
                piece, key = file.get_slice(stored), stored
                for theirs, ours in renamed:
                    key = key.replace(theirs, ours)
                self.shapes[key], self._where[key] = tuple(piece.get_shape()), (file, stored, piece.get_dtype())

    def get(self, name: str) -> np.ndarray:
        """One tensor as float32."""
        file, stored, dtype = self._where[name]
        if dtype not in ("F32", "F16", "BF16"):
            raise EncoderError(f"Tensor `{name}` of `{self.path}` is {dtype}; expected F32, F16 or BF16.")
        if dtype == "BF16":
            import ml_dtypes  # noqa: F401  NumPy does not know the dtype before
        array: np.ndarray = file.get_tensor(stored).astype(np.float32)
        return array
