"""Published layouts of model directories, one file each; `WEIGHTS` is the table."""

from pathlib import Path
from typing import Any

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, Tensors
from lookalike.encoders.directory import no_tensors
from lookalike.published.layout import Layout, described_in, import_model
from lookalike.published.layouts import (
    clip,
    convnext,
    dinov2,
    dinov3,
    efficientnet,
    mobilenet_v2,
    open_clip,
    open_clip_timm,
    resnet,
    siglip,
    swin,
    timm_convnext,
    timm_efficientnet,
    timm_mobilenet_v4,
    timm_swin,
    timm_vit,
    tips,
    vit,
)
from lookalike.published.stored import described_by

WEIGHTS: dict[str, Layout] = {
    "clip": clip.LAYOUT,
    "siglip": siglip.LAYOUT,
    "siglip2": siglip.NAFLEX,
    "dinov2": dinov2.LAYOUT,
    "dinov3_vit": dinov3.LAYOUT,
    "mobilenet_v2": mobilenet_v2.LAYOUT,
    "open_clip_timm": open_clip_timm.LAYOUT,
    "open_clip_timm_outside": open_clip_timm.LAYOUT_OUTSIDE,
    "open_clip": open_clip.LAYOUT,
    "timm_vit": timm_vit.LAYOUT,
    "tips": tips.LAYOUT,
    "swin": swin.LAYOUT,
    "swinv2": swin.LAYOUT_V2,
    "timm_swin": timm_swin.LAYOUT,
    "efficientnet": efficientnet.LAYOUT,
    "timm_efficientnet": timm_efficientnet.LAYOUT,
    "convnext": convnext.LAYOUT,
    "dinov3_convnext": convnext.LAYOUT_DINOV3,
    "timm_convnext": timm_convnext.LAYOUT,
    "vit": vit.LAYOUT,
    "resnet": resnet.LAYOUT,
    "timm_resnet": resnet.LAYOUT_TIMM,
    "timm_mobilenet_v4": timm_mobilenet_v4.LAYOUT,
}
"""In the order in which a directory is tried."""


def read_published(
    path: str | Path, size: int | None = None, stride: int | None = None
) -> tuple[str, EncoderConfig, Tensors]:
    """Name of the layout, our config and our tensors, from a directory in any layout of `WEIGHTS`.

    Args:
        path: The directory.
        size: Side of the input, in pixels; None: as published.
        stride: Distance between a ViT's patches, in pixels; None: as published.

    Raises:
        EncoderError: It is in none of them, incomplete, or holds only pickles.
    """
    path = Path(path)
    described = False
    for name, layout in WEIGHTS.items():
        config, tensors = (path / file for file in layout.files)
        if not config.exists() or not layout.matches(described_by(config)):
            continue
        described = True
        if tensors.exists() or (path / f"{layout.files[1]}.index.json").exists():
            return name, *import_model(layout, path, size, stride)
    if described:
        raise no_tensors(path)
    raise EncoderError(
        f"`{path}` is in no layout that is known: {_said(path)}.",
        hint=f"layouts: {', '.join(WEIGHTS)}; docs/reference/towers.md says more",
    )


def holding(
    library: str, config: EncoderConfig, tensors: Tensors
) -> tuple[Layout, dict[str, Any], EncoderConfig, Tensors] | None:
    """The layout of a library that has a place for an encoder, its config file, and the encoder as it has it.

    None: none has. Another tower would come back from each of them.
    """
    for layout in WEIGHTS.values():
        if layout.library == library:
            theirs, changed = layout.restated(config, tensors)
            if described := described_in(layout, theirs):
                return layout, described, theirs, changed
    return None


def _said(path: Path) -> str:
    """What its config says it is."""
    if not (path / "config.json").exists():
        return "there is neither `config.json` nor `open_clip_config.json`"
    described = described_by(path / "config.json")
    told = [f"{key} {described[key]!r}" for key in ("model_type", "architecture", "architectures") if key in described]
    return f"its `config.json` has {', '.join(told) or 'no model_type and no architecture'}"


def matching(path: Path) -> list[Layout]:
    """The layouts of `WEIGHTS` whose config lies in the directory `path`, whether or not the tensors do."""
    return [
        layout
        for layout in WEIGHTS.values()
        if (path / layout.files[0]).exists() and layout.matches(described_by(path / layout.files[0]))
    ]
