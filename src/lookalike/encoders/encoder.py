"""The encoder: preprocessing, tower, pooling, projection and unit length in one; images in, embeddings out."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, PRNGKeyArray, UInt8

from lookalike.encoders.config import (
    ConvNetConfig,
    ConvNeXtConfig,
    EfficientNetConfig,
    EncoderConfig,
    MobileNetV2Config,
    Shapes,
    SwinConfig,
    Tensors,
    ViTConfig,
    check_tensors,
    features_fingerprint_of,
    fingerprint_of,
    read_model,
    tensor_shapes,
    write_model,
)
from lookalike.encoders.projection import Projection
from lookalike.encoders.text_side import TextSide
from lookalike.towers.kinds import kind_of
from lookalike.towers.modules.convnet import ConvNet
from lookalike.towers.modules.convnext import ConvNeXt
from lookalike.towers.modules.efficientnet import EfficientNet
from lookalike.towers.modules.mobilenet import MobileNetV2
from lookalike.towers.modules.swin import Swin
from lookalike.towers.modules.vit import ViT

Dtype = Literal["float32", "bfloat16"]

TowerModule = ViT | MobileNetV2 | ConvNet | ConvNeXt | EfficientNet | Swin
"""What `Tower` describes, in JAX."""


class Encoder(eqx.Module):
    """All that turns images into embeddings. Its arrays are the parameters, float32; nothing here is jitted."""

    tower: TowerModule
    projection: Projection
    config: EncoderConfig = eqx.field(static=True)
    dtype: Dtype = eqx.field(static=True)
    """What the tower computes in; norms, softmax and the projection stay float32."""

    @classmethod
    def load(cls, path: str | Path, dtype: Dtype = "float32", remat: bool = False) -> "Encoder":
        """The encoder in the model directory `path`; EncoderError if it is not whole. See `from_parts`."""
        return cls._of(*read_model(path), dtype, remat)

    @classmethod
    def from_parts(
        cls, config: EncoderConfig, tensors: Mapping[str, Any], dtype: Dtype = "float32", remat: bool = False
    ) -> "Encoder":
        """An encoder of these tensors.

        Args:
            config: The encoder's config.
            tensors: NumPy or JAX arrays, float32; exactly those of `tensor_shapes(config)`.
            dtype: What the tower computes in.
            remat: Whether a gradient computes the blocks of a ViT, Swin or ConvNeXt twice instead of keeping what is
                inside them: memory then grows with the tokens between blocks alone, for about a third more time. Other
                towers: no effect.
        """
        _check(tensor_shapes(config), tensors)
        return cls._of(config, tensors, dtype, remat)

    @classmethod
    def _of(cls, config: EncoderConfig, tensors: Mapping[str, Any], dtype: Dtype, remat: bool) -> "Encoder":
        arrays = {name: jnp.asarray(tensor) for name, tensor in tensors.items()}
        return cls(_tower(config, _below("tower", arrays), remat), _projection(config, arrays), config, dtype)

    @classmethod
    def init(cls, config: EncoderConfig, key: PRNGKeyArray, dtype: Dtype = "float32") -> "Encoder":
        """A new encoder with random weights, a pure function of `config` and `key`."""
        return cls.from_parts(config, init_tensors(tensor_shapes(config), key), dtype)

    def features(self, images: UInt8[Array | np.ndarray, "B S S 3"]) -> Float32[Array, "B F"]:
        """Pooled output of the tower for images that `config.preprocess` made; the images alone, not mirrored."""
        return jax.vmap(self._features)(self.normalise(images)).astype(jnp.float32)

    def project(self, features: Float[Array | np.ndarray, "B F"]) -> Float32[Array, "B D"]:
        """Embeddings of unit length from features."""
        return jax.vmap(self.projection)(jnp.asarray(features))

    def __call__(self, images: UInt8[Array | np.ndarray, "B S S 3"]) -> Float32[Array, "B D"]:
        """Embeddings of unit length, from the mean with the mirror image's features where the config says so."""
        features = self.features(images)
        if self.config.mirror:
            features = (features + self.features(images[:, :, ::-1])) / 2
        return self.project(features)

    def normalise(self, images: UInt8[Array | np.ndarray, "B S S 3"]) -> Float[Array, "B S S 3"]:
        """`(x / 255 - mean) / std`, in the tower's dtype."""
        colors = jnp.array([self.config.preprocess.mean, self.config.preprocess.std], jnp.float32)
        mean, std = colors.reshape(2, 1, 1, 1, 3)
        x: Array = ((jnp.asarray(images).astype(jnp.float32) / 255 - mean) / std).astype(self.dtype)
        return x

    def tensors(self) -> Tensors:
        """Every tensor by its name on disk, on the host."""
        paths, _ = jax.tree_util.tree_flatten_with_path((self.tower, self.projection))
        names = ("tower", "projection")
        return {
            f"{names[path[0].idx]}.{jax.tree_util.keystr(path[1:], simple=True, separator='.')}": np.asarray(leaf)
            for path, leaf in paths
        }

    def save(self, path: str | Path, card: dict[str, Any] | None = None, text: TextSide | None = None) -> None:
        """Write a model directory, whole or not at all; see `write_model`."""
        write_model(path, self.config, self.tensors(), card or {}, text)

    @property
    def fingerprint(self) -> str:
        """Hash of weights and config, 64 hex digits."""
        return fingerprint_of(self.config, self.tensors())

    @property
    def features_fingerprint(self) -> str:
        """Hash of what makes the features, 64 hex digits."""
        return features_fingerprint_of(self.config, self.tensors())

    def _features(self, image: Float[Array, "S S 3"]) -> Float[Array, " F"]:
        return self.tower(image, self.config.pooling)


