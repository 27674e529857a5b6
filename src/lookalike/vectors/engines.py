"""What computes features, of images or of texts: ONNX Runtime on the CPU, or JAX. Any number in, NumPy out."""

import shutil
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from lookalike.core.machine import cores, onnx_session

Dtype = Literal["float32", "bfloat16"]
Items = Sequence[np.ndarray] | np.ndarray
"""Images that `Preprocess` made, or the ids of texts."""
Features = Float32[np.ndarray, "B F"]


class OnnxEngine:
    """ONNX Runtime on the CPU: one item at a time on every core.

    Measured on two cores against two threads inside one call: the same arithmetic without waiting for each other, and
    its working set stays in the cache. An item's numbers do not depend on those beside it, nor on the number of cores.
    """

    name: Literal["onnx", "jax"] = "onnx"
    dtype: Dtype = "float32"
    """What the tower computes in; a graph may round it to eight bits further."""
    compiles = 0
    """How often a program was compiled; stays the same from batch to batch."""

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

        program, placed = jax.jit(compiled), place(parameters, mesh)
        self._run = lambda items: np.asarray(program(placed, put_batch(items, mesh)))

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


Engine = OnnxEngine | JaxEngine
"""What an embedder runs on."""
