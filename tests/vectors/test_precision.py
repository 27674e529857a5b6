"""Eight bits are used where the processor is made for them and the features stay close, and nowhere else."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lookalike.core import machine
from lookalike.data.collection import Collection
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, tensor_shapes
from lookalike.encoders.directory import write_model
from lookalike.imaging.preprocess import Preprocess
from lookalike.towers import ViTConfig
from lookalike.vectors import engines
from lookalike.vectors.column import ensure_embeddings, ensure_features, precision_of, read_embeddings
from lookalike.vectors.runtime import load


@pytest.fixture
def vit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small ViT whose products count as large, on a processor that multiplies bytes."""
    monkeypatch.setattr("lookalike.towers.programs.graph.LARGE", 1)
    monkeypatch.setattr("lookalike.vectors.runtime.multiplies_bytes", lambda: True)
    tower = ViTConfig(32, 8, 64, 2, 2, 128, activation="gelu")
    preprocess = Preprocess(32, "squash", 32, "bicubic", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    config = EncoderConfig(tower, "class", preprocess, ProjectionConfig("identity", 64, 64))
    rng = np.random.default_rng(0)
    tensors = {
        name: (rng.normal(size=shape) / np.sqrt(shape[-2] if len(shape) > 1 else 1)).astype(np.float32)
        for name, shape in tensor_shapes(config).items()
    }
    write_model(tmp_path / "vit", config, tensors, {})
    return str(tmp_path / "vit")


def test_auto_takes_eight_bits_and_says_how_close_they_are(vit: str) -> None:
    exact, fast, again = load(vit, "onnx"), load(vit), load(vit)
    images = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    a, b = exact.features(images), fast.features(images)
    assert exact.cosine is None
    assert fast.cosine is not None
    assert engines.LEAST_COSINE <= fast.cosine == again.cosine < 1
    assert not np.array_equal(a, b)
    cosines = np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosines.min() > 0.998
    np.testing.assert_array_equal(again.features(images), b)
    assert exact.fingerprint == fast.fingerprint


def stored(path: str, collection: Collection) -> tuple[list[str], np.ndarray]:
    names = ensure_features(load(path), collection, mirrored=False)
    return names, collection.vectors(names[0])[1]


def test_features_of_two_precisions_never_share_a_column(vit: str, collection: Collection) -> None:
    """Whoever comes first: float32 is float32. Where it is whole, nothing is computed in eight bits any more."""
    exact = load(vit, "onnx")
    names, fast = stored(vit, collection)
    assert names == [f"features_{exact.features_fingerprint[:8]}_int8"]
    (name,) = ensure_features(exact, collection, mirrored=False)
    images = [exact.decode(data) for data in collection.table(["image"])["image"].to_pylist()]
    slow = np.concatenate([exact.features(image[None]) for image in images])
    np.testing.assert_array_equal(collection.vectors(name)[1], slow)
    assert np.abs(fast - slow).max() > 1e-3 * np.abs(slow).max()
    assert stored(vit, collection)[0] == [name]
    made = ensure_embeddings(load(vit), collection)
    assert precision_of(made.column) == "float32"
    np.testing.assert_array_equal(read_embeddings(exact, collection, made.column)[1], exact.project(slow))


def test_bfloat16_has_columns_of_its_own(vit: str, collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")  # JAX has started on the CPU, and stays there
    names, half = stored(vit, collection)
    assert names[0].endswith("_bfloat16")
    (name,) = ensure_features(load(vit, "jax"), collection, mirrored=False)
    assert name.endswith("_float32")
    assert np.abs(half - collection.vectors(name)[1]).max() > 1e-4


def test_a_query_is_of_the_precision_of_the_rows(vit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    rows = {"int8": load(vit).features(images), "float32": load(vit, "onnx").features(images)}
    monkeypatch.setattr("lookalike.vectors.runtime.multiplies_bytes", lambda: False)  # on another machine
    for precision_, features in rows.items():
        embedder = load(vit, precision=precision_)
        assert embedder.precision == precision_
        np.testing.assert_array_equal(embedder.features(images), features)
    assert load(vit, precision="bfloat16").precision == "bfloat16"


def test_without_a_cache_eight_bits_are_eight_bits(vit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    kept = load(vit).features(images)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert load(vit).precision == "int8"
    np.testing.assert_array_equal(load(vit).features(images), kept)


def test_a_tower_that_eight_bits_can_not_hold_stays_in_float32(vit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "LEAST_COSINE", 1.1)
    images = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    refused = load(vit)
    assert refused.cosine is None
    np.testing.assert_array_equal(refused.features(images), load(vit, "onnx").features(images))


def test_a_tower_without_large_products_stays_in_float32(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike.vectors.runtime.multiplies_bytes", lambda: True)
    assert load(model).cosine is None


def test_other_processors_stay_in_float32(vit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike.vectors.runtime.multiplies_bytes", lambda: False)
    assert load(vit).cosine is None


@pytest.mark.parametrize(
    ("flags", "expected"), [("sse avx2 avx512f", False), ("avx2 avx512_vnni", True), ("fp asimddp", True)]
)
def test_processors_that_multiply_bytes(monkeypatch: pytest.MonkeyPatch, flags: str, expected: bool) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_: f"flags : {flags}\n")
    assert machine.multiplies_bytes() == expected


def test_a_mac_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    for system, name, expected in [("Darwin", "arm64", True), ("Darwin", "x86_64", False), ("Windows", "AMD64", False)]:
        monkeypatch.setattr("platform.system", lambda system=system: system)
        monkeypatch.setattr("platform.machine", lambda name=name: name)
        assert machine.multiplies_bytes() == expected


def test_drawn_images_differ_and_are_the_same_every_time() -> None:
    images = engines.drawn(48)
    assert images.shape == (engines.COUNT, 48, 48, 3)
    np.testing.assert_array_equal(images, engines.drawn(48))
    assert len({image.tobytes() for image in images}) == engines.COUNT
    assert images.std(axis=(1, 2)).min() > 5


def test_the_lowest_cosine_is_that_of_the_worst_image(parts: Callable, tmp_path: Path) -> None:
    graphs = []
    for seed in range(2):
        (tmp_path / str(seed)).mkdir()
        graphs.append(engines.write_graph(tmp_path / str(seed), *parts(seed=seed)))
    assert engines.lowest_cosine(graphs[0], graphs[0], 24, 16) == pytest.approx(1)
    assert engines.lowest_cosine(*graphs, 24, 16) < 0.9


@pytest.mark.parametrize(("more", "precision"), [(2, "float32"), (40, "int8")])
def test_features_that_a_training_made_are_filled_up(
    vit: str,
    collection: Collection,
    rows: Callable[[int, int], pa.Table],
    monkeypatch: pytest.MonkeyPatch,
    more: int,
    precision: str,
) -> None:
    """Those are in float32, and what embeds runs in eight bits: a few new images must not embed all again."""
    ensure_features(load(vit, "onnx"), collection, mirrored=False)
    count = len(collection)
    collection.append(rows(100, more))
    collection = Collection.open(collection.path)
    fast, seen, original = load(vit), list[int](), engines.OnnxEngine.features
    assert fast.precision == "int8"
    monkeypatch.setattr(
        engines.OnnxEngine, "features", lambda self, images: seen.append(len(images)) or original(self, images)
    )
    column, _ = ensure_embeddings(fast, collection)
    assert precision_of(column) == precision
    assert not len(collection.missing(column))
    assert sum(seen) == (more if precision == "float32" else count + more)
