"""Swin transformers, both versions: SwinModel and Swinv2Model of transformers, `swin_*` and `swinv2_*` of timm."""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import count, takewhile
from math import isqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, Tensors
from lookalike.published.layout import Found, Layout, Parts, transformers
from lookalike.published.layouts.timm import BLOCK, described_as, refuse_arguments, shape_of, timm
from lookalike.published.layouts.vit import VIT_BLOCK
from lookalike.published.processors import from_timm, square
from lookalike.published.table import Field, Names, below, block
from lookalike.towers import SwinConfig

_BUFFERS = ("*.relative_position_index", "*.relative_coords_table")
"""Of old files; they follow from the config."""


def _places(attention: str, mlp: str) -> dict[str, str]:
    """What tells places in a window apart, and the second version's scale; their MLP counts its activation."""
    rows = {"table": "relative_position_bias_table", "logit_scale": "logit_scale"}
    rows |= {"position.up": f"{mlp}.0", "position.down": f"{mlp}.2"}
    return below("stages.*.blocks.attention", attention, rows)


def _fitted(grid: int, stages: int, window: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Windows and shifts of the second version, which follow from the map of the images that it was built for.

    A map that is not larger than the window is one window, which does not move.
    """
    maps = [grid // 2**i for i in range(stages)]
    return tuple(min(side, window) for side in maps), tuple(window // 2 if side > window else 0 for side in maps)


def _trained(sizes: Sequence[int] | None, windows: tuple[int, ...]) -> tuple[int, ...]:
    """Side of the windows in which the position MLP was trained; theirs has 0 where that is the one it has now."""
    if not sizes or not any(sizes[: len(windows)]):
        return ()
    return tuple(int(size) or window for size, window in zip(sizes, windows, strict=False))


# ------------------------------------------------------------------------------------------ transformers


_PARTS = ("layernorm_before|layernorm_after", "attention.self.(query|key|value)", *VIT_BLOCK)
_THEIRS = {"patch": "embeddings.patch_embeddings.projection", "norm_patch": "embeddings.norm", "norm_post": "layernorm"}
_THEIRS |= {"stages.*.merge": "encoder.layers.*.downsample"}
_THEIRS |= block("encoder.layers.*.blocks.{}", *_PARTS, ours="stages.*.blocks")
_THEIRS |= _places("encoder.layers.*.blocks.{}.attention.self", "continuous_position_bias_mlp")


def _layout(version: int, kind: str, name: str) -> Layout:
    def built(data: dict[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Windows and shifts."""
        window, stages = data["window_size"], len(data["depths"])
        if version == 1:
            return (window,) * stages, (window // 2,) * stages
        return _fitted(data["image_size"] // data["patch_size"], stages, window)

    def side(tower: SwinConfig) -> int:
        return max(tower.windows)

    trained = Field(
        *("trained_windows", "pretrained_window_sizes", None),
        back=lambda data: _trained(data["pretrained_window_sizes"], built(data)[0]),
        there=lambda tower: list(tower.trained_windows or [0] * len(tower.depths)),
    )
    return transformers(
        SwinConfig,
        {kind: name},
        (
            Field("patch", "patch_size", 4, square),
            Field("width", "embed_dim", 96),
            Field("depths", "depths", [2, 2, 6, 2]),
            Field("heads", "num_heads", [3, 6, 12, 24]),
            Field("expansion", "mlp_ratio", 4.0),
            Field("eps", "layer_norm_eps", 1e-5),
            Field("windows", "window_size", 7, back=lambda data: built(data)[0], there=side),
            Field("shifts", "window_size", 7, back=lambda data: built(data)[1], there=side),
            *([trained] if version == 2 else []),
            Field(None, "image_size", 224, square),
            Field(None, "qkv_bias", True),
            Field(None, "hidden_act", "gelu"),
            Field(None, "use_absolute_embeddings", False),
        ),
        fixed={"version": version},
        names=_THEIRS,
        prefixes=(f"{kind}.", ""),
        anchor="embeddings.patch_embeddings.projection.weight",
        ignored=(*_BUFFERS, "decoder.*"),
    )


SWIN, SWIN_V2 = _layout(1, "swin", "SwinModel"), _layout(2, "swinv2", "Swinv2Model")

# -------------------------------------------------------------------------------------------------- timm

_TOLD = {"embed_dim", "depths", "num_heads", "mlp_ratio", "patch_size", "in_chans", "global_pool", "strict_img_size"}
_TOLD |= {"img_size", "window_size", "pretrained_window_sizes"}


def _names(tower: SwinConfig) -> Names:
    names = {"patch": "patch_embed.proj", "norm_patch": "patch_embed.norm", "norm_post": "norm"}
    names |= {"stages.*.merge": "layers.*+1.downsample"}  # timm counts it to the stage that it leads to
    names |= block("layers.*.blocks.{}", *BLOCK, ours="stages.*.blocks") | _places("layers.*.blocks.{}.attn", "cpb_mlp")
    second = {"stages.*.blocks.attention.qkv.bias": "layers.*.blocks.{}.attn.(q|v)_bias"}
    return names | second if tower.version == 2 else names


def _read(path: Path, described: dict[str, Any], shapes: Found) -> tuple[SwinConfig, str]:
    size = from_timm(path, described).size
    told = described.get("model_args") or {}
    refuse_arguments(path, told, _TOLD)
    blocks = ({name.split(".")[3] for name in shapes if name.startswith(f"layers.{i}.blocks.")} for i in count())
    depths = tuple(map(len, takewhile(bool, blocks)))
    width, *_, patch = shape_of(shapes, "patch_embed.proj.weight", 4, path)
    hidden, _ = shape_of(shapes, "layers.0.blocks.0.mlp.fc1.weight", 2, path)
    attention = [f"layers.{i}.blocks.0.attn" for i in range(len(depths))]
    if square(told.get("img_size") or size, path) != size:
        raise EncoderError(f"`{path}` names two sizes: `img_size` {told['img_size']}, and images of {size} px.")
    version: Literal[1, 2] = 2 if described["architecture"].startswith("swinv2_") else 1
    trained: tuple[int, ...] = ()
    if version == 1:
        tables = [shape_of(shapes, f"{at}.relative_position_bias_table", 2, path) for at in attention]
        heads = tuple(table[1] for table in tables)
        windows = tuple((isqrt(table[0]) + 1) // 2 for table in tables)
        shifts = tuple(window // 2 for window in windows)
    else:
        heads = tuple(shape_of(shapes, f"{at}.logit_scale", 3, path)[0] for at in attention)
        name = described["architecture"]  # which alone has the windows of most
        named = re.search(r"_window(?:(\d+)to)?(\d+)_(\d+)", name)
        window = told.get("window_size") or (int(named[2]) if named else None)
        if not isinstance(window, int):
            raise EncoderError(
                f"`{path}` does not say the size of its windows: architecture `{name}`, `window_size` {window}."
            )
        published = told.get("pretrained_window_sizes")
        if published is None and named and named[1]:  # window12to16_192to256: on images of 192 px, patches of 4
            published, _ = _fitted(int(named[3]) // 4, len(depths), int(named[1]))
        windows, shifts = _fitted(size // patch, len(depths), window)
        trained = _trained(published, windows)
    tower = SwinConfig(version, width, depths, heads, windows, shifts, trained, patch, hidden / width)
    for i, side in enumerate(tower.sides(size)):  # timm rolls before it pads, transformers and ours after
        window, shift = tower.window(i, side)
        if shift and side % window:
            raise EncoderError(
                f"For images of {size} px, a map of `{path}` has {side} x {side} tokens, no multiple of its windows "
                f"of {window}; what timm does there is not supported.",
                hint="take the image size of the published model",
            )
    return tower, "mean"


def _with_middles(config: EncoderConfig, tensors: Tensors) -> Parts:
    """A window that is larger than its map is as large as the map, and only the middle of its table is asked."""
    tower, size = config.tower, config.preprocess.size
    if not isinstance(tower, SwinConfig) or tower.version == 2:
        return config, tensors
    windows, shifts, cut = list(tower.windows), list(tower.shifts), {}
    for i, side in enumerate(tower.sides(size)):
        if side < (window := windows[i]):
            name = f"tower.stages.{i}.blocks.attention.table"
            depth, _, heads = tensors[name].shape
            table = tensors[name].reshape(depth, 2 * window - 1, 2 * window - 1, heads)
            inner = slice(window - side, window + side - 1)
            cut[name] = np.ascontiguousarray(table[:, inner, inner].reshape(depth, -1, heads))
            windows[i], shifts[i] = side, side // 2
    return replace(config, tower=replace(tower, windows=tuple(windows), shifts=tuple(shifts))), tensors | cut


def _describe(config: EncoderConfig) -> dict[str, Any] | None:
    """None: timm would give its maps other windows, or cut them elsewhere."""
    tower, size = config.tower, config.preprocess.size
    if not isinstance(tower, SwinConfig) or size % (tower.patch * 2 ** (len(tower.depths) - 1)):
        return None
    if tower.windows != tuple(min(side, max(tower.windows)) for side in tower.sides(size)):
        return None
    arguments = {
        "img_size": size,
        "patch_size": tower.patch,
        "embed_dim": tower.width,
        "window_size": max(tower.windows),
        "depths": list(tower.depths),
        "num_heads": list(tower.heads),
        "mlp_ratio": tower.expansion,
        "global_pool": "avg",
        **({"pretrained_window_sizes": list(tower.trained_windows)} if tower.trained_windows else {}),
    }
    name = ("swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256")[tower.version - 1]
    return described_as(name, config, "head.fc", arguments, tower.features)


TIMM = timm(
    re.compile(r"swin(v2)?_(?!cr_)").match,  # cr: another
    anchor="patch_embed.proj.weight",
    names=_names,
    read=_read,
    describe=_describe,
    restated=_with_middles,
    ignored=(*_BUFFERS, "*.attn_mask", "head.*"),
    # A head that changes nothing: without one, timm takes its own names for older ones.
    beside=lambda tower: {
        "head.fc.weight": np.eye(tower.features, dtype=np.float32),
        "head.fc.bias": np.zeros(tower.features, np.float32),
    },
)
