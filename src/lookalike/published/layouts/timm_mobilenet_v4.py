"""MobileNetV4 without attention in timm's layout: `mobilenetv4_conv_small`, `_medium`, `_large` and narrower ones."""

from collections.abc import Iterator

from lookalike.published.layouts.efficientnet import conv_and_norm
from lookalike.published.layouts.timm import by_name
from lookalike.published.table import Key
from lookalike.towers.mobilenet_v4 import MOBILENETS_V4, MobileNetV4Config, scaled

_START = "mobilenetv4_conv"
TOWERS = {f"{_START}_{kind}": tower for kind, tower in MOBILENETS_V4.items()} | {
    f"{_START}_small_{name}": scaled(MOBILENETS_V4["small"], part) for name, part in (("035", 0.35), ("050", 0.5))
}
"""timm's name -> tower."""

_OUTSIDE = {"stem": ("conv_stem", "bn1"), "last": ("conv_head", "norm_head")}
_INSIDE = {  # kernel and norm, by the kind of block and our name of a convolution
    "plain": {"expand": ("conv", "bn1")},
    "fused": {"expand": ("conv_exp", "bn1"), "project": ("conv_pwl", "bn2")},
    "universal": {
        ours: (f"{theirs}.conv", f"{theirs}.bn")
        for ours, theirs in (
            ("start", "dw_start"),
            ("expand", "pw_exp"),
            ("depthwise", "dw_mid"),
            ("project", "pw_proj"),
        )
    },
}


def _places(config: MobileNetV4Config) -> Iterator[tuple[str, str]]:
    """Kind of every block and what its names start with: a stride, and the last row, begin a stage of timm's."""
    stage = block = -1
    for row, universal in enumerate(config.stages, start=1):
        if universal.stride > 1 or row == len(config.stages):
            stage, block = stage + 1, -1
        for _ in range(universal.repeats):
            block += 1
            yield universal.kind, f"blocks.{stage}.{block}"


def _keys(config: MobileNetV4Config) -> tuple[Key, ...]:
    keys, places = [key for ours, theirs in _OUTSIDE.items() for key in conv_and_norm(ours, *theirs)], _places(config)
    for block, (kind, theirs) in zip(config.plan()[1:-1], places, strict=True):
        for conv in block.convs:
            names = _INSIDE[kind][conv.name.rpartition(".")[2]]
            keys += conv_and_norm(conv.name, *(f"{theirs}.{name}" for name in names))
    return tuple(keys)


LAYOUT = by_name("mobilenetv4", TOWERS, "classifier", keys=_keys, anchor="conv_stem.weight")
