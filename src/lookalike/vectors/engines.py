"""What computes features: ONNX Runtime on the CPU, by graphs of model directories that are kept, or JAX.

    $XDG_CACHE_HOME/lookalike/<key>/known.json    the two fingerprints of the directory, and the precision of the graph
                                   tower.onnx    its graph
                                   tower.bin     its weights, which the runtime maps into memory

A second start neither builds nor hashes anything. The key changes with the model's files (place, size, times) and with
the code that builds graphs. Nothing here is needed: what is deleted is made again.
"""

import contextlib
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, UInt8

from lookalike.core.errors import StorageError
from lookalike.core.files import clear_partial, fingerprint, new_directory, user_cache
from lookalike.core.journal import note, said_if_slow
from lookalike.core.machine import cores, onnx_session
from lookalike.encoders.config import EncoderConfig, below
from lookalike.encoders.directory import features_fingerprint_of, fingerprint_of
from lookalike.towers.text import TextConfig

MOST_BYTES = 4 * 2**30  # of graphs besides the newest; beyond that the least recently used go
LEAST_COSINE = 0.999  # of features of an eight-bit graph with those in float32, on every drawn image
COUNT = 8  # images that are compared: enough to meet a tower that eight bits can't hold, few enough for a large one
_BUILDER = Path(__file__).parents[1] / "towers"

Dtype = Literal["float32", "bfloat16"]
Items = Sequence[np.ndarray] | np.ndarray  # images that `Preprocess` made, or the ids of texts
Features = Float32[np.ndarray, "B F"]


class OnnxEngine:
    """ONNX Runtime on the CPU: one item at a time on every core.

    Measured on two cores against two threads inside one call: the same arithmetic without waiting for each other, and
    its working set stays in the cache. An item's numbers do not depend on those beside it, nor on the number of cores.
    """

    name: Literal["onnx", "jax"] = "onnx"
    dtype: Dtype = "float32"  # a graph may round to eight bits further
    compiles = 0  # programs, so far; stays the same from batch to batch

    def __init__(self, graph: Path, width: int, *, batch: int, temporary: bool = False) -> None:
        """A graph file and the width F of its features; a `temporary` graph's directory goes with the engine."""
        self.batch, self._width = batch, width
        self._session = cache(partial(onnx_session, graph))
        if temporary:
            weakref.finalize(self, shutil.rmtree, graph.parent, ignore_errors=True)

    def features(self, items: Items) -> Features:
        """The features of every item, given to the graph by itself."""
        features = np.empty((len(items), self._width), np.float32)
        few = len(items) < cores()
        session = self._session(cores() if few else 1)
        name = session.get_inputs()[0].name

        def run(i: int) -> None:
            (features[i : i + 1],) = session.run(None, {name: np.ascontiguousarray(items[i][None])})

        with ThreadPoolExecutor(1 if few else cores()) as pool:  # few: all cores work on one item after the other
            list(pool.map(run, range(len(items))))
        return features

    def rest(self) -> None:
        """Nothing: its weights are mapped from a file."""


