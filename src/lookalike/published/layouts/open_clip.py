"""CLIP image towers in OpenCLIP's own layout: `open_clip_config.json` and `open_clip_model.safetensors`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, Tensors
from lookalike.published.fields import Field, read_fields, refuse, write_fields
from lookalike.published.layout import Found, Layout, Parts
from lookalike.published.processors import as_open_clip, from_open_clip, ratio, square
from lookalike.published.stored import part
from lookalike.published.table import MATRIX, PATCH, Key, linear, norm
from lookalike.towers import ViTConfig

FILES = ("open_clip_config.json", "open_clip_model.safetensors")

_BLOCK = "transformer.resblocks.{}"
_POOLINGS = {"tok": "class", "avg": "mean"}


def eps_of(data: Mapping[str, Any]) -> float:
    """What a part of a config says of its norms; EncoderError if it says more than `eps`."""
    told = data["norm_kwargs"] or {}
    refuse({"norm_kwargs": told} if set(told) - {"eps"} else {})
    return float(told.get("eps", 1e-5))


# The defaults are those of CLIPVisionCfg of OpenCLIP.
_FIELDS = (
    Field("size", "image_size", 224, square),
    Field("patch", "patch_size", 16, square),
    Field("width", "width", 768),
    Field("layers", "layers", 12),
    Field(
        *("heads", "head_width", 64),
        back=lambda data: data["width"] // data["head_width"],
        there=lambda tower: tower.width // tower.heads,
    ),
    Field(
        *("hidden", "mlp_ratio", 4.0),
        back=lambda data: int(data["width"] * data["mlp_ratio"]),
        there=lambda tower: ratio(tower.hidden, tower.width),
    ),
    Field("eps", "norm_kwargs", None, back=eps_of, there=lambda tower: {"eps": tower.eps}),
    Field("norm_pre", "no_ln_pre", False, {False: True, True: False}),
    Field("norm_pooled", "final_ln_after_pool", False),
    Field(None, "pool_type", "tok", _POOLINGS),
)
# These do not change what the image tower computes at inference; any other key must be empty.
_HARMLESS = {
    "patch_dropout",
    "output_tokens",
    "pos_embed_type",
    "attn_pooler_queries",
    "attn_pooler_heads",
    "n_queries",
}
_TEXT = {"context_length": 4, "vocab_size": 4, "width": 8, "heads": 1, "layers": 1}


def _keys(config: ViTConfig) -> tuple[Key, ...]:
    return (
        Key("patch.weight", ("conv1.weight",), PATCH),
        Key("class_token", ("class_embedding",)),
        Key("position", ("positional_embedding",)),
        *(norm("norm_pre", "ln_pre") if config.norm_pre else ()),
        *norm("blocks.norm1", f"{_BLOCK}.ln_1"),
        Key("blocks.attention.qkv.weight", (f"{_BLOCK}.attn.in_proj_weight",), MATRIX),
        Key("blocks.attention.qkv.bias", (f"{_BLOCK}.attn.in_proj_bias",)),
        *linear("blocks.attention.out", f"{_BLOCK}.attn.out_proj"),
        *norm("blocks.norm2", f"{_BLOCK}.ln_2"),
        *linear("blocks.mlp.up", f"{_BLOCK}.mlp.c_fc"),
        *linear("blocks.mlp.down", f"{_BLOCK}.mlp.c_proj"),
        *norm("norm_post", "ln_post"),
        Key("head.weight", ("proj",)),  # [in, out] already
    )


def _read(path: Path, described: dict[str, Any], shapes: Found) -> tuple[ViTConfig, Any]:
    model = part(described, "model_cfg")
    data = part(model, "vision_cfg")
    known = {field.theirs for field in _FIELDS} | _HARMLESS
    if foreign := [key for key, value in data.items() if value and key not in known]:
        words = ", ".join(f"{key}={data[key]!r}" for key in sorted(foreign))
        raise EncoderError(f"The image tower of `{path}` is not a plain ViT: {words}.")
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
            "text_cfg": _TEXT,
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


def silence(dimension: int) -> Tensors:
    """Zeros in the shapes of the smallest text tower, of which nothing is asked."""
    width, one = _TEXT["width"], "transformer.resblocks.0"
    shapes: dict[str, tuple[int, ...]] = {
        "token_embedding.weight": (_TEXT["vocab_size"], width),
        "positional_embedding": (_TEXT["context_length"], width),
        "text_projection": (width, dimension),
        "logit_scale": (),
        f"{one}.attn.in_proj_weight": (3 * width, width),
        f"{one}.attn.in_proj_bias": (3 * width,),
        f"{one}.attn.out_proj.weight": (width, width),
        f"{one}.mlp.c_fc.weight": (4 * width, width),
        f"{one}.mlp.c_fc.bias": (4 * width,),
        f"{one}.mlp.c_proj.weight": (width, 4 * width),
    }
    vectors = ("attn.out_proj.bias", "mlp.c_proj.bias", "ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias")
    shapes |= {f"{one}.{name}": (width,) for name in vectors} | {f"ln_final.{p}": (width,) for p in ("weight", "bias")}
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


TEXT_SIDE = (
    "transformer.*",
    "text.*",
    "token_embedding.weight",
    "positional_embedding",
    "ln_final.*",
    "text_projection",
    "logit_scale",
    "logit_bias",
    "attn_mask",
)
"""What an OpenCLIP file holds beside its image tower."""

LAYOUT = Layout(
    "open_clip",
    FILES,
    lambda described: "vision_cfg" in part(described, "model_cfg"),
    anchor="class_embedding",
    keys=_keys,
    read=_read,
    prepare=lambda path, described, tower: from_open_clip(path, described, tower.size),
    describe=_describe,
    restated=_with_head,
    prefixes=("visual.",),
    ignored=TEXT_SIDE,
    pairs=True,
)
