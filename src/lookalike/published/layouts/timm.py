"""timm's layouts: a config that names an architecture, and the families that timm knows whole by their name.

ConvNeXt (DINOv3's too), EfficientNet 1 and 2, MobileNetV4 without attention, ResNet.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig
from lookalike.published.layout import Found, Layout
from lookalike.published.layouts.convnets import blocks, layers
from lookalike.published.processors import as_timm, from_timm
from lookalike.published.table import POINT, Names, below
from lookalike.towers import ConvNeXtConfig, EfficientNetConfig, Tower
from lookalike.towers.inverted import EFFICIENTNETS, MOBILENETS_V4, MobileNetV4Config, scaled
from lookalike.towers.plans import RESNETS

HARMLESS = {"num_classes", "drop_rate", "drop_path_rate", "proj_drop_rate", "attn_drop_rate"}
"""Arguments of every architecture that change no feature."""
BLOCK = ("norm1|norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
"""The parts of a transformer's block, as timm calls them."""


def shape_of(shapes: Found, name: str, axes: int, path: Path) -> tuple[int, ...]:
    """The shape of one tensor; EncoderError if it is missing or has another number of axes."""
    if len(shapes.get(name, ())) != axes:
        found = f"has shape {list(shapes[name])}, not {axes} axes" if name in shapes else "is missing"
        raise EncoderError(f"Tensor `{name}` of `{path}` {found}.")
    return shapes[name]


def refuse_arguments(path: Path, told: Mapping[str, Any], known: set[str]) -> None:
    """EncoderError if a model was made with arguments that change what it computes, beyond those that are `known`."""
    if foreign := told.keys() - known - HARMLESS:
        raise EncoderError(f"`{path}` was made with {', '.join(f'`{a}`' for a in sorted(foreign))}, not supported.")


def described_as(
    name: str, config: EncoderConfig, classifier: str, arguments: Mapping[str, Any] | None = None, head: int = 0
) -> dict[str, Any]:
    """`config.json` of an encoder under the architecture `name`, made with `arguments` beyond the name.

    The layer `classifier`, which gives `head` numbers (0: there is none), gives way to one for other classes.
    """
    published = {"tag": "lookalike", "classifier": classifier, "num_classes": head, **as_timm(config.preprocess)}
    return {
        "architecture": name,
        "num_classes": head,
        "num_features": config.tower.features,
        "global_pool": (arguments or {}).get("global_pool", "avg"),
        **({"model_args": dict(arguments)} if arguments else {}),
        "pretrained_cfg": published,
    }


def by_name(starts: str, towers: Mapping[str, Tower], classifier: str, **facts: Any) -> Layout:
    """The layout of towers that are pooled by the mean, from their names, which start with the pattern `starts`."""

    def read(path: Path, described: dict[str, Any], _: Found) -> tuple[Tower, Any]:
        name = described["architecture"]
        if name not in towers:
            raise EncoderError(
                f"`{path}` holds timm's `{name}`, which is not known.", hint=f"known: {', '.join(towers)}"
            )
        told = {"global_pool": described.get("global_pool", "avg"), **(described.get("model_args") or {})}
        plain = {"global_pool": "avg", "in_chans": 3}  # which timm writes always
        changed = [f"{k}={v!r}" for k, v in told.items() if k not in HARMLESS and (k not in plain or v != plain[k])]
        if changed:
            raise EncoderError(f"`{path}` is not the plain `{name}`: {', '.join(changed)}.")
        return towers[name], "mean"

    def describe(config: EncoderConfig) -> dict[str, Any] | None:
        name = next((name for name, tower in towers.items() if tower == config.tower), None)
        return None if name is None else described_as(name, config, classifier)

    return timm(re.compile(starts).match, read=read, describe=describe, ignored=(f"{classifier}.*",), **facts)


def timm(knows: Callable[[str], object], **facts: Any) -> Layout:
    """A layout of the architectures that it `knows` by name."""
    return Layout(
        library="timm",
        matches=lambda described: bool(knows(str(described.get("architecture")))),
        prepare=lambda path, described, _: from_timm(path, described),
        **facts,
    )


def _convnext(width: int, depths: tuple[int, ...], eps: float = 1e-6) -> ConvNeXtConfig:
    return ConvNeXtConfig(tuple(width * 2**i for i in range(len(depths))), depths, eps=eps, last_eps=eps)


