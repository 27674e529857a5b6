"""CLIP image towers in OpenCLIP's own layout: `open_clip_config.json` and `open_clip_model.safetensors`.

`LAYOUT` has the library's own ViT. The trunk of the others is a timm model (SigLIP 1 and 2, Perception Encoder), whose
projection is its own head (`timm_proj` null), left out (`none`), or a matrix behind it (`linear`), which has a name
outside of the trunk, and so is in a layout of its own.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, Tensors
from lookalike.published.layout import Found, Layout, Parts
from lookalike.published.layouts.timm_vit import POOLINGS, family_of, forms, names, trunk
from lookalike.published.processors import as_open_clip, from_open_clip, ratio, square
from lookalike.published.stored import part
from lookalike.published.table import BARE, SAME, Field, block, read_fields, refuse, write_fields
from lookalike.towers import ViTConfig

FILES = ("open_clip_config.json", "open_clip_model.safetensors")
_PARTS = ("ln_1|ln_2", "attn.in_proj_", "attn.out_proj", "mlp.c_fc", "mlp.c_proj")
BLOCKS = block("transformer.resblocks.{}", *_PARTS)
HEAD = BARE | {"head.weight": SAME}
"""A projection without a bias is [in, out] already."""
TEXT_CFG = {"context_length": 4, "vocab_size": 4, "width": 8, "heads": 1, "layers": 1}
"""The smallest text tower, of which nothing is asked."""


def _eps(data: Mapping[str, Any]) -> float:
    told = data["norm_kwargs"] or {}
    refuse({"norm_kwargs": told} if set(told) - {"eps"} else {})
    return float(told.get("eps", 1e-5))


def sizes(width: int) -> tuple[Field, ...]:
    """The rows of both towers; `width` is that of a config which leaves it out."""
    return (
        Field("width", "width", width),
        Field("layers", "layers", 12),
        Field(
            *("hidden", "mlp_ratio", 4.0),
            back=lambda d: int(d["width"] * d["mlp_ratio"]),
            there=lambda t: ratio(t.hidden, t.width),
        ),
        Field("eps", "norm_kwargs", None, back=_eps, there=lambda tower: {"eps": tower.eps}),
    )


_POOLINGS = {"tok": "class", "avg": "mean"}
_FIELDS = (  # the defaults are those of CLIPVisionCfg
    *sizes(768),
    Field("size", "image_size", 224, square),
    Field("patch", "patch_size", 16, square),
    Field("heads", "head_width", 64, back=lambda d: d["width"] // d["head_width"], there=lambda t: t.width // t.heads),
    Field("norm_pre", "no_ln_pre", False, {False: True, True: False}),
    Field("norm_pooled", "final_ln_after_pool", False),
    Field(None, "pool_type", "tok", _POOLINGS),
)
# These do not change what the image tower computes at inference; any other key must be empty.
_KNOWN = {"patch_dropout", "output_tokens", "pos_embed_type", "attn_pooler_queries", "attn_pooler_heads", "n_queries"}
_KNOWN |= {field.theirs for field in _FIELDS}


def _read(path: Path, described: dict[str, Any], shapes: Found) -> tuple[ViTConfig, Any]:
    model = part(described, "model_cfg")
    data = part(model, "vision_cfg")
    if foreign := [f"{key}={data[key]!r}" for key in sorted(data) if data[key] and key not in _KNOWN]:
        raise EncoderError(f"The image tower of `{path}` is not a plain ViT: {', '.join(foreign)}.")
    tower = ViTConfig(
        **read_fields(_FIELDS, data, path),
        activation="quick_gelu" if model.get("quick_gelu") else "gelu",
        resampling="bicubic_antialias",
        head=shapes["proj"][1] if "proj" in shapes else int(model.get("embed_dim") or 1),
    )
    return tower, _POOLINGS[data.get("pool_type", "tok")]


def _describe(config: EncoderConfig) -> dict[str, Any] | None:
    tower = config.tower
    vision = write_fields(_FIELDS, tower) if isinstance(tower, ViTConfig) else None
    pooling = next((theirs for theirs, ours in _POOLINGS.items() if ours == config.pooling), None)
    if not isinstance(tower, ViTConfig) or vision is None or pooling is None:
        return None
    return {
        "model_cfg": {
            "embed_dim": tower.head,
            "quick_gelu": tower.activation == "quick_gelu",
            "vision_cfg": vision | {"pool_type": pooling},
            "text_cfg": TEXT_CFG,
        },
        "preprocess_cfg": as_open_clip(config.preprocess),
    }


def _with_head(config: EncoderConfig, tensors: Tensors) -> Parts:
    """The layout always has a head: one that changes nothing, where there is none."""
    tower = config.tower
    if not isinstance(tower, ViTConfig) or tower.head is not None:
        return config, tensors
    identity = np.eye(tower.width, dtype=np.float32)
    return replace(config, tower=replace(tower, head=tower.width)), {**tensors, "tower.head.weight": identity}


_FACTS: dict[str, Any] = {
    "library": "open_clip",
    "files": FILES,
    "prepare": lambda path, described, tower: from_open_clip(path, described, tower.size),
    "ignored": (
        *("transformer.*", "text.*", "token_embedding.weight", "positional_embedding", "ln_final.*"),
        *("text_projection", "logit_scale", "logit_bias", "attn_mask"),
    ),
    "pairs": True,
}
_NAMES = {"patch.weight": "conv1.weight", "class_token": "class_embedding", "position": "positional_embedding"}
_NAMES |= {"norm_pre": "ln_pre", **BLOCKS, "norm_post": "ln_post", "head.weight": "proj"}
LAYOUT = Layout(
    matches=lambda described: "vision_cfg" in part(described, "model_cfg"),
    anchor="class_embedding",
    names=lambda tower: _NAMES if tower.head else {},
    forms=HEAD,
    read=_read,
    describe=_describe,
    restated=_with_head,
    prefixes=("visual.",),
    **_FACTS,
)

# ------------------------------------------------------------------------------------ a trunk from timm

_OUTSIDE = "visual.head.proj"


def _vision(described: dict[str, Any]) -> dict[str, Any]:
    """`vision_cfg`; what it leaves out has these values in CLIPVisionCfg."""
    data = part(part(described, "model_cfg"), "vision_cfg")
    return {"timm_pool": "avg", "timm_proj": "linear", "image_size": 224, "timm_model_name": None, **data}


def _read_trunk(path: Path, described: dict[str, Any], shapes: Found) -> tuple[ViTConfig, Any]:
    vision = _vision(described)
    name, projection = vision["timm_model_name"], vision["timm_proj"] or ""
    family = family_of(name)
    # Where OpenCLIP leaves the pooling to the trunk, it is that with which timm makes the architecture.
    averages = family is None or family.rope == "centred" or "cls_token" not in shapes
    own = "map" if "attn_pool.latent" in shapes else "avg" if averages else "token"
    pooling = vision["timm_pool"] or own
    if pooling not in POOLINGS or projection not in ("", "none", "linear"):
        raise EncoderError(
            f"The image tower of `{path}` has pooling {pooling!r} and projection {projection!r}; "
            f"expected one of {', '.join(POOLINGS)}, and linear, none or null."
        )
    head = {"": "head", "none": None, "linear": _OUTSIDE}[projection]
    size, arguments = square(vision["image_size"], path), vision.get("timm_model_kwargs") or {}
    return trunk(path, name, arguments, size, shapes, head), POOLINGS[pooling]


def _trunk(outside: bool) -> Layout:
    def matches(described: dict[str, Any]) -> bool:
        vision = _vision(described)
        return family_of(vision["timm_model_name"]) is not None and (vision["timm_proj"] == "linear") == outside

    return Layout(
        matches=matches,
        anchor="patch_embed.proj.weight",
        names=(lambda tower: names(tower, f"/{_OUTSIDE}")) if outside else names,
        forms=forms,
        read=_read_trunk,
        prefixes=("visual.trunk.",),
        **_FACTS,
    )


TRUNK, TRUNK_OUTSIDE = _trunk(outside=False), _trunk(outside=True)
