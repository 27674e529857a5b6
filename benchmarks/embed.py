"""`lookalike embed` against torch eager float32 on the same random weights, with the same number of threads.

    python benchmarks/embed.py                                          MobileNetV2 and ViT-B/16, 2 threads
    python benchmarks/embed.py --images 16 --rounds 1 --layers 2      a smoke run

Two tables. The first starts from ready batches: torch at the best of three batch sizes, against `Embedder.features`.
The second starts from a collection and ends at its committed column, against a loop that decodes and prepares the
same way and calls torch. Rounds are interleaved, so that ratios hold on a busy machine. Each round also measures a
matrix product, which stands for the machine's peak. The goal is 1.0 times torch. Needs the group `reference`.
"""

# ruff: noqa: E402  thread settings come before the libraries that read them

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--images", type=int, default=64, help="for MobileNetV2; a quarter of them for ViT-B/16")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--layers", type=int, default=12, help="blocks of the ViT")
arguments = parser.parse_args()

os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
if hasattr(os, "sched_setaffinity"):  # lookalike takes as many threads as the process may use cores
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])

import numpy as np
import pyarrow as pa
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from lookalike.data.collection import SCHEMA, Collection
from lookalike.encoders.directory import write_model
from lookalike.imaging.decode import encode_jpeg
from lookalike.published.layouts import read_published
from lookalike.vectors.column import ensure_features
from lookalike.vectors.runtime import Embedder, load

torch.set_num_threads(arguments.threads)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

Contenders = dict[str, Callable[[], np.ndarray]]


def mobilenet() -> torch.nn.Module:
    """MobileNetV2 1.0 with random weights, its batch norms fitted to images so that signals neither die nor burst."""
    model = transformers.MobileNetV2Model(transformers.MobileNetV2Config(tf_padding=False)).train()
    with torch.no_grad():
        model(pixel_values=normalised(pictures(16)))
    return model.eval()


def vit() -> torch.nn.Module:
    """CLIP's ViT-B/16 with random weights."""
    config = transformers.CLIPVisionConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=arguments.layers,
        num_attention_heads=12,
        patch_size=16,
    )
    return transformers.CLIPVisionModel(config).eval()


def pictures(count: int) -> np.ndarray:
    """Soft random colours, uint8 [count 224 224 3]."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 14, 14, 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(16, axis=1).repeat(16, axis=2))


def normalised(images: np.ndarray) -> torch.Tensor:
    """As both image processors that are saved here do it: mean and deviation 0.5."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def converted(model: torch.nn.Module, directory: Path) -> Embedder:
    """The same weights as a model directory of ours, loaded for the CPU."""
    model.save_pretrained(directory / "published")
    processor = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"shortest_edge": 256}, "resample": 3}
    crop = {"crop_size": {"height": 224, "width": 224}}
    transformers.CLIPImageProcessor(**processor, **crop).save_pretrained(directory / "published")
    _, config, tensors = read_published(directory / "published")
    write_model(directory / "model", config, tensors, {})
    return load(directory / "model", "onnx")


def collection_of(images: np.ndarray, path: Path) -> Collection:
    """A collection of these images, stored at 256 px as `prepare` would."""
    count = len(images)
    stored = [encode_jpeg(np.pad(image, ((16, 16), (16, 16), (0, 0)), "edge")) for image in images]
    columns = {
        "id": np.arange(count),
        "source": [f"{i}.jpg" for i in range(count)],
        "image": stored,
        "width": np.full(count, 256, np.int32),
        "height": np.full(count, 256, np.int32),
        "sha256": pa.array([i.to_bytes(32) for i in range(count)], pa.binary(32)),
        **{name: pa.nulls(count, pa.string()) for name in ("label", "domain", "split", "group")},
        "is_query": np.ones(count, bool),
        "is_gallery": np.ones(count, bool),
        "gone": np.zeros(count, bool),
        "stamp": [""] * count,
    }
    collection = Collection.create(path)
    collection.append(pa.table(columns, schema=SCHEMA))
    return collection


