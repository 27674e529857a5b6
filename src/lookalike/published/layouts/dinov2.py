"""DINOv2 in the layout of transformers: Dinov2Model and Dinov2WithRegistersModel, alone or below a classifier."""

from typing import Any

import numpy as np

from lookalike.published.fields import Field
from lookalike.published.layout import Found, token_features, transformers
from lookalike.published.processors import square
from lookalike.published.table import PATCH, TOKEN, TOKENS, Key, linear, norm
from lookalike.towers import ViTConfig

_BLOCK = "encoder.layer.{}"
_REGISTERS = "dinov2_with_registers"


def _hidden(data: dict[str, Any]) -> int:
    """With a gate, two thirds, rounded up to a multiple of 8: as many parameters as the plain MLP has."""
    hidden = int(data["hidden_size"] * data["mlp_ratio"])
    return -(int(hidden * 2 / 3) // -8) * 8 if data["use_swiglu_ffn"] == "swiglu" else hidden


def _ratio(tower: ViTConfig) -> int:
    if tower.activation == "swiglu":
        return 4
    if tower.hidden % tower.width:
        raise LookupError
    return tower.hidden // tower.width


# The defaults are those of Dinov2Config and Dinov2WithRegistersConfig of transformers.
FIELDS = (
    Field("size", "image_size", 224, square),
    Field("patch", "patch_size", 14, square),
    Field("width", "hidden_size", 768),
    Field("layers", "num_hidden_layers", 12),
    Field("heads", "num_attention_heads", 12),
    Field("registers", "num_register_tokens", 0),
    Field("eps", "layer_norm_eps", 1e-6),
    Field("qkv_bias", "qkv_bias", True, {True: "all", False: "none"}),
    Field("activation", "use_swiglu_ffn", False, {False: "gelu", True: "swiglu"}),
    Field(None, "hidden_act", "gelu"),
    Field(None, "num_channels", 3),
)
_WIDTH = Field("hidden", "mlp_ratio", 4.0, back=_hidden, there=_ratio)
FIXED = {"patch_bias": True, "layer_scale": True, "norm_pre": False}


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


def _told(described: dict[str, Any], _: Found) -> dict[str, Any]:
    """The two classes differ in what they take where a config is silent."""
    if described["model_type"] == _REGISTERS:
        return {"patch_size": 16, "num_register_tokens": 4, **described}
    return {**described, "num_register_tokens": 0}


def _named(tower: ViTConfig) -> tuple[str, str]:
    return (_REGISTERS, "Dinov2WithRegistersModel") if tower.registers else ("dinov2", "Dinov2Model")


LAYOUT = transformers(
    ViTConfig,
    ("dinov2", _REGISTERS),
    _named,
    (*FIELDS, _WIDTH),
    fixed=FIXED,
    seen=lambda shapes: {"resampling": "bicubic_antialias" if "embeddings.register_tokens" in shapes else "bicubic"},
    told=_told,
    keys=_keys,
    prefixes=("", "dinov2.", "dinov2_with_registers."),
    anchor="embeddings.cls_token",
    ignored=("*embeddings.mask_token", "classifier.*"),
    beside=lambda tower: {"embeddings.mask_token": np.zeros((1, tower.width), np.float32)},
    features=token_features,
    resizes=True,  # positions for 518 px, a processor for 224
)
