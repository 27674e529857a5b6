"""A published encoder for another input, another layer or another pooling: config and tensors, and nothing learned.

Learned positions are interpolated as the family's reference does it (`ViTConfig.resampling`), in NumPy.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, Tensors
from lookalike.imaging.preprocess import Preprocess
from lookalike.imaging.resample import Filter, matrix
from lookalike.towers import Pooling, ViTConfig
from lookalike.towers.vit import Resampling

LEAST = 32
"""Side in pixels of the smallest image of which a convolutional tower or a Swin has a map left at its end."""


def adapt(
    config: EncoderConfig,
    tensors: Mapping[str, np.ndarray],
    *,
    size: int | None = None,
    stride: int | None = None,
    layer: int | None = None,
    pooling: Pooling | None = None,
    projected: bool | None = None,
) -> tuple[EncoderConfig, Tensors]:
    """Config and tensors with what is given changed; None keeps what is there.

    Args:
        config: The encoder's config.
        tensors: Those of `tensor_shapes(config)`; they are not written to.
        size: Side of the input, in pixels. A resize before a crop grows in proportion.
        stride: Distance between the patches of a ViT, in pixels; below the patch's side they overlap.
        layer: The features are read behind this block of a ViT, counted from 1, or from the end: -1 is the last.
            Blocks behind it are dropped; the last norm stays.
        pooling: How tokens become features.
        projected: False drops the projection that CLIP has behind its pooling; True asks for one to be there.

    Raises:
        EncoderError: The tower has no such thing, or a trained projection would get other features than it learned.
    """
    if stride is not None or layer is not None or projected is not None:
        _vit(config)
    _refuse_trained(config, layer, pooling, projected)
    if projected is not None and _vit(config).head is None:
        raise EncoderError("The tower has no projection behind its pooling.", hint="leave `--features` out")
    tensors = dict(tensors)
    if size is not None or stride is not None:
        config, tensors = _cut_anew(config, tensors, config.preprocess.size if size is None else size, stride)
    if layer is not None:
        config, tensors = _read_at(config, tensors, layer)
    if pooling is not None:
        config, tensors = _pooled(config, tensors, pooling)
    if projected is False:
        config = _with_tower(config, replace(_vit(config), head=None))
        tensors.pop("tower.head.weight", None)
        tensors.pop("tower.head.bias", None)
    return config, tensors


def resized(preprocess: Preprocess, size: int) -> Preprocess:
    """The same preprocessing for another side, in pixels; a resize before a crop grows in proportion."""
    return replace(preprocess, size=size, resize=round(preprocess.resize * size / preprocess.size))


def resampled(grid: Float[np.ndarray, "n n F"], side: int, resampling: Resampling) -> Float[np.ndarray, "m m F"]:
    """A square map of vectors brought to another side, as `torch.nn.functional.interpolate` does it."""
    kind: Filter = "bicubic" if resampling.startswith("bicubic") else "bilinear"
    along = matrix(len(grid), side, kind, resampling.endswith("antialias"))
    result: np.ndarray = np.einsum("mn,nkf,lk->mlf", along, grid.astype(np.float64), along, optimize=True)
    return result.astype(np.float32)


def _vit(config: EncoderConfig) -> ViTConfig:
    if not isinstance(config.tower, ViTConfig):
        name = type(config.tower).__name__.removesuffix("Config")
        raise EncoderError(
            f"Patches, layers and projections are a ViT's to choose; this tower is of another kind ({name})."
        )
    return config.tower


def _refuse_trained(config: EncoderConfig, *changes: object) -> None:
    if config.projection.kind != "identity" and any(change is not None for change in changes):
        raise EncoderError(
            "The encoder's projection was learned from the features that the tower gives now.",
            hint="adapt the model that it was trained from, and train again",
        )


def _with_tower(config: EncoderConfig, tower: ViTConfig, pooling: Pooling | None = None) -> EncoderConfig:
    projection = config.projection
    if projection.kind == "identity":
        projection = ProjectionConfig("identity", tower.features, tower.features, projection.l2_normalize_input)
    return replace(config, tower=tower, projection=projection, pooling=pooling or config.pooling)


def _cut_anew(config: EncoderConfig, tensors: Tensors, size: int, stride: int | None) -> tuple[EncoderConfig, Tensors]:
    """Another size or stride; learned positions follow the grid of patches."""
    preprocess = resized(config.preprocess, size)
    old = config.tower
    if not isinstance(old, ViTConfig):
        if size < LEAST:
            raise EncoderError(
                f"`--size` is {size}; a tower that halves its map five times sees nothing below {LEAST} px.",
                hint=f"`--size {LEAST}` or more",
            )
        return replace(config, preprocess=preprocess), tensors
    new = replace(old, size=size, stride=old.stride if stride is None else stride)
    if old.positions != "none" and new.grid != old.grid:
        position, first = tensors["tower.position"], int(old.positions == "all")
        grid = position[first:].reshape(old.grid, old.grid, old.width)
        patches = resampled(grid, new.grid, old.resampling).reshape(-1, old.width)
        tensors["tower.position"] = np.concatenate([position[:first], patches])
    return replace(config, tower=new, preprocess=preprocess), tensors


def _read_at(config: EncoderConfig, tensors: Tensors, layer: int) -> tuple[EncoderConfig, Tensors]:
    """The first blocks alone."""
    tower = _vit(config)
    kept = layer if layer > 0 else tower.layers + 1 + layer
    if not 0 < kept <= tower.layers:
        raise EncoderError(
            f"There is no layer {layer} in a tower of {tower.layers}.",
            hint=f"1 to {tower.layers}, or -{tower.layers} to -1 from the end",
        )
    blocks = {name: t[:kept] for name, t in tensors.items() if name.startswith("tower.blocks.")}
    return _with_tower(config, replace(tower, layers=kept)), tensors | blocks


def _pooled(config: EncoderConfig, tensors: Tensors, pooling: Pooling) -> tuple[EncoderConfig, Tensors]:
    """Another pooling; the tensors of an attention pooling that is not asked for go."""
    tower = config.tower
    if not isinstance(tower, ViTConfig) or pooling == "attention" or tower.pool_heads is None:
        return replace(config, pooling=pooling), tensors
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("tower.pool.")}
    bare = replace(tower, pool_heads=None, pool_hidden=None)
    if pooling not in bare.poolings:
        raise EncoderError(
            f"Pooling {pooling!r} does not go with this tower.",
            hint=f"for this one: {', '.join(('attention', *bare.poolings))}",
        )
    return _with_tower(config, bare, pooling), kept
