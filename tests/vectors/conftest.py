"""A small encoder and small collections, made anew for each test."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lookalike.data.collection import SCHEMA, Collection
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, tensor_shapes
from lookalike.encoders.directory import write_model
from lookalike.imaging.decode import encode_jpeg
from lookalike.imaging.preprocess import Preprocess
from lookalike.towers import ConvNetConfig

Parts = tuple[EncoderConfig, dict[str, np.ndarray]]


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, empty."""
    home = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home


@pytest.fixture
def parts() -> Callable[..., Parts]:
    """Config and random tensors: `parts(mirror=False, seed=0, kind="linear", l2_normalize_input=True)`."""

    def make(mirror: bool = False, seed: int = 0, kind: str = "linear", l2_normalize_input: bool = True) -> Parts:
        tower = ConvNetConfig(widths=(8, 16), depths=(0, 1), groups=4)
        dimension = 5 if kind == "linear" else 16
        config = EncoderConfig(
            tower,
            "mean",
            Preprocess(24, "crop", 26, "bicubic", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
            ProjectionConfig(kind, 16, dimension, l2_normalize_input),
            mirror,
        )
        rng = np.random.default_rng(seed)
        tensors = {n: rng.normal(size=s).astype(np.float32) for n, s in tensor_shapes(config).items()}
        return config, tensors

    return make


@pytest.fixture
def model(tmp_path: Path, parts: Callable[..., Parts]) -> str:
    """A model directory."""
    path = tmp_path / "model"
    write_model(path, *parts(), {"name": "test"})
    return str(path)


@pytest.fixture
def rows() -> Callable[[int, int], pa.Table]:
    """Rows of random images of several shapes: `rows(first id, count)`."""

    def make(first: int, count: int) -> pa.Table:
        images = []
        for i in range(first, first + count):
            rng = np.random.default_rng(i)
            blocks = rng.integers(0, 256, (3 + i % 3, 4, 3), dtype=np.uint8)
            images.append(encode_jpeg(np.repeat(np.repeat(blocks, 9, axis=0), 9, axis=1)))
        ids = np.arange(first, first + count)
        columns = {
            "id": ids,
            "source": [f"{i}.jpg" for i in ids],
            "image": images,
            "width": np.full(count, 36, np.int32),
            "height": np.full(count, 36, np.int32),
            "sha256": pa.array([hashlib.sha256(p).digest() for p in images], pa.binary(32)),
            **{name: pa.nulls(count, pa.string()) for name in ("label", "domain", "split", "group")},
            "is_query": np.ones(count, bool),
            "is_gallery": np.ones(count, bool),
            "gone": np.zeros(count, bool),
            "stamp": [""] * count,
        }
        return pa.table(columns, schema=SCHEMA)

    return make


@pytest.fixture
def collection(tmp_path: Path, rows: Callable[[int, int], pa.Table]) -> Collection:
    """Twenty-three images."""
    made = Collection.create(tmp_path / "coll")
    made.append(rows(0, 23))
    return made
