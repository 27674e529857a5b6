"""Published layouts of model directories; `WEIGHTS` is the table."""

import os
from pathlib import Path
from typing import Any

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, Tensors
from lookalike.encoders.directory import no_tensors
from lookalike.published.layout import Layout, described_in, import_model
from lookalike.published.layouts import convnets, open_clip, swin, timm, timm_vit, vit
from lookalike.published.stored import described_by

WEIGHTS: dict[str, Layout] = {
    "clip": vit.CLIP,
    "siglip": vit.SIGLIP,
    "siglip2": vit.NAFLEX,
    "dinov2": vit.DINOV2,
    "dinov3_vit": vit.DINOV3,
    "mobilenet_v2": convnets.MOBILENET_V2,
    "open_clip_timm": open_clip.TRUNK,
    "open_clip_timm_outside": open_clip.TRUNK_OUTSIDE,
    "open_clip": open_clip.LAYOUT,
    "timm_vit": timm_vit.LAYOUT,
    "tips": vit.TIPS,
    "swin": swin.SWIN,
    "swinv2": swin.SWIN_V2,
    "timm_swin": swin.TIMM,
    "efficientnet": convnets.EFFICIENTNET,
    "timm_efficientnet": timm.EFFICIENTNET,
    "convnext": convnets.CONVNEXT,
    "dinov3_convnext": convnets.DINOV3,
    "timm_convnext": timm.CONVNEXT,
    "vit": vit.VIT,
    "deit": vit.DEIT,
    "resnet": convnets.RESNET,
    "timm_resnet": timm.RESNET,
    "timm_mobilenet_v4": timm.MOBILENET_V4,
}
"""In the order in which a directory is tried."""


def matching(path: Path) -> list[Layout]:
    """The layouts of `WEIGHTS` whose config lies in the directory `path`, whether or not the tensors do."""
    return [layout for layout in WEIGHTS.values() if layout.described(path) is not None]


def read_published(
    path: str | Path, size: int | None = None, stride: int | None = None
) -> tuple[str, EncoderConfig, Tensors]:
    """Name of the layout, our config and our tensors, from a directory in any layout of `WEIGHTS`.

    Size and stride as in `import_model`; EncoderError if it is in none of them, incomplete, or holds only pickles.
    """
    path = Path(path)
    known = matching(path)
    for name, layout in WEIGHTS.items():
        if layout in known and layout.stored(os.listdir(path)):
            return name, *import_model(layout, path, size, stride)
    if known:
        raise no_tensors(path)
    said = "there is neither `config.json` nor `open_clip_config.json`"
    if (path / "config.json").exists():
        described, keys = described_by(path / "config.json"), ("model_type", "architecture", "architectures")
        told = ", ".join(f"{key} {described[key]!r}" for key in keys if key in described)
        said = f"its `config.json` has {told or 'no model_type and no architecture'}"
    raise EncoderError(
        f"`{path}` is in no layout that is known: {said}.",
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