class JaxEngine:
    """JAX on whatever devices it has: one program for one fixed shape, items and batches filled up with zeros."""

    name: Literal["onnx", "jax"] = "jax"

    def __init__(
        self, run: Callable[[Any, Any], Any], parameters: Any, blank: np.ndarray, width: int, batch: int, dtype: Dtype
    ) -> None:
        """`run` makes features [B F] of `parameters` and a batch of items; `blank` is an item of zeros."""
        import jax

        from lookalike.core.mesh import make_mesh, place, put_batch

        mesh = make_mesh()
        self.batch, self.dtype, self.compiles = -(-batch // mesh.size) * mesh.size, dtype, 0
        self._blank, self._width = blank, width

        def compiled(parameters: Any, items: Any) -> Any:
            self.compiles += 1  # runs only while a program is made
            return run(parameters, items)

        program = jax.jit(compiled)
        self._placed = cache(lambda: place(parameters, mesh))
        self._run = lambda items: np.asarray(program(self._placed(), put_batch(items, mesh)))

    def features(self, items: Items) -> Features:
        """The features of every item."""
        parts = [np.empty((0, self._width), np.float32)]
        for start in range(0, len(items), self.batch):
            some = items[start : start + self.batch]
            full = np.zeros((self.batch, *self._blank.shape), self._blank.dtype)
            for row, item in zip(full, some, strict=False):
                row[: len(item)] = item
            parts.append(self._run(full)[: len(some)])
        return np.concatenate(parts)

    def rest(self) -> None:
        """Give the devices' memory back, until features are asked for again: there is training to do."""
        self._placed.cache_clear()


Engine = OnnxEngine | JaxEngine


@dataclass(frozen=True)
class Known:
    """The fingerprints of an encoder, and the lowest cosine of an eight-bit graph's features with those in float32."""

    fingerprint: str
    features_fingerprint: str
    cosine: float | None = None  # it runs in float32


def find(model: str | Path, int8: bool = False, zooms: Sequence[float] = ()) -> tuple[Known, Path] | None:
    """What is known of a model directory, and its graph (see `opened`); None: nothing, or the files have changed."""
    try:
        entry = _entry(Path(model), int8, zooms)
        known = Known(**json.loads((entry / "known.json").read_text()))
    except OSError:
        return None
    except (ValueError, TypeError):  # damaged by the disk, and so perhaps its graph
        shutil.rmtree(entry, ignore_errors=True)
        return None
    with contextlib.suppress(OSError):  # a cache that can't be written serves as well
        os.utime(entry)  # pruning goes by the last use
    return known, entry / "tower.onnx"


def opened(
    model: str | Path | None,
    width: int,
    make: Callable[[Path], Known],
    *,
    batch: int,
    int8: bool = False,
    zooms: Sequence[float] = (),
) -> tuple[Known, OnnxEngine]:
    """What is known of a model directory, or of its text side, and its graph, ready to run: kept, or made now and kept.

    `make` writes the graph, in eight bits only if `int8` and with these `zooms`, which need not be those of the model's
    config, into a directory, and says what is known of it then. That directory is temporary, and goes with the engine,
    if `model` is None or the cache can't be written (which is said).
    """
    refused: OSError | StorageError | None = None
    if model is not None:
        try:
            if (kept := find(model, int8, zooms)) is None:
                entry = _entry(Path(model), int8, zooms)
                if entry.exists() and not (entry / "known.json").exists():  # half deleted
                    shutil.rmtree(entry, ignore_errors=True)
                slow = f"making the graph of `{model}`, which is kept for the next time"
                with new_directory(entry, "graph") as directory, said_if_slow(slow):
                    known = make(directory)
                    (directory / "known.json").write_text(json.dumps(asdict(known)))
                _prune(entry)
                kept = known, entry / "tower.onnx"
        except (OSError, StorageError) as error:
            kept, refused = find(model, int8, zooms), error  # another process was quicker, with the same content
        if kept is not None:
            return kept[0], OnnxEngine(kept[1], width, batch=batch)
    directory = Path(tempfile.mkdtemp(prefix="lookalike-"))
    try:
        known = make(directory)  # what is wrong with the model is said by this, and first
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    if refused is not None:
        why = getattr(refused, "message", refused)
        if isinstance(refused, OSError) and refused.filename is not None:  # one of ours has words of its own
            why = f"`{refused.filename}`: {refused.strerror}"
        note(f"the graph of `{model}` is not kept for the next time: {why}")
    return known, OnnxEngine(directory / "tower.onnx", width, batch=batch, temporary=True)


def fill(directory: Path, config: EncoderConfig, tensors: Mapping[str, np.ndarray], int8: bool) -> Known:
    """Write the tower's graph into `directory`, in eight bits if `int8` and close enough; what is known of it then."""
    known = Known(fingerprint_of(config, tensors), features_fingerprint_of(config, tensors))
    exact = write_graph(directory, config, tensors)
    if not int8:
        return known
    with tempfile.TemporaryDirectory(dir=directory) as other:
        graph = write_graph(Path(other), config, tensors, int8=True)
        if b"MatMulInteger" not in graph.read_bytes():  # no product of this tower is large
            return known
        cosine = lowest_cosine(exact, graph, config.preprocess.size, config.tower.features)
        if cosine < LEAST_COSINE:
            return known
        for file in Path(other).iterdir():
            file.replace(directory / file.name)
    return replace(known, cosine=cosine)


def write_graph(
    directory: Path, config: EncoderConfig | TextConfig, tensors: Mapping[str, np.ndarray], int8: bool = False
) -> Path:
    """Write the graph of an encoder's tower, or of a text tower, into `directory`; returns the path of `tower.onnx`.

    Its weights are in a file of their own: a message of the format holds 2 GB at most.
    """
    # This brings the onnx library: a third of a second that a later start does not spend.
    from lookalike.towers.programs.graph import move_weights
    from lookalike.towers.programs.onnx import build, build_text

    if isinstance(config, TextConfig):
        model = build_text(config, tensors)
    else:
        tower = below("tower", tensors)
        model = build(config.tower, config.pooling, config.preprocess, tower, int8, config.zooms)
    move_weights(model, directory / "tower.bin")
    (directory / "tower.onnx").write_bytes(model.SerializeToString())
    return directory / "tower.onnx"


def lowest_cosine(one: Path, other: Path, size: int, width: int) -> float:
    """How far apart the features [B `width`] of two graphs are, at worst, on images of `size` pixels drawn for it."""
    images = drawn(size)
    a, b = (OnnxEngine(path, width, batch=COUNT).features(images).astype(np.float64) for path in (one, other))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float((np.sum(a * b, axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)).min())


def drawn(size: int) -> UInt8[np.ndarray, "B S S 3"]:
    """Images that hold what photographs hold: detail that falls with frequency, edges, flat parts, and few colors."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij"))
    falling = 1 / np.maximum(frequency, 1 / size)
    images = np.empty((COUNT, size, size, 3), np.uint8)
    for image in images:
        noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((3, size, size))) * falling, (size, size))
        noise /= noise.std()
        field = noise[:1] + 0.3 * noise[1:].mean(axis=0)  # the three colors of a photograph go together
        pixels = 128 + rng.uniform(10, 60) * (field + 0.3 * noise) + rng.uniform(-60, 60, (3, 1, 1))
        for _ in range(4):
            top, left = rng.integers(0, size, 2)
            side = rng.integers(size // 8 + 1, size // 2 + 2)
            pixels[:, top : top + side, left : left + side] = rng.uniform(0, 255, (3, 1, 1))
        image[:] = pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    return images


def _entry(model: Path, int8: bool, zooms: Sequence[float]) -> Path:
    """Where the graph of the directory `model` is kept; OSError if it has no model files."""
    stamps = [os.fspath(model.resolve()), "int8" if int8 else "float32", *map(str, zooms)]
    for name in ("config.json", "model.safetensors"):
        stat = (model / name).stat()
        stamps.append(f"{stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}")
    code = (file.read_bytes() for file in sorted(_BUILDER.rglob("*.py")))
    return user_cache() / fingerprint(*code, *stamps)[:32]


def _prune(newest: Path) -> None:
    """Delete what killed writers left, and the least recently used entries beyond `MOST_BYTES`.

    Programs that have mapped a deleted file keep it. What another process deletes meanwhile is no concern.
    """
    held = 0
    with contextlib.suppress(OSError):
        clear_partial(newest.parent)
        entries = [e for e in newest.parent.iterdir() if e != newest and len(e.name) == len(newest.name)]  # no models
        for entry in sorted(entries, key=lambda e: e.stat().st_mtime, reverse=True):
            held += sum(file.stat().st_size for file in entry.iterdir())
            if held > MOST_BYTES:
                shutil.rmtree(entry, ignore_errors=True)
