"""A made-up collection with cached features, and the encoder that they are said to come from."""

import io
from dataclasses import dataclass, fields, replace
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lookalike.data.collection import SCHEMA, Collection
from lookalike.encoders.config import EncoderConfig, ProjectionConfig
from lookalike.encoders.encoder import Encoder
from lookalike.imaging.preprocess import Preprocess
from lookalike.losses import Projecting
from lookalike.towers import ConvNetConfig
from lookalike.training.config import HeadStage, Pca, Stage, TrainConfig
from lookalike.vectors.runtime import load

FEATURES, CLASSES, EACH = 16, 12, 8


@dataclass(frozen=True)
class Made:
    collection: str
    model: str
    features: np.ndarray
    mirrored: np.ndarray
    label: np.ndarray
    split: np.ndarray

    def run(self, out: Path | str, *stages: Stage, **changes: object) -> TrainConfig:
        config = TrainConfig(data=self.collection, model=self.model, out=str(out), dimension=4, stages=stages)
        return replace(config, **changes)

    def head(self, out: Path | str, **changes: object) -> TrainConfig:
        """A head, with what is changed of its stage or of the run."""
        stage = HeadStage(start=Pca(-0.125), projecting=Projecting(dropout=0.1), batch=16, steps=12)
        own = {name: changes.pop(name) for name in list(changes) if name in {f.name for f in fields(HeadStage)}}
        return self.run(out, replace(stage, **own), **({"mirror": True} | changes))


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """Runs that differ in their directory alone share their compiled step: compiling is most of what these tests do."""
    settings = {"jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled"))}
    settings |= {"jax_persistent_cache_min_compile_time_secs": 0.5, "jax_persistent_cache_min_entry_size_bytes": 0}
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Made:
    home = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(7)
    label = np.repeat(np.arange(CLASSES), EACH)
    color = rng.integers(0, 255, (CLASSES, 3))
    center = rng.normal(size=(CLASSES, FEATURES))
    features = np.abs(center[label] + 0.8 * rng.normal(size=(len(label), FEATURES))).astype(np.float32)
    mirrored = np.abs(features + 0.1 * rng.normal(size=features.shape)).astype(np.float32)
    split = np.where(label < 9, "train", "test")
    encoder = Encoder.init(
        EncoderConfig(
            tower=ConvNetConfig(widths=(8, FEATURES), depths=(0, 0)),
            pooling="mean",
            preprocess=Preprocess(24, "squash", 24, "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
            projection=ProjectionConfig("identity", FEATURES, FEATURES),
        ),
        jax.random.key(0),
    )
    encoder.save(home / "model")
    collection = Collection.create(home / "collection")
    names, domains = [f"thing {c}" for c in label], [("toys", "tools")[c % 2] for c in label]
    collection.append(table([image(color[c], rng) for c in label], names, domains, split.tolist()))
    embedder, ids = load(home / "model"), np.arange(len(label))
    maker = {"fingerprint": encoder.features_fingerprint}
    collection.write_vectors(embedder.column("features", "float32"), ids, features, maker)
    collection.write_vectors(embedder.column("mirrored", "float32"), ids, mirrored, maker)
    return Made(str(home / "collection"), str(home / "model"), features, mirrored, label, split)


def table(
    images: list[bytes], labels: list[str | None], domains: list[str], splits: list[str | None], side: int = 32
) -> pa.Table:
    """Rows of a collection, one an image; those that are not to be learned from are queries and gallery."""
    count = len(images)
    roles = [split != "train" for split in splits]
    columns = {
        "id": np.arange(count),
        "source": [f"{i}.jpg" for i in range(count)],
        "image": images,
        "width": np.full(count, side, np.int32),
        "height": np.full(count, side, np.int32),
        "sha256": [i.to_bytes(32, "big") for i in range(count)],
        "label": labels,
        "domain": domains,
        "split": splits,
        "group": [None] * count,
        "is_query": roles,
        "is_gallery": roles,
        "gone": np.zeros(count, bool),
        "stamp": ["made"] * count,
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


@pytest.fixture
def write_collection():
    """A function that makes a collection at a path, of what `table` takes."""

    def write(path: Path, *rows: object, **more: object) -> str:
        Collection.create(path).append(table(*rows, **more))
        return str(path)

    return write


def image(color: np.ndarray, rng: np.random.Generator) -> bytes:
    pixels = np.clip(color + rng.integers(-40, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()
