"""Vision transformers in the layouts of transformers: ViT, DeiT, CLIP, SigLIP 1 and 2, DINOv2 and 3, TIPS v2.

Classes of transformers with or without what stands behind the tower, of which CLIP's projection alone is read.
"""

from math import isqrt
from typing import Any

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import Tensors
from lookalike.published.layout import Found, Layout, transformers
from lookalike.published.processors import from_transformers, square
from lookalike.published.stored import part
from lookalike.published.table import BARE, MATRIX, TOKENS, Field, Form, Names, block, pool
from lookalike.towers import ViTConfig

_WORDS = {"vocabulary": "vocab_size", "context": "max_position_embeddings", "size": "image_size", "patch": "patch_size"}
_WORDS |= {"width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads"}
_WORDS |= {"hidden": "intermediate_size", "activation": "hidden_act", "eps": "layer_norm_eps"}
_WORDS |= {"registers": "num_register_tokens", "rope_theta": "rope_theta", "qkv_bias": "qkv_bias"}
_GELU = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "quick_gelu": "quick_gelu"}
_FORMS: dict[str, Any] = {"size": square, "patch": square, "activation": _GELU}
_FORMS |= {"qkv_bias": {True: "all", False: "none"}}


def usual(**defaults: Any) -> tuple[Field, ...]:
    """Rows of our fields that all classes call alike, with what each class means where a config leaves one out."""
    return tuple(Field(ours, _WORDS[ours], value, _FORMS.get(ours)) for ours, value in defaults.items())


CLIP_BLOCKS = block(
    *("encoder.layers.{}", "layer_norm1|layer_norm2", "self_attn.(q|k|v)_proj", "self_attn.out_proj"),
    *("mlp.fc1", "mlp.fc2"),
)
VIT_BLOCK = ("attention.output.dense", "intermediate.dense", "output.dense")
"""The matrices behind attention and of the MLP."""
_OUTSIDE = {"patch": "embeddings.patch_embeddings.projection", "class_token": "embeddings.cls_token"}
_OUTSIDE |= {"position": "embeddings.position_embeddings", "norm_post": "layernorm"}
_QKV = "attention.attention.(query|key|value)"
_PATCHED = {"patch_bias": True, "norm_pre": False}
_TOKENS = {"class": "pooler_output", "mean": "last_hidden_state[:, {prefix}:].mean(dim=1)"}
"""Behind the last norm, which the classes have in both of their outputs."""

# ------------------------------------------------------------------------------------------ ViT and DeiT


def _vit(kind: str, name: str, **facts: Any) -> Layout:
    """The features are the class token behind the last norm, as the classifier reads it; the pooler is left out.

    google/vit-base-patch16-224, facebook/dino-vitb16 and facebook/deit-tiny-patch16-224 are published as a ViT.
    """
    fields = usual(size=224, patch=16, width=768, layers=12, heads=12, hidden=3072, activation="gelu", eps=1e-12)
    return transformers(
        ViTConfig,
        {kind: name},
        (*fields, *usual(qkv_bias=True)),
        outputs=_TOKENS | {"class": "last_hidden_state[:, 0]"},
        prefixes=("", f"{kind}."),
        anchor="embeddings.cls_token",
        **facts,
    )


def _without_place(tensors: Tensors) -> Tensors:
    """Registers have no positions: that of the distillation token is added to the token itself."""
    token, position = tensors["registers"], tensors["position"]
    return tensors | {"registers": token + position[1:2], "position": np.delete(position, 1, axis=0)}


_NAMES = _OUTSIDE | block("encoder.layer.{}", "layernorm_before|layernorm_after", _QKV, *VIT_BLOCK)
VIT = _vit("vit", "ViTModel", fixed=_PATCHED, names=_NAMES)
DEIT = _vit(
    *("deit", "DeiTModel"),
    fixed=_PATCHED | {"registers": 1},
    names=_NAMES | {"registers": "embeddings.distillation_token"},
    forms={"position": Form(TOKENS.ours, lambda a: np.insert(a, 1, 0, axis=0)[None], axes=3)},
    joined=_without_place,
)

# --------------------------------------------------------------------------------------- CLIP and SigLIP

_PAIRS: dict[str, Any] = {
    "told": lambda described, _: part(described, "vision_config") or described,
    "prefixes": ("vision_model.", ""),
    "ignored": ("text_model.*", "text_projection.weight", "logit_scale", "logit_bias"),
    "pairs": True,
}
_PAIRED = {"position": "embeddings.position_embedding.weight", **CLIP_BLOCKS, "norm_post": "post_layernorm"}
_CLIP = _PAIRED | {"class_token": "embeddings.class_embedding", "norm_pre": "pre_layrnorm"}  # so spelt in all files
CLIP = transformers(
    ViTConfig,
    {"clip": "CLIPModel", "clip_vision_model": "CLIPVisionModel"},
    (
        *usual(size=224, patch=32, width=768, layers=12, heads=12, hidden=3072, activation="quick_gelu", eps=1e-5),
        Field(None, "projection_dim", 512, there=lambda tower: tower.features),
    ),
    seen=lambda shapes: {"head": shapes.get("visual_projection.weight", (None,))[0]},
    names=_CLIP | {"patch.weight": "embeddings.patch_embedding.weight", "head.weight": "/visual_projection.weight"},
    forms=BARE,
    anchor="embeddings.class_embedding",
    outputs={"class": "pooler_output"},
    **_PAIRS,
)


