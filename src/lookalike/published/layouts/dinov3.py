"""DINOv3's vision transformers in the layout of transformers: DINOv3ViTModel."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, Shapes, ViTConfig
from lookalike.published.layouts.rows import linear, norm
from lookalike.published.processors import from_transformers, square
from lookalike.published.table import PATCH, TOKEN, TOKENS, Key, Layout

_BLOCK = "layer.{}"

# What a config leaves out has these values (DINOv3ViTConfig of transformers).
_DEFAULTS = {
    "patch_size": 16,
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "rope_theta": 100.0,
    "num_channels": 3,
    "query_bias": True,
    "key_bias": False,
    "value_bias": True,
    "proj_bias": True,
    "mlp_bias": True,
    "use_gated_mlp": False,
    "num_register_tokens": 0,
}
_Biases = Literal["all", "query_value", "none"]
_BIASES: dict[tuple[bool, bool, bool], _Biases] = {
    (True, True, True): "all",
    (True, False, True): "query_value",
    (False, False, False): "none",
}


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


def _read(path: Path, described: dict[str, Any], _: Mapping[str, tuple[int, ...]]) -> EncoderConfig:
    data = {**_DEFAULTS, **described}
    _refuse(path, data)
    preprocess = from_transformers(path)
    width = int(data["hidden_size"])
    tower = ViTConfig(
        size=preprocess.size,  # places are computed, so no tensor depends on it
        patch=square(data["patch_size"], path),
        width=width,
        layers=int(data["num_hidden_layers"]),
        heads=int(data["num_attention_heads"]),
        hidden=int(data["intermediate_size"]),
        activation="swiglu" if data["use_gated_mlp"] else "gelu",
        eps=float(data["layer_norm_eps"]),
        patch_bias=True,
        registers=int(data["num_register_tokens"]),
        positions="none",
        rope="centred",
        rope_theta=float(data["rope_theta"]),
        qkv_bias=_BIASES[data["query_bias"], data["key_bias"], data["value_bias"]],
        layer_scale=True,
        norm_pre=False,
    )
    return EncoderConfig(tower, "class", preprocess, ProjectionConfig("identity", width, width))


def _refuse(path: Path, data: dict[str, Any]) -> None:
    """EncoderError if the tower is another one than ours."""
    expected = {
        "hidden_act": "silu" if data["use_gated_mlp"] else "gelu",
        "num_channels": 3,
        "proj_bias": True,
        "mlp_bias": True,
    }
    foreign = [f"{key}={data[key]!r}" for key, value in expected.items() if data[key] != value]
    biases = data["query_bias"], data["key_bias"], data["value_bias"]
    if biases not in _BIASES:
        foreign.append(f"biases of query, key and value {biases}")
    if foreign:
        raise EncoderError(f"The tower of `{path}` is not one that is known: {', '.join(foreign)}.")


def _unused(config: ViTConfig) -> Shapes:
    """The mask, and registers where there are none: the class has the tensor all the same, of no rows."""
    mask: Shapes = {"embeddings.mask_token": (1, 1, config.width)}
    return mask if config.registers else mask | {"embeddings.register_tokens": (1, 0, config.width)}


LAYOUT = Layout(
    files=("config.json", "model.safetensors"),
    matches=lambda described: described.get("model_type") == "dinov3_vit",
    prefixes=("",),
    anchor="embeddings.cls_token",
    ignored=("embeddings.mask_token",),
    keys=_keys,
    read=_read,
    renamed=(("model.layer.", "layer."),),
    unused=_unused,
)
