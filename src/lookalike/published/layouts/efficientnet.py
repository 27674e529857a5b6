"""EfficientNet in the layout of transformers: EfficientNetModel, with or without a classifier."""

from dataclasses import replace
from math import ceil
from typing import Any

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, Tensors
from lookalike.published.fields import Field, refuse
from lookalike.published.layout import Parts, map_features, transformers
from lookalike.published.table import KERNEL, POINT, Key
from lookalike.towers import NORM_PARTS, EfficientNetConfig
from lookalike.towers.efficientnet import Stage
from lookalike.towers.parts import divisible, squeeze_name

MOST = 1000
"""Blocks of a tower beyond which its config is not believed."""
_LISTS = ("num_block_repeats", "kernel_sizes", "strides", "expand_ratios", "out_channels", "in_channels")


def _scaled(data: dict[str, Any], channels: int) -> int:
    return divisible(data["width_coefficient"] * channels, data["depth_divisor"])


def _stages(data: dict[str, Any]) -> tuple[Stage, ...]:
    if len({len(data[key]) for key in _LISTS}) != 1:
        raise EncoderError(f"lists of different lengths ({', '.join(_LISTS)}).")
    repeats = [ceil(data["depth_coefficient"] * number) for number in data["num_block_repeats"]]
    enter = [_scaled(data, channels) for channels in data["in_channels"]]
    leave = [_scaled(data, channels) for channels in (32, *data["out_channels"])]
    foreign = ["in_channels", "out_channels"] if enter != leave[:-1] else []
    foreign += ["hidden_dim"] if data["hidden_dim"] != _scaled(data, 1280) else []
    foreign += ["strides"] if not set(data["strides"]) <= {1, 2} else []
    foreign += ["squeeze_expansion_ratio"] if not data["squeeze_expansion_ratio"] > 0 else []
    foreign += ["num_block_repeats"] if sum(repeats) > MOST else []
    refuse({key: data[key] for key in foreign})
    return tuple(
        Stage("depthwise", number, kernel, stride, expansion, channels, data["squeeze_expansion_ratio"])
        for number, kernel, stride, expansion, channels in zip(
            *(repeats, data["kernel_sizes"], data["strides"], data["expand_ratios"], leave[1:]), strict=True
        )
    )


def _channels(tower: EfficientNetConfig) -> list[int]:
    """What leaves each stage, told as that of B0's size, which the class multiplies and rounds."""
    return [round(stage.channels / (tower.features / 1280)) for stage in tower.stages]


# The defaults are those of EfficientNetConfig of transformers.
_FIELDS = (
    Field(
        "stages",
        "num_block_repeats",
        [1, 2, 2, 3, 3, 4, 1],
        back=_stages,
        there=lambda t: [s.repeats for s in t.stages],
    ),
    Field(None, "kernel_sizes", [3, 3, 5, 3, 5, 5, 3], there=lambda t: [s.kernel for s in t.stages]),
    Field(None, "strides", [1, 2, 2, 2, 1, 2, 1], there=lambda t: [s.stride for s in t.stages]),
    Field(None, "expand_ratios", [1, 6, 6, 6, 6, 6, 6], there=lambda t: [s.expansion for s in t.stages]),
    Field(None, "in_channels", [32, 16, 24, 40, 80, 112, 192], there=lambda t: [32, *_channels(t)[:-1]]),
    Field(None, "out_channels", [16, 24, 40, 80, 112, 192, 320], there=_channels),
    Field("stem", "width_coefficient", 2.0, back=lambda data: _scaled(data, 32), there=lambda t: t.features / 1280),
    Field("features", "hidden_dim", 2560),
    Field(None, "depth_coefficient", 3.1, there=lambda _: 1.0),
    Field(None, "depth_divisor", 8, there=lambda _: 8),
    Field("symmetric", "depthwise_padding", [], back=lambda data: tuple(data["depthwise_padding"])),
    Field(None, "squeeze_expansion_ratio", 0.25, there=lambda t: t.stages[0].squeeze),
    Field("eps", "batch_norm_eps", 0.001),
    Field(None, "hidden_act", "swish", {"swish": "swish", "silu": "swish"}, there=lambda _: "swish"),
    Field(None, "pooling_type", "mean"),
    Field(None, "num_channels", 3),
)
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


def _at_its_size(config: EncoderConfig, tensors: Tensors) -> Parts:
    """The same function in the words of transformers, for images of the encoder's own size.

    TensorFlow's padding of an EfficientNet depends on the size: where a kernel with a stride of 2 enters a map with an
    odd side it is symmetric, elsewhere the odd pixel comes last, which is how transformers pads all others.
    """
    tower = config.tower
    if not isinstance(tower, EfficientNetConfig) or tower.padding != "same" or config.preprocess.size % 2:
        return config, tensors
    side, inputs, number, symmetric = config.preprocess.size // 2, tower.stem, 0, []
    for stage in tower.stages:
        if tower.first_residual and stage.stride == 1 and inputs == stage.channels:
            return config, tensors  # adds what the first block of a stage never adds there
        if stage.stride == 2:
            symmetric += [number] if side % 2 else []
            side = -(-side // 2)
        inputs, number = stage.channels, number + stage.repeats
    fixed = replace(tower, padding="late", symmetric=tuple(symmetric), first_residual=False)
    return replace(config, tower=fixed), tensors


LAYOUT = transformers(
    EfficientNetConfig,
    ("efficientnet",),
    lambda _: ("efficientnet", "EfficientNetModel"),
    _FIELDS,
    fixed={"padding": "late", "first_residual": False},
    pooling=lambda _: "mean",
    keys=_keys,
    prefixes=("efficientnet.", ""),
    anchor="embeddings.convolution.weight",
    ignored=("*.num_batches_tracked", "classifier.weight", "classifier.bias"),
    features=map_features,
    restated=_at_its_size,
)
