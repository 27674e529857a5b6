"""Images that are alike: found as a loop over all pairs finds them; copies of real images; marks in a collection."""

import io
import tarfile
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lookalike.data.collection import Collection
from lookalike.data.duplicates import NEAR, Alike, Close, mark, near_pairs, same_pairs
from lookalike.data.prepare import prepare
from lookalike.imaging.decode import store
from lookalike.imaging.phash import phash


@given(arrays.arrays(np.int64, st.integers(0, 12)), st.integers(0, 7), st.data())
def test_near_pairs_are_those_of_a_loop(hashes: np.ndarray, most: int, data: st.DataObject) -> None:
    # Most random hashes are far apart: some rows become copies of others with a few bits turned.
    for i in range(1, len(hashes)):
        if data.draw(st.booleans()):
            turned = data.draw(st.lists(st.integers(0, 62), max_size=8))
            hashes[i] = hashes[data.draw(st.integers(0, i - 1))] ^ sum(1 << bit for bit in set(turned))
    bits = [int(h) & (2**64 - 1) for h in hashes.tolist()]
    expected = [
        [i, j]
        for i in range(len(bits))
        for j in range(i + 1, len(bits))
        if (bits[i] ^ bits[j]).bit_count() <= most and min(bits[i].bit_count(), bits[j].bit_count()) >= 8
    ]
    assert near_pairs(hashes, most).tolist() == expected


def test_the_same_pixels() -> None:
    pixels = [b"a", None, b"b", b"a", b"b", b"a", None]
    assert same_pairs(pixels).tolist() == [[0, 3], [2, 4], [0, 5]]
    rows = pa.table({"pixels": pixels, "phash": pa.array([None] * 7, pa.int64())})
    assert Alike.of(rows).first(7).tolist() == [-1, -1, -1, 0, 2, 0, -1]


def test_the_hash_is_the_cosine_transform_of_scipy() -> None:
    from scipy.fft import dctn

    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 1), np.uint8)
    low = dctn(pixels[:, :, 0].astype(float), type=2)[:8, :8]
    # SciPy's first row and column have another factor, which moves no value across zero, but across a median it may.
    low = low.ravel()
    expected = low > np.median(low[1:])
    found = np.unpackbits(np.array([phash(pixels)], ">i8").view(np.uint8)).astype(bool)
    assert not found[0]
    assert (found[1:] == expected[1:]).all()


