"""Collection + mixture + views -> batches of pixels, prepared ahead on all cores, from any step on.

What a batch holds depends on (seed, step) alone: not on threads, processes, hosts or where the stream began.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from lookalike.core.machine import cores
from lookalike.data.collection import Collection
from lookalike.data.pixels import Images, Worker, render, veiled
from lookalike.data.sampling import generator
from lookalike.imaging.augment import View

_AHEAD = 3  # batches ready or under way for each thread
_THREADS = 4  # cores that threads keep busy, in spite of Python's lock


class Batch(NamedTuple):
    """Images of one step, or a host's part of them."""

    images: tuple[UInt8[np.ndarray, "B S S 3"], ...]  # of each view, which has a size of its own
    rows: Int64[np.ndarray, "B"]  # their positions in the caller's arrays


def batches(
    collection: Collection,
    ids: Int64[np.ndarray, "N"],
    draw: Callable[[int], Int64[np.ndarray, "B"]],
    *,
    batch: int,
    seed: int,
    start: int,
    views: Sequence[View],
    items: Int64[np.ndarray, "I"] | None = None,
    processes: bool | None = None,
) -> Generator[Batch, None, None]:
    """Batches of step `start`, `start` + 1 and so on, without end; closing the iterator stops threads and processes.

    Of the rows `ids`, those at the positions that `draw` gives for a step; of these the ones at the places `items`, a
    host's `share`, or all. An image is decoded once for all `views`, each of which draws numbers of its own. There is
    a thread a core, and if `processes` (None: where there are many cores) one behind each. ImageError and
    CollectionError come at their step.
    """
    mine = np.arange(batch) if items is None else items
    started, own = list[Worker](), threading.local()

    def begin() -> None:
        """In a thread: its process."""
        own.worker = Worker(views)
        started.append(own.worker)

    def make(step: int) -> Batch:
        every = draw(step)
        rows = every[mine]
        taken = rows
        if veiled(views):
            others = [every[generator(seed, step, item, len(views)).integers(batch)] for item in mine.tolist()]
            taken = np.concatenate([rows, others])
        files = collection.take(ids[taken], ["image"]).column("image").to_pylist()
        images = Images(files[: len(rows)], files[len(rows) :], seed, step, mine.tolist())
        pixels = own.worker.render(images) if spawned else render(images, views)
        return Batch(pixels, rows)

    spawned = cores() > _THREADS if processes is None else processes
    pool = ThreadPoolExecutor(cores(), initializer=begin if spawned else None)
    try:
        steps = (pool.submit(make, step) for step in count(start))
        ahead = deque(islice(steps, _AHEAD * cores()))
        while True:
            yield ahead.popleft().result()
            ahead.append(next(steps))
    finally:
        pool.shutdown(cancel_futures=True)
        for worker in started:
            worker.close()


def stored_smaller(collection: Collection, ids: Int64[np.ndarray, "N"], size: int) -> int:
    """How many of the rows `ids` are stored with a shorter side below `size` pixels, so that they are enlarged.

    `width` and `height` are those of the original, which is stored at `size` of the collection's card at most.
    """
    if collection.card.get("options", {}).get("size", size) < size:
        return len(ids)
    sides = collection.take(ids, ["width", "height"])
    return int((np.minimum(sides["width"].to_numpy(), sides["height"].to_numpy()) < size).sum())
