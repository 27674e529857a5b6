"""EfficientNet, both versions, in timm's layout: `efficientnet_b0`, `tf_efficientnetv2_s` and their like."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EfficientNetConfig, EncoderConfig, ProjectionConfig
from lookalike.published.layouts.efficientnet import conv_and_norm, points
from lookalike.published.layouts.timm_families import refuse_changed
from lookalike.published.processors import from_timm
from lookalike.published.table import Key, Layout
from lookalike.towers.efficientnet import EFFICIENTNETS
from lookalike.towers.parts import squeeze_name

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


def tower_of(architecture: str) -> EfficientNetConfig | None:
    """The tower that timm calls `architecture`, or None.

    Names that start with `tf_` are Google's weights, with TensorFlow's padding and eps; the others were trained in
    torch, with its padding and eps.
    """
    named = re.fullmatch(r"(tf_)?efficientnet(?:(v2)_([sml])|_(b[0-7]))", architecture)
    if named is None:
        return None
    tower = EFFICIENTNETS[named[4] or f"v2_{named[3]}"]
    return tower if named[1] else replace(tower, padding="symmetric", eps=1e-5)


def architecture_of(tower: EfficientNetConfig) -> str | None:
    """What timm calls `tower`, or None where it has no name for it."""
    for kind in EFFICIENTNETS:
        for start in ("tf_efficientnet", "efficientnet"):
            name = f"{start}{'' if kind.startswith('v2') else '_'}{kind}"
            if tower_of(name) == tower:
                return name
    return None


def _read(path: Path, described: dict[str, Any], _: Mapping[str, tuple[int, ...]]) -> EncoderConfig:
    name = str(described["architecture"])
    tower = tower_of(name)
    if tower is None:
        raise EncoderError(
            f"`{path}` holds timm's `{name}`, which is not known.",
            hint="known are efficientnet_b0 to b7, efficientnetv2_s, m and l, and the same with `tf_` before them",
        )
    refuse_changed(path, described)
    projection = ProjectionConfig("identity", tower.features, tower.features)
    return EncoderConfig(tower, "mean", from_timm(path, described), projection)


LAYOUT = Layout(
    files=("config.json", "model.safetensors"),
    matches=lambda described: re.match(r"(tf_)?efficientnet", str(described.get("architecture", ""))) is not None,
    prefixes=("",),
    anchor="conv_stem.weight",
    ignored=("*.num_batches_tracked", "classifier.weight", "classifier.bias"),
    keys=_keys,
    read=_read,
)