def init_tensors(shapes: Shapes, key: PRNGKeyArray) -> dict[str, Float32[Array, "..."]]:
    """Random tensors of these names and shapes.

    Kernels and matrices are normal with variance 2 / fan-in for kernels (He et al., 2015) and 1 / fan-in for
    matrices; positions and learned tokens have deviation 0.02; norms and scales start as the identity, biases at 0.
    """
    return _drawn(tuple(shapes.items()), key)


@partial(jax.jit, static_argnums=0)
def _drawn(shapes: tuple[tuple[str, tuple[int, ...]], ...], key: PRNGKeyArray) -> dict[str, Float32[Array, "..."]]:
    """All of `init_tensors` from one draw: a generator for each tensor takes many times as long to compile."""
    scales = [_scale(name, shape) for name, shape in shapes]
    sizes = [math.prod(shape) if scale else 0 for (_, shape), scale in zip(shapes, scales, strict=True)]
    normal, start, tensors = jax.random.normal(key, (sum(sizes),), jnp.float32), 0, {}
    for (name, shape), scale, size in zip(shapes, scales, sizes, strict=True):
        if scale:
            tensors[name] = scale * normal[start : start + size].reshape(shape)
        else:
            tensors[name] = jnp.full(shape, _constant(name), jnp.float32)
        start += size
    return tensors


def _constant(name: str) -> float:
    """Where a new tensor starts that is not random; a logit scale is kept as its logarithm and starts at 10."""
    if kind_of(name) == "temperature":
        return math.log(10)
    return 0.0 if name.endswith((".bias", ".mean")) else 1.0


def _scale(name: str, shape: tuple[int, ...]) -> float | None:
    """Standard deviation of a new tensor, or None for one that starts as a constant."""
    match kind_of(name):
        case "token":
            return 0.02
        case "kernel":
            return math.sqrt(2 / math.prod(shape[-4:-1]))
        case "matrix":
            return math.sqrt(1 / shape[-2])
    return None


def _check(shapes: Shapes, tensors: Mapping[str, Any]) -> None:
    """`check_tensors`, but for traced arrays, which have a shape and a dtype and no values yet."""
    if not any(isinstance(tensor, jax.core.Tracer) for tensor in tensors.values()):
        check_tensors(shapes, {name: np.asarray(tensor) for name, tensor in tensors.items()}, "these tensors")


def _below(prefix: str, tensors: Mapping[str, Array]) -> dict[str, Array]:
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}


def _tower(config: EncoderConfig, tensors: dict[str, Array], remat: bool) -> TowerModule:
    match config.tower:
        case ViTConfig():
            return ViT.of(config.tower, tensors, remat)
        case MobileNetV2Config():
            return MobileNetV2.of(config.tower, tensors)
        case ConvNetConfig():
            return ConvNet.of(config.tower, tensors)
        case ConvNeXtConfig():
            return ConvNeXt.of(config.tower, tensors, remat)
        case EfficientNetConfig():
            return EfficientNet.of(config.tower, tensors)
        case SwinConfig():
            return Swin.of(config.tower, tensors, remat)


def _projection(config: EncoderConfig, tensors: dict[str, Array]) -> Projection:
    return Projection.of(config.projection, _below("projection", tensors))
