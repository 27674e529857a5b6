"""SigLIP's image towers in the layout of transformers: SiglipModel and SiglipVisionModel, which the checkpoints of
SigLIP 2 with a fixed resolution use too (`LAYOUT`); Siglip2Model and Siglip2VisionModel (`NAFLEX`).
"""

from math import isqrt
from pathlib import Path
from typing import Any

from lookalike.core.errors import EncoderError
from lookalike.imaging.preprocess import Preprocess
from lookalike.published.fields import Field
from lookalike.published.layout import part_of, token_features, transformers
from lookalike.published.processors import square, three
from lookalike.published.stored import described_by
from lookalike.published.table import MATRIX, PATCH, TOKEN, Form, Key, linear, norm
from lookalike.towers import ViTConfig

_BLOCK = "encoder.layers.{}"
_QKV = ("q_proj", "k_proj", "v_proj")
_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "quick_gelu": "quick_gelu"}

# The defaults are those of SiglipVisionConfig and Siglip2VisionConfig of transformers.
_SIZE = Field("size", "image_size", 224, square)
_FIELDS = (
    Field("patch", "patch_size", 16, square),
    Field("width", "hidden_size", 768),
    Field("layers", "num_hidden_layers", 12),
    Field("heads", "num_attention_heads", 12),
    Field("hidden", "intermediate_size", 3072),
    Field("activation", "hidden_act", "gelu_pytorch_tanh", _ACTIVATIONS),
    Field("eps", "layer_norm_eps", 1e-6),
    Field(
        *("pool_heads", "vision_use_head", True),
        back=lambda data: data["num_attention_heads"] if data["vision_use_head"] else None,
        there=lambda tower: tower.pool_heads is not None,
    ),
    Field(None, "num_channels", 3),
)
# For squares, with as many patches as there are positions.
_PATCHES = Field("size", "num_patches", 256, back=lambda data: isqrt(data["num_patches"]) * data["patch_size"])


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


def _prepare_naflex(path: Path, _: dict[str, Any], tower: ViTConfig) -> Preprocess:
    """The published processor keeps the image's shape and cuts as many patches from it as fit; here the image is
    brought to a square first, so for a square image the two agree.
    """
    file = path / "preprocessor_config.json"
    data = described_by(file) if file.exists() else {}
    faults = [f"lacks {key}" for key in ("image_mean", "image_std", "resample") if key not in data]
    faults += [f"does not {key}" for key in ("resize", "rescale", "normalize") if not data.get(f"do_{key}", True)]
    if data.get("resample", 2) not in (2, 3):
        faults.append(f"has filter {data['resample']}, not 2 or 3")
    if abs(data.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        faults.append(f"rescales by {data['rescale_factor']}, not 1/255")
    if faults:
        raise EncoderError(f"The preprocessing of `{path}` (`preprocessor_config.json`) {', '.join(faults)}.")
    mean, std = three(data["image_mean"], path), three(data["image_std"], path)
    return Preprocess(tower.size, "squash", tower.size, "bilinear" if data["resample"] == 2 else "bicubic", mean, std)


_FACTS: dict[str, Any] = {
    "fixed": {"patch_bias": True, "class_token": False, "positions": "patches", "norm_pre": False},
    "told": part_of("vision_config"),
    "pooling": lambda tower: "attention" if tower.pool_heads else "mean",
    "anchor": "embeddings.patch_embedding.weight",
    "prefixes": ("vision_model.", ""),
    "ignored": ("text_model.*", "logit_scale", "logit_bias", "*embeddings.position_ids"),
    "pairs": True,
}
LAYOUT = transformers(
    ViTConfig,
    ("siglip", "siglip_vision_model"),
    lambda _: ("siglip_vision_model", "SiglipVisionModel"),
    (_SIZE, *_FIELDS),
    keys=_keys,
    features=token_features,
    **_FACTS,
)
NAFLEX = transformers(
    ViTConfig,
    ("siglip2", "siglip2_vision_model"),
    lambda _: ("siglip2_vision_model", "Siglip2VisionModel"),
    (_PATCHES, *_FIELDS),
    keys=lambda config: _keys(config, MATRIX),
    prepare=_prepare_naflex,
    describe=lambda _: None,  # such a tower is written as the other
    note="takes images in their own shape (NaFlex); here they are squashed to a square",
    **_FACTS,
)
