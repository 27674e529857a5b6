"""Exact nearest neighbours against faiss, scikit-learn and a two-level search in JAX; then 60,000 against themselves.

    python benchmarks/knn.py                                    5,000 x 200,000 x 64, k = 5, 2 threads
    python benchmarks/knn.py -k 100
    python benchmarks/knn.py --queries 300 --gallery 20000 --own 3000 --rounds 1        a smoke run

Rounds are interleaved: each measures every contender and the matrix product that stands for the machine's peak, so
that ratios hold on a busy machine. Goals: 0.5 of faiss's time at k = 5 and 0.6 at k = 100; 0.1 of scikit-learn's,
whose brute force takes so long that it is measured once, behind one more search of ours. `floor` is what a two-level
search in float32 can't go below: its products alone, and with the maxima of blocks; codes of eight bits do. The
second part runs in a process of its own and says how much its memory grew: the whole score matrix would be 14.4 GB.
Needs faiss and scikit-learn (group `reference`).
"""

# ruff: noqa: E402  thread settings come before the libraries that read them

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--queries", type=int, default=5000)
parser.add_argument("--gallery", type=int, default=200_000)
parser.add_argument("--dimension", type=int, default=64)
parser.add_argument("-k", type=int, default=5)
parser.add_argument("--own", type=int, default=60_000, help="vectors that are searched in themselves")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--threads", type=int, default=2)
arguments = parser.parse_args()

os.environ.setdefault("OMP_NUM_THREADS", str(arguments.threads))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if hasattr(os, "sched_setaffinity"):  # `knn` and XLA take as many threads as the process may use cores
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])

import faiss
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from lookalike.retrieval.exact import BLOCK, CHUNK, QUERIES, knn

OWN = """
import json, sys, time
from pathlib import Path
import numpy as np
from lookalike.retrieval.exact import knn

def peak():  # of this program alone; getrusage counts what the process was before it, too
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))

count, width, k = map(int, sys.argv[1:])
vectors = np.random.default_rng(0).standard_normal((count, width), np.float32)
before, begun = peak(), time.perf_counter()
scores, rows = knn(vectors, vectors, k, np.arange(count))
seconds, grown = time.perf_counter() - begun, peak() - before
results = (scores.nbytes + rows.nbytes) / 2**20
print(json.dumps({"seconds": round(seconds, 2), "grown MiB": round(grown, 1), "of it results": round(results, 1)}))
"""