def in_torch(model: torch.nn.Module, images: np.ndarray, batch: int) -> np.ndarray:
    """Pooled features, batch by batch."""
    with torch.inference_mode():
        parts = [
            model(pixel_values=normalised(images[i : i + batch])).pooler_output for i in range(0, len(images), batch)
        ]
    return torch.cat(parts).numpy()


def rounds(contenders: Contenders) -> dict[str, list[float]]:
    """Seconds of each contender in each round, after one call to warm up."""
    for call in contenders.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(arguments.rounds):
        for name, call in contenders.items():
            begun = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - begun)
    return seconds


def product() -> np.ndarray:
    """17 GFLOP of matrix product."""
    matrix = np.ones((2048, 2048), np.float32)
    return matrix @ matrix


def gflop(model: torch.nn.Module) -> float:
    """Of one image, as torch counts it."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(pixel_values=normalised(pictures(1)))
    return counter.get_total_flops() / 1e9


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The lowest over all rows."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / lengths).min())


def report(name: str, seconds: dict[str, list[float]], count: int, work: float, against: np.ndarray) -> None:
    """One row: rates, the median of the rounds' ratios, the share of the machine's peak, the lowest cosine."""
    theirs = min((n for n in seconds if n.startswith("torch")), key=lambda n: statistics.median(seconds[n]))
    ratios = [t / o for t, o in zip(seconds[theirs], seconds["ours"], strict=True)]
    shares = [count * work / o / (17.18 / p) for o, p in zip(seconds["ours"], seconds["peak"], strict=True)]
    rates = [count / statistics.median(seconds[n]) for n in (theirs, "ours")]
    print(
        f"| {name} | {rates[0]:.1f} ({theirs.removeprefix('torch ')}) | {rates[1]:.1f} "
        f"| **{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f}) "
        f"| {statistics.median(shares):.0%} | {cosine(*against):.6f} |",
        flush=True,
    )


def measure(name: str, model: torch.nn.Module, count: int, directory: Path) -> None:
    """Both rows of one tower."""
    embedder, images, work = converted(model, directory), pictures(count), gflop(model)
    seconds = rounds(
        {f"torch batch {b}": lambda b=b: in_torch(model, images, b) for b in (1, 8, 32) if b <= count}
        | {"ours": lambda: embedder.features(images), "peak": product}
    )
    best = int(
        min((n for n in seconds if n.startswith("torch")), key=lambda n: statistics.median(seconds[n])).split()[-1]
    )
    report(f"{name}, batches", seconds, count, work, (in_torch(model, images, best), embedder.features(images)))

    made = 0
    stored = collection_of(images, directory / "stored").table(["image"])["image"].to_pylist()

    def ours() -> np.ndarray:
        nonlocal made
        made += 1
        collection = collection_of(images, directory / f"collection{made}")
        begun = time.perf_counter()
        ensure_features(embedder, collection, mirrored=False)
        inside.append(time.perf_counter() - begun)
        return collection.vectors(embedder.column("features", "float32"))[1]

    def theirs() -> np.ndarray:
        parts = [
            in_torch(model, np.stack([embedder.decode(data) for data in stored[i : i + best]]), best)
            for i in range(0, count, best)
        ]
        return np.concatenate(parts)

    inside: list[float] = []
    seconds = rounds({f"torch batch {best}": theirs, "ours": ours, "peak": product})
    seconds["ours"] = inside[1:]  # without making the collection
    report(f"{name}, collection to column", seconds, count, work, (theirs(), ours()))


def main() -> None:
    torch.manual_seed(0)
    print(f"{arguments.threads} threads, {arguments.rounds} interleaved rounds, medians; random weights, float32\n")
    print("| | torch eager, images/s | ours, images/s | ratio | share of peak | lowest cosine |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        os.environ["XDG_CACHE_HOME"] = directory
        measure("MobileNetV2", mobilenet(), arguments.images, Path(directory) / "mobilenet")
        measure(f"ViT-B/16 ({arguments.layers} layers)", vit(), max(1, arguments.images // 4), Path(directory) / "vit")


if __name__ == "__main__":
    sys.exit(main())
