"""Swin transformers, both versions, in timm's layout: `swin_*` and `swinv2_*`."""

import re
from collections.abc import Sequence
from dataclasses import replace
from math import isqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, Tensors
from lookalike.published.layout import Found, Layout, Parts
from lookalike.published.layouts.swin import fitted, merge, positions, trained_windows
from lookalike.published.layouts.timm import FILES, described_as
from lookalike.published.processors import from_timm, square
from lookalike.published.table import PATCH, Key, linear, norm
from lookalike.towers import SwinConfig

# Settings of a timm model that its tensors tell, or that count in training alone.
_TOLD = {"embed_dim", "depths", "num_heads", "mlp_ratio", "patch_size", "num_classes", "in_chans", "global_pool"}
_TOLD |= {"drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate", "strict_img_size"}


def _keys(config: SwinConfig) -> tuple[Key, ...]:
    keys = [
        *linear("patch", "patch_embed.proj", form=PATCH),
        *norm("norm_patch", "patch_embed.norm"),
        *norm("norm_post", "norm"),
    ]
    for i in range(config.stages):
        ours, block = f"stages.{i}.blocks", f"layers.{i}.blocks.{{}}"
        biases = ("qkv.bias",) if config.version == 1 else ("q_bias", "v_bias")
        keys += [
            *norm(f"{ours}.norm1", f"{block}.norm1"),
            *norm(f"{ours}.norm2", f"{block}.norm2"),
            *linear(f"{ours}.mlp.up", f"{block}.mlp.fc1"),
            *linear(f"{ours}.mlp.down", f"{block}.mlp.fc2"),
            *linear(f"{ours}.attention.qkv", f"{block}.attn.qkv", biased=()),
            Key(f"{ours}.attention.qkv.bias", tuple(f"{block}.attn.{name}" for name in biases)),
            *linear(f"{ours}.attention.out", f"{block}.attn.proj"),
            *positions(config, f"{ours}.attention", f"{block}.attn", "cpb_mlp"),
        ]
        if i < config.stages - 1:
            keys += merge(i, f"layers.{i + 1}")  # timm counts it to the stage that it leads to
    return tuple(keys)


