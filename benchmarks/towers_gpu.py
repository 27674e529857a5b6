"""Forward passes of ViT-H/14 in bfloat16 on one GPU: lookalike against torch with its fused attention.

    python benchmarks/towers_gpu.py                                            one GPU; without one it says so and ends
    python benchmarks/towers_gpu.py --device cpu --layers 2 --batch 4 --side 512 --rounds 1     a smoke run

All have the same random weights, and the same images of 224 px lie in the device's memory before the clock starts;
features stay there. Rounds are interleaved, and each measures a square matrix product of the same kind, in torch and in
JAX: the faster of them stands for the peak. `of the peak` counts the operations of `lookalike.towers.ops`.
`cosine` is the lowest of the features against torch in float32. Goals: 0.6 of the peak, and 1.1 times torch.compile.
Needs `lookalike[gpu]`, and torch with CUDA and transformers beside it.
"""

# ruff: noqa: E402  settings of JAX come before it

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--batch", type=int, default=256, help="images in a batch")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--layers", type=int, default=32, help="blocks of the ViT")
parser.add_argument("--side", type=int, default=8192, help="of the matrices whose product stands for the peak")
parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
arguments = parser.parse_args()

os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # torch needs a part of the memory
os.environ["JAX_PLATFORMS"] = arguments.device

import numpy as np
import torch
import transformers

from lookalike.core.journal import note, table

if not torch.cuda.is_available() and arguments.device == "cuda":
    note("no GPU that torch can use: nothing was measured")
    sys.exit(0)

import jax
import jax.numpy as jnp

from lookalike.encoders.encoder import Encoder
from lookalike.published.layouts import read_published
from lookalike.towers.ops import operations

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

SIZE = 224
Run = Callable[[], Any]
"""One forward pass, ended when its features are there; returns them."""


def published(directory: Path) -> transformers.CLIPVisionModel:
    """The image tower of OpenCLIP's ViT-H/14 with random weights, saved as on the Hub."""
    sizes = {"hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 16, "patch_size": 14}
    config = transformers.CLIPVisionConfig(**sizes, num_hidden_layers=arguments.layers, hidden_act="gelu")
    model = transformers.CLIPVisionModel(config).eval()
    model.save_pretrained(directory)
    processor = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"shortest_edge": SIZE}, "resample": 3}
    transformers.CLIPImageProcessor(**processor, crop_size={"height": SIZE, "width": SIZE}).save_pretrained(directory)
    return model


def in_torch(model: Callable[..., Any], images: torch.Tensor, dtype: torch.dtype) -> Run:
    def run() -> torch.Tensor:
        with torch.inference_mode():
            pixels = (images.permute(0, 3, 1, 2).float() / 127.5 - 1).to(dtype)
            features: torch.Tensor = model(pixel_values=pixels).pooler_output
            _wait()
            return features

    return run


def in_lookalike(encoder: Encoder, images: np.ndarray) -> Run:
    encoder, batch = jax.device_put((encoder, images))
    features = jax.jit(lambda encoder, batch: encoder.features(batch))
    return lambda: jax.block_until_ready(features(encoder, batch))


def contenders(directory: Path, images: np.ndarray) -> tuple[dict[str, Run], int]:
    """All of one model, ours first; and the operations of one image."""
    published(directory)
    _, config, tensors = read_published(directory)
    found = {"lookalike bfloat16": in_lookalike(Encoder.from_parts(config, tensors, "bfloat16"), images)}
    on_device = torch.from_numpy(images).to(arguments.device)

    def again(dtype: torch.dtype) -> transformers.CLIPVisionModel:
        model = transformers.CLIPVisionModel.from_pretrained(directory, attn_implementation="sdpa", dtype=dtype)
        return model.eval().to(arguments.device)

    half = again(torch.bfloat16)
    found["torch float32"] = in_torch(again(torch.float32), on_device, torch.float32)
    found["torch bfloat16"] = in_torch(half, on_device, torch.bfloat16)
    found["torch.compile bfloat16"] = in_torch(torch.compile(half, dynamic=False), on_device, torch.bfloat16)
    return found, operations(config.tower, SIZE)


def products() -> list[Run]:
    """A product of square matrices in bfloat16, in torch and in JAX."""
    in_their = torch.ones((arguments.side, arguments.side), dtype=torch.bfloat16, device=arguments.device)
    ours = jnp.ones((arguments.side, arguments.side), jnp.bfloat16)
    product = jax.jit(jnp.matmul)

    def theirs() -> torch.Tensor:
        result = in_their @ in_their
        _wait()
        return result

    return [theirs, lambda: jax.block_until_ready(product(ours, ours))]


def _wait() -> None:
    if arguments.device == "cuda":
        torch.cuda.synchronize()


def seconds(run: Run, repeats: int) -> float:
    """Of one call, after one to warm up."""
    run()
    begun = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - begun) / repeats


def vectors(features: Any) -> np.ndarray:
    """Features as unit vectors on the host."""
    found = features.float().cpu().numpy() if isinstance(features, torch.Tensor) else np.asarray(features)
    unit: np.ndarray = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


def main() -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (arguments.batch, 16, 16, 3), dtype=np.uint8)
    images = np.ascontiguousarray(coarse.repeat(14, axis=1).repeat(14, axis=2))
    with tempfile.TemporaryDirectory() as directory:
        found, operations_each = contenders(Path(directory), images)
        exact = vectors(found["torch float32"]())
        cosine = {name: (vectors(run()) * exact).sum(axis=1).min() for name, run in found.items()}  # and compiles
        squares, repeats = products(), 10 if arguments.device == "cuda" else 1
        taken: dict[str, list[float]] = {name: [] for name in found}
        peaks = []
        for _ in range(arguments.rounds):
            peaks.append(2 * arguments.side**3 / min(seconds(run, repeats) for run in squares))
            for name, run in found.items():
                taken[name].append(seconds(run, repeats))
    peak, rows = statistics.median(peaks), []
    for name, times in taken.items():
        ratios = [a / b for a, b in zip(taken["torch.compile bfloat16"], times, strict=True)]
        speed = arguments.batch / statistics.median(times)
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append([name, f"{speed:.1f}", f"{speed * operations_each / peak:.2f}", ratio, f"{cosine[name]:.5f}"])
    what = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    note(f"{what}; batch {arguments.batch}; peak {peak / 1e12:.3g} TFLOP/s in bfloat16")
    print(table(["", "images/s", "of the peak", "times torch.compile bfloat16", "cosine"], rows))


if __name__ == "__main__":
    main()
