"""Pairs of stored images that show the same pixels: copies are found, each is decoded once, a damaged one is alone."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lookalike.data import pixel_pairs
from lookalike.data.collection import Collection
from lookalike.data.pixel_pairs import PixelPairs
from lookalike.data.prepare import prepare


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    """Six scenes, each followed by itself without a border, or mirrored."""
    folder = tmp_path / "photos" / "a"
    folder.mkdir(parents=True)
    for number in range(6):
        patches = np.random.default_rng(number).integers(0, 255, (6, 8, 3), np.uint8)
        scene = Image.fromarray(patches).resize((320, 240), Image.Resampling.BICUBIC)
        copy = scene.crop((10, 12, 312, 240)) if number % 2 else scene.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        scene.save(folder / f"{number}-a.png")
        copy.save(folder / f"{number}-b.jpg", quality=50)
    prepare([str(tmp_path / "photos")], str(tmp_path / "c"))
    return Collection.open(tmp_path / "c")


def every_pair(count: int) -> np.ndarray:
    return np.array([(i, j) for j in range(count) for i in range(j)])


def test_copies_are_told_from_others(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_pairs, "_READ", 5)
    monkeypatch.setattr(pixel_pairs, "_DECODED", 2)
    monkeypatch.setattr(pixel_pairs, "_COMPARED", 4)
    pairs = every_pair(12)
    same = PixelPairs(collection, collection.table(["id"])["id"].to_numpy()).same(pairs)
    assert pairs[same].tolist() == [[i, i + 1] for i in range(0, 12, 2)]


def test_each_image_is_decoded_once(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, decode = list[bytes](), pixel_pairs.small_stored
    monkeypatch.setattr(pixel_pairs, "small_stored", lambda data: (decoded.append(data), decode(data))[1])
    pixels = PixelPairs(collection, collection.table(["id"])["id"].to_numpy())
    assert pixels.same(np.zeros((0, 2), np.int64)).shape == (0,)
    assert pixels.same(np.array([[0, 1], [0, 2]])).tolist() == [True, False]
    assert len(decoded) == 3
    assert pixels.same(np.array([[0, 1], [2, 3], [1, 3]])).tolist() == [True, True, False]
    assert len(decoded) == len(set(decoded)) == 4


def test_a_damaged_image_costs_itself_alone(collection: Collection, capsys: pytest.CaptureFixture[str]) -> None:
    rows = collection.table(["id", "image"])
    ids = rows["id"].to_numpy()
    with collection.locked("test"):
        broken = [rows["image"][0].as_py()[:400], b""]
        collection.update(pa.table({"id": ids[[0, 4]], "image": pa.array(broken, rows["image"].type)}))
    pairs = every_pair(12)
    same = PixelPairs(Collection.open(collection.path), ids).same(pairs)
    assert pairs[same].tolist() == [[2, 3], [6, 7], [8, 9], [10, 11]]
    assert f"2 images of `{collection.path}` could not be decoded" in capsys.readouterr().err
