"""The input stream of training against torch's DataLoader, on the same stored images.

    python benchmarks/loader.py                       2,000 images, shorter side 256 px
    python benchmarks/loader.py --images 64 --steps 2 --rounds 1      a smoke run

Both read a JPEG, crop a random part (30 to 100 % of the area) to 224 px with antialiased bilinear filters, flip half of
them, and change brightness, contrast and saturation by up to 40 %; batches of 64 hold 8 bits a value. The peer's
transforms are torchvision's RandomResizedCrop, RandomHorizontalFlip, ColorJitter and PILToTensor, written with Pillow
as torchvision writes them; it reads files, we read the collection. `floats` also divides and normalises, as its usual
recipes do there; our towers do that on the device.

The clock is processor time, of processes and threads together, so that figures are per core and hold on a busy
machine; rounds are interleaved, and medians are given. Goal: twice the images a core.

`decoded only` reads and decodes: what is left for the host where crops and colours are made on the device. `device`
is that other part, by JAX on whatever it finds here.
"""

import argparse
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from PIL import ImageEnhance, ImageOps
from torch.utils.data import DataLoader, Dataset, RandomSampler

import lookalike.data.batches
from lookalike.core.journal import note, table
from lookalike.data.batches import batches
from lookalike.data.collection import Collection
from lookalike.data.pixels import opened
from lookalike.data.prepare import prepare
from lookalike.data.sampling import Mixture, sampler
from lookalike.imaging.augment import Color, Crop, Flip, View
from prepare import sources

SIZE, BATCH, AREA, COLOR = 224, 64, (0.3, 1.0), 0.4
TICKS = os.sysconf("SC_CLK_TCK")


class Files(Dataset):
    """The peer: files, and torchvision's transforms."""

    def __init__(self, paths: list[str], floats: bool) -> None:
        self.paths, self.floats = paths, floats

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with open(self.paths[index], "rb") as file:  # noqa: PTH123  as torchvision's pil_loader does
            image = PIL.Image.open(file).convert("RGB")
        image = resized_crop(image)
        if torch.rand(1) < 0.5:
            image = image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(jitter(image), copy=True)).permute(2, 0, 1)
        if self.floats:
            pixels = (pixels.contiguous().to(torch.float32).div(255) - 0.5) / 0.25
        return pixels, index


def uniform(low: float, high: float) -> float:
    return float(torch.empty(1).uniform_(low, high).item())


