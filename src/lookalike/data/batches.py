"""Collection + sampling + augmentation -> batches of pixels, prepared ahead on all cores, from any step on.

What a batch holds depends on (seed, step) alone. Threads suffice: decoding and resizing leave Python's lock.
"""

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Int32, Int64, UInt8

from lookalike.core.machine import cores
from lookalike.core.shapes import Image
from lookalike.data import sampling
from lookalike.imaging.augment import Augment, apply
from lookalike.imaging.decode import decode
from lookalike.imaging.resample import resize

if TYPE_CHECKING:
    import pyarrow as pa

_AHEAD = 2  # batches ready or under way for each thread: one to wait with, one to work on


@runtime_checkable
class Images(Protocol):
    """What is asked of a collection."""

    def take(self, ids: Int64[np.ndarray, "B"], columns: Sequence[str]) -> "pa.Table":
        """The rows of `ids`, in that order."""
        ...


@dataclass(frozen=True)
class Batch:
    """The images of one step."""

    step: int
    images: UInt8[np.ndarray, "B S S 3"]
    labels: Int32[np.ndarray, "B"]


def batches(
    collection: Images,
    ids: Int64[np.ndarray, "N"],
    labels: Int[np.ndarray, "N"],
    *,
    batch: int,
    seed: int,
    start: int,
    sample: sampling.Sample,
    size: int,
    augments: Sequence[Augment],
) -> Generator[Batch, None, None]:
    """Batches of step `start`, `start` + 1 and so on, without end; closing the iterator stops its threads.

    Args:
        collection: Where the images lie.
        ids: Rows that take part.
        labels: Class of each of them, 0 to C - 1.
        batch: Images a step.
        seed: Of sampling and augmentation.
        start: First step; the batch of a step does not depend on it.
        sample: All rows equally often, or all classes.
        size: Side of the images, in pixels; what `augments` leave at another size is cut square and resized.
        augments: Applied in this order.

    Raises:
        ImageError, CollectionError: As they came up in a thread, at the step that they belong to.
    """
    groups = sampling.group(labels)

    def make(step: int) -> Batch:
        rows = sampling.positions(sample, groups, batch, seed, step)
        data = collection.take(ids[rows], ["image"]).column("image").to_pylist()
        images = np.empty((batch, size, size, 3), np.uint8)
        for item, jpeg in enumerate(data):
            image = decode(jpeg, at_least=2 * size)  # a crop of a quarter of the image still has `size` pixels
            images[item] = _square(apply(augments, sampling.generator(seed, step, item), image), size)
        return Batch(step, images, labels[rows].astype(np.int32))

    return _ahead(make, start, cores())


def _ahead(make: Callable[[int], Batch], start: int, threads: int) -> Generator[Batch, None, None]:
    """make(start), make(start + 1), ... in order; thread i of T makes every T-th, into a queue of its own.

    With a queue for each thread the order needs no sorting, and a slow step holds back no more than `_AHEAD` others.
    """
    stop = threading.Event()
    lanes: list[queue.Queue[Batch | BaseException]] = [queue.Queue(_AHEAD) for _ in range(threads)]

    def work(lane: queue.Queue[Batch | BaseException], first: int) -> None:
        step = first
        while not stop.is_set():
            try:
                made: Batch | BaseException = make(step)
            except BaseException as error:  # noqa: BLE001 - not handled here, but raised where the batch is awaited
                made = error
            while not stop.is_set():
                try:
                    lane.put(made, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if isinstance(made, BaseException):
                return
            step += threads

    workers = [
        threading.Thread(target=work, args=(lane, start + i), name=f"batches-{i}", daemon=True)
        for i, lane in enumerate(lanes)
    ]
    for worker in workers:
        worker.start()
    try:
        turn = 0
        while True:
            made = lanes[turn % threads].get()
            if isinstance(made, BaseException):
                raise made
            yield made
            turn += 1
    finally:
        stop.set()
        for worker in workers:
            worker.join()


def _square(image: Image, size: int) -> UInt8[np.ndarray, "S S 3"]:
    """The middle square of `image`, resized to `size`."""
    height, width = image.shape[:2]
    if height == width == size:
        return image
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return resize(image, size, size, (left, top, left + side, top + side))
