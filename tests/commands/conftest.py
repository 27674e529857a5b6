"""A small real encoder, a folder of small pictures, and what `likeness index` makes of them, once a session."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@dataclass(frozen=True)
class Shop:
    """Paths."""

    pictures: Path
    model: Path
    collection: Path


def draw(label: int, number: int) -> Image.Image:
    """Four colored quarters that belong to the label, and some noise that belongs to the picture."""
    quarters = np.random.default_rng(label).integers(30, 225, (2, 2, 3))
    noise = np.random.default_rng((label, number)).integers(-25, 25, (40, 48, 3))
    return Image.fromarray((quarters.repeat(20, 0).repeat(24, 1) + noise).astype(np.uint8))


@pytest.fixture(scope="session")
def write_tiny_model() -> Callable[[Path, int], Path]:
    """Writes a convolutional encoder with random weights to a path; another seed, another encoder."""
    from likeness.models.config import EncoderConfig, ProjectionConfig, tensor_shapes, write_model
    from likeness.models.preprocess import Preprocess
    from likeness.models.towers import ConvNetConfig

    def write(path: Path, seed: int = 0) -> Path:
        config = EncoderConfig(
            tower=ConvNetConfig(widths=(8, 16), depths=(0, 1)),
            pooling="mean",
            preprocess=Preprocess(32, "squash", 32, "bilinear", (0.5,) * 3, (0.25,) * 3),
            projection=ProjectionConfig("linear", 16, 6),
        )
        rng = np.random.default_rng(seed)
        tensors = {
            name: (rng.standard_normal(shape) * (0.3 if len(shape) > 1 else 0.1)).astype(np.float32)
            for name, shape in tensor_shapes(config).items()
        }
        tensors |= {name: np.abs(value) + 1 for name, value in tensors.items() if "norm" in name and value.ndim == 1}
        write_model(path, config, tensors, {"name": "tiny", "license": "Apache-2.0"})
        return path

    return write


@pytest.fixture(scope="session")
def shop_once(tmp_path_factory: pytest.TempPathFactory, write_tiny_model: Callable[..., Path]) -> Iterator[Shop]:
    """Two domains of two labels of three pictures, indexed."""
    from likeness.commands import main

    base = tmp_path_factory.mktemp("shop")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(base / "cache"))
        for label in range(4):
            folder = base / "pictures" / f"domain{label // 2}" / f"label{label}"
            folder.mkdir(parents=True)
            for number in range(3):
                draw(label, number).save(folder / f"{number}.png")
        write_tiny_model(base / "model")
        arguments = ["index", str(base / "pictures"), "--model", str(base / "model"), "--out", str(base / "shop.coll")]
        assert main(arguments) == 0
        yield Shop(base / "pictures", base / "model", base / "shop.coll")


@pytest.fixture
def shop(shop_once: Shop, tmp_path: Path) -> Shop:
    """A copy of it, to change; the pictures are read where they are."""
    shutil.copytree(shop_once.collection, tmp_path / "shop.coll")
    return Shop(shop_once.pictures, shop_once.model, tmp_path / "shop.coll")
