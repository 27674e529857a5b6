"""SigLIP's image towers in the layout of transformers: SiglipModel and SiglipVisionModel, which the checkpoints of
SigLIP 2 with a fixed resolution use too (`LAYOUT`); Siglip2Model and Siglip2VisionModel (`NAFLEX`).
"""

from collections.abc import Mapping
from dataclasses import replace
from math import isqrt
from pathlib import Path
from typing import Any

from lookalike.core.errors import EncoderError
from lookalike.core.files import read_json
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, ViTConfig
from lookalike.imaging.preprocess import Preprocess
from lookalike.published.layouts.rows import linear, norm
from lookalike.published.processors import from_transformers, square
from lookalike.published.table import MATRIX, PATCH, TOKEN, Form, Key, Layout

_BLOCK = "encoder.layers.{}"
_QKV = ("q_proj", "k_proj", "v_proj")

# What a config leaves out has these values (SiglipVisionConfig and Siglip2VisionConfig of transformers).
_DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 16,
    "num_patches": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "vision_use_head": True,
}
_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "quick_gelu": "quick_gelu"}


def _keys(config: ViTConfig, patch: Form = PATCH) -> tuple[Key, ...]:
    return (
        Key("patch.weight", ("embeddings.patch_embedding.weight",), patch),
        Key("patch.bias", ("embeddings.patch_embedding.bias",)),
        Key("position", ("embeddings.position_embedding.weight",)),
        *norm("blocks.norm1", f"{_BLOCK}.layer_norm1"),
        *linear("blocks.attention.qkv", *(f"{_BLOCK}.self_attn.{part}" for part in _QKV)),
        *linear("blocks.attention.out", f"{_BLOCK}.self_attn.out_proj"),
        *norm("blocks.norm2", f"{_BLOCK}.layer_norm2"),
        *linear("blocks.mlp.up", f"{_BLOCK}.mlp.fc1"),
        *linear("blocks.mlp.down", f"{_BLOCK}.mlp.fc2"),
        *norm("norm_post", "post_layernorm"),
        *(_pool() if config.pool_heads else ()),
    )


def _pool() -> tuple[Key, ...]:
    return (
        Key("pool.probe", ("head.probe",), TOKEN),
        Key("pool.attention.qkv.weight", ("head.attention.in_proj_weight",), MATRIX),
        Key("pool.attention.qkv.bias", ("head.attention.in_proj_bias",)),
        *linear("pool.attention.out", "head.attention.out_proj"),
        *norm("pool.norm", "head.layernorm"),
        *linear("pool.mlp.up", "head.mlp.fc1"),
        *linear("pool.mlp.down", "head.mlp.fc2"),
    )


def _tower(path: Path, described: dict[str, Any], size: int | None = None) -> ViTConfig:
    """The tower of a config; `size` in pixels, or what the config says."""
    data = {**_DEFAULTS, **(described.get("vision_config", described))}
    if data["hidden_act"] not in _ACTIVATIONS or data["num_channels"] != 3:
        raise EncoderError(
            f"`{path}` has activation {data['hidden_act']!r} and {data['num_channels']} channels; "
            f"expected {', '.join(_ACTIVATIONS)}, and 3."
        )
    activation: Any = _ACTIVATIONS[data["hidden_act"]]
    patch = square(data["patch_size"], path)
    return ViTConfig(
        size=size or square(data["image_size"], path),
        patch=patch,
        width=int(data["hidden_size"]),
        layers=int(data["num_hidden_layers"]),
        heads=int(data["num_attention_heads"]),
        hidden=int(data["intermediate_size"]),
        activation=activation,
        eps=float(data["layer_norm_eps"]),
        patch_bias=True,
        class_token=False,
        positions="patches",
        norm_pre=False,
        pool_heads=int(data["num_attention_heads"]) if data["vision_use_head"] else None,
    )


def _encoder(tower: ViTConfig, preprocess: Preprocess) -> EncoderConfig:
    projection = ProjectionConfig("identity", tower.features, tower.features)
    return EncoderConfig(tower, "attention" if tower.pool_heads else "mean", preprocess, projection)


def _read(path: Path, described: dict[str, Any], _: Mapping[str, tuple[int, ...]]) -> EncoderConfig:
    return _encoder(_tower(path, described), from_transformers(path))


def _read_naflex(path: Path, described: dict[str, Any], _: Mapping[str, tuple[int, ...]]) -> EncoderConfig:
    """For squares, with as many patches as there are positions.

    The published processor keeps the image's shape and cuts as many patches from it as fit; here the image is
    brought to a square first, so for a square image the two agree.
    """
    vision = {**_DEFAULTS, **described.get("vision_config", described)}
    size = isqrt(int(vision["num_patches"])) * square(vision["patch_size"], path)
    tower = _tower(path, described, size)
    data = read_json(path / "preprocessor_config.json") if (path / "preprocessor_config.json").exists() else {}
    faults = [f"lacks {key}" for key in ("image_mean", "image_std", "resample") if key not in data]
    faults += [f"does not {key}" for key in ("resize", "rescale", "normalize") if not data.get(f"do_{key}", True)]
    if data.get("resample", 2) not in (2, 3):
        faults.append(f"has filter {data['resample']}, not 2 or 3")
    if abs(data.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        faults.append(f"rescales by {data['rescale_factor']}, not 1/255")
    if faults:
        raise EncoderError(f"The preprocessing of `{path}` (`preprocessor_config.json`) {', '.join(faults)}.")
    filter_: Any = "bilinear" if data["resample"] == 2 else "bicubic"
    mean, std = tuple(data["image_mean"]), tuple(data["image_std"])
    return _encoder(tower, Preprocess(size, "squash", size, filter_, mean, std))


LAYOUT = Layout(
    files=("config.json", "model.safetensors"),
    matches=lambda described: described.get("model_type") in ("siglip", "siglip_vision_model"),
    prefixes=("vision_model.", ""),
    anchor="embeddings.patch_embedding.weight",
    ignored=(
        "text_model.*",
        "logit_scale",
        "logit_bias",
        "vision_model.embeddings.position_ids",
        "embeddings.position_ids",
    ),
    keys=_keys,
    read=_read,
)
NAFLEX = replace(
    LAYOUT,
    matches=lambda described: described.get("model_type") in ("siglip2", "siglip2_vision_model"),
    keys=lambda config: _keys(config, MATRIX),
    read=_read_naflex,
)
