"""CLIP image towers in OpenCLIP's own layout: `open_clip_config.json` and `open_clip_model.safetensors`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, ViTConfig
from lookalike.published.processors import from_open_clip, square
from lookalike.published.table import MATRIX, PATCH, Key, Layout, part

_BLOCK = "transformer.resblocks.{}"

# What `vision_cfg` leaves out has these values (CLIPVisionCfg of OpenCLIP).
_DEFAULTS = {"layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16, "image_size": 224}
# These do not change what the image tower computes at inference; any other key must be empty.
_HARMLESS = {"patch_dropout", "output_tokens", "pos_embed_type", "pool_type", "no_ln_pre", "norm_kwargs"}
_HARMLESS |= {"final_ln_after_pool", "attn_pooler_queries", "attn_pooler_heads", "n_queries"}


def _pair(ours: str, theirs: str, weight: str = "weight", bias: str = "bias", matrix: bool = True) -> tuple[Key, Key]:
    name = Key(f"{ours}.weight", (theirs + weight,), MATRIX) if matrix else Key(f"{ours}.weight", (theirs + weight,))
    return name, Key(f"{ours}.bias", (theirs + bias,))


def _keys(config: ViTConfig) -> tuple[Key, ...]:
    return (
        Key("patch.weight", ("conv1.weight",), PATCH),
        Key("class_token", ("class_embedding",)),
        Key("position", ("positional_embedding",)),
        *(_pair("norm_pre", "ln_pre.", matrix=False) if config.norm_pre else ()),
        *_pair("blocks.norm1", f"{_BLOCK}.ln_1.", matrix=False),
        *_pair("blocks.attention.qkv", f"{_BLOCK}.attn.", "in_proj_weight", "in_proj_bias"),
        *_pair("blocks.attention.out", f"{_BLOCK}.attn.out_proj."),
        *_pair("blocks.norm2", f"{_BLOCK}.ln_2.", matrix=False),
        *_pair("blocks.mlp.up", f"{_BLOCK}.mlp.c_fc."),
        *_pair("blocks.mlp.down", f"{_BLOCK}.mlp.c_proj."),
        *_pair("norm_post", "ln_post.", matrix=False),
        Key("head.weight", ("proj",)),  # [in, out] already
    )


def _read(path: Path, described: dict[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> EncoderConfig:
    model = described["model_cfg"]
    data = {**_DEFAULTS, **model.get("vision_cfg", {})}
    _refuse(path, data)
    width, heads = int(data["width"]), int(data["width"]) // int(data["head_width"])
    tower = ViTConfig(
        size=square(data["image_size"], path),
        patch=square(data["patch_size"], path),
        width=width,
        layers=int(data["layers"]),
        heads=heads,
        hidden=int(width * data["mlp_ratio"]),
        activation="quick_gelu" if model.get("quick_gelu") else "gelu",
        eps=float((data.get("norm_kwargs") or {}).get("eps", 1e-5)),
        resampling="bicubic_antialias",
        norm_pre=not data.get("no_ln_pre"),
        norm_pooled=bool(data.get("final_ln_after_pool")),
        head=shapes["proj"][1] if "proj" in shapes else int(model.get("embed_dim") or 1),
    )
    pooling = "mean" if data.get("pool_type") == "avg" else "class"
    projection = ProjectionConfig("identity", tower.features, tower.features)
    return EncoderConfig(tower, pooling, from_open_clip(path, described, tower.size), projection)  # type: ignore[arg-type]


def _refuse(path: Path, data: dict[str, Any]) -> None:
    """EncoderError if the tower is another one than ours."""
    foreign = [key for key, value in data.items() if value and key not in _DEFAULTS.keys() | _HARMLESS]
    if isinstance(data["layers"], list):
        foreign.append("layers")
    if data.get("pool_type", "tok") not in ("tok", "avg"):
        foreign.append("pool_type")
    if set(data.get("norm_kwargs") or {}) - {"eps"}:
        foreign.append("norm_kwargs")
    if foreign:
        raise EncoderError(
            f"The image tower of `{path}` is not a plain ViT: {', '.join(f'{k}={data[k]!r}' for k in sorted(foreign))}."
        )


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
    files=("open_clip_config.json", "open_clip_model.safetensors"),
    matches=lambda described: "vision_cfg" in part(described, "model_cfg"),
    prefixes=("visual.",),
    anchor="class_embedding",
    ignored=TEXT_SIDE,
    keys=_keys,
    read=_read,
)
