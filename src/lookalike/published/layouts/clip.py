"""CLIP image towers in the layout of transformers: CLIPModel, CLIPVisionModel, CLIPVisionModelWithProjection."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, ViTConfig
from lookalike.published.layouts.rows import linear, norm
from lookalike.published.processors import from_transformers, square
from lookalike.published.table import MATRIX, PATCH, Key, Layout

_BLOCK = "encoder.layers.{}"
_QKV = ("q_proj", "k_proj", "v_proj")

# What a config leaves out has these values (CLIPVisionConfig of transformers, since its first version).
_DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}


def _keys(config: ViTConfig) -> tuple[Key, ...]:
    return (
        Key("patch.weight", ("embeddings.patch_embedding.weight",), PATCH),
        Key("class_token", ("embeddings.class_embedding",)),
        Key("position", ("embeddings.position_embedding.weight",)),
        *norm("norm_pre", "pre_layrnorm"),  # so spelt in every published file
        *norm("blocks.norm1", f"{_BLOCK}.layer_norm1"),
        *linear("blocks.attention.qkv", *(f"{_BLOCK}.self_attn.{part}" for part in _QKV)),
        *linear("blocks.attention.out", f"{_BLOCK}.self_attn.out_proj"),
        *norm("blocks.norm2", f"{_BLOCK}.layer_norm2"),
        *linear("blocks.mlp.up", f"{_BLOCK}.mlp.fc1"),
        *linear("blocks.mlp.down", f"{_BLOCK}.mlp.fc2"),
        *norm("norm_post", "post_layernorm"),
        *((Key("head.weight", ("/visual_projection.weight",), MATRIX),) if config.head else ()),
    )


def _read(path: Path, described: dict[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> EncoderConfig:
    data = {**_DEFAULTS, **(described.get("vision_config") or {} if described["model_type"] == "clip" else described)}
    if data["hidden_act"] not in ("gelu", "quick_gelu") or data["num_channels"] != 3:
        raise EncoderError(
            f"`{path}` has activation {data['hidden_act']!r} and {data['num_channels']} channels; "
            "expected gelu or quick_gelu, and 3."
        )
    head = shapes.get("visual_projection.weight")
    tower = ViTConfig(
        size=square(data["image_size"], path),
        patch=square(data["patch_size"], path),
        width=int(data["hidden_size"]),
        layers=int(data["num_hidden_layers"]),
        heads=int(data["num_attention_heads"]),
        hidden=int(data["intermediate_size"]),
        activation=data["hidden_act"],
        eps=float(data["layer_norm_eps"]),
        head=head[0] if head else None,
    )
    projection = ProjectionConfig("identity", tower.features, tower.features)
    return EncoderConfig(tower, "class", from_transformers(path), projection)


LAYOUT = Layout(
    files=("config.json", "model.safetensors"),
    matches=lambda described: described.get("model_type") in ("clip", "clip_vision_model"),
    prefixes=("vision_model.", ""),
    anchor="embeddings.class_embedding",
    ignored=(
        "text_model.*",
        "text_projection.weight",
        "logit_scale",
        "vision_model.embeddings.position_ids",
        "embeddings.position_ids",
    ),
    keys=_keys,
    read=_read,
)
