"""What the tests of towers against transformers share: weights that are awake, and the comparison itself."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lookalike.encoders.config import EncoderConfig, Tensors, below
from lookalike.encoders.encoder import Encoder
from lookalike.towers.ops import shapes_of
from lookalike.towers.programs.jax import features, seen

Blocks = Callable[[Any], tuple[list[Any], Any]]
"""Torch pixels [B 3 S S] to (tokens before the first block and behind each, features)."""


@jax.jit
def _ours(encoder: Encoder, images: jax.Array) -> tuple[list[jax.Array], jax.Array]:
    config = encoder.config
    shown = jax.vmap(lambda image: seen(config.tower, config.pooling, below("tower", encoder.tensors), image))
    return shown(encoder.normalise(images)), encoder.features(images)


@partial(jax.jit, static_argnums=0)
def _gradients(
    config: EncoderConfig, tensors: dict[str, jax.Array], images: jax.Array, along: jax.Array
) -> tuple[dict[str, jax.Array], jax.Array]:
    def total(tensors: dict[str, jax.Array], images: jax.Array) -> jax.Array:
        return (features(config.tower, config.pooling, tensors, images) * along).sum()

    return jax.grad(total, argnums=(0, 1))(tensors, images)


@dataclass(frozen=True)
class Parity:
    """Our ViT from a published directory against the model of transformers that wrote it."""

    count: int = 2
    """Images."""

    def save(self, model: Any, path: Path, processor: Mapping[str, Any] | None) -> Any:
        """Write the model with random weights, and its preprocessing, as transformers does; returns it, float32."""
        import torch

        generator = torch.Generator().manual_seed(7)
        for name, tensor in model.named_parameters():
            # Tokens enter with a small variance, so that eps counts; blocks are wide awake, so that the GELU counts.
            matrix = tensor.ndim == 2 and "embedding" not in name
            scale = 1.5 * tensor.shape[-1] ** -0.5 if matrix else 0.02 if "embedding" in name else 0.2
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.6 if "lambda" in name else 0.0
            tensor.data = centre + scale * torch.randn(tensor.shape, generator=generator)
        model.eval().save_pretrained(path)
        if processor is not None:
            (path / "preprocessor_config.json").write_text(json.dumps(dict(processor)))
        return model

    def blocks(self, model: Any) -> Blocks:
        """Of a ViT of transformers: the tokens before and behind every block, and the pooled features."""
        vision = getattr(model, "vision_model", model)

        def run(pixels: Any) -> tuple[list[Any], Any]:
            out = vision(pixels, output_hidden_states=True)
            return list(out.hidden_states), out.pooler_output

        return run

    def images(self, config: EncoderConfig) -> np.ndarray:
        size = config.preprocess.size
        return np.random.default_rng(3).integers(0, 256, (self.count, size, size, 3), dtype=np.uint8)

    def pixels(self, config: EncoderConfig) -> Any:
        """The same images as the reference takes them."""
        import torch

        mean, std = np.array(config.preprocess.mean), np.array(config.preprocess.std)
        pixels = ((self.images(config) / 255 - mean) / std).astype(np.float32)
        return torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())

    def theirs(self, config: EncoderConfig, blocks: Blocks) -> list[np.ndarray]:
        import torch

        with torch.no_grad():
            states, features = blocks(self.pixels(config))
        return [state.numpy() for state in states] + [features.numpy()]

    def ours(self, config: EncoderConfig, tensors: Tensors, dtype: Any = "float32") -> list[np.ndarray]:
        encoder = Encoder.from_parts(config, tensors, dtype)
        states, features = _ours(encoder, jnp.asarray(self.images(config)))
        return [*(np.asarray(state.astype(jnp.float32)) for state in states), np.asarray(features)]

    def worst(self, ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
        """Largest difference of any block or of the features, as a share of its largest value."""
        assert [a.shape for a in ours] == [a.shape for a in theirs]
        return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, theirs, strict=True))

    def check(self, config: EncoderConfig, tensors: Tensors, blocks: Blocks, half: bool = True) -> None:
        """Every block and the features to 1e-5, the features' direction to 1e-5, in half precision to 1e-3."""
        theirs = self.theirs(config, blocks)
        ours = self.ours(config, tensors)
        assert self.worst(ours, theirs) <= 1e-5
        assert cosines(ours[-1], theirs[-1]).min() >= 0.99999
        if half:
            assert cosines(self.ours(config, tensors, "bfloat16")[-1], theirs[-1]).min() >= 0.999

    def check_images(self, path: Path, config: EncoderConfig, tensors: Tensors, blocks: Blocks) -> None:
        """Images of odd sizes, not square: their image processor and model against our preprocessing and encoder."""
        import torch
        from transformers import AutoImageProcessor

        processor = AutoImageProcessor.from_pretrained(path, use_fast=False)
        rng = np.random.default_rng(2)
        shapes = [(61, 37), (45, 211), (39, 40), (128, 97)]
        pictures = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in shapes]
        with torch.no_grad():
            pixels = processor(images=[Image.fromarray(picture) for picture in pictures], return_tensors="pt")
            theirs = blocks(pixels["pixel_values"])[1].numpy()
        images = np.stack([config.preprocess(picture) for picture in pictures])
        _, ours = _ours(Encoder.from_parts(config, tensors), jnp.asarray(images))
        assert self.worst([np.asarray(ours)], [theirs]) <= 1e-5

    def check_mutations(
        self,
        config: EncoderConfig,
        tensors: Tensors,
        blocks: Blocks,
        changes: Mapping[str, dict[str, Any]],
        mutated: Mapping[str, Tensors] | None = None,
    ) -> None:
        """Each change of the tower's config, or of its tensors, must be seen by the comparison."""
        theirs = self.theirs(config, blocks)
        for name in changes.keys() | (mutated or {}).keys():
            tower: Any = replace(config.tower, **changes.get(name, {}))  # type: ignore[type-var]
            kept = {f"tower.{n}": (tensors | (mutated or {}).get(name, {}))[f"tower.{n}"] for n in shapes_of(tower)}
            ours = self.ours(replace(config, tower=tower), kept)
            if ours[0].shape != theirs[0].shape:  # fewer tokens: the features alone can be compared
                assert self.worst(ours[-1:], theirs[-1:]) > 1e-4, name
            else:
                assert self.worst(ours, theirs) > 1e-4, name

    def check_slopes(
        self, config: EncoderConfig, tensors: Tensors, blocks: Blocks, named: Mapping[str, tuple[Any, Any]]
    ) -> None:
        """Gradients of the features, along a random direction.

        Args:
            config: The encoder's config.
            tensors: Its tensors.
            blocks: The reference.
            named: Our name of a parameter -> (their parameter, how its gradient becomes ours).
        """
        import torch

        pixels = self.pixels(config).requires_grad_()
        _, features = blocks(pixels)
        along = np.random.default_rng(5).normal(size=features.shape).astype(np.float32)
        (features * torch.from_numpy(along)).sum().backward()
        encoder = Encoder.from_parts(config, tensors)
        images = encoder.normalise(jnp.asarray(self.images(config)))
        found, image = _gradients(config, below("tower", encoder.tensors), images, jnp.asarray(along))
        pairs = [(image, pixels.grad.numpy().transpose(0, 2, 3, 1))]
        pairs += [(found[name], turned(their.grad.numpy())) for name, (their, turned) in named.items()]
        for ours, theirs in pairs:
            assert np.abs(np.asarray(ours) - theirs).max() <= 1e-3 * np.abs(theirs).max()
            assert np.abs(theirs).max() > 0


