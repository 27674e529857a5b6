"""A published encoder for another input, another layer or another pooling: config and tensors, and nothing learned.

Learned positions are interpolated as the family's reference does it (`ViTConfig.resampling`), in NumPy.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, Tensors, tensor_shapes
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
    """Config and tensors with what is given changed; None keeps what is there. `tensors` are not written to.

    `size` and `stride`, the distance between the patches of a ViT, are in pixels. Features are read behind block
    `layer` of a ViT, counted from 1, or from the end: -1 is the last; blocks behind it are dropped, the last norm
    stays. `projected`: False drops the projection that CLIP has behind its pooling, True asks for one to be there.
    EncoderError: the tower has no such thing, or a trained projection would get other features than it learned.
    """
    tower, tensors = config.tower, dict(tensors)
    if not isinstance(tower, ViTConfig):
        if any(change is not None for change in (stride, layer, projected)):
            words = f"a ViT's to choose; this tower is of another kind ({config.kind})"
            raise EncoderError(f"Patches, layers and projections are {words}.")
        if size is not None and size < LEAST:
            raise EncoderError(
                f"`--size` is {size}; a tower that halves its map five times sees nothing below {LEAST} px.",
                hint=f"`--size {LEAST}` or more",
            )
    if config.projection.kind != "identity" and any(change is not None for change in (layer, pooling, projected)):
        raise EncoderError(
            "The encoder's projection was learned from the features that the tower gives now.",
            hint="adapt the model that it was trained from, and train again",
        )
    preprocess = config.preprocess if size is None else resized(config.preprocess, size)
    if pooling is not None:
        config = replace(config, pooling=pooling)  # checked against the tower as it is
    if isinstance(tower, ViTConfig):
        if projected is not None and tower.head is None:
            raise EncoderError("The tower has no projection behind its pooling.", hint="leave `--features` out")
        if size is not None or stride is not None:
            tower = _cut_anew(tower, tensors, preprocess.size, stride)
        if layer is not None:
            tower = _read_at(tower, tensors, layer)
        if projected is False:
            tower = replace(tower, head=None, head_bias=False)
        if pooling not in (None, "attention"):
            tower = replace(tower, pool_heads=None, pool_hidden=None)
    projection = config.projection
    if projection.kind == "identity":
        projection = replace(projection, features=tower.features, dimension=tower.features)
    config = replace(config, tower=tower, preprocess=preprocess, projection=projection)
    return config, {name: tensors[name] for name in tensor_shapes(config)}


def resized(preprocess: Preprocess, size: int) -> Preprocess:
    """The same preprocessing for another side, in pixels; a resize before a crop grows in proportion."""
    return replace(preprocess, size=size, resize=round(preprocess.resize * size / preprocess.size))


def resampled(grid: Float[np.ndarray, "n n F"], side: int, resampling: Resampling) -> Float[np.ndarray, "m m F"]:
    """A square map of vectors brought to another side, as `torch.nn.functional.interpolate` does it."""
    kind: Filter = "bicubic" if resampling.startswith("bicubic") else "bilinear"
    along = matrix(len(grid), side, kind, resampling.endswith("antialias"))
    result: np.ndarray = np.einsum("mn,nkf,lk->mlf", along, grid.astype(np.float64), along, optimize=True)
    return result.astype(np.float32)


def _cut_anew(old: ViTConfig, tensors: Tensors, size: int, stride: int | None) -> ViTConfig:
    new = replace(old, size=size, stride=old.stride if stride is None else stride)
    if old.positions != "none" and new.grid != old.grid:
        position, first = tensors["tower.position"], int(old.positions == "all")
        grid = position[first:].reshape(old.grid, old.grid, old.width)
        patches = resampled(grid, new.grid, old.resampling).reshape(-1, old.width)
        tensors["tower.position"] = np.concatenate([position[:first], patches])
    return new


def _read_at(tower: ViTConfig, tensors: Tensors, layer: int) -> ViTConfig:
    kept = layer if layer > 0 else tower.layers + 1 + layer
    if not 0 < kept <= tower.layers:
        raise EncoderError(
            f"There is no layer {layer} in a tower of {tower.layers}.",
            hint=f"1 to {tower.layers}, or -{tower.layers} to -1 from the end",
        )
    tensors |= {name: tensor[:kept] for name, tensor in tensors.items() if name.startswith("tower.blocks.")}
    return replace(tower, layers=kept)
