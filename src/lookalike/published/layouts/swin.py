"""Swin transformers in the layouts of transformers (SwinModel, Swinv2Model) and of timm (`swin_*`, `swinv2_*`)."""

import re
from collections.abc import Mapping, Sequence
from math import isqrt
from pathlib import Path
from typing import Any, Literal

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, SwinConfig
from lookalike.published.layouts.rows import linear, norm
from lookalike.published.processors import from_timm, from_transformers, square
from lookalike.published.table import PATCH, Form, Key, Layout

_Shapes = Mapping[str, tuple[int, ...]]

_HEADS = Form(lambda a: a.reshape(-1), lambda a: a.reshape(-1, 1, 1), axes=3)
"""[heads, 1, 1] to [heads]."""

# What a config leaves out has these values (SwinConfig and Swinv2Config of transformers).
_DEFAULTS: dict[str, Any] = {
    "image_size": 224,
    "patch_size": 4,
    "num_channels": 3,
    "embed_dim": 96,
    "depths": (2, 2, 6, 2),
    "num_heads": (3, 6, 12, 24),
    "window_size": 7,
    "pretrained_window_sizes": None,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "hidden_act": "gelu",
    "use_absolute_embeddings": False,
    "layer_norm_eps": 1e-5,
}

# Settings of a timm model that its tensors tell, or that count in training alone.
_TOLD = {"embed_dim", "depths", "num_heads", "mlp_ratio", "patch_size", "num_classes", "in_chans", "global_pool"}
_TOLD |= {"drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate", "strict_img_size"}


def _transformers_keys(config: SwinConfig) -> tuple[Key, ...]:
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
            *_positions(config, f"{ours}.attention", attention, "continuous_position_bias_mlp"),
        ]
        if i < config.stages - 1:
            keys += _merge(i, f"encoder.layers.{i}")
    return tuple(keys)


def _timm_keys(config: SwinConfig) -> tuple[Key, ...]:
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
            *_positions(config, f"{ours}.attention", f"{block}.attn", "cpb_mlp"),
        ]
        if i < config.stages - 1:
            keys += _merge(i, f"layers.{i + 1}")  # timm counts it to the stage that it leads to
    return tuple(keys)


def _positions(config: SwinConfig, ours: str, theirs: str, mlp: str) -> tuple[Key, ...]:
    """What tells places in a window apart, and the second version's scale; their MLP counts its activation."""
    if config.version == 1:
        return (Key(f"{ours}.table", (f"{theirs}.relative_position_bias_table",)),)
    return (
        Key(f"{ours}.logit_scale", (f"{theirs}.logit_scale",), _HEADS),
        *linear(f"{ours}.position.up", f"{theirs}.{mlp}.0"),
        *linear(f"{ours}.position.down", f"{theirs}.{mlp}.2", biased=()),
    )


def _merge(stage: int, theirs: str) -> tuple[Key, ...]:
    ours, theirs = f"stages.{stage}.merge", f"{theirs}.downsample"
    return *norm(f"{ours}.norm", f"{theirs}.norm"), *linear(f"{ours}.reduction", f"{theirs}.reduction", biased=())


def _read_transformers(path: Path, described: dict[str, Any], _: _Shapes) -> EncoderConfig:
    data = {**_DEFAULTS, **described}
    for key in ("num_channels", "qkv_bias", "hidden_act", "use_absolute_embeddings"):
        if data[key] != _DEFAULTS[key]:
            raise EncoderError(f"`{path}` has `{key}` {data[key]!r}; expected {_DEFAULTS[key]!r}.")
    patch, second = square(data["patch_size"], path), described["model_type"] == "swinv2"
    depths, window = tuple(data["depths"]), int(data["window_size"])
    windows, shifts = (window,) * len(depths), (window // 2,) * len(depths)
    trained: tuple[int, ...] = ()
    if second:
        windows, shifts = _fitted(square(data["image_size"], path) // patch, len(depths), window)
        trained = _trained(data["pretrained_window_sizes"], windows)
    tower = SwinConfig(
        version=2 if second else 1,
        width=int(data["embed_dim"]),
        depths=depths,
        heads=tuple(data["num_heads"]),
        windows=windows,
        shifts=shifts,
        trained_windows=trained,
        patch=patch,
        expansion=float(data["mlp_ratio"]),
        eps=float(data["layer_norm_eps"]),
    )
    projection = ProjectionConfig("identity", tower.features, tower.features)
    return EncoderConfig(tower, "mean", from_transformers(path), projection)


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


def _read_timm(path: Path, described: dict[str, Any], shapes: _Shapes) -> EncoderConfig:
    preprocess = from_timm(path, described)
    told = described.get("model_args") or {}
    if foreign := sorted(told.keys() - _TOLD - {"img_size", "window_size", "pretrained_window_sizes"}):
        raise EncoderError(f"`{path}` has the setting `{foreign[0]}`, which is not supported.")
    depths = _timm_depths(path, shapes)
    width, *_, patch = _shape(path, shapes, "patch_embed.proj.weight", 4)
    hidden, _ = _shape(path, shapes, "layers.0.blocks.0.mlp.fc1.weight", 2)
    attention = [f"layers.{i}.blocks.0.attn" for i in range(len(depths))]
    size = preprocess.size
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
        windows, shifts = _fitted(size // patch, len(depths), window)
        trained = _trained(published, windows)
    tower = SwinConfig(version, width, depths, heads, windows, shifts, trained, patch, hidden / width)
    _check_fit(path, tower, size)
    projection = ProjectionConfig("identity", tower.features, tower.features)
    return EncoderConfig(tower, "mean", preprocess, projection)


def _timm_depths(path: Path, shapes: _Shapes) -> tuple[int, ...]:
    """Blocks of each stage."""
    found = [re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name) for name in shapes]
    places = {(int(match[1]), int(match[2])) for match in found if match}
    depths = tuple(sum(stage == i for stage, _ in places) for i in range(1 + max((s for s, _ in places), default=-1)))
    if not depths or 0 in depths:
        raise EncoderError(f"The tensors of `{path}` have {depths} blocks in their stages; expected some in each.")
    return depths


def _shape(path: Path, shapes: _Shapes, name: str, axes: int) -> tuple[int, ...]:
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
        trained, _ = _fitted(int(named[3]) // 4, stages, int(named[1]))
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


def _is_timm(described: dict[str, Any]) -> bool:
    name = str(described.get("architecture", ""))
    return name.startswith(("swin_", "swinv2_")) and not name.startswith("swinv2_cr_")  # cr: another model


def _transformers(kind: str) -> Layout:
    return Layout(
        files=("config.json", "model.safetensors"),
        matches=lambda described: described.get("model_type") == kind,
        prefixes=(f"{kind}.", ""),
        anchor="embeddings.patch_embeddings.projection.weight",
        # Buffers of old files follow from the config; classifier, decoder and mask token are other tasks'.
        ignored=(
            "*.relative_position_index",
            "*.relative_coords_table",
            "*embeddings.mask_token",
            "decoder.*",
            "classifier.*",
        ),
        keys=_transformers_keys,
        read=_read_transformers,
    )


LAYOUT = _transformers("swin")
LAYOUT_V2 = _transformers("swinv2")
LAYOUT_TIMM = Layout(
    files=("config.json", "model.safetensors"),
    matches=_is_timm,
    prefixes=("",),
    anchor="patch_embed.proj.weight",
    ignored=("*.relative_position_index", "*.relative_coords_table", "*.attn_mask", "head.*"),
    keys=_timm_keys,
    read=_read_timm,
)
