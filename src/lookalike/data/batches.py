"""Collection + sampling + augmentation -> batches of pixels, prepared ahead on all cores, from any step on.

What a batch holds depends on (seed, step) alone. Threads suffice: decoding and resizing leave Python's lock.
"""

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice

import numpy as np
from jaxtyping import Int, Int32, Int64, UInt8

from lookalike.core.machine import cores
from lookalike.core.shapes import Image
from lookalike.data import sampling
from lookalike.data.collection import Collection
from lookalike.imaging.augment import Augment
from lookalike.imaging.decode import decode
from lookalike.imaging.resample import resize

_AHEAD = 3  # batches ready or under way for each thread


Batch = tuple[UInt8[np.ndarray, "B S S 3"], Int32[np.ndarray, "B"]]  # images and labels of one step


def batches(
    collection: Collection,
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

    Of the rows `ids`, whose classes `labels` are 0 to C - 1. Images have a side of `size` pixels: what `augments`, in
    this order, leave at another size is cut square and resized. ImageError and CollectionError come at their step.
    """
    draw = sampling.sampler(sampling.Mixture(classes=sample), labels, np.zeros_like(labels), batch, seed)

    def make(step: int) -> Batch:
        rows = draw(step)
        data = collection.take(ids[rows], ["image"]).column("image").to_pylist()
        images = np.empty((batch, size, size, 3), np.uint8)
        for item, jpeg in enumerate(data):
            image = decode(jpeg, at_least=2 * size)  # a crop of a quarter of the image still has `size` pixels
            rng = sampling.generator(seed, step, item)
            for augment in augments:
                image = augment(rng, image)
            images[item] = _square(image, size)
        return images, labels[rows].astype(np.int32)

    pool = ThreadPoolExecutor(cores())
    try:
        steps = (pool.submit(make, step) for step in count(start))
        ahead = deque(islice(steps, _AHEAD * cores()))
        while True:
            yield ahead.popleft().result()
            ahead.append(next(steps))
    finally:
        pool.shutdown(cancel_futures=True)


def _square(image: Image, size: int) -> UInt8[np.ndarray, "S S 3"]:
    """The middle square of `image`, resized to `size`."""
    height, width = image.shape[:2]
    if height == width == size:
        return image
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return resize(image, size, size, (left, top, left + side, top + side))
