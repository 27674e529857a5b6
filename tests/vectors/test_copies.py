"""The bar of near duplicates, against copies that Pillow makes and a loop over pairs; encoders that can't tell."""

import io
from collections.abc import Callable

import numpy as np
import PIL.Image
import pytest

from lookalike.data.collection import Collection
from lookalike.encoders.directory import write_model
from lookalike.vectors import copies
from lookalike.vectors.column import ensure_embeddings
from lookalike.vectors.copies import bar_of
from lookalike.vectors.runtime import Embedder, load


def by_pillow(data: bytes) -> list[bytes]:
    image = PIL.Image.open(io.BytesIO(data)).convert("RGB")
    width, height = image.size
    x, y = round(width / 20), round(height / 20)
    made = []
    for copy, quality in ((image, 50), (image.crop((x, y, width - x, height - y)), 90)):
        buffer = io.BytesIO()
        copy.save(buffer, "JPEG", quality=quality, subsampling="4:4:4")
        made.append(buffer.getvalue())
    return made


def embedded(embedder: Embedder, collection: Collection) -> tuple[np.ndarray, np.ndarray]:
    return collection.vectors(ensure_embeddings(embedder, collection).column)


def test_the_bar_is_where_copies_are(model: str, collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "SAMPLE", 10)
    embedder = load(model, "onnx", batch=6)
    ids, vectors = embedded(embedder, collection)
    sample = [int(i * 22 / 9) for i in range(10)]
    images = collection.take(ids[sample], ["image"])["image"].to_pylist()
    cosines = sorted(
        float(embedder.embed([copy])[0] @ vectors[row])
        for row, data in zip(sample, images, strict=True)
        for copy in by_pillow(data)
    )
    pairs = []
    for i in range(23):  # the nearest of each is left out
        pairs += sorted(float(vectors[i] @ vectors[j]) for j in range(23) if j != i)[:-1]
    found = bar_of(embedder, collection, ids, vectors)
    assert found.copies == pytest.approx(cosines[9], abs=1e-5)  # of twenty, the middle from below
    assert found.others == pytest.approx(sorted(pairs)[-2], abs=1e-5)
    expected = max(cosines[0], sorted(pairs)[-2]) if sorted(pairs)[-2] < cosines[9] else None
    assert found.cosine == (expected if expected is None else pytest.approx(expected, abs=1e-5))


def test_one_image_and_one_copy_of_it(model: str, collection: Collection) -> None:
    """Nothing is known of different images then, and copies alone decide."""
    embedder = load(model, "onnx")
    ids, vectors = embedded(embedder, collection)
    for count in (1, 2):
        found = bar_of(embedder, collection, ids[:count], vectors[:count])
        assert found.others == -1
        assert found.cosine is not None
        assert found.cosine <= found.copies


def test_an_encoder_that_finds_all_images_alike_tells_no_copies(
    tmp_path: object, parts: Callable, collection: Collection
) -> None:
    config, tensors = parts()
    tensors = {name: np.zeros_like(value) if name == "projection.weight" else value for name, value in tensors.items()}
    write_model(f"{tmp_path}/constant", config, tensors, {})
    embedder = load(f"{tmp_path}/constant", "onnx")
    ids, vectors = embedded(embedder, collection)
    assert np.ptp(vectors, axis=0).max() < 1e-6
    found = bar_of(embedder, collection, ids, vectors)
    assert found.cosine is None
    assert found.others == pytest.approx(1, abs=1e-6)


def test_what_pairs_rarely_reach_is_that_of_a_loop():
    from lookalike.vectors.copies import rarely_reached

    vectors = np.random.default_rng(1).normal(size=(60, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rest = [value for i, row in enumerate(vectors @ vectors.T) for value in sorted(np.delete(row, i).tolist())[:-1]]
    assert rarely_reached(vectors) == pytest.approx(sorted(rest)[-2], abs=1e-6)  # of 3,600 pairs the last but one
    half = sorted([*rest, *[-1.0] * 120])  # each row beside itself and its nearest, which count as -1
    assert rarely_reached(vectors, 0.5) == pytest.approx(half[int(0.5 * (len(half) - 1))], abs=1e-6)