def _siglip(kind: str, name: str, size: Field, **facts: Any) -> Layout:
    fields = (
        size,
        *usual(patch=16, width=768, layers=12, heads=12, hidden=3072, activation="gelu_pytorch_tanh", eps=1e-6),
        Field(
            *("pool_heads", "vision_use_head", True),
            back=lambda data: data["num_attention_heads"] if data["vision_use_head"] else None,
            there=lambda tower: tower.pool_heads is not None,
        ),
    )
    return transformers(
        ViTConfig,
        {kind: f"{name}Model", f"{kind}_vision_model": f"{name}VisionModel"},
        fields,
        fixed=_PATCHED | {"class_token": False, "positions": "patches"},
        names={
            **_PAIRED,
            "patch": "embeddings.patch_embedding",
            **pool("head", "probe", "attention.in_proj_", "attention.out_proj", "layernorm"),
        },
        anchor="embeddings.patch_embedding.weight",
        outputs=_TOKENS | {"attention": "pooler_output"},
        **_PAIRS,
        **facts,
    )


# The checkpoints of SigLIP 2 with a fixed resolution are in the first form too; the second is for squares here, with as
# many patches as there are positions.
SIGLIP = _siglip("siglip", "Siglip", *usual(size=224), forms=BARE)
NAFLEX = _siglip(
    *("siglip2", "Siglip2"),
    Field("size", "num_patches", 256, back=lambda data: isqrt(data["num_patches"]) * data["patch_size"]),
    forms=BARE | {"patch.weight": MATRIX},
    prepare=lambda path, _, tower: from_transformers(path, tower.size),
    describe=lambda _: None,  # such a tower is written as the other
    note="takes images in their own shape (NaFlex); here they are squashed to a square",
)

# ----------------------------------------------------------------------------------------- DINO and TIPS

_REGISTERS = "dinov2_with_registers"


