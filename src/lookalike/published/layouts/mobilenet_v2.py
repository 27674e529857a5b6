"""MobileNetV2 in the layout of transformers: MobileNetV2Model, with or without a classifier."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import NORM_PARTS, EncoderConfig, MobileNetV2Config, ProjectionConfig
from lookalike.published.processors import from_transformers
from lookalike.published.table import KERNEL, Key, Layout

_PARTS = dict(zip(NORM_PARTS, ("weight", "bias", "running_mean", "running_var"), strict=True))
_LAYERS = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}

# What a config leaves out has these values (MobileNetV2Config of transformers).
_DEFAULTS: dict[str, Any] = {
    "num_channels": 3,
    "depth_multiplier": 1.0,
    "depth_divisible_by": 8,
    "min_depth": 8,
    "expand_ratio": 6.0,
    "output_stride": 32,
    "first_layer_is_expansion": True,
    "finegrained_output": True,
    "hidden_act": "relu6",
    "tf_padding": True,
    "layer_norm_eps": 0.001,
}


def _theirs(name: str) -> str:
    """Their name of a convolution: our first bottleneck is part of their stem, and they count from the second."""
    if name in ("stem", "last"):
        return {"stem": "conv_stem.first_conv", "last": "conv_1x1"}[name]
    _, number, part = name.split(".")
    return f"conv_stem.{_LAYERS[part]}" if number == "0" else f"layer.{int(number) - 1}.{_LAYERS[part]}"


def _keys(config: MobileNetV2Config) -> tuple[Key, ...]:
    keys: list[Key] = []
    for conv in (conv for block in config.plan() for conv in block.convs):
        theirs = _theirs(conv.name)
        keys.append(Key(f"{conv.name}.conv.weight", (f"{theirs}.convolution.weight",), KERNEL))
        keys += [Key(f"{conv.name}.norm.{ours}", (f"{theirs}.normalization.{part}",)) for ours, part in _PARTS.items()]
    return tuple(keys)


def _read(path: Path, described: dict[str, Any], _: Mapping[str, tuple[int, ...]]) -> EncoderConfig:
    data = {**_DEFAULTS, **described}
    if data["hidden_act"] != "relu6" or data["num_channels"] != 3:
        raise EncoderError(
            f"`{path}` has activation {data['hidden_act']!r} and {data['num_channels']} channels; "
            "expected 'relu6' and 3."
        )
    tower = MobileNetV2Config(
        multiplier=float(data["depth_multiplier"]),
        divisor=int(data["depth_divisible_by"]),
        minimum=int(data["min_depth"]),
        expansion=float(data["expand_ratio"]),
        output_stride=int(data["output_stride"]),
        fine_output=bool(data["finegrained_output"]),
        first_is_expansion=bool(data["first_layer_is_expansion"]),
        same_padding=bool(data["tf_padding"]),
        eps=float(data["layer_norm_eps"]),
    )
    projection = ProjectionConfig("identity", tower.features, tower.features)
    return EncoderConfig(tower, "mean", from_transformers(path), projection)


LAYOUT = Layout(
    files=("config.json", "model.safetensors"),
    matches=lambda described: described.get("model_type") == "mobilenet_v2",
    prefixes=("mobilenet_v2.", ""),
    anchor="conv_stem.first_conv.convolution.weight",
    ignored=("*.num_batches_tracked", "classifier.weight", "classifier.bias"),
    keys=_keys,
    read=_read,
)
