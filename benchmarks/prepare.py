"""Preparing images (decode, turn upright, reduce, store as JPEG) against a plain Pillow loop.

    python benchmarks/prepare.py                                    24 images of 1024x768, 12 of 4000x3000
    python benchmarks/prepare.py --images 4 --photographs 2 --rounds 1      a smoke run

One process; the clock is the processor time of the process, threads included, so that the ratio is per core and holds
on a busy machine; rounds are interleaved. Goals: 1.4 times the loop at 1024x768, 4 times at 12 megapixels, with
MobileNetV2 features whose cosine with those of the loop is at least 0.9995.

Features are compared with those of the loop's pixels before they are stored: of our pixels before that (`reduced`), of
our JPEGs (`stored`), and of the loop's JPEGs at the same quality (`the loop's`). Ours are decoded at 1/2 and 1/4, and
`reduced` meets the goal; what JPEG costs is twenty times as much, and the same for both. The second table has other
scales and qualities.

The images: LOOKALIKE_DATA holds none above 448 px, so real ones are enlarged (bicubic) and given sensor noise
(Gaussian, sigma 4) and JPEG quality 92: 0.2 MB at 1024x768, 2 MB at 4000x3000. Their finest detail is noise, not
leaves and hair; the time of every step depends on size and bytes alone. Without LOOKALIKE_DATA smooth colours take
their place, and there are no features.

The limit is the entropy coding of JPEG: its bits can only be read one after the other, at every scale. `limit` is the
time to decode at 1/8, where little else is left; `of limit` says how much of our time that is. At 12 megapixels a
quarter is left to the transform at 1/4, reducing and storing; at 1024x768, where every pixel is decoded and reduced,
three quarters.
"""

import argparse
import io
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
from PIL import ImageOps

from lookalike.core.journal import note, table
from lookalike.imaging.decode import decode, encode_jpeg, store
from lookalike.imaging.resample import reduce

SIZE = 256


def plain(data: bytes) -> bytes:
    """The loop that everyone writes."""
    buffer = io.BytesIO()
    plainly_reduced(data).save(buffer, "JPEG", quality=90, subsampling="4:4:4")
    return buffer.getvalue()


def plainly_reduced(data: bytes) -> PIL.Image.Image:
    picture = ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data)).convert("RGB"))
    scale = SIZE / min(picture.size)
    return picture.resize((round(picture.width * scale), round(picture.height * scale)), PIL.Image.Resampling.BICUBIC)


def ours(data: bytes) -> bytes:
    return store(data, SIZE).data


def reduced(data: bytes, at_least: int | None) -> np.ndarray:
    """The pixels of `store`, at another scale of decoding, with the shorter side reduced to `SIZE`."""
    image = decode(data, at_least=at_least)
    height, width = image.shape[:2]
    scale = min(1.0, SIZE / min(height, width))
    return reduce(image, round(height * scale), round(width * scale), (float(height), float(width)))


def other(data: bytes, at_least: int | None, quality: int) -> bytes:
    """As `store`, at another scale of decoding and another quality."""
    return encode_jpeg(reduced(data, at_least), quality)


def limit(data: bytes) -> bytes:
    """Hardly more than entropy decoding: one pixel of each block of 64."""
    decode(data, at_least=1)
    return b""


def sources(data: Path | None, count: int) -> list[PIL.Image.Image]:
    """`count` real images, from each set in turn; smooth colours without data."""
    rng = np.random.default_rng(0)
    if data is None:
        coarse = [rng.integers(0, 256, (18, 24, 3), dtype=np.uint8) for _ in range(count)]
        return [PIL.Image.fromarray(c).resize((298, 224), PIL.Image.Resampling.BICUBIC) for c in coarse]
    sets = sorted(data.glob("*.tar"))
    found = []
    for i in range(count):
        with tarfile.open(sets[i % len(sets)]) as tar:
            members = [member for member in tar.getmembers() if member.isfile()]
            file = tar.extractfile(members[rng.integers(len(members))])
            assert file is not None
            found.append(PIL.Image.open(io.BytesIO(file.read())).convert("RGB"))
    return found


def photographs(data: Path | None, count: int, size: tuple[int, int]) -> list[bytes]:
    """JPEG files of `size` (width, height), as the docstring of this file says."""
    rng = np.random.default_rng(1)
    files = []
    for picture in sources(data, count):
        pixels = np.asarray(ImageOps.fit(picture, size, PIL.Image.Resampling.BICUBIC), np.float32)
        pixels = pixels + 4 * rng.standard_normal(pixels.shape, np.float32)
        buffer = io.BytesIO()
        PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=92)
        files.append(buffer.getvalue())
    return files