def _hidden(data: dict[str, Any]) -> int:
    """With a gate, two thirds, rounded up to a multiple of 8: as many parameters as the plain MLP has."""
    hidden = int(data["hidden_size"] * data["mlp_ratio"])
    return -(int(hidden * 2 / 3) // -8) * 8 if data["use_swiglu_ffn"] == "swiglu" else hidden


def _ratio(tower: ViTConfig) -> int:
    if tower.activation != "swiglu" and tower.hidden % tower.width:
        raise LookupError
    return 4 if tower.activation == "swiglu" else tower.hidden // tower.width


def _dinov2(tower: ViTConfig) -> Names:
    mlp = ("mlp.weights_in", "mlp.weights_out") if tower.activation == "swiglu" else ("mlp.fc1", "mlp.fc2")
    parts = ("norm1|norm2", _QKV, "attention.output.dense", *mlp, "layer_scale#.lambda1")
    return {**_OUTSIDE, "registers": "embeddings.register_tokens", **block("encoder.layer.{}", *parts)}


def _dinov2_told(described: dict[str, Any], _: Found) -> dict[str, Any]:
    """The two classes differ in what they take where a config is silent."""
    if described["model_type"] == _REGISTERS:
        return {"patch_size": 16, "num_register_tokens": 4, **described}
    return {**described, "num_register_tokens": 0}


_DINO_FIXED = _PATCHED | {"layer_scale": True}
_DINOV2_FIELDS = (
    *usual(size=224, patch=14, width=768, layers=12, heads=12, registers=0, eps=1e-6, qkv_bias=True),
    Field("activation", "use_swiglu_ffn", False, {False: "gelu", True: "swiglu"}),
    Field(None, "hidden_act", "gelu"),
)
DINOV2 = transformers(
    ViTConfig,
    {"dinov2": "Dinov2Model", _REGISTERS: "Dinov2WithRegistersModel"},
    (*_DINOV2_FIELDS, Field("hidden", "mlp_ratio", 4.0, back=_hidden, there=_ratio)),
    written=lambda tower: _REGISTERS if tower.registers else "dinov2",
    fixed=_DINO_FIXED,
    seen=lambda shapes: {"resampling": "bicubic_antialias" if "embeddings.register_tokens" in shapes else "bicubic"},
    told=_dinov2_told,
    outputs=_TOKENS,
    names=_dinov2,
    prefixes=("", "dinov2.", "dinov2_with_registers."),
    anchor="embeddings.cls_token",
    beside=lambda tower: {"embeddings.mask_token": np.zeros((1, tower.width), np.float32)},
    resizes=True,  # positions for 518 px, a processor for 224
)

_BIASES = {(True, True, True): "all", (True, False, True): "query_value", (False, False, False): "none"}


def _biases(data: dict[str, Any]) -> str:
    told = data["query_bias"], data["key_bias"], data["value_bias"]
    if told not in _BIASES:
        raise EncoderError(f"biases of query, key and value {told}; expected one of {', '.join(map(str, _BIASES))}.")
    return _BIASES[told]


def _activation(data: dict[str, Any]) -> str:
    expected, ours = ("silu", "swiglu") if data["use_gated_mlp"] else ("gelu", "gelu")
    if data["hidden_act"] != expected:
        raise EncoderError(f"hidden_act={data['hidden_act']!r}; expected {expected}.")
    return ours


def _dinov3(tower: ViTConfig) -> Names:
    up = "mlp.(gate|up)_proj" if tower.activation == "swiglu" else "mlp.up_proj"
    parts = ("attention.(q|k|v)_proj", "attention.o_proj", up, "mlp.down_proj", "layer_scale#.lambda1")
    outside = {"patch": "embeddings.patch_embeddings", "class_token": "embeddings.cls_token", "norm_post": "norm"}
    return {**outside, "registers": "embeddings.register_tokens", **block("layer.{}", "norm1|norm2", *parts)}


def _dinov3_beside(tower: ViTConfig) -> Tensors:
    """The mask, and registers where there are none: the class has the tensor all the same, of no rows."""
    mask = {"embeddings.mask_token": np.zeros((1, 1, tower.width), np.float32)}
    none = {"embeddings.register_tokens": np.zeros((1, 0, tower.width), np.float32)}
    return mask if tower.registers else mask | none


DINOV3 = transformers(
    ViTConfig,
    {"dinov3_vit": "DINOv3ViTModel"},
    (
        *usual(size=224, patch=16, width=384, layers=12, heads=6, hidden=1536, eps=1e-5, rope_theta=100.0, registers=0),
        Field("activation", "use_gated_mlp", False, back=_activation, there=lambda tower: tower.activation == "swiglu"),
        Field(None, "hidden_act", "gelu", there=lambda tower: "silu" if tower.activation == "swiglu" else "gelu"),
        Field("qkv_bias", "query_bias", True, back=_biases, there=lambda tower: tower.qkv_bias != "none"),
        Field(None, "key_bias", False, there=lambda tower: tower.qkv_bias == "all"),
        Field(None, "value_bias", True, there=lambda tower: tower.qkv_bias != "none"),
        Field(None, "proj_bias", True),
        Field(None, "mlp_bias", True),
    ),
    fixed=_DINO_FIXED | {"positions": "none", "rope": "centred"},
    outputs=_TOKENS,
    names=_dinov3,
    anchor="embeddings.cls_token",
    renamed=(("model.layer.", "layer."),),
    beside=_dinov3_beside,
    resizes=True,  # places are computed, so no tensor depends on the size
)


def _tips(tower: ViTConfig) -> Names:
    mlp = ("mlp.w12", "mlp.w3") if tower.activation == "swiglu" else ("mlp.fc1", "mlp.fc2")
    outside = {"patch": "patch_embed.proj", "class_token": "cls_token", "position": "pos_embed", "norm_post": "norm"}
    blocks = block("blocks.{}", "norm1|norm2", "attn.qkv", "attn.proj", *mlp, "ls#.gamma")
    return {**outside, "registers": "register_tokens", **blocks}


def _tips_told(described: dict[str, Any], shapes: Found) -> dict[str, Any]:
    """A config as transformers writes it; or that of the first published files, which came with their own code."""
    data = {"image_size": 448, "num_register_tokens": 1}  # of Tipsv2VisionConfig, where a config is silent
    if "vision_fn" not in described:
        return data | (part(described, "vision_config") or described)
    width = int(described["embed_dim"])
    return data | {
        "hidden_size": width,
        "num_hidden_layers": len({name.split(".")[1] for name in shapes if name.startswith("blocks.")}),
        "num_attention_heads": 16 if described["vision_fn"] == "vit_so400m" else width // 64,
        "image_size": described["img_size"],
        "patch_size": described["patch_size"],
        "num_register_tokens": described["num_register_tokens"],
        "use_swiglu_ffn": described["ffn_layer"] == "swiglu",
    }


# A DINOv2 with one register, which is a second class token that was taught by longer captions. Images enter as values
# of 0 to 1, without a mean or a deviation.
TIPS = transformers(
    ViTConfig,
    {"tipsv2": "Tipsv2Model", "tipsv2_vision_model": "Tipsv2VisionModel"},
    _DINOV2_FIELDS,
    fixed=_DINO_FIXED | {"resampling": "bilinear_antialias"},
    seen=lambda s: {"hidden": (s.get("blocks.0.mlp.w3.weight") or s.get("blocks.0.mlp.fc2.weight") or (0,))[-1]},
    told=_tips_told,
    names=_tips,
    prefixes=("vision_encoder.", ""),
    anchor="patch_embed.proj.weight",
    ignored=("text_encoder.*", "temperature", "*mask_token"),
    renamed=((".mlp.c_fc.", ".mlp.fc1."), (".mlp.c_proj.", ".mlp.fc2.")),  # as transformers writes them
    beside=lambda tower: {"mask_token": np.zeros((1, tower.width), np.float32)},
    describe=lambda _: None,  # such a tower is written as a DINOv2
    resizes=True,
)
