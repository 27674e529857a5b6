"""What computes features: ONNX Runtime on the CPU, or JAX. Both take any number of images and return NumPy."""

import shutil
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float32, UInt8

from lookalike.core import ort
from lookalike.core.machine import cores

if TYPE_CHECKING:
    from lookalike.encoders.encoder import Encoder

Images = UInt8[np.ndarray, "B S S 3"]
Features = Float32[np.ndarray, "B F"]


class OnnxEngine:
    """ONNX Runtime on the CPU: one image at a time on every core.

    Measured on two cores against two threads inside one call: the same arithmetic without waiting for each other, and
    its working set stays in the cache. An image's numbers do not depend on the images beside it, nor on the number
    of cores.
    """

    name: Literal["onnx", "jax"] = "onnx"
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the tower computes in; a graph may round it to eight bits further."""
    compiles = 0
    """How often a program was compiled; stays the same from batch to batch."""

    def __init__(self, graph: Path, width: int, *, batch: int, temporary: bool = False) -> None:
        """A graph file and the width F of its features; a `temporary` graph's directory goes with the engine."""
        self.batch = batch
        self._graph, self._width = graph, width
        self._sessions: dict[int, Any] = {}
        if temporary:
            weakref.finalize(self, shutil.rmtree, graph.parent, ignore_errors=True)

    def features(self, images: Images) -> Features:
        """The features of images that `Preprocess` made."""
        return self.each("images", images)

    def each(self, name: str, items: Sequence[np.ndarray] | np.ndarray) -> Features:
        """The features of every item, given to the graph by itself as the input `name`."""
        features = np.empty((len(items), self._width), np.float32)
        few = len(items) < cores()
        session = self._session(cores() if few else 1)

        def run(i: int) -> None:
            (features[i : i + 1],) = session.run(None, {name: np.ascontiguousarray(items[i][None])})

        if few:  # all cores work on one item after the other
            for i in range(len(items)):
                run(i)
        else:
            with ThreadPoolExecutor(cores()) as pool:
                list(pool.map(run, range(len(items))))
        return features

    def _session(self, threads: int) -> Any:
        if threads not in self._sessions:
            self._sessions[threads] = ort.session(self._graph, threads)
        return self._sessions[threads]


class JaxEngine:
    """JAX on whatever devices it has: one program for one fixed batch shape, the last batch filled up with black."""

    name: Literal["onnx", "jax"] = "jax"

    def __init__(self, encoder: "Encoder", *, batch: int) -> None:
        import jax

        from lookalike.core.mesh import make_mesh, place

        self.compiles = 0
        self.dtype: Literal["float32", "bfloat16"] = encoder.dtype
        self._mesh = make_mesh()
        self.batch = -(-batch // self._mesh.size) * self._mesh.size
        self._encoder = place(encoder, self._mesh)

        def features(encoder: Any, images: Any) -> Any:
            self.compiles += 1  # runs only while a program is made
            return encoder.features(images)

        self._features = jax.jit(features)

    def features(self, images: Images) -> Features:
        """The features of images that `Preprocess` made."""
        from lookalike.core.mesh import put_batch

        parts = [np.empty((0, self._encoder.config.tower.features), np.float32)]
        for start in range(0, len(images), self.batch):
            part = images[start : start + self.batch]
            full = np.concatenate([part, np.zeros((self.batch - len(part), *part.shape[1:]), np.uint8)])
            parts.append(np.asarray(self._features(self._encoder, put_batch(full, self._mesh)))[: len(part)])
        return np.concatenate(parts)


Engine = OnnxEngine | JaxEngine
"""What an embedder runs on."""