def resized_crop(image: PIL.Image.Image) -> PIL.Image.Image:
    """`RandomResizedCrop`."""
    width, height = image.size
    for _ in range(10):
        area = width * height * uniform(*AREA)
        ratio = math.exp(uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = int(torch.randint(0, height - h + 1, (1,)).item())
            left = int(torch.randint(0, width - w + 1, (1,)).item())
            part = image.crop((left, top, left + w, top + h))
            return part.resize((SIZE, SIZE), PIL.Image.Resampling.BILINEAR)
    return ImageOps.fit(image, (SIZE, SIZE), PIL.Image.Resampling.BILINEAR)


def jitter(image: PIL.Image.Image) -> PIL.Image.Image:
    """`ColorJitter`."""
    kinds: tuple[Any, ...] = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for kind in torch.randperm(3).tolist():
        image = kinds[kind](image).enhance(uniform(1 - COLOR, 1 + COLOR))
    return image


def collected(home: Path, data: Path | None, count: int) -> tuple[Collection, list[str]]:
    """A collection of `count` images, and what it stores as files."""
    (home / "images").mkdir()
    for number, image in enumerate(sources(data, count)):
        ImageOps.contain(image.resize((image.width * 2, image.height * 2)), (341, 341)).save(
            home / "images" / f"{number:05}.jpg", quality=92
        )
    prepare([str(home / "images")], str(home / "coll"))
    collection = Collection.open(home / "coll")
    (home / "stored").mkdir()
    paths = []
    for number, file in enumerate(collection.table(["image"])["image"].to_pylist()):
        paths.append(str(home / "stored" / f"{number:05}.jpg"))
        Path(paths[-1]).write_bytes(file)
    return collection, paths


def ours(collection: Collection, processes: bool, cores: int, batch: int = BATCH) -> Iterator[Any]:
    lookalike.data.batches.cores = lambda: cores
    ids = collection.table(["id"])["id"].to_numpy()
    view = View(SIZE, (Crop(SIZE, AREA), Flip(), Color(COLOR, COLOR, COLOR)))
    labels = np.arange(len(ids)) % 100
    draw = sampler(Mixture(classes="uniform"), labels, labels * 0, batch, 0)
    return batches(collection, ids, draw, batch=batch, seed=0, start=0, views=[view], processes=processes)


def peer(paths: list[str], workers: int, floats: bool, batch: int = BATCH) -> Iterator[Any]:
    files = Files(paths, floats)
    yield from DataLoader(files, batch, sampler=RandomSampler(files, True, 10**7), num_workers=workers)


def decoded(collection: Collection) -> Iterator[Any]:
    """The host's part if the device did the rest: read, decoded, side by side in one array."""
    ids, rng = collection.table(["id"])["id"].to_numpy(), np.random.default_rng(0)
    room = np.zeros((BATCH, 448, 448, 3), np.uint8)
    while True:
        files = collection.take(rng.choice(ids, BATCH), ["image"])["image"].to_pylist()
        for place, file in enumerate(files):
            pixels = np.asarray(opened(file, 2 * SIZE))
            room[place, : pixels.shape[0], : pixels.shape[1]] = pixels[:448, :448]
        yield room


def device() -> Iterator[Any]:
    """Crop, resize, flip and colours of a batch as matrix products, by JAX."""
    import jax
    import jax.numpy as jnp

    def weights(start: jax.Array, span: jax.Array, length: int, mirrored: jax.Array) -> jax.Array:
        place = (jnp.arange(SIZE, dtype=jnp.float32) + 0.5) / SIZE
        center = start + span * jnp.where(mirrored, 1 - place, place)
        stretch = jnp.maximum(span / SIZE, 1.0)
        near = jnp.maximum(0.0, 1 - abs(jnp.arange(length) + 0.5 - center[:, None]) / stretch)
        return near / near.sum(axis=1, keepdims=True)

    def one(image: jax.Array, box: jax.Array, mirrored: jax.Array, color: jax.Array) -> jax.Array:
        rows = weights(box[1], box[3], image.shape[0], jnp.bool_(False))
        columns = weights(box[0], box[2], image.shape[1], mirrored)
        made = jnp.einsum("sh,hwc,tw,dc->std", rows, image.astype(jnp.float32), columns, color[:, :3])
        return jnp.clip(made + color[:, 3], 0, 255).astype(jnp.uint8)

    rng, step = np.random.default_rng(0), jax.jit(jax.vmap(one))
    images = rng.integers(0, 256, (BATCH, 256, 344, 3), dtype=np.uint8)
    boxes = np.tile(np.array([30, 20, 200, 180], np.float32), (BATCH, 1))
    colors = rng.normal(size=(BATCH, 3, 4)).astype(np.float32)
    mirrored = rng.random(BATCH) < 0.5
    flops = step.lower(images, boxes, mirrored, colors).compile().cost_analysis()["flops"]
    note(f"device: {jax.devices()[0].device_kind}, {flops / BATCH / 1e6:.0f} million operations an image")
    while True:
        yield step(images, boxes, mirrored, colors).block_until_ready()


def spent() -> float:
    """Seconds of processor time, of this process and of those that it has started and that still run."""
    total = time.process_time()
    for process in multiprocessing.active_children():
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / TICKS
    return total


def microseconds(make: Callable[[], Iterator[Any]], steps: int) -> float:
    """Of processor time for an image, once the stream runs."""
    stream = make()
    for _ in range(2 + steps // 4):
        next(stream)
    begun = spent()
    for _ in range(steps):
        next(stream)
    used = spent() - begun
    stream.close()  # type: ignore[attr-defined]
    return used / steps / BATCH * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("LOOKALIKE_DATA"), help="real images")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as home:
        collection, paths = collected(Path(home), arguments.data, arguments.images)
        ways: dict[str, Callable[[], Iterator[Any]]] = {
            "DataLoader, 0 workers": lambda: peer(paths, 0, False),
            "DataLoader, 2 workers": lambda: peer(paths, 2, False),
            "DataLoader, 0 workers, floats": lambda: peer(paths, 0, True),
            "ours, 1 thread": lambda: ours(collection, False, 1),
            "ours, 2 threads": lambda: ours(collection, False, 2),
            "ours, 2 processes": lambda: ours(collection, True, 2),
            "decoded only": lambda: decoded(collection),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                times[name].append(microseconds(way, arguments.steps))
        # Behind all others: JAX has threads, which the peer's forked workers must not inherit.
        times["device"] = [microseconds(device, 2 + arguments.steps // 4) for _ in range(arguments.rounds)]
    rows = []
    for name, found in times.items():
        ratios = [a / b for a, b in zip(times["DataLoader, 0 workers"], found, strict=True)]
        middle = statistics.median(found)
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        rows.append([name, f"{middle:,.0f}", f"{1e6 / middle:,.0f}", f"{statistics.median(ratios):.2f}", spread])
    print(table(["", "us an image", "images/s a core", "ratio", "of all rounds"], rows))


if __name__ == "__main__":
    main()
