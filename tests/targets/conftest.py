"""Small encoders with random weights, the encoder's own vectors of the drawn images, and a check by the README."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lookalike.encoders.config import EncoderConfig, ProjectionConfig, Tensors, tensor_shapes
from lookalike.imaging.preprocess import Preprocess
from lookalike.targets import onnx, parity
from lookalike.towers import MobileNetV2Config, Tower, ViTConfig

MEAN, STD = (0.48, 0.45, 0.40), (0.27, 0.26, 0.28)
SMALL: dict[str, Any] = {"size": 32, "patch": 8, "width": 64, "layers": 2, "heads": 2, "hidden": 128}


@dataclass(frozen=True)
class Case:
    """An encoder and its own vectors."""

    config: EncoderConfig
    tensors: Tensors
    expected: np.ndarray

    def vectors(self) -> np.ndarray:
        """What `write_export` asks for when it comes to the check."""
        return self.expected


def weights(config: EncoderConfig) -> Tensors:
    """Random tensors of the kind that training leaves: norms that are not the identity."""
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        fan_in = np.prod(shape[:-1]) if ".conv." in name else shape[-2] if len(shape) > 1 else 1
        value = rng.normal(size=shape) / np.sqrt(fan_in) * (1.2 if ".conv." in name else 1)
        if "norm" in name:
            plain = 0.2 * rng.normal(size=shape)
            value = {"weight": 1 + plain, "variance": rng.uniform(0.5, 2, shape)}.get(name.split(".")[-1], plain)
        tensors[name] = value.astype(np.float32)
    return tensors


@functools.cache
def make(
    tower: Tower,
    pooling: str = "class",
    preprocess: Preprocess | None = None,
    dimension: int | None = 16,
    mirror: bool = False,
    zooms: tuple[float, ...] = (),
    bias: bool = True,
    by_graph: bool = False,
) -> Case:
    """An encoder with `dimension` numbers (None: all of the tower's), and its vectors of the drawn images.

    By JAX, or `by_graph`, which takes a fraction of the time: enough where files are read back by us.
    """
    prepare = preprocess or Preprocess(32, "crop", 36, "bicubic", MEAN, STD)
    kind = "linear" if dimension else "identity"
    projection = ProjectionConfig(kind, tower.features, dimension or tower.features)
    config = EncoderConfig(tower, pooling, prepare, projection, mirror, zooms)
    tensors = weights(config)
    if dimension and not bias:
        tensors["projection.bias"][:] = 0
    if by_graph:
        return Case(config, tensors, onnx.run(config, tensors, parity.drawn_images()))
    import jax
    import jax.numpy as jnp

    from lookalike.encoders.encoder import Encoder

    images = np.stack([prepare(image) for image in parity.drawn_images()])
    run = jax.jit(lambda encoder, images: encoder(images))
    return Case(config, tensors, np.asarray(run(Encoder.from_parts(config, tensors), jnp.asarray(images))))


@pytest.fixture(scope="session")
def case() -> Callable[..., Case]:
    """Makes an encoder with its vectors, each once a session."""
    return make


@pytest.fixture(scope="session")
def small() -> dict[str, Any]:
    """The sizes of a small ViT."""
    return SMALL


@pytest.fixture(scope="session")
def clip() -> Case:
    """A CLIP tower with a head, and a projection behind it."""
    return make(ViTConfig(**SMALL, activation="quick_gelu", head=20), dimension=64)


@pytest.fixture(scope="session")
def mobilenet() -> Case:
    """A convolutional tower."""
    prepare = Preprocess(50, "squash", 50, "bilinear", MEAN, STD)
    return make(MobileNetV2Config(multiplier=0.35, same_padding=True), "mean", prepare)


@pytest.fixture
def by_readme() -> Callable[[str, Path], np.ndarray]:
    """The vectors of the drawn images by the code block of a README, run in its directory."""

    def run(readme: str, directory: Path) -> np.ndarray:
        return parity.by_lines(readme.split("```python\n")[1].split("```")[0], directory)

    return run