class MapParity(Parity):
    """The same for a convolutional tower, whose states are maps; theirs too must be [B H W C]."""

    def ours(self, config: EncoderConfig, tensors: Tensors, dtype: Any = "float32") -> list[np.ndarray]:
        *maps, features = super().ours(config, tensors, dtype)
        return [*(m.reshape(len(m), isqrt(m.shape[1]), isqrt(m.shape[1]), -1) for m in maps), features]


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    result: np.ndarray = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return result


@pytest.fixture(scope="session")
def map_parity() -> MapParity:
    return MapParity()


@pytest.fixture(scope="session")
def parity() -> Parity:
    return Parity()


@pytest.fixture(scope="session")
def save_drawn() -> Callable[[Any, Path], None]:
    """Draws batch norms that show in the features for a model of timm, and saves it as on the Hub."""

    def save(model: Any, path: Path) -> None:
        import timm
        import torch

        generator = torch.Generator().manual_seed(5)
        for key, tensor in model.state_dict().items():
            if key.endswith("running_var"):
                tensor.copy_(0.3 + torch.rand(tensor.shape, generator=generator))
            elif key.endswith("running_mean"):
                tensor.copy_(0.2 * torch.randn(tensor.shape, generator=generator))
            elif tensor.ndim == 1 and key.endswith("weight"):  # small, or maps grow with every block
                tensor.copy_(0.2 + 0.3 * torch.rand(tensor.shape, generator=generator))
        timm.models.save_for_hf(model, path, safe_serialization=True)

    return save
