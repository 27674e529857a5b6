"""How fast pixels decide whether two images are copies, beside a loop over all windows, and how often both agree.

    python benchmarks/overlap.py COLL

Pairs are the sixteen nearest of each image by the collection's vectors, some of them for the loop, and copies of its
images: cut by up to a fifth of each side, a third of them mirrored, encoded anew at quality 40. Rates are of a second
of one core's processor time, which other work on the machine does not change.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
from numpy.lib.stride_tricks import sliding_window_view
from threadpoolctl import threadpool_limits

from lookalike.core.journal import quiet, table
from lookalike.core.shapes import l2_normalize
from lookalike.data.collection import Collection
from lookalike.imaging.decode import decode, encode_jpeg
from lookalike.imaging.overlap import SAME, are_copies, overlaps, small_stored
from lookalike.retrieval.alike import nearest_pairs

LOOPED = 400  # pairs of each kind for the loop
SIZES = sorted(itertools.product(range(26, 33), range(26, 33)), key=lambda size: -size[0] * size[1])


def loop(one: np.ndarray, other: np.ndarray) -> float:
    """The overlap of two images: all sizes and places, both ways and mirrored, each window by itself."""
    best = 0.0
    for part, whole in ((one, other), (one[:, ::-1], other), (other, one), (other[:, ::-1], one)):
        image = PIL.Image.fromarray(np.ascontiguousarray(part, np.float32))
        for height, width in SIZES:
            shrunk = np.asarray(image.resize((width, height), PIL.Image.Resampling.BILINEAR))
            shrunk = shrunk - shrunk.mean()
            windows = sliding_window_view(whole.astype(np.float32), (height, width)).reshape(-1, height * width)
            windows = windows - windows.mean(axis=1, keepdims=True)
            length = np.linalg.norm(shrunk) * np.linalg.norm(windows, axis=1)
            scores = np.divide(windows @ shrunk.ravel(), length, out=np.zeros_like(length), where=length > 1)
            best = max(best, float(scores.max()))
    return best


def copy_of(data: bytes, rng: np.random.Generator, mirrored: bool) -> bytes:
    """Cut by up to a tenth at each side."""
    image = decode(data)
    height, width = image.shape[:2]
    top, bottom, left, right = (rng.uniform(0, 0.1, 4) * (height, height, width, width)).astype(int)
    cut = image[top : height - bottom, left : width - right]
    return encode_jpeg(np.ascontiguousarray(cut[:, ::-1] if mirrored else cut), 40)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What comes out, and the seconds of the processor."""
    begun = time.process_time()
    return work(), time.process_time() - begun


def main() -> None:
    """Print a line for each kind of pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection")
    collection = Collection.open(parser.parse_args().collection)
    column = next(name for name in collection.columns if name.startswith(("embedding_", "features_")))
    files, rng = collection.table(["image"])["image"].to_pylist(), np.random.default_rng(0)
    pieces, reading = timed(lambda: [small_stored(data) for data in files])
    print(f"{len(files) / reading:,.0f} images/s are read")
    with quiet():
        near = nearest_pairs(l2_normalize(collection.vectors(column)[1]), -1.0, 16).pairs
    copies = [small_stored(copy_of(data, rng, number % 3 == 0)) for number, data in enumerate(files)]
    both = np.stack([*pieces, *copies])
    own = np.stack([np.arange(len(files)), np.arange(len(files)) + len(files)], axis=1)
    rows = []
    with threadpool_limits(1):
        for name, pairs in (("nearest", near), ("copies", own)):
            found, took = timed(lambda pairs=pairs: are_copies(both, pairs))
            whole = overlaps(both, pairs) >= SAME
            some = np.linspace(0, len(pairs) - 1, LOOPED).astype(int)
            slow, long = timed(lambda some=some, pairs=pairs: [loop(*both[pair]) >= SAME for pair in pairs[some]])
            differ = [f"{(found != whole).sum()} of {len(pairs):,}", f"{(found[some] != slow).sum()} of {LOOPED}"]
            rates = [f"{len(pairs) / took:,.0f}", f"{LOOPED / long:,.0f}"]
            rows.append([name, f"{found.mean():.4f}", *differ, *rates])
    print(table(["pairs", "copies", "unlike all sizes at 32", "unlike the loop", "pairs/s", "by the loop"], rows))


if __name__ == "__main__":
    main()
