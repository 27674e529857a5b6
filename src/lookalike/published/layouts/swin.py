"""Swin transformers, both versions, in the layout of transformers: SwinModel and Swinv2Model."""

from collections.abc import Sequence
from typing import Any

from lookalike.published.fields import Field
from lookalike.published.layout import Layout, map_features, transformers
from lookalike.published.processors import square
from lookalike.published.table import PATCH, Form, Key, linear, norm
from lookalike.towers import SwinConfig

_HEADS = Form(lambda a: a.reshape(-1), lambda a: a.reshape(-1, 1, 1), axes=3)
"""[heads, 1, 1] to [heads]."""


def _keys(config: SwinConfig) -> tuple[Key, ...]:
    keys = [
        *linear("patch", "embeddings.patch_embeddings.projection", form=PATCH),
        *norm("norm_patch", "embeddings.norm"),
        *norm("norm_post", "layernorm"),
    ]
    for i in range(config.stages):
        ours, block = f"stages.{i}.blocks", f"encoder.layers.{i}.blocks.{{}}"
        attention = f"{block}.attention.self"
        query, key, value = (f"{attention}.{part}" for part in ("query", "key", "value"))
        biased = (query, key, value) if config.version == 1 else (query, value)
        keys += [
            *norm(f"{ours}.norm1", f"{block}.layernorm_before"),
            *norm(f"{ours}.norm2", f"{block}.layernorm_after"),
            *linear(f"{ours}.mlp.up", f"{block}.intermediate.dense"),
            *linear(f"{ours}.mlp.down", f"{block}.output.dense"),
            *linear(f"{ours}.attention.qkv", query, key, value, biased=biased),
            *linear(f"{ours}.attention.out", f"{block}.attention.output.dense"),
            *positions(config, f"{ours}.attention", attention, "continuous_position_bias_mlp"),
        ]
        if i < config.stages - 1:
            keys += merge(i, f"encoder.layers.{i}")
    return tuple(keys)


def positions(config: SwinConfig, ours: str, theirs: str, mlp: str) -> tuple[Key, ...]:
    """What tells places in a window apart, and the second version's scale; their MLP counts its activation."""
    if config.version == 1:
        return (Key(f"{ours}.table", (f"{theirs}.relative_position_bias_table",)),)
    return (
        Key(f"{ours}.logit_scale", (f"{theirs}.logit_scale",), _HEADS),
        *linear(f"{ours}.position.up", f"{theirs}.{mlp}.0"),
        *linear(f"{ours}.position.down", f"{theirs}.{mlp}.2", biased=()),
    )


def merge(stage: int, theirs: str) -> tuple[Key, ...]:
    """The rows of what stands between two stages."""
    ours, theirs = f"stages.{stage}.merge", f"{theirs}.downsample"
    return *norm(f"{ours}.norm", f"{theirs}.norm"), *linear(f"{ours}.reduction", f"{theirs}.reduction", biased=())


def fitted(grid: int, stages: int, window: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Windows and shifts of the second version, which follow from the map of the images that it was built for.

    A map that is not larger than the window is one window, which does not move.
    """
    maps = [grid // 2**i for i in range(stages)]
    return tuple(min(side, window) for side in maps), tuple(window // 2 if side > window else 0 for side in maps)


def trained_windows(sizes: Sequence[int] | None, windows: tuple[int, ...]) -> tuple[int, ...]:
    """Side of the windows in which the position MLP was trained; theirs has 0 where that is the one it has now."""
    if not sizes or not any(sizes[: len(windows)]):
        return ()
    return tuple(int(size) or window for size, window in zip(sizes, windows, strict=False))


def _built(data: dict[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Windows and shifts of the second version."""
    return fitted(data["image_size"] // data["patch_size"], len(data["depths"]), data["window_size"])


# The defaults are those of SwinConfig and Swinv2Config of transformers.
_FIELDS = (
    Field("patch", "patch_size", 4, square),
    Field("width", "embed_dim", 96),
    Field("depths", "depths", [2, 2, 6, 2], back=lambda data: tuple(data["depths"])),
    Field("heads", "num_heads", [3, 6, 12, 24], back=lambda data: tuple(data["num_heads"])),
    Field("expansion", "mlp_ratio", 4.0),
    Field("eps", "layer_norm_eps", 1e-5),
    Field(None, "image_size", 224, square),
    Field(None, "num_channels", 3),
    Field(None, "qkv_bias", True),
    Field(None, "hidden_act", "gelu"),
    Field(None, "use_absolute_embeddings", False),
)
_FIRST = (
    *_FIELDS,
    Field(
        *("windows", "window_size", 7),
        back=lambda data: (data["window_size"],) * len(data["depths"]),
        there=lambda tower: max(tower.windows),
    ),
    Field(
        *("shifts", "window_size", 7),
        back=lambda data: (data["window_size"] // 2,) * len(data["depths"]),
        there=lambda tower: max(tower.windows),
    ),
)
_SECOND = (
    *_FIELDS,
    Field("windows", "window_size", 7, back=lambda data: _built(data)[0], there=lambda tower: max(tower.windows)),
    Field("shifts", "window_size", 7, back=lambda data: _built(data)[1], there=lambda tower: max(tower.windows)),
    Field(
        *("trained_windows", "pretrained_window_sizes", None),
        back=lambda data: trained_windows(data["pretrained_window_sizes"], _built(data)[0]),
        there=lambda tower: list(tower.trained_windows or [0] * len(tower.depths)),
    ),
)


def _layout(version: int, kind: str, name: str, fields: Sequence[Field]) -> Layout:
    return transformers(
        SwinConfig,
        (kind,),
        lambda _: (kind, name),
        fields,
        fixed={"version": version},
        pooling=lambda _: "mean",
        keys=_keys,
        prefixes=(f"{kind}.", ""),
        anchor="embeddings.patch_embeddings.projection.weight",
        # Buffers of old files follow from the config; classifier, decoder and mask token are other tasks'.
        ignored=(
            *("*.relative_position_index", "*.relative_coords_table", "*embeddings.mask_token"),
            *("decoder.*", "classifier.*"),
        ),
        features=map_features,
    )


LAYOUT = _layout(1, "swin", "SwinModel", _FIRST)
LAYOUT_V2 = _layout(2, "swinv2", "Swinv2Model", _SECOND)
