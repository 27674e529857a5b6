"""The memory that `evaluate` states before it starts, and what it takes: peak of a process of its own.

    python benchmarks/ceiling.py                             60,000 in themselves; 5,000 in 200,000
    python benchmarks/ceiling.py --sizes 242000:1400000      UnED's
    python benchmarks/ceiling.py --sizes 300:2000            a smoke run

QUERIES:GALLERY; `60000:0` searches 60,000 in themselves. Rows have labels, domains and splits as texts. The goal: the
peak is not above what was stated, and UnED's is stated and stays below 4 GiB.
"""

import argparse
import subprocess
import sys

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--sizes", nargs="+", default=["60000:0", "5000:200000"])
parser.add_argument("--dimension", type=int, default=64)
arguments = parser.parse_args()

MEASURE = """
import json, sys, time
from pathlib import Path
import numpy as np, pyarrow as pa
from lookalike.evaluation.ceiling import Ceiling
from lookalike.evaluation.protocols import evaluate

queries, gallery, width = map(int, sys.argv[1:])
count = queries + gallery
rng = np.random.default_rng(0)
label = rng.integers(0, max(2, count // 8), count)
vectors = np.empty((count, width), np.float32)
for first in range(0, count, 65536):
    some = label[first : first + 65536]
    center = np.sin(np.outer(some + 1.0, np.arange(1, width + 1)) * 1.7).astype(np.float32)
    vectors[first : first + 65536] = center + rng.standard_normal((len(some), width), np.float32)
names = np.char.add("class ", label.astype(str))
domains = np.char.add("domain ", (label % 8).astype(str))
rows = pa.table({
    "id": np.arange(count), "label": pa.array(names), "domain": pa.array(domains),
    "split": pa.array(np.repeat("test", count)),
    "is_query": np.arange(count) < queries, "is_gallery": np.arange(count) >= (queries if gallery else 0),
})
del names, domains, label
stated = Ceiling(count, queries, gallery or queries, width, 100)
stated.tell()
begun = time.perf_counter()
report = evaluate(vectors, rows)
lines = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
print(json.dumps({
    "queries": queries, "gallery": gallery or queries, "stated GiB": round(stated.bytes / 2**30, 2),
    "peak GiB": round(peak / 2**30, 2), "seconds": round(time.perf_counter() - begun, 1),
    "all scores GiB": round(queries * (gallery or queries) * 4 / 2**30, 1), "mp@5": round(report.metrics["mp@5"], 4),
}))
"""


def main() -> None:
    """A line of JSON for each size."""
    for size in arguments.sizes:
        words = [*size.split(":"), str(arguments.dimension)]
        subprocess.run([sys.executable, "-c", MEASURE, *words], check=True)


if __name__ == "__main__":
    main()
