"""TIPS v2 image towers as transformers writes them and as they are published: Tipsv2Model, Tipsv2VisionModel.

A DINOv2 with one register, which is a second class token that was taught by longer captions. Images enter as values
of 0 to 1, without a mean or a deviation.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, ViTConfig
from lookalike.published.fit import resized
from lookalike.published.layouts.rows import linear, norm
from lookalike.published.processors import from_transformers, square
from lookalike.published.table import PATCH, TOKEN, TOKENS, Key, Layout

_BLOCK = "blocks.{}"

# What a config leaves out has these values (Tipsv2VisionConfig of transformers).
_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "image_size": 448,
    "patch_size": 14,
    "num_channels": 3,
    "qkv_bias": True,
    "num_register_tokens": 1,
    "use_swiglu_ffn": False,
}


def _keys(config: ViTConfig) -> tuple[Key, ...]:
    up, down = ("w12", "w3") if config.activation == "swiglu" else ("fc1", "fc2")
    return (
        Key("patch.weight", ("patch_embed.proj.weight",), PATCH),
        Key("patch.bias", ("patch_embed.proj.bias",)),
        Key("class_token", ("cls_token",), TOKEN),
        *((Key("registers", ("register_tokens",), TOKENS),) if config.registers else ()),
        Key("position", ("pos_embed",), TOKENS),
        *norm("blocks.norm1", f"{_BLOCK}.norm1"),
        *linear("blocks.attention.qkv", f"{_BLOCK}.attn.qkv", biased=None if config.qkv_bias == "all" else ()),
        *linear("blocks.attention.out", f"{_BLOCK}.attn.proj"),
        Key("blocks.scale1", (f"{_BLOCK}.ls1.gamma",)),
        *norm("blocks.norm2", f"{_BLOCK}.norm2"),
        *linear("blocks.mlp.up", f"{_BLOCK}.mlp.{up}"),
        *linear("blocks.mlp.down", f"{_BLOCK}.mlp.{down}"),
        Key("blocks.scale2", (f"{_BLOCK}.ls2.gamma",)),
        *norm("norm_post", "norm"),
    )


def _read(path: Path, described: dict[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> EncoderConfig:
    data = {**_DEFAULTS, **(_first_form(described, shapes) or described.get("vision_config") or described)}
    if data["hidden_act"] != "gelu" or data["num_channels"] != 3:
        raise EncoderError(
            f"`{path}` has activation {data['hidden_act']!r} and {data['num_channels']} channels; "
            "expected 'gelu' and 3."
        )
    hidden = shapes.get("blocks.0.mlp.w3.weight" if data["use_swiglu_ffn"] else "blocks.0.mlp.fc2.weight", (0, 0))[-1]
    tower = ViTConfig(
        size=square(data["image_size"], path),
        patch=square(data["patch_size"], path),
        width=int(data["hidden_size"]),
        layers=int(data["num_hidden_layers"]),
        heads=int(data["num_attention_heads"]),
        hidden=hidden,
        activation="swiglu" if data["use_swiglu_ffn"] else "gelu",
        eps=float(data["layer_norm_eps"]),
        patch_bias=True,
        registers=int(data["num_register_tokens"]),
        positions="all",
        resampling="bilinear_antialias",
        qkv_bias="all" if data["qkv_bias"] else "none",
        layer_scale=True,
        norm_pre=False,
    )
    projection = ProjectionConfig("identity", tower.features, tower.features)
    return EncoderConfig(tower, "class", resized(from_transformers(path), tower.size), projection)


def _first_form(described: dict[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """The config of the first published files, which came with their own code, in the keys of transformers."""
    if "vision_fn" not in described:
        return None
    width = int(described["embed_dim"])
    return {
        "hidden_size": width,
        "num_hidden_layers": len({name.split(".")[1] for name in shapes if name.startswith("blocks.")}),
        "num_attention_heads": 16 if described["vision_fn"] == "vit_so400m" else width // 64,
        "image_size": described["img_size"],
        "patch_size": described["patch_size"],
        "num_register_tokens": described["num_register_tokens"],
        "use_swiglu_ffn": described["ffn_layer"] == "swiglu",
    }


LAYOUT = Layout(
    files=("config.json", "model.safetensors"),
    matches=lambda described: described.get("model_type") in ("tipsv2", "tipsv2_vision_model"),
    prefixes=("vision_encoder.", ""),
    anchor="patch_embed.proj.weight",
    ignored=("text_encoder.*", "temperature", "mask_token", "vision_encoder.mask_token"),
    keys=_keys,
    read=_read,
    prepared=from_transformers,  # the reference interpolates positions to the size of its images
    unused=lambda config: {"mask_token": (1, config.width)},
    renamed=((".mlp.c_fc.", ".mlp.fc1."), (".mlp.c_proj.", ".mlp.fc2.")),  # as transformers writes them
)