def photograph(seed: int) -> PIL.Image.Image:
    """Smooth patches, as of a photograph."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return PIL.Image.fromarray(small).resize((320, 240), PIL.Image.Resampling.BICUBIC)


def encoded(image: PIL.Image.Image, format: str = "JPEG", **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, format, **options)
    return data.getvalue()


def test_copies_are_marked_and_stay(tmp_path: Path) -> None:
    image = photograph(1)
    files = {
        "train/cup/a.png": encoded(image, "PNG"),
        "train/cup/b.bmp": encoded(image, "BMP"),  # the same pixels
        "train/mug/c.jpg": encoded(image.resize((200, 150)), quality=60),  # a copy of another label
        "train/mug/d.jpg": encoded(photograph(2)),
        "train/mug/blank.png": encoded(PIL.Image.new("RGB", (64, 64), (9, 9, 9)), "PNG"),
        "test/pot/blank.png": encoded(PIL.Image.new("RGB", (80, 64), (9, 9, 9)), "PNG"),
        "test/pot/e.jpg": encoded(image, quality=40),
        "test/pot/f.jpg": encoded(photograph(3)),
    }
    lines = ["path,label,split"]
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
        lines.append(f"{name},{name.split('/')[1]},{name.split('/')[0]}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    prepare([str(tmp_path / "t.csv")], str(tmp_path / "coll"), workers=1)
    collection = Collection.open(tmp_path / "coll")
    rows = {r["source"].removeprefix("t/"): r for r in collection.table(["id", "source", "duplicate_of"]).to_pylist()}
    first = rows["train/cup/a.png"]["id"]
    marked = {name: row["duplicate_of"] for name, row in rows.items() if row["duplicate_of"] is not None}
    assert marked == {"train/cup/b.bmp": first, "train/mug/c.jpg": first, "test/pot/e.jpg": first}
    assert collection.card["duplicates"] == {
        "same": 1,
        "near": 2,
        "of_another_label": 2,
        "bits": NEAR,
        "learned_too": {"test": {"same": 0, "near": 1, "images": 3}},
        "of": collection.fingerprint,
    }
    # The first goes: the marks move on to the next.
    (tmp_path / "t.csv").write_text("\n".join(line for line in lines if "a.png" not in line))
    prepare([str(tmp_path / "t.csv")], str(tmp_path / "coll"), workers=1)
    told = Collection.open(tmp_path / "coll").table(["source", "duplicate_of"]).to_pylist()
    assert {r["source"][2:]: r["duplicate_of"] for r in told if r["duplicate_of"] is not None} == {
        "train/mug/c.jpg": rows["train/cup/b.bmp"]["id"],
        "test/pot/e.jpg": rows["train/cup/b.bmp"]["id"],
    }


def test_marks_are_made_good_after_a_kill_before_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "x").mkdir(parents=True)
    photograph(1).save(tmp_path / "a" / "x" / "1.png")
    prepare([str(tmp_path / "a")], str(tmp_path / "coll"), workers=1)
    photograph(1).save(tmp_path / "a" / "x" / "2.png")
    with monkeypatch.context() as patch:
        patch.setattr("lookalike.data.prepare.mark", lambda _: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            prepare([str(tmp_path / "a")], str(tmp_path / "coll"), workers=1)
    prepare([str(tmp_path / "a")], str(tmp_path / "coll"), workers=1)
    assert Collection.open(tmp_path / "coll").table(["duplicate_of"])["duplicate_of"].to_pylist() == [None, 0]


def test_what_embeddings_add_to_looks(tmp_path: Path) -> None:
    """Rows 0 to 4 are other images, but 3 is the copy of 1; embeddings say that 2 is like 0, 3 like 0 and 4 like 2."""
    for i, seed in enumerate((1, 2, 3, 2, 4)):
        (tmp_path / "a" / f"label{i}").mkdir(parents=True)
        photograph(seed).save(tmp_path / "a" / f"label{i}" / "x.png")
    prepare([str(tmp_path / "a")], str(tmp_path / "coll"), workers=1)
    collection = Collection.open(tmp_path / "coll")
    splits = pa.array(["train", "train", "test", "test", "test"])
    collection.update(pa.table({"id": collection.table(["id"])["id"], "split": splits}))
    learned_too = np.array([False, False, True, True, False])
    told = mark(collection, Close(np.array([-1, -1, 0, 0, 2]), learned_too, {"cosine": 0.9}))
    assert collection.table(["duplicate_of"])["duplicate_of"].to_pylist() == [None, None, 0, 0, 2]
    assert (told["same"], told["near"], told["of_another_label"]) == (1, 0, 1)
    assert told["learned_too"]["test"] == {"same": 1, "near": 0, "images": 3}
    assert told["embedding"] == {"images": 2, "of_another_label": 2, "learned_too": {"test": 1}, "cosine": 0.9}


@pytest.mark.data
def test_copies_of_real_images(data_path: Path) -> None:
    """Half the size at quality 50 is found; another image is not, even of the same thing."""
    found, hashes = 0, []
    for name in ("apparel", "landmarks", "grocery_packages"):
        with tarfile.open(data_path / f"{name}.tar") as archive:
            for member in archive.getmembers()[::8]:
                if (file := archive.extractfile(member)) is None:
                    continue
                image = PIL.Image.open(file).convert("RGB")
                half = encoded(image.resize((image.width // 2, image.height // 2)), quality=50)
                whole, copy = (store(data, 256).phash for data in (encoded(image, "PNG"), half))
                hashes.append(whole)
                found += (whole ^ copy).bit_count() <= NEAR
    print(f"{found} of {len(hashes)} copies, {len(near_pairs(np.array(hashes)))} pairs of others")
    assert found >= 0.95 * len(hashes)
    assert len(near_pairs(np.array(hashes))) <= len(hashes) // 50
