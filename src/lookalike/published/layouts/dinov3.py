"""DINOv3's vision transformers in the layout of transformers: DINOv3ViTModel."""

from typing import Any

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import Tensors
from lookalike.published.fields import Field
from lookalike.published.layout import token_features, transformers
from lookalike.published.processors import square
from lookalike.published.table import PATCH, TOKEN, TOKENS, Key, linear, norm
from lookalike.towers import ViTConfig

_BLOCK = "layer.{}"
_BIASES = {(True, True, True): "all", (True, False, True): "query_value", (False, False, False): "none"}


def _biases(data: dict[str, Any]) -> str:
    told = data["query_bias"], data["key_bias"], data["value_bias"]
    if told not in _BIASES:
        raise EncoderError(f"biases of query, key and value {told}; expected one of {', '.join(map(str, _BIASES))}.")
    return _BIASES[told]


def _activation(data: dict[str, Any]) -> str:
    expected = "silu" if data["use_gated_mlp"] else "gelu"
    if data["hidden_act"] != expected:
        raise EncoderError(f"hidden_act={data['hidden_act']!r}; expected {expected}.")
    return "swiglu" if data["use_gated_mlp"] else "gelu"


# The defaults are those of DINOv3ViTConfig of transformers.
_FIELDS = (
    Field("size", "image_size", 224, square),
    Field("patch", "patch_size", 16, square),
    Field("width", "hidden_size", 384),
    Field("layers", "num_hidden_layers", 12),
    Field("heads", "num_attention_heads", 6),
    Field("hidden", "intermediate_size", 1536),
    Field("eps", "layer_norm_eps", 1e-5),
    Field("rope_theta", "rope_theta", 100.0),
    Field("registers", "num_register_tokens", 0),
    Field("activation", "use_gated_mlp", False, back=_activation, there=lambda tower: tower.activation == "swiglu"),
    Field(None, "hidden_act", "gelu", there=lambda tower: "silu" if tower.activation == "swiglu" else "gelu"),
    Field("qkv_bias", "query_bias", True, back=_biases, there=lambda tower: tower.qkv_bias != "none"),
    Field(None, "key_bias", False, there=lambda tower: tower.qkv_bias == "all"),
    Field(None, "value_bias", True, there=lambda tower: tower.qkv_bias != "none"),
    Field(None, "proj_bias", True),
    Field(None, "mlp_bias", True),
    Field(None, "num_channels", 3),
)


def _keys(config: ViTConfig) -> tuple[Key, ...]:
    query, key, value = (f"{_BLOCK}.attention.{part}_proj" for part in "qkv")
    biased = {"all": (query, key, value), "query_value": (query, value), "none": ()}[config.qkv_bias]
    up = ("gate_proj", "up_proj") if config.activation == "swiglu" else ("up_proj",)
    registers = (Key("registers", ("embeddings.register_tokens",), TOKENS),) if config.registers else ()
    return (
        Key("patch.weight", ("embeddings.patch_embeddings.weight",), PATCH),
        Key("patch.bias", ("embeddings.patch_embeddings.bias",)),
        Key("class_token", ("embeddings.cls_token",), TOKEN),
        *registers,
        *norm("blocks.norm1", f"{_BLOCK}.norm1"),
        *linear("blocks.attention.qkv", query, key, value, biased=biased),
        *linear("blocks.attention.out", f"{_BLOCK}.attention.o_proj"),
        Key("blocks.scale1", (f"{_BLOCK}.layer_scale1.lambda1",)),
        *norm("blocks.norm2", f"{_BLOCK}.norm2"),
        *linear("blocks.mlp.up", *(f"{_BLOCK}.mlp.{part}" for part in up)),
        *linear("blocks.mlp.down", f"{_BLOCK}.mlp.down_proj"),
        Key("blocks.scale2", (f"{_BLOCK}.layer_scale2.lambda1",)),
        *norm("norm_post", "norm"),
    )


def _beside(tower: ViTConfig) -> Tensors:
    """The mask, and registers where there are none: the class has the tensor all the same, of no rows."""
    mask = {"embeddings.mask_token": np.zeros((1, 1, tower.width), np.float32)}
    none = {"embeddings.register_tokens": np.zeros((1, 0, tower.width), np.float32)}
    return mask if tower.registers else mask | none


LAYOUT = transformers(
    ViTConfig,
    ("dinov3_vit",),
    lambda _: ("dinov3_vit", "DINOv3ViTModel"),
    _FIELDS,
    fixed={"patch_bias": True, "positions": "none", "rope": "centred", "layer_scale": True, "norm_pre": False},
    keys=_keys,
    anchor="embeddings.cls_token",
    ignored=("embeddings.mask_token",),
    renamed=(("model.layer.", "layer."),),
    beside=_beside,
    features=token_features,
    resizes=True,  # places are computed, so no tensor depends on the size
)
