"""EfficientNet, both versions, in timm's layout: `efficientnet_b0`, `tf_efficientnetv2_s` and their like."""

from collections.abc import Mapping
from dataclasses import replace

from lookalike.published.layouts.efficientnet import conv_and_norm, points
from lookalike.published.layouts.timm import by_name
from lookalike.published.table import Key
from lookalike.towers import EfficientNetConfig
from lookalike.towers.efficientnet import EFFICIENTNETS
from lookalike.towers.parts import squeeze_name


def named(towers: Mapping[str, EfficientNetConfig]) -> dict[str, EfficientNetConfig]:
    """The names in timm of towers that are given by kind (b0, v2_s)."""
    names = {f"efficientnet{'' if kind.startswith('v2') else '_'}{kind}": tower for kind, tower in towers.items()}
    torch = {name: replace(tower, padding="symmetric", eps=1e-5) for name, tower in names.items()}
    return {f"tf_{name}": tower for name, tower in names.items()} | torch


TOWERS = named(EFFICIENTNETS)
"""timm's name -> tower. Names that start with `tf_` are Google's weights, with TensorFlow's padding and eps; the others
were trained in torch, with its padding and eps."""

_PARTS = {  # names of a block's kernels, in order; its norms are counted
    ("expand",): ("conv",),
    ("expand", "project"): ("conv_exp", "conv_pwl"),
    ("depthwise", "project"): ("conv_dw", "conv_pw"),
    ("expand", "depthwise", "project"): ("conv_pw", "conv_dw", "conv_pwl"),
}


def _keys(config: EfficientNetConfig) -> tuple[Key, ...]:
    _, *blocks, _ = config.plan()
    keys = [*conv_and_norm("stem", "conv_stem", "bn1"), *conv_and_norm("last", "conv_head", "bn2")]
    for block, (stage, place) in zip(blocks, config.places(), strict=True):
        theirs = f"blocks.{stage}.{place}"
        names = _PARTS[tuple(conv.name.rpartition(".")[2] for conv in block.convs)]
        for number, (conv, name) in enumerate(zip(block.convs, names, strict=True), start=1):
            keys += conv_and_norm(conv.name, f"{theirs}.{name}", f"{theirs}.bn{number}")
        if block.squeeze:
            for part in ("reduce", "expand"):
                keys += points(f"{squeeze_name(block)}.{part}", f"{theirs}.se.conv_{part}")
    return tuple(keys)


LAYOUT = by_name("(tf_)?efficientnet", TOWERS, "classifier", keys=_keys, anchor="conv_stem.weight")
