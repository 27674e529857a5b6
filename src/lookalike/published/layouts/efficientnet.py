"""EfficientNet in the layout of transformers: EfficientNetModel, with or without a classifier."""

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import NORM_PARTS, EfficientNetConfig, EncoderConfig, ProjectionConfig
from lookalike.published.processors import from_transformers
from lookalike.published.table import KERNEL, POINT, Key, Layout
from lookalike.towers.efficientnet import Stage
from lookalike.towers.parts import divisible, squeeze_name

# What a config leaves out has these values (EfficientNetConfig of transformers).
_DEFAULTS: dict[str, Any] = {
    "num_channels": 3,
    "width_coefficient": 2.0,
    "depth_coefficient": 3.1,
    "depth_divisor": 8,
    "kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
    "in_channels": [32, 16, 24, 40, 80, 112, 192],
    "out_channels": [16, 24, 40, 80, 112, 192, 320],
    "depthwise_padding": [],
    "strides": [1, 2, 2, 2, 1, 2, 1],
    "num_block_repeats": [1, 2, 2, 3, 3, 4, 1],
    "expand_ratios": [1, 6, 6, 6, 6, 6, 6],
    "squeeze_expansion_ratio": 0.25,
    "hidden_act": "swish",
    "hidden_dim": 2560,
    "pooling_type": "mean",
    "batch_norm_eps": 0.001,
}
_LISTS = ("num_block_repeats", "kernel_sizes", "strides", "expand_ratios", "out_channels", "in_channels")
_PARTS = dict(zip(NORM_PARTS, ("weight", "bias", "running_mean", "running_var"), strict=True))
_OUTSIDE = {
    "stem": ("embeddings.convolution", "embeddings.batchnorm"),
    "last": ("encoder.top_conv", "encoder.top_bn"),
}
_INSIDE = {
    "expand": ("expansion.expand_conv", "expansion.expand_bn"),
    "depthwise": ("depthwise_conv.depthwise_conv", "depthwise_conv.depthwise_norm"),
    "project": ("projection.project_conv", "projection.project_bn"),
}


def conv_and_norm(ours: str, conv: str, norm: str) -> tuple[Key, ...]:
    """The rows of a kernel without bias and the batch norm behind it."""
    norms = (Key(f"{ours}.norm.{part}", (f"{norm}.{theirs}",)) for part, theirs in _PARTS.items())
    return Key(f"{ours}.conv.weight", (f"{conv}.weight",), KERNEL), *norms


def points(ours: str, theirs: str) -> tuple[Key, ...]:
    """The rows of a linear layer that they have as a 1x1 convolution."""
    return Key(f"{ours}.weight", (f"{theirs}.weight",), POINT), Key(f"{ours}.bias", (f"{theirs}.bias",))


def _keys(config: EfficientNetConfig) -> tuple[Key, ...]:
    keys: list[Key] = []
    for block in config.plan():
        for conv in block.convs:
            if conv.name in _OUTSIDE:
                keys += conv_and_norm(conv.name, *_OUTSIDE[conv.name])
            else:
                _, number, part = conv.name.split(".")
                keys += conv_and_norm(conv.name, *(f"encoder.blocks.{number}.{name}" for name in _INSIDE[part]))
        if block.squeeze:
            name = squeeze_name(block)
            for part in ("reduce", "expand"):
                keys += points(f"{name}.{part}", f"encoder.{name.replace('squeeze', 'squeeze_excite')}.{part}")
    return tuple(keys)


def _read(path: Path, described: dict[str, Any], _: Mapping[str, tuple[int, ...]]) -> EncoderConfig:
    data = {**_DEFAULTS, **described}
    width, divisor = float(data["width_coefficient"]), int(data["depth_divisor"])
    _refuse(path, data, width, divisor)
    tower = EfficientNetConfig(
        stages=tuple(
            Stage(
                "depthwise",
                repeats=ceil(float(data["depth_coefficient"]) * repeats),
                kernel=kernel,
                stride=stride,
                expansion=expansion,
                channels=divisible(width * channels, divisor),
                squeeze=float(data["squeeze_expansion_ratio"]),
            )
            for repeats, kernel, stride, expansion, channels, _ in zip(*(data[key] for key in _LISTS), strict=True)
        ),
        stem=divisible(width * 32, divisor),
        features=divisible(width * 1280, divisor),
        padding="late",
        symmetric=tuple(data["depthwise_padding"]),
        first_residual=False,
        eps=float(data["batch_norm_eps"]),
    )
    projection = ProjectionConfig("identity", tower.features, tower.features)
    return EncoderConfig(tower, "mean", from_transformers(path), projection)


def _refuse(path: Path, data: dict[str, Any], width: float, divisor: int) -> None:
    """EncoderError if the tower is another one than ours."""
    foreign = [
        f"{key}={data[key]!r}" for key, value in (("num_channels", 3), ("pooling_type", "mean")) if data[key] != value
    ]
    if data["hidden_act"] not in ("swish", "silu"):
        foreign.append(f"hidden_act={data['hidden_act']!r}")
    if not data["squeeze_expansion_ratio"] > 0:
        foreign.append(f"squeeze_expansion_ratio={data['squeeze_expansion_ratio']!r}")
    if not set(data["strides"]) <= {1, 2}:
        foreign.append(f"strides={data['strides']}")
    if len({len(data[key]) for key in _LISTS}) != 1:
        foreign.append(f"lists of different lengths ({', '.join(_LISTS)})")
    enter = [divisible(width * channels, divisor) for channels in data["in_channels"]]
    leave = [divisible(width * channels, divisor) for channels in (32, *data["out_channels"])]
    if enter != leave[:-1] or data["hidden_dim"] != divisible(width * 1280, divisor):
        foreign.append(
            f"in_channels={data['in_channels']}, out_channels={data['out_channels']}, hidden_dim={data['hidden_dim']}"
        )
    if foreign:
        raise EncoderError(f"The EfficientNet of `{path}` is not one that is known: {'; '.join(foreign)}.")


LAYOUT = Layout(
    files=("config.json", "model.safetensors"),
    matches=lambda described: described.get("model_type") == "efficientnet",
    prefixes=("efficientnet.", ""),
    anchor="embeddings.convolution.weight",
    ignored=("*.num_batches_tracked", "classifier.weight", "classifier.bias"),
    keys=_keys,
    read=_read,
)