def l2_normalize(count: int, seed: int) -> np.ndarray:
    """Random directions."""
    vectors = np.random.default_rng(seed).standard_normal((count, arguments.dimension), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def peak() -> float:
    """Multiplications and additions a second of large products, one on each thread, in GFLOP."""
    size, products = 2048, 2
    matrices = [np.ones((size, size), np.float32) for _ in range(arguments.threads)]
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(arguments.threads) as pool:
        begun = time.perf_counter()
        list(pool.map(lambda m: [m @ m for _ in range(products)], matrices))
        return 2 * size**3 * products * arguments.threads / (time.perf_counter() - begun) / 1e9


def jax_two_level(queries: np.ndarray, gallery: np.ndarray) -> Callable[[], np.ndarray]:
    """The same idea, compiled: block maxima of whole score rows, then the candidates of the best blocks."""
    block, k, step = 64, arguments.k, min(500, len(queries))
    filled = jnp.pad(jnp.asarray(gallery), ((0, -len(gallery) % block), (0, 0)))

    @jax.jit
    def search(some: jax.Array) -> jax.Array:
        scores = some @ filled.T
        scores = jnp.where(jnp.arange(len(filled)) < len(gallery), scores, -jnp.inf)
        blocks = scores.reshape(len(some), -1, block)
        _, chosen = jax.lax.top_k(blocks.max(axis=2), k)
        candidates = jnp.take_along_axis(blocks, chosen[:, :, None], axis=1).reshape(len(some), -1)
        _, best = jax.lax.top_k(candidates, k)
        return jnp.take_along_axis(chosen, best // block, axis=1) * block + best % block

    def run() -> np.ndarray:
        starts = range(0, len(queries), step)
        return np.concatenate([np.asarray(search(jnp.asarray(queries[i : i + step]))) for i in starts])

    return run


def floor(queries: np.ndarray, gallery: np.ndarray, maxima: bool) -> float:
    """Seconds of what no two-level search can leave out: the products in `knn`'s pieces, and their block maxima."""

    def work(first: int) -> None:
        some = queries[first : first + QUERIES].T
        scores = np.empty((CHUNK, some.shape[1]), np.float32)
        for start in range(0, len(gallery) - CHUNK + 1, CHUNK):
            np.matmul(gallery[start : start + CHUNK], some, out=scores)
            if maxima:
                np.maximum.reduce(scores.reshape(-1, BLOCK, some.shape[1]), axis=1)

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(arguments.threads) as pool:
        begun = time.perf_counter()
        list(pool.map(work, range(0, len(queries), QUERIES)))
        return time.perf_counter() - begun


def main() -> None:
    """Print one JSON document."""
    queries, gallery = l2_normalize(arguments.queries, 1), l2_normalize(arguments.gallery, 2)
    faiss.omp_set_num_threads(arguments.threads)
    index = faiss.IndexFlatIP(arguments.dimension)
    index.add(gallery)
    contenders: dict[str, Callable[[], np.ndarray]] = {
        "lookalike": lambda: knn(queries, gallery, arguments.k)[1],
        "faiss flat": lambda: index.search(queries, arguments.k)[1],
        "jax two-level": jax_two_level(queries, gallery),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    peaks, found = [], {}
    floors: dict[str, list[float]] = {"products alone": [], "products and maxima": []}
    for number in range(arguments.rounds + 1):  # the first one warms up and compiles
        peaks.append(peak())
        for maxima, name in enumerate(floors):
            floors[name].append(floor(queries, gallery, bool(maxima)))
        for name, search in contenders.items():
            begun = time.perf_counter()
            found[name] = search()
            if number:
                seconds[name].append(time.perf_counter() - begun)
    begun = time.perf_counter()
    contenders["lookalike"]()
    once = time.perf_counter() - begun
    brute = NearestNeighbors(n_neighbors=arguments.k, algorithm="brute", metric="euclidean").fit(gallery)
    begun = time.perf_counter()
    found["scikit-learn"] = brute.kneighbors(queries, return_distance=False)
    slow = time.perf_counter() - begun  # of unit vectors, the same order as by inner products
    work = 2 * arguments.queries * arguments.gallery * arguments.dimension / 1e9
    ours = seconds["lookalike"]
    own = [sys.executable, "-c", OWN, *map(str, (arguments.own, arguments.dimension, arguments.k))]
    report = {
        "seconds": {name: round(statistics.median(times), 3) for name, times in seconds.items()},
        "floor": {name: round(statistics.median(times[1:]), 3) for name, times in floors.items()},
        "ratio": {
            name: round(statistics.median(a / b for a, b in zip(ours, times, strict=True)), 3)
            for name, times in seconds.items()
        },
        "scikit-learn, once": {"seconds": round(slow, 2), "ratio": round(once / slow, 3)},
        "same ids as faiss": {
            name: round(float((ids == found["faiss flat"]).mean()), 6) for name, ids in found.items()
        },
        "peak GFLOP/s": round(statistics.median(peaks[1:])),
        "share of peak": round(statistics.median(work / s / p for s, p in zip(ours, peaks[1:], strict=True)), 3),
        "in themselves": json.loads(subprocess.run(own, capture_output=True, text=True, check=True).stdout),
        "whole score matrix MiB": round(arguments.own**2 * 4 / 2**20),
        "settings": vars(arguments),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
