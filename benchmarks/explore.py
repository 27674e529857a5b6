"""Time and memory of the verbs that look at a collection, on random vectors of 64 numbers.

    python benchmarks/explore.py --images 100000 --verbs duplicates outliers clusters split map

Makes a collection of as many drawn thumbnails (64 px), in labels of fifty around centers of their own, one in a hundred
of them a near copy of the image before it, cut and encoded anew; then runs each verb in a process of its own. Images of
a label are alike as those of near vectors are: of their pairs one in ten comes near to being the same at 16 x 16.
Prints a line a verb: seconds of the clock and of the processor, the peak of memory, and the bytes of the map's page.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from lookalike.core.shapes import l2_normalize
from lookalike.data.collection import SCHEMA, Collection
from lookalike.data.duplicates import MARK, SEEN
from lookalike.imaging.decode import encode_jpeg

DIMENSION, EACH, BATCH, DRAWN = 64, 50, 20_000, 2000


def thumbnails(rng: np.random.Generator) -> tuple[list[bytes], list[bytes]]:
    """Some drawn images, of `EACH` that have something in common, and a copy of each, cut at two sides."""
    common = rng.integers(0, 255, (DRAWN // EACH, 8, 8, 3)).repeat(EACH, 0)
    share = rng.uniform(0.3, 0.8, (DRAWN, 1, 1, 1))
    patches = (share * common + (1 - share) * rng.integers(0, 255, (DRAWN, 8, 8, 3))).astype(np.uint8)
    images = [patch.repeat(8, 0).repeat(8, 1) for patch in patches]
    return (
        [encode_jpeg(np.ascontiguousarray(image), 85) for image in images],
        [encode_jpeg(np.ascontiguousarray(image[4:, :-3]), 60) for image in images],
    )


def make(path: Path, images: int) -> None:
    """The collection, a batch at a time."""
    rng = np.random.default_rng(0)
    vectors = pa.field("embedding_0000bench_float32", pa.list_(pa.float32(), DIMENSION), metadata={"fingerprint": "0"})
    collection = Collection.create(path, pa.schema([*SEEN, *MARK, vectors]))
    drawn, cut = thumbnails(rng)
    centers = rng.normal(size=(-(-images // EACH), DIMENSION)).astype(np.float32)
    for start in range(0, images, BATCH):
        ids = np.arange(start, min(start + BATCH, images))
        made = centers[ids // EACH] + 0.8 * rng.normal(size=(len(ids), DIMENSION))
        copies = np.flatnonzero(ids % 100 == 99)
        made[copies] = made[copies - 1] + 0.02 * rng.normal(size=(len(copies), DIMENSION))
        columns = {
            "id": ids,
            "source": [f"drawn/{i // EACH}/{i}.jpg" for i in ids],
            "image": [cut[(i - 1) % DRAWN] if i % 100 == 99 else drawn[i % DRAWN] for i in ids],
            "width": np.full(len(ids), 64, np.int32),
            "height": np.full(len(ids), 64, np.int32),
            "sha256": [rng.bytes(32) for _ in ids],
            "label": [f"l{i // EACH}" for i in ids],
            "domain": [f"d{i // EACH % 10}" for i in ids],
            "is_query": np.ones(len(ids), bool),
            "is_gallery": np.ones(len(ids), bool),
            "gone": np.zeros(len(ids), bool),
            "stamp": ["2000-0"] * len(ids),
            "pixels": [rng.bytes(16) for _ in ids],
            "phash": rng.integers(0, 2**62, len(ids)),
            vectors.name: pa.FixedSizeListArray.from_arrays(pa.array(l2_normalize(made).ravel()), DIMENSION),
        }
        fields = [field for field in (*SCHEMA, *SEEN, vectors) if field.name in columns]
        collection.append(pa.table([pa.array(columns[f.name], f.type) for f in fields], pa.schema(fields)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--verbs", nargs="+", default=["duplicates", "outliers", "clusters", "split", "map"])
    parser.add_argument("--keep", default="", help="make the collection here, or take the one that is here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(arguments.keep or folder) / f"{arguments.images}.coll"
        if not place.exists():
            make(place, arguments.images)
        page = place.with_suffix(".html")
        for verb in arguments.verbs:
            options = {"map": ["--html", str(page)], "split": ["--replace"]}.get(verb, [])
            command = [sys.executable, "-m", "lookalike", verb, str(place), *options]
            begun = time.monotonic()
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            assert child.stderr is not None
            words = child.stderr.read().strip().splitlines()
            _, status, used = os.wait4(child.pid, 0)
            size = f", page {page.stat().st_size / 1e6:,.0f} MB" if verb == "map" and page.exists() else ""
            spent = f"{time.monotonic() - begun:,.0f} s ({used.ru_utime + used.ru_stime:,.0f} s of the processor)"
            told = f"{spent}, {used.ru_maxrss / 1024:,.0f} MB{size}"
            print(f"{arguments.images:,} {verb}: {told}" if not status else f"{verb} failed: {words[-3:]}", flush=True)
            print(f"    {words[-1] if words else ''}", flush=True)


if __name__ == "__main__":
    main()
