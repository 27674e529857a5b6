"""`lookalike prepare` as a whole: images/s a core against what others use, and its memory as a set grows.

    python benchmarks/prepare_set.py                        3,000 JPEGs of 1024x768, three rounds
    python benchmarks/prepare_set.py --img2dataset PYTHON   with img2dataset, from an interpreter that has it
    python benchmarks/prepare_set.py --grow 1000            time and memory of 1,000, 10,000 and 100,000 small images
    python benchmarks/prepare_set.py --images 8 --rounds 1  a smoke run

Three ways from a folder of JPEGs to stored ones with a shorter side of 256 px: the command (listing, decoding in turn
upright, hashing of bytes, pixels and looks, encoding, writing a table that can be continued, marking what is alike); a
pool of processes that do it with Pillow and write files; and img2dataset's resizer (OpenCV), fed from files, whose
results are thrown away. Each has as many processes as cores. The clock is processor time of all processes, so that the
ratio is per core; rounds are interleaved. JPEG quality is 90; Pillow's chroma is that of the command (4:4:4), OpenCV's
its own (4:2:0), which is less to encode. Goal: 1.5 times both.

Memory is the largest resident set of the command's processes together, as its own children report it.
"""

import argparse
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image

from lookalike.core.journal import note, table
from prepare import photographs, plain

SIDE = 256
RESIZER = """
import sys, warnings
warnings.filterwarnings("ignore")
from io import BytesIO
from multiprocessing import Pool
from pathlib import Path
import cv2
from img2dataset.resizer import Resizer

def one(path):
    resizer = Resizer(image_size=256, resize_mode="keep_ratio", resize_only_if_bigger=True, encode_quality=90)
    data, *_, error = resizer(BytesIO(Path(path).read_bytes()))
    assert error is None and data, error
    return len(data)

if __name__ == "__main__":
    cv2.setNumThreads(1)
    with Pool(int(sys.argv[2])) as pool:
        print(sum(pool.imap_unordered(one, sorted(map(str, Path(sys.argv[1]).rglob("*.jpg"))), 16)))
"""


def one(paths: tuple[str, str]) -> None:
    Path(paths[1]).write_bytes(plain(Path(paths[0]).read_bytes()))


def by_pillow(folder: Path, out: Path, cores: int) -> None:
    out.mkdir()
    files = sorted(folder.rglob("*.jpg"))
    with multiprocessing.get_context("fork").Pool(cores) as pool:
        for _ in pool.imap_unordered(one, [(str(f), str(out / f"{i}.jpg")) for i, f in enumerate(files)], 16):
            pass


def by_command(folder: Path, out: Path, cores: int) -> None:
    command = [sys.executable, "-m", "lookalike", "prepare", str(folder), "--out", str(out), "--workers", str(cores)]
    subprocess.run(command, check=True, capture_output=True)


def processor_time(way: Callable[[], None]) -> float:
    """Seconds of all processes that `way` starts, and of this one."""

    def now() -> float:
        return sum(
            u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF))
        )

    begun = now()
    way()
    return now() - begun


def compare(images: int, rounds: int, python: str | None, cores: int) -> None:
    data = os.environ.get("LOOKALIKE_DATA")
    ways: dict[str, Callable[[Path, Path], None]] = {
        "lookalike prepare": lambda folder, out: by_command(folder, out, cores),
        "Pillow, a pool of processes": lambda folder, out: by_pillow(folder, out, cores),
    }
    if python:
        ways["img2dataset's resizer"] = lambda folder, _: subprocess.run(
            [python, "-c", RESIZER, str(folder), str(cores)], check=True, capture_output=True
        )
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home, "photos")
        (folder / "thing").mkdir(parents=True)
        few = photographs(Path(data) if data else None, min(images, 100), (1024, 768))
        for i in range(images):
            (folder / "thing" / f"{i}.jpg").write_bytes(few[i % len(few)] + i.to_bytes(4, "big"))  # no two are equal
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                out = Path(home, "out")
                seconds[name].append(processor_time(lambda way=way, out=out: way(folder, out)))
                shutil.rmtree(out, ignore_errors=True)
        mine = np.array(seconds["lookalike prepare"])
        rows = []
        for name, found in seconds.items():
            ratios = np.array(found) / mine
            spread = f"{ratios.min():.2f} to {ratios.max():.2f}"
            rows.append([name, f"{images / np.median(found):.0f}", f"{np.median(ratios):.2f}", spread])
        print(table(["1024x768", "images/s a core", "ours is faster by", "all rounds"], rows))


def grow(first: int) -> None:
    """Time and memory of the command for sets of `first`, ten and a hundred times as many images."""
    rng, rows = np.random.default_rng(0), []
    with tempfile.TemporaryDirectory() as home:
        for times in (1, 10, 100):
            folder, out = Path(home, "photos"), Path(home, "out")
            for i in range(first * times):
                file = folder / f"class {i // 50}" / f"{i}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 256, (6, 8, 3), np.uint8)
                PIL.Image.fromarray(pixels).resize((96, 72), PIL.Image.Resampling.BICUBIC).save(
                    file, "JPEG", quality=80
                )
            # A process of its own, so that its children are its own.
            code = (
                "import resource, sys, time\n"
                "from lookalike.data.prepare import prepare\n"
                "begun = time.monotonic()\n"
                "prepare([sys.argv[1]], sys.argv[2])\n"
                "seconds, whose = time.monotonic() - begun, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)\n"
                "print(seconds, *(resource.getrusage(who).ru_maxrss for who in whose))\n"
            )
            done = subprocess.run(
                [sys.executable, "-c", code, str(folder), str(out)], check=True, capture_output=True, text=True
            )
            seconds, own, below = map(float, done.stdout.split())
            again = time.monotonic()
            by_command(folder, out, 0)
            again = time.monotonic() - again
            cells = [
                f"{seconds:.1f}",
                f"{first * times / seconds:.0f}",
                f"{own / 1e3:.0f}",
                f"{below / 1e3:.0f}",
                f"{again:.1f}",
            ]
            rows.append([f"{first * times:,}", *cells])
            note(f"{first * times:,} images done")
            shutil.rmtree(out)
            shutil.rmtree(folder)
    print(table(["images", "s", "images/s", "MB, main", "MB, largest worker", "s, again"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description="lookalike prepare as a whole")
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--img2dataset", metavar="PYTHON")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--grow", type=int, default=0)
    options = parser.parse_args()
    if options.grow:
        grow(options.grow)
    else:
        compare(options.images, options.rounds, options.img2dataset, options.cores)


if __name__ == "__main__":
    main()
