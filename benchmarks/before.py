"""This version against version 0.1.0, whose package had another name.

    git worktree add ../before f3e8d87
    python benchmarks/before.py --before ../before                           everything, in half an hour
    python benchmarks/before.py --before ../before --only towers --rounds 1      a smoke run

Both packages are in one process, their runs take turns, and every figure is a ratio within a pair of runs: above 1 the
new version is better. Model directories are written by the old version, with random weights, and opened by both.
Commands are whole processes, whose processor time is counted with their children's. The goal: 0.97 everywhere.
Needs equinox, which the old version imports, beside the locked libraries.
"""

# ruff: noqa: E402  settings of threads and paths come before the libraries that read them

import argparse
import importlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--before", type=Path, required=True, help="a checkout of the old version")
parser.add_argument("--only", nargs="*", help="parts: towers, giant, images, search, commands")
parser.add_argument("--rounds", type=int, default=7)
arguments = parser.parse_args()

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.append(str(arguments.before / "src"))

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

from lookalike.core.journal import note
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, declared
from lookalike.encoders.directory import read_model
from lookalike.encoders.encoder import Encoder
from lookalike.imaging import decode as new_images
from lookalike.imaging.preprocess import Preprocess
from lookalike.retrieval.exact import knn
from lookalike.towers import ViTConfig
from lookalike.vectors.runtime import load

NAME = next(path.parent.name for path in (arguments.before / "src").glob("*/__init__.py"))
old_images, old_runtime, old, old_towers, old_encoders, old_preprocess, old_search = (
    importlib.import_module(f"{NAME}.{module}")
    for module in (
        "data.images",
        "embedding.runtime",
        "models.config",
        "models.towers.efficientnet",
        "models.encoder",
        "models.preprocess",
        "search.exact",
    )
)

Run = Callable[[], Any]
HALF = (0.5, 0.5, 0.5)
SWIN = (1, 96, (2, 2, 4), (3, 6, 12), (7, 7, 7), (3, 3, 3))
TOWERS: dict[str, tuple[Any, str, int, int]] = {
    "ViT-S/16, 6 blocks": (old.ViTConfig(224, 16, 384, 6, 6, 1536, "gelu"), "class", 224, 4),
    "ConvNeXt, 2 + 2 + 4": (old.ConvNeXtConfig((96, 192, 384), (2, 2, 4)), "mean", 160, 2),
    "Swin, 2 + 2 + 4": (old.SwinConfig(*SWIN), "mean", 224, 2),
    "EfficientNet-B0": (old_towers.EFFICIENTNETS["b0"], "mean", 160, 2),
    "MobileNetV2": (old.MobileNetV2Config(), "mean", 160, 4),
    "the small ConvNet": (old.ConvNetConfig(), "mean", 64, 64),
}
"""Old config, pooling, pixels, images of a batch."""


def seconds(run: Run) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def pair(before: Run, after: Run, rounds: int = arguments.rounds) -> tuple[float, float, float]:
    """Milliseconds of both, and the ratio: medians over rounds, after one run each to warm up."""
    before(), after()
    times = []
    for i in range(rounds):  # who is first changes, since the one before leaves a warm cache or a busy thread
        both = (before, after) if i % 2 else (after, before)
        taken = {run: seconds(run) for run in both}
        times.append((taken[before] * 1e3, taken[after] * 1e3))
    return (
        *(statistics.median(column) for column in zip(*times, strict=True)),
        statistics.median(a / b for a, b in times),
    )


