"""DINOv2 in the layout of transformers: Dinov2Model and Dinov2WithRegistersModel, alone or below a classifier."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, ViTConfig
from lookalike.published.fit import resized
from lookalike.published.layouts.rows import linear, norm
from lookalike.published.processors import from_transformers, square
from lookalike.published.table import PATCH, TOKEN, TOKENS, Key, Layout

_BLOCK = "encoder.layer.{}"

# What a config leaves out has these values (Dinov2Config and Dinov2WithRegistersConfig of transformers).
_DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "mlp_ratio": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "image_size": 224,
    "num_channels": 3,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
}


def _keys(config: ViTConfig) -> tuple[Key, ...]:
    up, down = ("weights_in", "weights_out") if config.activation == "swiglu" else ("fc1", "fc2")
    qkv = tuple(f"{_BLOCK}.attention.attention.{part}" for part in ("query", "key", "value"))
    registers = (Key("registers", ("embeddings.register_tokens",), TOKENS),) if config.registers else ()
    return (
        Key("patch.weight", ("embeddings.patch_embeddings.projection.weight",), PATCH),
        Key("patch.bias", ("embeddings.patch_embeddings.projection.bias",)),
        Key("class_token", ("embeddings.cls_token",), TOKEN),
        *registers,
        Key("position", ("embeddings.position_embeddings",), TOKENS),
        *norm("blocks.norm1", f"{_BLOCK}.norm1"),
        *linear("blocks.attention.qkv", *qkv, biased=qkv if config.qkv_bias == "all" else ()),
        *linear("blocks.attention.out", f"{_BLOCK}.attention.output.dense"),
        Key("blocks.scale1", (f"{_BLOCK}.layer_scale1.lambda1",)),
        *norm("blocks.norm2", f"{_BLOCK}.norm2"),
        *linear("blocks.mlp.up", f"{_BLOCK}.mlp.{up}"),
        *linear("blocks.mlp.down", f"{_BLOCK}.mlp.{down}"),
        Key("blocks.scale2", (f"{_BLOCK}.layer_scale2.lambda1",)),
        *norm("norm_post", "layernorm"),
    )


def _read(path: Path, described: dict[str, Any], _: Mapping[str, tuple[int, ...]]) -> EncoderConfig:
    """At the size of the stored positions."""
    registers = described["model_type"] == "dinov2_with_registers"
    data = {**_DEFAULTS, "patch_size": 16 if registers else 14, "num_register_tokens": 4, **described}
    if data["hidden_act"] != "gelu" or data["num_channels"] != 3:
        raise EncoderError(
            f"`{path}` has activation {data['hidden_act']!r} and {data['num_channels']} channels; expected gelu, and 3."
        )
    width = int(data["hidden_size"])
    hidden = int(width * data["mlp_ratio"])
    tower = ViTConfig(
        size=square(data["image_size"], path),
        patch=square(data["patch_size"], path),
        width=width,
        layers=int(data["num_hidden_layers"]),
        heads=int(data["num_attention_heads"]),
        # Two thirds, rounded up to a multiple of 8: as many parameters as the plain MLP has.
        hidden=-(int(hidden * 2 / 3) // -8) * 8 if data["use_swiglu_ffn"] else hidden,
        activation="swiglu" if data["use_swiglu_ffn"] else "gelu",
        eps=float(data["layer_norm_eps"]),
        patch_bias=True,
        registers=int(data["num_register_tokens"]) if registers else 0,
        resampling="bicubic_antialias" if registers else "bicubic",
        qkv_bias="all" if data["qkv_bias"] else "none",
        layer_scale=True,
        norm_pre=False,
    )
    preprocess = resized(from_transformers(path), tower.size)
    return EncoderConfig(tower, "class", preprocess, ProjectionConfig("identity", width, width))


LAYOUT = Layout(
    files=("config.json", "model.safetensors"),
    matches=lambda described: described.get("model_type") in ("dinov2", "dinov2_with_registers"),
    prefixes=("", "dinov2.", "dinov2_with_registers."),
    anchor="embeddings.cls_token",
    ignored=("*embeddings.mask_token", "classifier.*"),
    keys=_keys,
    read=_read,
    prepared=from_transformers,  # positions for 518 px, a processor for 224: the reference interpolates always
    unused=lambda config: {"embeddings.mask_token": (1, config.width)},
)
