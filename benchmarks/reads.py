"""Random reads of stored images against decoding them: reading must never limit training.

    python benchmarks/reads.py                              50,000 rows of 15 kB
    python benchmarks/reads.py --rows 2000 --rounds 1       a smoke run
    python benchmarks/reads.py --collection COLL            the images of a real collection

A read is `Collection.take` of `--batch` random rows, the whole way that `data/batches.py` goes; decoding is
`data.images.decode` of those bytes, on one core as the reading's Python side is. Rounds are interleaved, so that the
ratio holds on a busy machine. The files are in the page cache: what is measured is the format, not the disk. The
goal is a ratio of 8.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from lookalike.data.collection import Collection
from lookalike.imaging.decode import decode, encode_jpeg


def made_up(path: Path, rows: int) -> Collection:
    """`rows` rows of 500 images with the detail of photographs at 256 px: about 15 kB each."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(500):
        coarse = rng.integers(0, 255, (17, 22, 3)).astype(np.float64)
        smooth = np.kron(coarse, np.ones((16, 16, 1)))[:256, :341]
        images.append(encode_jpeg(np.clip(smooth + rng.normal(0, 2.5, smooth.shape), 0, 255).astype(np.uint8), 90))
    collection = Collection.create(path)
    for first in range(0, rows, 512):
        ids = np.arange(first, min(first + 512, rows))
        collection.append(
            pa.table(
                {
                    "id": ids,
                    "source": [str(i) for i in ids],
                    "image": [images[i % 500] for i in ids],
                    "width": pa.array(np.full(len(ids), 341), pa.int32()),
                    "height": pa.array(np.full(len(ids), 256), pa.int32()),
                    "sha256": pa.array([bytes(32)] * len(ids), pa.binary(32)),
                    "is_query": [True] * len(ids),
                    "is_gallery": [True] * len(ids),
                    "gone": [False] * len(ids),
                    "stamp": ["made up"] * len(ids),
                }
            )
        )
    return collection


def measure(collection: Collection, batch: int, rounds: int) -> dict[str, float]:
    """Images per second of both, and their ratio: medians over the rounds."""
    ids = collection.table(["id"])["id"].to_numpy()
    rng = np.random.default_rng(1)
    reads, decodes, ratios, size = [], [], [], 0
    for number in range(rounds + 1):  # the first one warms up
        draws = [rng.choice(ids, batch) for _ in range(20)]
        begun = time.perf_counter()
        for draw in draws:
            images = collection.take(draw, ["image"])["image"].to_pylist()
        read = len(draws) * batch / (time.perf_counter() - begun)
        begun = time.perf_counter()
        for data in images:
            decode(data)
        decoded = batch / (time.perf_counter() - begun)
        if number:
            reads.append(read)
            decodes.append(decoded)
            ratios.append(read / decoded)
            size += sum(map(len, images))
    return {
        "reads/s": round(statistics.median(reads)),
        "decodes/s": round(statistics.median(decodes)),
        "ratio": round(statistics.median(ratios), 1),
        "bytes/image": round(size / (batch * rounds)),
        "rows": len(collection),
        "batch": batch,
        "rounds": rounds,
    }


def main() -> None:
    """Print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--collection", help="measure this one instead of a made-up one")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lookalike-reads-"))
    try:
        collection = (
            Collection.open(arguments.collection) if arguments.collection else made_up(folder / "c", arguments.rows)
        )
        print(json.dumps(measure(collection, arguments.batch, arguments.rounds), indent=2))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