CONVNEXTS: dict[str, ConvNeXtConfig] = {
    "convnext_tiny": _convnext(96, (3, 3, 9, 3)),
    "convnext_small": _convnext(96, (3, 3, 27, 3)),
    "convnext_base": _convnext(128, (3, 3, 27, 3)),
    "convnext_large": _convnext(192, (3, 3, 27, 3)),
    "convnext_xlarge": _convnext(256, (3, 3, 27, 3)),
    "convnext_xxlarge": _convnext(384, (3, 4, 30, 3), eps=1e-5),
    "convnext_atto": _convnext(40, (2, 2, 6, 2)),
    "convnext_femto": _convnext(48, (2, 2, 6, 2)),
    "convnext_pico": _convnext(64, (2, 2, 6, 2)),
    "convnext_nano": _convnext(80, (2, 2, 8, 2)),
}
"""timm's name -> tower; so below."""
_POINTS = ("convnext_atto", "convnext_femto", "convnext_pico", "convnext_nano")
"""Those whose matrices are kernels of one tap."""
_POINTED = {"stages.*.blocks.mlp.up.weight": POINT, "stages.*.blocks.mlp.down.weight": POINT}
CONVNEXT = by_name(
    *("convnext", CONVNEXTS, "head.fc"),
    names={"stages.0.patch": "stem.0", "stages.0.norm": "stem.1", "norm_post": "head.norm"}
    | below("stages.*", "stages.*.downsample", {"norm": "0", "patch": "1"})
    | blocks("stages.*.blocks.{}", "conv_dw", "norm", "mlp.fc1", "mlp.fc2", "gamma"),
    forms=lambda tower: _POINTED if tower in [CONVNEXTS[name] for name in _POINTS] else {},
    anchor="stem.0.weight",
)


def efficientnets(towers: Mapping[str, EfficientNetConfig]) -> dict[str, EfficientNetConfig]:
    """The names in timm of towers that are given by kind (b0, v2_s): those that start with `tf_` are Google's weights,
    with TensorFlow's padding and eps; the others were trained in torch, with its padding and eps.
    """
    names = {f"efficientnet{'' if kind.startswith('v2') else '_'}{kind}": tower for kind, tower in towers.items()}
    torch = {name: replace(tower, padding="symmetric", eps=1e-5) for name, tower in names.items()}
    return {f"tf_{name}": tower for name, tower in names.items()} | torch


EFFICIENTNET_TOWERS = efficientnets(EFFICIENTNETS)
MOBILENETS = {f"mobilenetv4_conv_{kind}": tower for kind, tower in MOBILENETS_V4.items()} | {
    f"mobilenetv4_conv_small_{name}": scaled(MOBILENETS_V4["small"], part)
    for name, part in (("035", 0.35), ("050", 0.5))
}
_KERNELS = {  # kernels and norms of a block, by what it is made of
    ("expand",): (("conv", "bn1"),),
    ("expand", "project"): (("conv_exp", "bn1"), ("conv_pwl", "bn2")),
    ("depthwise", "project"): (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    ("expand", "depthwise", "project"): (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
}
_UNIVERSAL = {"start": "dw_start", "expand": "pw_exp", "depthwise": "dw_mid", "project": "pw_proj"}


def _efficient(tower: EfficientNetConfig | MobileNetV4Config) -> Names:
    """Blocks are counted in stages of timm's."""
    last = "bn2" if isinstance(tower, EfficientNetConfig) else "norm_head"
    names = {"stem.conv": "conv_stem", "stem.norm": "bn1", "last.conv": "conv_head", "last.norm": last}
    for block, (universal, theirs) in zip(tower.plan()[1:-1], _places(tower), strict=True):
        kinds = tuple(conv.name.rpartition(".")[2] for conv in block.convs)
        inner = [(f"{_UNIVERSAL[kind]}.conv", f"{_UNIVERSAL[kind]}.bn") for kind in kinds if universal]
        known = inner or _KERNELS[kinds]
        for conv, (kernel, norm) in zip(block.convs, known, strict=True):
            names |= {f"{conv.name}.conv": f"{theirs}.{kernel}", f"{conv.name}.norm": f"{theirs}.{norm}"}
        at = block.convs[0].name.rpartition(".")[0]
        names |= {f"{at}.squeeze.{part}": f"{theirs}.se.conv_{part}" for part in ("reduce", "expand")}
    return names


def _places(tower: EfficientNetConfig | MobileNetV4Config) -> Iterator[tuple[bool, str]]:
    """Whether each block is universal, and what its names start with: in a MobileNetV4 a stride, and the last row,
    begin a stage of timm's.
    """
    stage = block = -1
    for row in tower.stages:
        if isinstance(tower, EfficientNetConfig) or row.stride > 1 or row is tower.stages[-1]:
            stage, block = stage + 1, -1
        for _ in range(row.repeats):
            block += 1
            yield row.kind == "universal", f"blocks.{stage}.{block}"


EFFICIENTNET = by_name(
    *("(tf_)?efficientnet", EFFICIENTNET_TOWERS, "classifier"), names=_efficient, anchor="conv_stem.weight"
)
MOBILENET_V4 = by_name("mobilenetv4", MOBILENETS, "classifier", names=_efficient, anchor="conv_stem.weight")

_AT = "stages.*.blocks.*"
RESNET = by_name(
    *("resnet", {f"resnet{depth}": tower for depth, tower in RESNETS.items()}, "fc"),
    names=layers("conv1", "bn1", {"stem": ""})
    | layers("downsample.0", "downsample.1", {f"{_AT}.shortcut": "layer*+1.*."})
    | layers("conv1", "bn1", {f"{_AT}.first": "layer*+1.*."})
    | layers("conv2", "bn2", {f"{_AT}.second": "layer*+1.*."})
    | layers("conv3", "bn3", {f"{_AT}.third": "layer*+1.*."}),
    anchor="conv1.weight",
)
