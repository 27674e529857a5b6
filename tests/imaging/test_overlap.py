"""Which images show the same pixels: against slow loops, by copies of drawn images and of real ones."""

import io
import itertools
import math
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from lookalike.core.errors import ImageError
from lookalike.imaging import overlap as module
from lookalike.imaging.decode import decode
from lookalike.imaging.overlap import SAME, SIDE, are_copies, overlaps, small, small_stored


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Of one pair alone."""
    return float(overlaps(np.stack([one, other]), np.array([[0, 1]]))[0])


def inside(part: np.ndarray, whole: np.ndarray) -> float:
    """Lewis' formula for all windows of every size: each made, and brought to mean 0, by itself."""
    best = 0.0
    image = PIL.Image.fromarray(np.ascontiguousarray(part, np.float32))
    for height, width in itertools.product(range(26, 33), range(26, 33)):
        shrunk = np.asarray(image.resize((width, height), PIL.Image.Resampling.BILINEAR), np.float64)
        shrunk = shrunk - shrunk.mean()
        windows = sliding_window_view(whole.astype(np.float64), (height, width)).reshape(-1, height * width)
        windows = windows - windows.mean(axis=1, keepdims=True)
        length = np.linalg.norm(shrunk) * np.linalg.norm(windows, axis=1)
        scores = np.divide(windows @ shrunk.ravel(), length, out=np.zeros(len(windows)), where=length > 1)
        best = max(best, float(scores.max()))
    return best


def slow(one: np.ndarray, other: np.ndarray) -> float:
    """The overlap: all sizes and places, both ways and mirrored."""
    return max(inside(*pair) for pair in ((one, other), (one[:, ::-1], other), (other, one), (other[:, ::-1], one)))


def drawn(seed: int) -> np.ndarray:
    """Blurred blobs of color, so that neighbouring pixels are alike as in a photograph."""
    noise = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)
    return np.asarray(PIL.Image.fromarray(noise).resize((320, 240), PIL.Image.Resampling.BICUBIC))


def encoded(image: np.ndarray, quality: int = 40) -> np.ndarray:
    data = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(image)).save(data, "JPEG", quality=quality)
    return np.asarray(PIL.Image.open(data))


COPIES = {
    "encoded anew": lambda image: image,
    "a tenth cut off": lambda image: image[12:228, 16:304],
    "cut at one corner": lambda image: image[:200, 50:],
    "mirrored": lambda image: image[:, ::-1],
    "mirrored and cut": lambda image: image[10:, 20:300][:, ::-1],
    "half the size": lambda image: np.asarray(PIL.Image.fromarray(image).resize((160, 120))),
    "darker": lambda image: (image * 0.6).astype(np.uint8),
}


@pytest.mark.parametrize("change", COPIES)
@pytest.mark.parametrize("seed", range(5))
def test_copies_reach_the_bar(seed: int, change: str) -> None:
    image = drawn(seed)
    copy = encoded(COPIES[change](image))
    assert overlap(small(image), small(copy)) >= SAME
    assert overlap(small(copy), small(image)) >= SAME


def test_other_images_do_not() -> None:
    images = [small(drawn(seed)) for seed in range(12)]
    found = [overlap(a, b) for i, a in enumerate(images) for b in images[:i]]
    assert max(found) < SAME - 0.1


def test_of_a_blank_image_nothing_is_known() -> None:
    blank = small(np.full((50, 60, 1), 200, np.uint8))
    assert overlap(blank, blank) == 0
    assert overlap(blank, small(drawn(0))) == 0
    assert not are_copies(np.stack([blank, blank]), np.array([[0, 1]])).any()


def test_equals_a_slow_loop() -> None:
    """Lewis' formula, window by window."""
    part, whole = small(drawn(1)), small(drawn(2))
    best = 0.0
    for height in range(26, 33):
        for width in range(26, 33):
            shrunk = np.asarray(
                PIL.Image.fromarray(part.astype(np.float32)).resize((width, height), PIL.Image.Resampling.BILINEAR),
                np.float64,
            )
            for y in range(SIDE - height + 1):
                for x in range(SIDE - width + 1):
                    window = whole[y : y + height, x : x + width].astype(np.float64)
                    a, b = shrunk - shrunk.mean(), window - window.mean()
                    best = max(best, float((a * b).sum()) / math.sqrt(float((a * a).sum() * (b * b).sum())))
    assert inside(part, whole) == pytest.approx(best, abs=1e-9)  # what stands for it below
    assert overlap(part, whole) == pytest.approx(slow(part, whole), abs=1e-5)