def comparison(data: Path) -> Callable[[list[np.ndarray], list[np.ndarray]], str]:
    """Mean and lowest cosine of two lists of images, by the MobileNetV2 below `data`."""
    from lookalike.encoders.encoder import Encoder
    from lookalike.published.layouts import read_published
    from lookalike.vectors.runtime import Embedder

    _, config, tensors = read_published(data / "backbones" / "mobilenet_v2_1.0_224")
    embedder = Embedder.of(Encoder.from_parts(config, tensors))

    def compared(one: list[np.ndarray], other: list[np.ndarray]) -> str:
        a, b = (
            embedder.features(np.stack([embedder.config.preprocess(image) for image in images]))
            for images in (one, other)
        )
        cosine = np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        return f"{cosine.mean():.5f} ({cosine.min():.5f})"

    return compared


def milliseconds(way: Callable[[bytes], bytes], files: list[bytes]) -> float:
    begun = time.process_time()
    for file in files:
        way(file)
    return (time.process_time() - begun) / len(files) * 1e3


def others(files: list[bytes], compared: Callable[[list[np.ndarray], list[np.ndarray]], str], rounds: int) -> None:
    """Print the table of other ways, for images whose shorter side is 3000."""
    unstored = [np.asarray(plainly_reduced(file)) for file in files]
    scales = {"1/4": 3 * SIZE // 2, "1/2": 5 * SIZE, "full": None}
    plains = {q: [encode_jpeg(pixels, q) for pixels in unstored] for q in (90, 95, 98)}
    rows = []
    for quality, plainly in plains.items():
        loop = [decode(file) for file in plainly]
        cost = compared(unstored, loop)
        for name, at_least in scales.items():
            spent = []
            for _ in range(rounds):
                base = milliseconds(plain, files)
                spent.append(base / milliseconds(lambda data, a=at_least, q=quality: other(data, a, q), files))
            stored = [other(file, at_least, quality) for file in files]
            size = sum(map(len, stored)) / len(stored) / 1e3
            cosine = compared(unstored, [decode(file) for file in stored])
            rows.append([name, str(quality), f"{size:.1f}", f"{np.median(spent):.2f}", cosine, cost])
    print(table(["decoded at", "quality", "kB", "ratio", "stored", "the loop's"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("LOOKALIKE_DATA"), help="real images")
    parser.add_argument("--images", type=int, default=24, help="of 1024x768")
    parser.add_argument("--photographs", type=int, default=12, help="of 4000x3000")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    compared = comparison(arguments.data) if arguments.data else None
    rows, files = [], []
    for count, size, goal in ((arguments.images, (1024, 768), 1.4), (arguments.photographs, (4000, 3000), 4.0)):
        files = photographs(arguments.data, count, size)
        spent: dict[str, list[float]] = {way.__name__: [] for way in (plain, ours, limit)}
        for _ in range(arguments.rounds):
            for way in (plain, ours, limit):
                spent[way.__name__].append(milliseconds(way, files))
        loop, own, least = (float(np.median(spent[name])) for name in ("plain", "ours", "limit"))
        cosines = ["-"] * 3
        if compared:
            exact, loop_made = (
                [np.asarray(plainly_reduced(file)) for file in files],
                [decode(plain(file)) for file in files],
            )
            made = [decode(ours(file)) for file in files]
            pixels = [reduced(file, 3 * SIZE // 2) for file in files]
            cosines = [compared(exact, pixels), compared(exact, made), compared(exact, loop_made)]
        megabytes = sum(map(len, files)) / count / 1e6
        times = [
            f"{loop:.1f}",
            f"{own:.1f}",
            f"{loop / own:.2f}",
            f"{goal}",
            f"{least:.1f}",
            f"{100 * least / own:.0f} %",
        ]
        rows.append([f"{size[0]}x{size[1]}", f"{megabytes:.2f}", *times, *cosines])
    note("Milliseconds of processor time an image, median of rounds; cosines: mean (lowest).")
    print(
        table(
            ["pixels", "MB", "plain", "ours", "ratio", "goal", "limit", "of limit", "reduced", "stored", "the loop's"],
            rows,
        )
    )
    if compared:
        others(files, compared, arguments.rounds)


if __name__ == "__main__":
    main()