def line(*cells: object) -> None:
    print("|", " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells), "|", flush=True)


def header(*cells: str) -> None:
    print()
    line(*cells)
    line("---", *("---:" for _ in cells[1:]))


def compiled(function: Callable[..., Any], *values: Any) -> tuple[Any, float]:
    """The program, and the seconds that tracing and compiling took."""
    jax.clear_caches()
    begun = time.perf_counter()
    program = jax.jit(function).lower(*values).compile()
    return program, time.perf_counter() - begun


def programs(encoder: Any, batch: Any, image_gradient: bool) -> tuple[Any, float]:
    """Forward pass, or gradient of its sum with respect to all weights."""
    if not image_gradient:
        return compiled(lambda e, x: e.features(x), encoder, batch)
    return compiled(jax.grad(lambda e, x: e.features(x).sum()), encoder, batch)


def finished(program: Any, encoder: Any, images: np.ndarray) -> None:
    jax.block_until_ready(program(encoder, images))


def towers(directory: Path) -> None:
    header("tower", "ONNX, ms", "ratio", "JAX, ms", "ratio", "compile", "gradient, ms", "ratio", "compile", "memory")
    for name, (tower, pooling, size, count) in TOWERS.items():
        projection = old.ProjectionConfig("identity", tower.features, tower.features)
        config = old.EncoderConfig(
            tower, pooling, old_preprocess.Preprocess(size, "squash", size, "bicubic", HALF, HALF), projection
        )
        rng, tensors = np.random.default_rng(0), {}
        for tensor, shape in old.tensor_shapes(config).items():
            value = rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
            tensors[tensor] = (np.abs(value) + 0.5 if tensor.endswith("variance") else value).astype(np.float32)
        path = directory / name.split(",")[0].replace("/", "-")
        old.write_model(path, config, tensors, {})
        images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        graphs = [made(path, "onnx") for made in (old_runtime.load, load)]
        cells: list[object] = [name, *onnx_cells(graphs, images)]
        encoders = [old_encoders.Encoder.from_parts(*old.read_model(path)), Encoder.from_parts(*read_model(path))]
        for gradient in (False, True):
            (before, slow), (after, fast) = (programs(encoder, images, gradient) for encoder in encoders)
            runs = [partial(finished, *both, images) for both in zip((before, after), encoders, strict=True)]
            first, second, ratio = pair(*runs)
            cells += [f"{first:.0f}, {second:.0f}", ratio, slow / fast]
        memory = [program.memory_analysis().temp_size_in_bytes for program in (before, after)]
        line(*cells, memory[0] / memory[1])


def onnx_cells(graphs: list[Any], images: np.ndarray) -> list[object]:
    first, second, ratio = pair(*(lambda g=g: g.features(images) for g in graphs))
    return [f"{first:.0f}, {second:.0f}", ratio]


def giant(_: Path) -> None:
    """ViT-H/14 with weights that exist only as shapes."""
    header("ViT-H/14, batch 8, bfloat16", "before", "after", "ratio")
    sizes = (224, 14, 1280, 32, 16, 5120, "gelu")
    old_config = old.EncoderConfig(
        old.ViTConfig(*sizes), "class", old_preprocess.Preprocess(224, "squash", 224, "bicubic", HALF, HALF),
        old.ProjectionConfig("identity", 1280, 1280),
    )  # fmt: skip
    config = EncoderConfig(
        ViTConfig(*sizes), "class", Preprocess(224, "squash", 224, "bicubic", HALF, HALF),
        ProjectionConfig("identity", 1280, 1280),
    )  # fmt: skip
    shapes = {name: jax.ShapeDtypeStruct(tensor.shape, jnp.float32) for name, tensor in declared(config).items()}
    batch = jax.ShapeDtypeStruct((8, 224, 224, 3), jnp.uint8)
    encoders = [
        jax.eval_shape(lambda t: old_encoders.Encoder._of(old_config, t, "bfloat16", True), shapes),
        Encoder(config, shapes, "bfloat16", True),
    ]
    for gradient in (False, True):
        taken: list[list[float]] = [[], []]
        for _ in range(3):
            found = [programs(encoder, batch, gradient) for encoder in encoders]
            for column, (_, spent) in zip(taken, found, strict=True):
                column.append(spent)
        before, after = (statistics.median(column) for column in taken)
        what = "gradient" if gradient else "forward"
        line(f"compile the {what}, s", before, after, before / after)
        memory = [program.memory_analysis().temp_size_in_bytes / 2**20 for program, _ in found]
        line(f"temporary memory of the {what}, MiB", *memory, memory[0] / memory[1])


def encoded(height: int, width: int, form: str, **options: Any) -> bytes:
    """Blocks of 16 x 16 pixels, as a file."""
    blocks = np.random.default_rng(0).integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(blocks.repeat(16, 0).repeat(16, 1)).save(file, form, **options)
    return file.getvalue()


def images(_: Path) -> None:
    header("image", "store, ms", "ratio", "decode, ms", "ratio")
    files = {
        "JPEG 4000 x 3000": (encoded(3008, 4000, "JPEG", quality=90), 3),
        "JPEG 1200 x 800": (encoded(800, 1200, "JPEG", quality=90), 10),
        "JPEG 320 x 256": (encoded(256, 320, "JPEG", quality=90), 50),
        "PNG 1200 x 800": (encoded(800, 1200, "PNG"), 10),
        "TIFF 1200 x 800, LZW": (encoded(800, 1200, "TIFF", compression="tiff_lzw"), 10),
        "WebP 1200 x 800": (encoded(800, 1200, "WEBP"), 5),
    }
    for name, (data, repeats) in files.items():

        def times(function: Callable[..., Any], *more: Any, data: bytes = data, repeats: int = repeats) -> Run:
            return lambda: [function(data, *more) for _ in range(repeats)]

        cells: list[object] = [name]
        for function, more in (("store", (256,)), ("decode", ())):
            before, after = (times(getattr(package, function), *more) for package in (old_images, new_images))
            first, second, ratio = pair(before, after)
            cells += [f"{first / repeats:.2f}, {second / repeats:.2f}", ratio]
        line(*cells)
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    header("preprocessing 640 x 480", "before, ms", "after, ms", "ratio")
    for resize in ("squash", "crop", "pad"):
        before, after = (p(224, resize, 256, "bicubic", HALF, HALF) for p in (old_preprocess.Preprocess, Preprocess))
        first, second, ratio = pair(
            lambda b=before: [b(pixels) for _ in range(20)], lambda a=after: [a(pixels) for _ in range(20)]
        )
        line(resize, first / 20, second / 20, ratio)


def search(_: Path) -> None:
    header("search, 64 numbers", "before, ms", "after, ms", "ratio")
    for queries, gallery in ((1, 1_000_000), (300, 20_000), (1000, 100_000), (5000, 200_000)):
        rng = np.random.default_rng(0)
        q, g = (rng.standard_normal((n, 64), np.float32) for n in (queries, gallery))
        q, g = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, g))
        line(
            f"{queries:,} in {gallery:,}",
            *pair(lambda q=q, g=g: old_search.knn(q, g, 5), lambda q=q, g=g: knn(q, g, 5)),
        )


