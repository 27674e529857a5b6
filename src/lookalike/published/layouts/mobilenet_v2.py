"""MobileNetV2 in the layout of transformers: MobileNetV2Model, with or without a classifier."""

from lookalike.published.fields import Field
from lookalike.published.layout import map_features, transformers
from lookalike.published.table import KERNEL, Key
from lookalike.towers import NORM_PARTS, MobileNetV2Config

_PARTS = dict(zip(NORM_PARTS, ("weight", "bias", "running_mean", "running_var"), strict=True))
_LAYERS = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}

# The defaults are those of MobileNetV2Config of transformers.
_FIELDS = (
    Field("multiplier", "depth_multiplier", 1.0),
    Field("divisor", "depth_divisible_by", 8),
    Field("minimum", "min_depth", 8),
    Field("expansion", "expand_ratio", 6.0),
    Field("output_stride", "output_stride", 32),
    Field("first_is_expansion", "first_layer_is_expansion", True),
    Field("fine_output", "finegrained_output", True),
    Field("same_padding", "tf_padding", True),
    Field("eps", "layer_norm_eps", 0.001),
    Field(None, "hidden_act", "relu6"),
    Field(None, "num_channels", 3),
)


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


LAYOUT = transformers(
    MobileNetV2Config,
    ("mobilenet_v2",),
    lambda _: ("mobilenet_v2", "MobileNetV2Model"),
    _FIELDS,
    pooling=lambda _: "mean",
    keys=_keys,
    prefixes=("mobilenet_v2.", ""),
    anchor="conv_stem.first_conv.convolution.weight",
    ignored=("*.num_batches_tracked", "classifier.weight", "classifier.bias"),
    features=map_features,
)