def _read(path: Path, described: dict[str, Any], shapes: Found) -> tuple[SwinConfig, str]:
    size = from_timm(path, described).size
    told = described.get("model_args") or {}
    if foreign := sorted(told.keys() - _TOLD - {"img_size", "window_size", "pretrained_window_sizes"}):
        raise EncoderError(f"`{path}` has the setting `{foreign[0]}`, which is not supported.")
    depths = _timm_depths(path, shapes)
    width, *_, patch = _shape(path, shapes, "patch_embed.proj.weight", 4)
    hidden, _ = _shape(path, shapes, "layers.0.blocks.0.mlp.fc1.weight", 2)
    attention = [f"layers.{i}.blocks.0.attn" for i in range(len(depths))]
    if square(told.get("img_size") or size, path) != size:
        raise EncoderError(f"`{path}` names two sizes: `img_size` {told['img_size']}, and images of {size} px.")
    version: Literal[1, 2] = 2 if described["architecture"].startswith("swinv2_") else 1
    trained: tuple[int, ...] = ()
    if version == 1:
        tables = [_shape(path, shapes, f"{name}.relative_position_bias_table", 2) for name in attention]
        heads = tuple(table[1] for table in tables)
        windows = tuple((isqrt(table[0]) + 1) // 2 for table in tables)
        shifts = tuple(window // 2 for window in windows)
    else:
        heads = tuple(_shape(path, shapes, f"{name}.logit_scale", 3)[0] for name in attention)
        window, published = _named_windows(path, described["architecture"], told, len(depths))
        windows, shifts = fitted(size // patch, len(depths), window)
        trained = trained_windows(published, windows)
    tower = SwinConfig(version, width, depths, heads, windows, shifts, trained, patch, hidden / width)
    _check_fit(path, tower, size)
    return tower, "mean"


def _timm_depths(path: Path, shapes: Found) -> tuple[int, ...]:
    """Blocks of each stage."""
    found = [re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name) for name in shapes]
    places = {(int(match[1]), int(match[2])) for match in found if match}
    depths = tuple(sum(stage == i for stage, _ in places) for i in range(1 + max((s for s, _ in places), default=-1)))
    if not depths or 0 in depths:
        raise EncoderError(f"The tensors of `{path}` have {depths} blocks in their stages; expected some in each.")
    return depths


def _shape(path: Path, shapes: Found, name: str, axes: int) -> tuple[int, ...]:
    if len(shapes.get(name, ())) != axes:
        found = list(shapes[name]) if name in shapes else "missing"
        raise EncoderError(f"The shape of `{name}` in `{path}` is {found}; expected {axes} axes.")
    return shapes[name]


def _named_windows(path: Path, name: str, told: dict[str, Any], stages: int) -> tuple[int, Sequence[int] | None]:
    """Window of a second version, and the windows it was trained in; the name of the architecture alone has them."""
    named = re.search(r"_window(?:(\d+)to)?(\d+)_(\d+)", name)
    window = told.get("window_size") or (int(named[2]) if named else None)
    if not isinstance(window, int):
        raise EncoderError(
            f"`{path}` does not say the size of its windows: architecture `{name}`, `window_size` {window}."
        )
    trained = told.get("pretrained_window_sizes")
    if trained is None and named and named[1]:  # e.g. window12to16_192to256: on images of 192 px, patches of 4
        trained, _ = fitted(int(named[3]) // 4, stages, int(named[1]))
    return window, trained


def _check_fit(path: Path, tower: SwinConfig, size: int) -> None:
    """EncoderError where timm would pad: it rolls before it pads, transformers and ours after."""
    for i, side in enumerate(tower.sides(size)):
        window, shift = tower.window(i, side)
        if shift and side % window:
            raise EncoderError(
                f"For images of {size} px, a map of `{path}` has {side} x {side} tokens, no multiple of its windows "
                f"of {window}; what timm does there is not supported.",
                hint="take the image size of the published model",
            )


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
            square = tensors[name].reshape(depth, 2 * window - 1, 2 * window - 1, heads)
            inner = slice(window - side, window + side - 1)
            cut[name] = np.ascontiguousarray(square[:, inner, inner].reshape(depth, -1, heads))
            windows[i], shifts[i] = side, side // 2
    tower = replace(tower, windows=tuple(windows), shifts=tuple(shifts))
    return replace(config, tower=tower), tensors | cut


def _describe(config: EncoderConfig) -> dict[str, Any] | None:
    """None: timm would give its maps other windows, or cut them elsewhere."""
    tower, size = config.tower, config.preprocess.size
    if not isinstance(tower, SwinConfig) or size % (tower.patch * 2 ** (tower.stages - 1)):
        return None
    if tower.windows != tuple(min(side, max(tower.windows)) for side in tower.sides(size)):
        return None
    name = ("swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256")[tower.version - 1]
    trained = {"pretrained_window_sizes": list(tower.trained_windows)} if tower.trained_windows else {}
    arguments = {
        "img_size": size,
        "patch_size": tower.patch,
        "embed_dim": tower.width,
        "window_size": max(tower.windows),
        "depths": list(tower.depths),
        "num_heads": list(tower.heads),
        "mlp_ratio": tower.expansion,
        "global_pool": "avg",
        **trained,
    }
    return described_as(name, config, "head.fc", arguments, tower.features)


def _head(tower: SwinConfig) -> Tensors:
    """A head that changes nothing: without one, timm takes its own names for older ones."""
    size = tower.features
    return {"head.fc.weight": np.eye(size, dtype=np.float32), "head.fc.bias": np.zeros(size, np.float32)}


LAYOUT = Layout(
    "timm",
    FILES,
    lambda described: re.match(r"swin(v2)?_(?!cr_)", str(described.get("architecture"))) is not None,  # cr: another
    anchor="patch_embed.proj.weight",
    keys=_keys,
    read=_read,
    prepare=lambda path, described, _: from_timm(path, described),
    describe=_describe,
    restated=_with_middles,
    ignored=("*.relative_position_index", "*.relative_coords_table", "*.attn_mask", "head.*"),
    beside=_head,
)
