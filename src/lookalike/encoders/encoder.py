"""The encoder: preprocessing, tower, pooling, projection and unit length in one; images in, embeddings out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, PRNGKeyArray, UInt8

from lookalike.encoders.config import EncoderConfig, Tensors, TextSide, below, check_tensors, declared, tensor_shapes
from lookalike.encoders.directory import features_fingerprint_of, fingerprint_of, read_model, write_model
from lookalike.imaging.resample import magnifier
from lookalike.towers.ops import Tensor
from lookalike.towers.programs.jax import Dtype as Dtype
from lookalike.towers.programs.jax import features, l2_normalize


@partial(jax.tree_util.register_dataclass, data_fields=["tensors"], meta_fields=["config", "dtype", "remat"])
@dataclass(frozen=True, eq=False)
class Encoder:
    """All that turns images into embeddings: a config and its named tensors, float32. Nothing here is jitted."""

    config: EncoderConfig
    tensors: Mapping[str, Any]  # those of `declared(config)`: arrays, or what JAX puts in their place while it traces
    dtype: Dtype = "float32"  # what the tower computes in; norms, softmax and the projection stay float32
    remat: bool = False
    """Whether a gradient computes stacked blocks twice to save memory; see `features`."""

    @classmethod
    def load(cls, path: str | Path, dtype: Dtype = "float32", remat: bool = False) -> "Encoder":
        """The encoder in the model directory `path`; EncoderError if it is not whole."""
        config, tensors = read_model(path)
        return cls(config, {name: jnp.asarray(tensor) for name, tensor in tensors.items()}, dtype, remat)

    @classmethod
    def from_parts(
        cls, config: EncoderConfig, tensors: Mapping[str, Any], dtype: Dtype = "float32", remat: bool = False
    ) -> "Encoder":
        """An encoder of NumPy or JAX arrays, exactly those of `tensor_shapes(config)`; EncoderError if they are not."""
        check_tensors(tensor_shapes(config), {n: np.asarray(t) for n, t in tensors.items()}, "these tensors")
        return cls(config, {name: jnp.asarray(tensor) for name, tensor in tensors.items()}, dtype, remat)

    @classmethod
    def init(cls, config: EncoderConfig, key: PRNGKeyArray, dtype: Dtype = "float32") -> "Encoder":
        """A new encoder with random weights, a pure function of `config` and `key`."""
        return cls(config, init_tensors(declared(config), key), dtype)

    def features(self, images: UInt8[Array | np.ndarray, "B S S 3"]) -> Float32[Array, "B F"]:
        """Pooled output of the tower for images that `config.preprocess` made, the mean over `config.zooms` with them;
        the images alone, not mirrored.
        """
        x, config = self.normalise(images), self.config
        if config.zooms:
            enlarged = (magnifier(config.preprocess.size, share) for share in config.zooms)
            x = jnp.concatenate([x, *(jnp.einsum("pi,bijc,qj->bpqc", m, x, m).astype(x.dtype) for m in enlarged)])
        tower = below("tower", self.tensors)
        found = features(config.tower, config.pooling, tower, x, self.dtype, self.remat)
        return found.reshape(1 + len(config.zooms), -1, found.shape[1]).mean(axis=0) if config.zooms else found

    def project(self, features: Float[Array | np.ndarray, "B F"]) -> Float32[Array, "B D"]:
        """Embeddings of unit length from features, through the projection; always float32."""
        config, x = self.config.projection, jnp.asarray(features, jnp.float32)
        if config.l2_normalize_input:
            x = l2_normalize(x)
        if config.kind == "linear":
            x = x @ self.tensors["projection.weight"] + self.tensors["projection.bias"][None]
        return l2_normalize(x)

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

    def on_host(self) -> Tensors:
        """Every tensor as NumPy; on a CPU the same memory."""
        return {name: np.asarray(tensor) for name, tensor in self.tensors.items()}

    def save(self, path: str | Path, card: dict[str, Any] | None = None, text: TextSide | None = None) -> None:
        """See `write_model`."""
        write_model(path, self.config, self.on_host(), card or {}, text)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of weights and config, 64 hex digits."""
        return fingerprint_of(self.config, self.on_host())

    @cached_property
    def features_fingerprint(self) -> str:
        """Hash of what makes the features, 64 hex digits."""
        return features_fingerprint_of(self.config, self.on_host())


def init_tensors(declared: Mapping[str, Tensor], key: PRNGKeyArray) -> dict[str, Float32[Array, "..."]]:
    """Random tensors as they are declared: each normal around its start, with its deviation."""
    return _drawn(tuple(declared.items()), key)


@partial(jax.jit, static_argnums=0)
def _drawn(declared: tuple[tuple[str, Tensor], ...], key: PRNGKeyArray) -> dict[str, Float32[Array, "..."]]:
    """In one draw: a generator for each tensor takes many times as long to compile."""
    sizes = [math.prod(tensor.shape) if tensor.deviation else 0 for _, tensor in declared]
    normal, start, tensors = jax.random.normal(key, (sum(sizes),), jnp.float32), 0, {}
    for (name, tensor), size in zip(declared, sizes, strict=True):
        if tensor.deviation:
            tensors[name] = tensor.deviation * normal[start : start + size].reshape(tensor.shape)
        else:
            tensors[name] = jnp.full(tensor.shape, tensor.start, jnp.float32)
        start += size
    return tensors