def commands(directory: Path) -> None:
    """Whole processes on the images of the demonstration, each version with a directory of its own."""
    header("command", "before, s", "after, s", "ratio", "processor time", "peak memory")
    places = [directory / "before", directory / "after"]
    names = [NAME, "lookalike"]
    environments = []
    for place, source in zip(
        places, (arguments.before / "src", Path(__file__).resolve().parents[1] / "src"), strict=True
    ):
        place.mkdir()
        # With bytecode on the disk, as a person has it: reading the sources again would be half of a short command.
        own = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": str(source), "XDG_CACHE_HOME": str(place / "cache")}
        environments.append({**os.environ, **own})
    draw = "from pathlib import Path; from {}.demo.draw import draw; draw(Path('shop'), products=120, views=8)"
    for name, place, environment in zip(names, places, environments, strict=True):
        subprocess.run([sys.executable, "-c", draw.format(name)], cwd=place, env=environment, check=True)
    steps: dict[str, tuple[list[str], int]] = {
        "prepare (960 images)": (["prepare", "shop/products.csv", "--out", "c{}"], 3),
        "train tiny, 60 steps": (["train", "tiny", "--data", "c0", "--out", "r{}", "--steps", "60"], 3),
        "embed": (["embed", "c{}", "--model", "r0/model"], 3),
        "index": (["index", "c{}", "--model", "r0/model", "--out", "i{}"], 3),
        "evaluate": (["evaluate", "r0/model", "c0"], 3),
        "search, cold": (["search", "query.jpg", "-i", "i0"], arguments.rounds),
        "info": (["info", "c0"], arguments.rounds),
        "--help": (["--help"], arguments.rounds),
    }
    earlier = {  # as versions to 0.2 had it
        "embed": ["embed", "r0/model", "c{}"],
        "search, cold": ["search", "i0", "query.jpg"],
    }
    for what, (words, rounds) in steps.items():
        found: list[list[tuple[float, float, float]]] = [[], []]
        for i in range(rounds):
            for side in (0, 1) if i % 2 else (1, 0):
                query = places[side] / "query.jpg"
                if not query.exists():
                    query.write_bytes(next((places[side] / "shop").rglob("*.jpg")).read_bytes())
                own = earlier.get(what, words) if side == 0 else words
                command = [sys.executable, "-m", names[side], *(word.format(i) for word in own)]
                found[side].append(process(command, places[side], environments[side]))
        ratios = [statistics.median(a[k] / b[k] for a, b in zip(*found, strict=True)) for k in range(3)]
        wall = [statistics.median(column[0] for column in side) for side in found]
        line(what, *wall, *ratios)


def process(command: list[str], place: Path, environment: dict[str, str]) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and the largest memory of a process and its children."""
    watch = (
        "import resource, subprocess, sys, json\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)\n"
        "if done.returncode: sys.exit(done.stderr[-2000:])\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss)\n"
    )
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", watch, *command], cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    wall = time.perf_counter() - begun
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    used, memory = map(float, done.stdout.split())
    return wall, used, memory


PARTS: dict[str, Callable[[Path], None]] = {
    "towers": towers,
    "giant": giant,
    "images": images,
    "search": search,
    "commands": commands,
}


def main() -> None:
    note(f"{os.cpu_count()} cores, {arguments.rounds} rounds; ratios above 1: the new version is better")
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        for part in arguments.only or PARTS:
            PARTS[part](Path(name))


if __name__ == "__main__":
    main()
