"""CLIP image towers in OpenCLIP's own layout whose trunk is a timm model: SigLIP, SigLIP 2, Perception Encoder.

The projection is the trunk's own head (`timm_proj` null), a matrix behind it (`linear`), or left out (`none`). The
second has a name outside of the trunk, and so it is a layout of its own.
"""

from pathlib import Path
from typing import Any

from lookalike.core.errors import EncoderError
from lookalike.published.layout import Found, Layout
from lookalike.published.layouts.open_clip import FILES, TEXT_SIDE
from lookalike.published.layouts.timm_families import family_of
from lookalike.published.layouts.timm_vit import POOLINGS, keys, trunk
from lookalike.published.processors import from_open_clip, square
from lookalike.published.stored import part
from lookalike.published.table import Key
from lookalike.towers import ViTConfig

_OUTSIDE = "visual.head.proj"

# What `vision_cfg` leaves out has these values (CLIPVisionCfg of OpenCLIP).
_DEFAULTS: dict[str, Any] = {"timm_pool": "avg", "timm_proj": "linear", "image_size": 224}


def _vision(described: dict[str, Any]) -> dict[str, Any]:
    return _DEFAULTS | part(part(described, "model_cfg"), "vision_cfg")


def _is_trunk(described: dict[str, Any]) -> bool:
    return family_of(_vision(described).get("timm_model_name")) is not None


def _keys_outside(config: ViTConfig) -> tuple[Key, ...]:
    return keys(config, f"/{_OUTSIDE}")


def _read(path: Path, described: dict[str, Any], shapes: Found) -> tuple[ViTConfig, Any]:
    vision = _vision(described)
    name, projection = vision["timm_model_name"], vision["timm_proj"] or ""
    pooling = vision["timm_pool"] or _own_pooling(name, shapes)
    if pooling not in POOLINGS or projection not in ("", "none", "linear"):
        raise EncoderError(
            f"The image tower of `{path}` has pooling {pooling!r} and projection {projection!r}; "
            f"expected one of {', '.join(POOLINGS)}, and linear, none or null."
        )
    head = {"": "head", "none": None, "linear": _OUTSIDE}[projection]
    size = square(vision["image_size"], path)
    tower = trunk(path, name, vision.get("timm_model_kwargs") or {}, size, dict(shapes), head)
    return tower, POOLINGS[pooling]


def _own_pooling(name: str, shapes: Found) -> str:
    """The pooling with which timm makes an architecture, where OpenCLIP leaves it to the trunk."""
    if "attn_pool.latent" in shapes:
        return "map"
    form = family_of(name)
    averages = form is None or form.family.rope == "centred" or "cls_token" not in shapes
    return "avg" if averages else "token"


def _layout(outside: bool) -> Layout:
    return Layout(
        "open_clip",
        FILES,
        lambda d: _is_trunk(d) and (_vision(d)["timm_proj"] == "linear") == outside,
        anchor="patch_embed.proj.weight",
        keys=_keys_outside if outside else keys,
        read=_read,
        prepare=lambda path, described, tower: from_open_clip(path, described, tower.size),
        prefixes=("visual.trunk.",),
        ignored=TEXT_SIDE,
        pairs=True,
    )


LAYOUT, LAYOUT_OUTSIDE = _layout(outside=False), _layout(outside=True)
