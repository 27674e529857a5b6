"""ConvNeXt in the layouts of transformers: ConvNextModel, with or without a classifier, and DINOv3ConvNextModel."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import ConvNeXtConfig, EncoderConfig, ProjectionConfig
from lookalike.published.layouts.rows import linear, norm
from lookalike.published.processors import from_transformers, square
from lookalike.published.table import KERNEL, MATRIX, PATCH, Form, Key, Layout

NEIGHBOURS = Form(PATCH.ours, lambda a: a.reshape(2, 2, -1, a.shape[1]).transpose(3, 2, 0, 1), axes=4)
"""A kernel of 2 x 2 with stride 2, to a matrix [4 * in, out]."""

# What a config leaves out has these values (ConvNextConfig and DINOv3ConvNextConfig of transformers).
_DEFAULTS: dict[str, Any] = {
    "num_channels": 3,
    "hidden_sizes": [96, 192, 384, 768],
    "depths": [3, 3, 9, 3],
    "hidden_act": "gelu",
    "layer_scale_init_value": 1e-6,
}
_EPS = 1e-6  # of ConvNextModel's norms in stages, which no config can change


def patches(stage: int, patch: str, behind: str) -> tuple[Key, ...]:
    """The rows of what starts a stage: patches and their norm."""
    return (
        Key(f"stages.{stage}.patch.weight", (f"{patch}.weight",), NEIGHBOURS if stage else PATCH),
        Key(f"stages.{stage}.patch.bias", (f"{patch}.bias",)),
        *norm(f"stages.{stage}.norm", behind),
    )


def blocks(config: ConvNeXtConfig, stage: int, theirs: str, *names: str, form: Form = MATRIX) -> tuple[Key, ...]:
    """The rows of the blocks of a stage.

    Args:
        config: The tower's.
        stage: Its number.
        theirs: What the names of a block start with; `{}` stands for its number.
        names: Of kernel, norm, first matrix, second matrix, scale.
        form: How the matrices are laid out.
    """
    ours, (kernel, between, up, down, scale) = f"stages.{stage}.blocks", names
    return (
        Key(f"{ours}.depthwise.conv.weight", (f"{theirs}.{kernel}.weight",), KERNEL),
        Key(f"{ours}.depthwise.bias", (f"{theirs}.{kernel}.bias",)),
        *norm(f"{ours}.norm", f"{theirs}.{between}"),
        *linear(f"{ours}.mlp.up", f"{theirs}.{up}", form=form),
        *linear(f"{ours}.mlp.down", f"{theirs}.{down}", form=form),
        *((Key(f"{ours}.scale", (f"{theirs}.{scale}",)),) if config.layer_scale else ()),
    )


def _keys(config: ConvNeXtConfig) -> tuple[Key, ...]:
    keys = [*patches(0, "embeddings.patch_embeddings", "embeddings.layernorm")]
    for i in range(len(config.widths)):
        stage, names = f"encoder.stages.{i}", ("dwconv", "layernorm", "pwconv1", "pwconv2", "layer_scale_parameter")
        if i:
            keys += patches(i, f"{stage}.downsampling_layer.1", f"{stage}.downsampling_layer.0")
        keys += blocks(config, i, f"{stage}.layers.{{}}", *names)
    return *keys, *norm("norm_post", "layernorm")


def _keys_dinov3(config: ConvNeXtConfig) -> tuple[Key, ...]:
    keys: list[Key] = []
    names = ("depthwise_conv", "layer_norm", "pointwise_conv1", "pointwise_conv2", "gamma")
    for i in range(len(config.widths)):
        patch, behind = (1, 0) if i else (0, 1)  # the first stage norms its patches, the others what becomes theirs
        start = f"stages.{i}.downsample_layers"
        keys += patches(i, f"{start}.{patch}", f"{start}.{behind}")
        keys += blocks(config, i, f"stages.{i}.layers.{{}}", *names)
    return *keys, *norm("norm_post", "layer_norm")


def _encoder(path: Path, data: dict[str, Any], patch: int, eps: float, last_eps: float) -> EncoderConfig:
    widths, depths = data["hidden_sizes"], data["depths"]
    expected = {"num_channels": 3, "hidden_act": "gelu", "num_stages": len(widths)}
    if foreign := [f"{key}={data[key]!r}" for key, value in expected.items() if data.get(key, value) != value]:
        raise EncoderError(f"The ConvNeXt of `{path}` is not one that is known: {', '.join(foreign)}.")
    tower = ConvNeXtConfig(
        tuple(widths),
        tuple(depths),
        patch,
        layer_scale=data["layer_scale_init_value"] > 0,
        eps=eps,
        last_eps=last_eps,
    )
    projection = ProjectionConfig("identity", tower.features, tower.features)
    return EncoderConfig(tower, "mean", from_transformers(path), projection)


def _read(path: Path, described: dict[str, Any], _: Mapping[str, tuple[int, ...]]) -> EncoderConfig:
    data = {**_DEFAULTS, "patch_size": 4, "layer_norm_eps": 1e-12, **described}
    return _encoder(path, data, square(data["patch_size"], path), _EPS, float(data["layer_norm_eps"]))


def _read_dinov3(path: Path, described: dict[str, Any], _: Mapping[str, tuple[int, ...]]) -> EncoderConfig:
    data = {**_DEFAULTS, "layer_norm_eps": 1e-6, **described}
    data = {key: _DEFAULTS.get(key) if value is None else value for key, value in data.items()}
    data["layer_scale_init_value"] = 1.0  # always there
    eps = float(data["layer_norm_eps"])
    return _encoder(path, data, 4, eps, eps)


LAYOUT = Layout(
    files=("config.json", "model.safetensors"),
    matches=lambda described: described.get("model_type") == "convnext",
    prefixes=("convnext.", ""),
    anchor="embeddings.patch_embeddings.weight",
    ignored=("classifier.weight", "classifier.bias"),
    keys=_keys,
    read=_read,
)
LAYOUT_DINOV3 = Layout(
    files=("config.json", "model.safetensors"),
    matches=lambda described: described.get("model_type") == "dinov3_convnext",
    prefixes=("",),
    anchor="stages.0.downsample_layers.0.weight",
    ignored=(),
    keys=_keys_dinov3,
    read=_read_dinov3,
    renamed=(("model.stages.", "stages."),),
)
