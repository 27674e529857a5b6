"""Exact nearest neighbours by JAX, the gallery split over all devices of this process.

Each device keeps a stretch of the gallery and looks through it piece by piece, with the best rows so far in hand; the
best of all are joined here, in the order of the stretches, so that equal scores go to the lower row. On a processor
`exact.knn` is faster; this is for accelerators, whose memory is the limit: the gallery lies in it whole.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Int64

from lookalike.retrieval.best import Rows, Scores

if TYPE_CHECKING:
    import jax

QUERIES, PIECE = 256, 2**16  # queries that are looked up together; gallery rows of one product: scores take 64 MiB


class OnDevices:
    """A gallery that lies on devices; rows have length 1."""

    def __init__(self, gallery: Float32[np.ndarray, "G D"], devices: "Sequence[jax.Device]") -> None:
        import jax

        own = [device for device in devices if device.process_index == jax.process_index()]
        self._count, self._stretches = len(gallery), []
        each = -(-len(gallery) // len(own))
        for number, device in enumerate(own):
            stretch = gallery[number * each : (number + 1) * each]
            pieces = []
            for start in range(0, len(stretch), PIECE):
                rows = stretch[start : start + PIECE]
                padded = np.zeros((min(PIECE, each), gallery.shape[1]), np.float32)
                padded[: len(rows)] = rows
                pieces.append((jax.device_put(padded, device), number * each + start, len(rows)))
            if pieces:
                self._stretches.append((device, pieces))

    def search(
        self, queries: Float32[np.ndarray, "Q D"], k: int, exclude: Int64[np.ndarray, "Q E"] | None = None
    ) -> tuple[Scores, Rows]:
        """As `exact.knn`: exact but for rounding, which may order scores otherwise that differ in their last bits."""
        k = min(k, self._count)
        scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        out = np.full((len(queries), 1), -1) if exclude is None else exclude
        width = 1 << max(0, out.shape[1] - 1).bit_length()  # few widths, so that few programs are compiled
        for start in range(0, len(queries), QUERIES):
            some = slice(start, start + QUERIES)
            asked = np.zeros((QUERIES, queries.shape[1]), np.float32)
            away = np.full((QUERIES, width), -1, np.int32)
            count = len(queries[some])
            asked[:count], away[:count, : out.shape[1]] = queries[some], out[some]
            scores[some], rows[some] = (each[:count] for each in self._best(asked, away, k))
        return scores, rows

    def _best(self, queries: np.ndarray, exclude: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        import jax

        found = []
        for device, pieces in self._stretches:  # none waits for another
            asked, away = jax.device_put((queries, exclude), device)
            best = jax.device_put(
                (np.full((QUERIES, k), -np.inf, np.float32), np.full((QUERIES, k), -1, np.int32)), device
            )
            for rows, first, count in pieces:
                best = _step()(asked, rows, first, count, away, *best)
            found.append(best)
        scores, rows = (np.concatenate([np.asarray(best[at]) for best in found], axis=1) for at in (0, 1))
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, rows = np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
        return scores, np.where(np.isneginf(scores), -1, rows)


@cache
def _step() -> Any:
    """The compiled look through one piece: the best rows before it and in it, of equal scores those before it."""
    import jax
    import jax.numpy as jnp

    def step(queries: Any, piece: Any, first: Any, count: Any, exclude: Any, scores: Any, rows: Any) -> Any:
        own = jnp.arange(len(piece))
        products = jnp.matmul(queries, piece.T, precision=jax.lax.Precision.HIGHEST)
        products = jnp.where(own < count, products, -jnp.inf)
        place = exclude - first
        place = jnp.where((place >= 0) & (place < count), place, len(piece))  # beyond the end: nothing
        products = products.at[jnp.arange(len(queries))[:, None], place].set(-jnp.inf, mode="drop")
        every = jnp.concatenate([scores, products], axis=1)
        names = jnp.concatenate([rows, jnp.broadcast_to(first + own, products.shape).astype(rows.dtype)], axis=1)
        best, at = jax.lax.top_k(every, scores.shape[1])
        return best, jnp.take_along_axis(names, at, axis=1)

    return jax.jit(step)
