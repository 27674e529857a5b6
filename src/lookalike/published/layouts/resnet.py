"""ResNet in the layouts of transformers (ResNetModel, with or without a classifier) and of timm (`resnet50`)."""

from typing import Any

from lookalike.core.errors import EncoderError
from lookalike.published.fields import Field
from lookalike.published.layout import map_features, transformers
from lookalike.published.layouts.efficientnet import conv_and_norm
from lookalike.published.layouts.timm import by_name
from lookalike.published.table import Key
from lookalike.towers.resnet import RESNETS, ResNetConfig

_PLACES = ("first", "second", "third")


def _first_stage(data: dict[str, Any]) -> tuple[int, ...]:
    if data["downsample_in_first_stage"]:
        raise EncoderError("downsample_in_first_stage=True; expected False.")
    return tuple(data["hidden_sizes"])


# The defaults are those of ResNetConfig of transformers.
_FIELDS = (
    Field("stem", "embedding_size", 64),
    Field("widths", "hidden_sizes", [256, 512, 1024, 2048], back=_first_stage),
    Field("depths", "depths", [3, 4, 6, 3], back=lambda data: tuple(data["depths"])),
    Field("bottleneck", "layer_type", "bottleneck", {"bottleneck": True, "basic": False}),
    Field("stride_first", "downsample_in_bottleneck", False),
    Field(None, "downsample_in_first_stage", False),
    Field(None, "hidden_act", "relu"),
    Field(None, "num_channels", 3),
)


def _keys(config: ResNetConfig) -> tuple[Key, ...]:
    keys: list[Key] = []
    for conv in (conv for block in config.plan() for conv in (*block.convs, block.shortcut) if conv is not None):
        theirs = "embedder.embedder"
        if conv.name != "stem":
            _, stage, _, block, part = conv.name.split(".")
            place = "shortcut" if part == "shortcut" else f"layer.{_PLACES.index(part)}"
            theirs = f"encoder.stages.{stage}.layers.{block}.{place}"
        keys += conv_and_norm(conv.name, f"{theirs}.convolution", f"{theirs}.normalization")
    return tuple(keys)


def _timm_keys(config: ResNetConfig) -> tuple[Key, ...]:
    keys = [*conv_and_norm("stem", "conv1", "bn1")]
    for bottleneck in config.plan()[1:]:
        for conv in (*bottleneck.convs, *([bottleneck.shortcut] if bottleneck.shortcut else [])):
            _, stage, _, block, part = conv.name.split(".")
            at = f"layer{int(stage) + 1}.{block}"
            number = 0 if part == "shortcut" else _PLACES.index(part) + 1
            names = (f"{at}.conv{number}", f"{at}.bn{number}") if number else (f"{at}.downsample.{i}" for i in (0, 1))
            keys += conv_and_norm(conv.name, *names)
    return tuple(keys)


LAYOUT = transformers(
    ResNetConfig,
    ("resnet",),
    lambda _: ("resnet", "ResNetModel"),
    _FIELDS,
    pooling=lambda _: "mean",
    keys=_keys,
    prefixes=("", "resnet."),
    anchor="embedder.embedder.convolution.weight",
    ignored=("*.num_batches_tracked", "classifier.*"),
    features=lambda config: "pooler_output.flatten(1)" if map_features(config) else None,
)
LAYOUT_TIMM = by_name(
    "resnet",
    {f"resnet{depth}": tower for depth, tower in RESNETS.items()},
    "fc",
    keys=_timm_keys,
    anchor="conv1.weight",
)
