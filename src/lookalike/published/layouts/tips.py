"""TIPS v2 image towers as transformers writes them and as they are published: Tipsv2Model, Tipsv2VisionModel.

A DINOv2 with one register, which is a second class token that was taught by longer captions. Images enter as values
of 0 to 1, without a mean or a deviation.
"""

from typing import Any

import numpy as np

from lookalike.published.layout import Found, part_of, transformers
from lookalike.published.layouts.dinov2 import FIELDS, FIXED
from lookalike.published.table import PATCH, TOKEN, TOKENS, Key, linear, norm
from lookalike.towers import ViTConfig

_BLOCK = "blocks.{}"


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


def _told(described: dict[str, Any], shapes: Found) -> dict[str, Any]:
    """A config as transformers writes it; or that of the first published files, which came with their own code."""
    data = {"image_size": 448, "num_register_tokens": 1}  # of Tipsv2VisionConfig, where a config is silent
    if "vision_fn" not in described:
        return data | part_of("vision_config")(described, shapes)
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


def _seen(shapes: Found) -> dict[str, Any]:
    down = shapes.get("blocks.0.mlp.w3.weight") or shapes.get("blocks.0.mlp.fc2.weight") or (0,)
    return {"hidden": down[-1]}


LAYOUT = transformers(
    ViTConfig,
    ("tipsv2", "tipsv2_vision_model"),
    lambda _: ("tipsv2_vision_model", "Tipsv2VisionModel"),
    FIELDS,
    fixed={**FIXED, "resampling": "bilinear_antialias"},
    seen=_seen,
    told=_told,
    keys=_keys,
    prefixes=("vision_encoder.", ""),
    anchor="patch_embed.proj.weight",
    ignored=("text_encoder.*", "temperature", "mask_token", "vision_encoder.mask_token"),
    renamed=((".mlp.c_fc.", ".mlp.fc1."), (".mlp.c_proj.", ".mlp.fc2.")),  # as transformers writes them
    beside=lambda tower: {"mask_token": np.zeros((1, tower.width), np.float32)},
    describe=lambda _: None,  # such a tower is written as a DINOv2
    resizes=True,
)
