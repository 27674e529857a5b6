"""Forward passes of ViT-B/16 on a CPU: what `embed` and `search` run, against torch, transformers and ONNX Runtime.

    python benchmarks/towers.py                                  batches of 16 and of 1, 2 threads
    python benchmarks/towers.py --layers 2 --images 4 --rounds 1     a smoke run

Every contender has the same random weights and gets the same normalised or raw images of 224 px; rounds are
interleaved, and each measures a float32 matrix product that stands for the machine's peak. `cosine` is the lowest of
the features against torch in float32. Goals: 2.4 times torch eager float32 at a cosine of 0.999, not behind any other,
and JAX float32 not behind torch float32. Random weights say little about what eight bits do to trained ones: `load`
measures that for each model before it uses them (`lookalike.vectors.engines`). Needs the group `reference`, and a
C++ compiler for torch.compile, which is left out without one.
"""

# ruff: noqa: E402  thread settings come before the libraries that read them

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--images", type=int, default=16, help="in the large batch")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--layers", type=int, default=12, help="blocks of the ViT")
arguments = parser.parse_args()

os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if hasattr(os, "sched_setaffinity"):  # lookalike and XLA take as many threads as the process may use cores
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])

import numpy as np
import onnxruntime
import torch
import transformers

from lookalike.core.journal import note, table
from lookalike.encoders.directory import read_model, write_model
from lookalike.published.layouts import read_published
from lookalike.vectors.engines import write_graph
from lookalike.vectors.runtime import load

torch.set_num_threads(arguments.threads)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

Contenders = dict[str, Callable[[np.ndarray], np.ndarray]]


def published(directory: Path) -> transformers.CLIPVisionModel:
    """CLIP's ViT-B/16 with random weights, saved as on the Hub."""
    config = transformers.CLIPVisionConfig(patch_size=16, num_hidden_layers=arguments.layers)
    model = transformers.CLIPVisionModel(config).eval()
    model.save_pretrained(directory)
    processor = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"shortest_edge": 224}, "resample": 3}
    transformers.CLIPImageProcessor(**processor, crop_size={"height": 224, "width": 224}).save_pretrained(directory)
    return model


def in_torch(model: Callable[..., object], dtype: torch.dtype = torch.float32) -> Callable[[np.ndarray], np.ndarray]:
    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1).to(dtype)
            return model(pixel_values=pixels).pooler_output.float().numpy()  # type: ignore[attr-defined]

    return run


def in_onnxruntime(graph: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The float32 graph as a user would run it: one call, ONNX Runtime's own threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    session = onnxruntime.InferenceSession(os.fspath(graph), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def contenders(directory: Path) -> Contenders:
    """Ours first; all of one model."""
    eager = published(directory / "published")
    _, config, tensors = read_published(directory / "published")
    write_model(directory / "model", config, tensors, {})
    ours = load(directory / "model")
    note(f"auto: {'float32' if ours.cosine is None else f'eight bits, cosine {ours.cosine:.5f} on drawn images'}")
    (directory / "graph").mkdir()
    graph = write_graph(directory / "graph", *read_model(directory / "model"))
    again = transformers.CLIPVisionModel.from_pretrained
    attention = again(directory / "published", attn_implementation="eager", dtype=torch.float32).eval()
    half = again(directory / "published", dtype=torch.bfloat16).eval()
    found: Contenders = {
        "lookalike (auto)": ours.features,
        "lookalike float32": load(directory / "model", "onnx").features,
        "torch eager float32": in_torch(attention),
        "transformers, its default": in_torch(again(directory / "published").eval()),
        "torch bfloat16": in_torch(half, torch.bfloat16),
        "ONNX Runtime float32": in_onnxruntime(graph),
    }
    if shutil.which("g++"):
        found["torch.compile float32"] = in_torch(torch.compile(eager, dynamic=False))
        found["torch.compile bfloat16"] = in_torch(torch.compile(half, dynamic=False), torch.bfloat16)
    return found


def product() -> float:
    """GFLOP/s of a float32 matrix product."""
    matrix = np.ones((2048, 2048), np.float32)
    begun = time.perf_counter()
    matrix @ matrix
    return 2 * 2048**3 / (time.perf_counter() - begun) / 1e9


def report(found: Contenders, images: np.ndarray) -> None:
    """Print the table of one batch size."""
    exact = found["torch eager float32"](images)
    vectors = {name: run(images) for name, run in found.items()}  # warms up and compiles, too
    seconds: dict[str, list[float]] = {name: [] for name in found}
    peaks, repeats = [], max(1, 8 // len(images))
    for _ in range(arguments.rounds):
        for name, run in found.items():
            run(images[:1])  # the threads of the one before spin for a while
            begun = time.perf_counter()
            for _ in range(repeats):
                run(images)
            seconds[name].append((time.perf_counter() - begun) / repeats)
        peaks.append(product())
    rows = []
    for name, times in seconds.items():
        ratios = [a / b for a, b in zip(seconds["torch eager float32"], times, strict=True)]
        cosine = np.sum(vectors[name] * exact, axis=1)
        cosine /= np.linalg.norm(vectors[name], axis=1) * np.linalg.norm(exact, axis=1)
        rate = f"{len(images) / statistics.median(times):.2f}"
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append([name, rate, ratio, f"{cosine.min():.5f}"])
    note(f"batch {len(images)}; peak {statistics.median(peaks):.0f} GFLOP/s in float32")
    print(table(["", "images/s", "times torch eager float32", "cosine"], rows))


def main() -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (arguments.images, 14, 14, 3), dtype=np.uint8)
    images = np.ascontiguousarray(coarse.repeat(16, axis=1).repeat(16, axis=2))
    with tempfile.TemporaryDirectory() as directory:
        os.environ["XDG_CACHE_HOME"] = str(Path(directory) / "cache")
        found = contenders(Path(directory))
        for count in (arguments.images, 1):
            compiled = load(Path(directory) / "model", "jax", batch=count).features
            report({**found, "lookalike in JAX, float32": compiled}, images[:count])


if __name__ == "__main__":
    main()
