"""Graphs of model directories, kept in the user's cache, so that a second start neither builds nor hashes anything.

    $XDG_CACHE_HOME/lookalike/<key>/known.json    the two fingerprints of the directory, and the precision of the graph
                                   tower.onnx    its graph
                                   tower.bin     its weights, which the runtime maps into memory

The key changes with the model's files (place, size, times) and with the code that builds graphs. Nothing here is
needed: what is deleted is made again.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lookalike.core.errors import StorageError
from lookalike.core.files import clear_partial, fingerprint, new_directory
from lookalike.core.journal import note
from lookalike.encoders.config import EncoderConfig, below
from lookalike.encoders.directory import features_fingerprint_of, fingerprint_of
from lookalike.towers.text import TextConfig
from lookalike.vectors.precision import LEAST_COSINE, lowest_cosine

if TYPE_CHECKING:
    import onnx

MOST_BYTES = 4 * 2**30
"""What the cache may hold besides the newest graph; beyond that the least recently used go."""

_BUILDER = Path(__file__).parents[1] / "towers"


@dataclass(frozen=True)
class Known:
    """The fingerprints of an encoder."""

    fingerprint: str
    """Of all of it, 64 hex digits."""
    features_fingerprint: str
    """Of what makes the features, 64 hex digits."""
    cosine: float | None = None
    """Lowest cosine of the graph's features with those in float32, where it runs in eight bits; None: it is float32."""


def find(model: str | Path, int8: bool) -> tuple[Known, Path] | None:
    """What is known of the model directory `model`, and its graph; None if nothing is, or the files have changed.

    Args:
        model: A model directory.
        int8: Whether the graph may run in eight bits.
    """
    try:
        entry = _entry(Path(model), int8)
        known = Known(**json.loads((entry / "known.json").read_text()))
    except OSError:
        return None
    except (ValueError, TypeError):  # damaged by the disk, and so perhaps its graph
        shutil.rmtree(entry, ignore_errors=True)
        return None
    with contextlib.suppress(OSError):  # a cache that can't be written serves as well
        os.utime(entry)  # pruning goes by the last use
    return known, entry / "tower.onnx"


def graph_of(model: str | Path, int8: bool, make: Callable[[Path], Known]) -> tuple[Known, Path, bool]:
    """The graph of the model directory `model`: kept, or made now and kept.

    Args:
        model: A model directory, or its text side.
        int8: Whether the graph may run in eight bits.
        make: Writes it into a directory, and says what is known of it then.

    Returns:
        What is known of it, its file, and whether that is temporary: of a cache that can't be written, with a word on
        stderr.
    """
    if found := find(model, int8):
        return *found, False
    try:
        entry = _entry(Path(model), int8)
        if entry.exists() and not (entry / "known.json").exists():  # half deleted
            shutil.rmtree(entry, ignore_errors=True)
        with new_directory(entry, "graph") as directory:
            known = make(directory)
            (directory / "known.json").write_text(json.dumps(asdict(known)))
    except (OSError, StorageError) as error:
        if found := find(model, int8):  # another process was quicker, with the same content
            return *found, False
        directory = Path(tempfile.mkdtemp(prefix="lookalike-"))
        known = make(directory)  # what is wrong with the model is said by this, and first
        note(f"the graph of `{model}` is not kept for the next time: {getattr(error, 'message', error)}")
        return known, directory / "tower.onnx", True
    _prune(entry)
    return known, entry / "tower.onnx", False


def fill(directory: Path, config: EncoderConfig, tensors: Mapping[str, np.ndarray], int8: bool) -> Known:
    """Write the tower's graph into `directory`, in eight bits if `int8` and close enough; what is known of it then."""
    known = Known(fingerprint_of(config, tensors), features_fingerprint_of(config, tensors))
    write_graph(directory, config, tensors)
    return replace(known, cosine=_shortened(directory, config, tensors)) if int8 else known


def _shortened(directory: Path, config: EncoderConfig, tensors: Mapping[str, np.ndarray]) -> float | None:
    """Put the eight-bit graph in the place of the one in `directory` if it is close enough; returns how close it is."""
    with tempfile.TemporaryDirectory(dir=directory) as other:
        graph = write_graph(Path(other), config, tensors, int8=True)
        if b"MatMulInteger" not in graph.read_bytes():  # no product of this tower is large
            return None
        cosine = lowest_cosine(directory / "tower.onnx", graph, config.preprocess.size, config.tower.features)
        if cosine < LEAST_COSINE:
            return None
        for file in Path(other).iterdir():
            file.replace(directory / file.name)
    return cosine


def write_graph(directory: Path, config: EncoderConfig, tensors: Mapping[str, np.ndarray], int8: bool = False) -> Path:
    """Write the tower's graph into `directory`; returns the path of `tower.onnx`."""
    # This brings the onnx library: a third of a second that a later start does not spend.
    from lookalike.towers.programs.onnx import build

    graph = build(config.tower, config.pooling, config.preprocess, below("tower", tensors), int8)
    return _write(directory, graph)


def write_text_graph(directory: Path, config: TextConfig, tensors: Mapping[str, np.ndarray]) -> Path:
    """Write the text tower's graph into `directory`; returns the path of `tower.onnx`."""
    from lookalike.towers.programs.onnx import build_text

    return _write(directory, build_text(config, tensors))


def _write(directory: Path, model: "onnx.ModelProto") -> Path:
    """The graph, and its weights in a file of their own: a message of the format holds 2 GB at most."""
    from lookalike.towers.programs.graph import move_weights

    path = directory / "tower.onnx"
    move_weights(model, directory / "tower.bin")
    path.write_bytes(model.SerializeToString())
    return path


def _entry(model: Path, int8: bool) -> Path:
    """Where the graph of the directory `model` is kept; OSError if it has no model files."""
    stamps = [os.fspath(model.resolve()), "int8" if int8 else "float32"]
    for name in ("config.json", "model.safetensors"):
        stat = (model / name).stat()
        stamps.append(f"{stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}")
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:  # a user without an entry in passwd, as in containers
        raise FileNotFoundError("this user has no home directory, and XDG_CACHE_HOME is not set") from error
    code = (file.read_bytes() for file in sorted(_BUILDER.rglob("*.py")))
    return Path(home) / "lookalike" / fingerprint(*code, *stamps)[:32]


def _prune(newest: Path) -> None:
    """Delete what killed writers left, and the least recently used entries beyond `MOST_BYTES`.

    Programs that have mapped a deleted file keep it. What another process deletes meanwhile is no concern.
    """
    held = 0
    with contextlib.suppress(OSError):
        clear_partial(newest.parent)
        entries = [e for e in newest.parent.iterdir() if e != newest and not e.name.startswith(".")]
        for entry in sorted(entries, key=lambda e: e.stat().st_mtime, reverse=True):
            held += sum(file.stat().st_size for file in entry.iterdir())
            if held > MOST_BYTES:
                shutil.rmtree(entry, ignore_errors=True)