def framed(image: np.ndarray) -> np.ndarray:
    """Nothing but a frame of noise around what is nearly blank: most windows differ little from their means."""
    made = np.full((32, 32), 250, np.uint8)
    made[16, 16] = 251
    made[:, -6:] = image[:, -6:]
    return made


def some_pieces() -> np.ndarray:
    """Drawn images, of other shapes too, cut, mirrored; noise, blank ones, nearly blank ones."""
    noise = np.random.default_rng(3).integers(0, 256, (32, 32, 1), np.uint8)
    images = [
        drawn(0),
        drawn(1),
        drawn(0)[20:, :300],
        drawn(1)[:, ::-1],
        drawn(2)[:7],
        drawn(2)[:, :1],
        drawn(3)[:1, :1],
    ]
    pieces = [small(image) for image in (*images, noise, np.full((9, 9, 1), 7, np.uint8))]
    return np.stack([*pieces, framed(pieces[7]), framed(pieces[0])])


def test_many_pairs_are_as_one_by_one_and_as_the_slow_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STEP", 7)
    monkeypatch.setattr(module, "_COARSE_STEP", 10)
    pieces = some_pieces()
    pairs = np.array(list(itertools.combinations_with_replacement(range(len(pieces)), 2)))
    pairs[::2] = pairs[::2, ::-1]
    expected = np.array([slow(pieces[one], pieces[other]) for one, other in pairs])
    together = overlaps(pieces, pairs)
    np.testing.assert_allclose(together, expected, atol=1e-4)
    np.testing.assert_allclose([overlap(pieces[a], pieces[b]) for a, b in pairs], together, atol=1e-5)
    alone = [bool(are_copies(pieces[pair], np.array([[0, 1]]))[0]) for pair in pairs]
    assert are_copies(pieces, pairs).tolist() == alone == (expected >= SAME).tolist()
    assert 0 < sum(alone) < len(pairs)
    assert overlaps(pieces, pairs[:0]).shape == are_copies(pieces, pairs[:0]).shape == (0,)


def test_a_stored_image_is_brought_down_as_its_pixels_are() -> None:
    for image in (drawn(0), drawn(1)[:, :40], drawn(2).mean(axis=2).astype(np.uint8)):
        for side in (1, 8):  # at an eighth too
            data = io.BytesIO()
            PIL.Image.fromarray(image).resize((image.shape[1] * side, image.shape[0] * side)).save(data, "JPEG")
            slowly = small(decode(data.getvalue()))
            assert np.abs(small_stored(data.getvalue()).astype(int) - slowly).mean() < 2
    png = io.BytesIO()
    PIL.Image.fromarray(drawn(0)).save(png, "PNG")
    assert (small_stored(png.getvalue()) == small(drawn(0))).all()
    with pytest.raises(ImageError):
        small_stored(data.getvalue()[:-200])


def real_images(folder: Path) -> Iterator[tuple[PIL.Image.Image, PIL.Image.Image]]:
    """Each with the next one, which often is of the same thing."""
    for name in ("apparel", "landmarks", "grocery_packages"):
        with tarfile.open(folder / f"{name}.tar") as archive:
            members = [member for member in archive.getmembers() if member.isfile()]
            for both in zip(members[::14], members[1::14], strict=False):
                files = [io.BytesIO(file.read()) for member in both if (file := archive.extractfile(member))]
                one, other = (PIL.Image.open(file).convert("RGB") for file in files)
                yield one, other


@pytest.mark.data
def test_real_copies_and_others_are_told_as_by_the_slow_form(data_path: Path) -> None:
    """Cut, a third of them mirrored, encoded anew at quality 40: each with what it was made of, and with another."""
    rng, pieces = np.random.default_rng(0), list[np.ndarray]()
    for number, (image, other) in enumerate(real_images(data_path)):
        left, top, right, bottom = (rng.uniform(0, 0.1, 4) * (image.size * 2)).astype(int).tolist()
        copy = np.asarray(image.crop((left, top, image.width - right, image.height - bottom)))
        copy = encoded(copy[:, ::-1] if number % 3 == 0 else copy)
        pieces += [small(each) for each in (np.asarray(image), copy, np.asarray(other))]
    count = len(pieces) // 3
    pairs = np.array([[3 * i, 3 * i + other] for i in range(count) for other in (1, 2)])
    expected = np.array([slow(pieces[one], pieces[other]) for one, other in pairs])
    found = are_copies(np.stack(pieces), pairs)
    print(f"{found[::2].sum()} of {count} copies, {found[1::2].sum()} of as many others")
    np.testing.assert_allclose(overlaps(np.stack(pieces), pairs), expected, atol=1e-4)
    assert found.tolist() == (expected >= SAME).tolist()
    assert found[::2].mean() > 0.97
    assert found[1::2].mean() < 0.1
