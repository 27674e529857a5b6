"""Metrics of other libraries on the same vectors: same values where definitions agree, time and memory beside ours.

    python benchmarks/evaluators.py                                 5,000 vectors of 64 numbers, 250 classes
    python benchmarks/evaluators.py --count 600 --classes 60        a smoke run

Needs pytorch-metric-learning, open-metric-learning (4.0.0), torch, scikit-learn and faiss. No lock of ours has the
first two, which ask for an older NumPy: a virtual environment of its own. What is not there is left out, and said. Each
evaluator runs in a process of its own, which says how much its memory grew over what it had after a tenth of the
vectors. Of OML its functions are run on the distances of all pairs, from which its own evaluator takes the nearest.
"""

# ruff: noqa: E402  thread settings come before the libraries that read them

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--count", type=int, default=5000)
parser.add_argument("--classes", type=int, default=250)
parser.add_argument("--dimension", type=int, default=64)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--only", default="", help="one evaluator, in this process")
arguments = parser.parse_args()
os.environ.setdefault("OMP_NUM_THREADS", str(arguments.threads))
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])

import numpy as np

Made = tuple[np.ndarray, np.ndarray]


def drawn() -> Made:
    """Noisy classes of 1 to many images: unit vectors and labels."""
    rng = np.random.default_rng(0)
    label = np.sort((rng.random(arguments.count) ** 1.5 * arguments.classes).astype(np.int64))
    centers = rng.standard_normal((arguments.classes, arguments.dimension), np.float32)
    vectors = centers[label] + 1.6 * rng.standard_normal((arguments.count, arguments.dimension), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), label


def ours(
    vectors: np.ndarray,
    label: np.ndarray,
    names: Sequence[str] = ("recall@1", "p@5", "mp@5", "recall@5", "map@5", "map@100", "map@r", "r-precision"),
) -> dict[str, float]:
    """The mean over queries."""
    import pyarrow as pa

    from lookalike.evaluation.metrics import metrics_of
    from lookalike.evaluation.protocols import evaluate

    rows = pa.table({"id": np.arange(len(label)), "label": [str(c) for c in label]})
    return dict(evaluate(vectors, rows, "all", metrics=metrics_of(names)).metrics_by_query)


def metric_learning(vectors: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """pytorch-metric-learning's AccuracyCalculator."""
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    calculator = AccuracyCalculator(include=names, device=torch.device("cpu"))
    found = calculator.get_accuracy(torch.from_numpy(vectors), torch.from_numpy(label))
    ours_by = {"recall@1": names[0], "r-precision": names[1], "map@r": names[2]}
    return {name: float(found[theirs]) for name, theirs in ours_by.items()}


def open_metric_learning(vectors: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """open-metric-learning's functions on the nearest 100, from distances of all pairs, of queries with a positive."""
    import torch
    from oml.functional import metrics

    far = torch.cdist(torch.from_numpy(vectors), torch.from_numpy(vectors))
    right = torch.from_numpy(label[:, None] == label[None])
    itself = torch.eye(len(label), dtype=torch.bool)
    far[itself], right[itself] = float("inf"), False
    counts = right.sum(dim=1)
    some = counts > 0
    _, nearest = torch.topk(far[some], min(100, len(label) - 1), largest=False)
    hits = torch.gather(right[some], 1, nearest)
    relevant = counts[some].tolist()
    found = {f"recall@{k}": metrics.calc_cmc(hits, relevant, (k,))[0].mean() for k in (1, 5)}
    found |= {f"its own map@{k}": metrics.calc_map(hits, relevant, (k,))[0].mean() for k in (5, 100)}
    found["its own precision@5"] = metrics.calc_precision(hits, relevant, (5,))[0].mean()
    return {name: float(value) for name, value in found.items()}


def scikit_learn(vectors: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """scikit-learn's average precision, query by query, over the whole gallery."""
    from sklearn.metrics import average_precision_score

    values = []
    for place in range(len(label)):
        scores = np.delete(vectors @ vectors[place], place)
        right = np.delete(label, place) == label[place]
        if right.any():
            values.append(average_precision_score(right, scores))
    return {"map@10000": float(np.mean(values))}


EVALUATORS: dict[str, Callable[[np.ndarray, np.ndarray], dict[str, float]]] = {
    "lookalike": ours,
    "lookalike, whole rankings": partial(ours, names=("map@10000",)),
    "pytorch-metric-learning": metric_learning,
    "open-metric-learning": open_metric_learning,
    "scikit-learn": scikit_learn,
}


def peak() -> float:
    """MiB of this process at most, so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def run(name: str) -> None:
    """One evaluator, twice: the first time brings its libraries in, on a tenth of the vectors."""
    vectors, label = drawn()
    EVALUATORS[name](vectors[::10].copy(), label[::10])
    before, begun = peak(), time.perf_counter()
    found = EVALUATORS[name](vectors, label)
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": round(seconds, 2), "grown MiB": round(peak() - before), "metrics": found}))


def main() -> None:
    """Print one JSON document."""
    report: dict[str, object] = {"settings": vars(arguments)}
    passed = [
        word
        for name in ("count", "classes", "dimension", "threads")
        for word in (f"--{name}", str(vars(arguments)[name]))
    ]
    for name in EVALUATORS:
        done = subprocess.run(
            [sys.executable, __file__, *passed, "--only", name], capture_output=True, text=True, check=False
        )
        report[name] = json.loads(done.stdout) if done.returncode == 0 else done.stderr.strip().splitlines()[-1]
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    run(arguments.only) if arguments.only else main()
