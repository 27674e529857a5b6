"""CLIP image towers in the layout of transformers: CLIPModel, CLIPVisionModel, CLIPVisionModelWithProjection."""

from lookalike.encoders.config import EncoderConfig
from lookalike.published.fields import Field
from lookalike.published.layout import part_of, transformers
from lookalike.published.processors import square
from lookalike.published.table import MATRIX, PATCH, Key, linear, norm
from lookalike.towers import ViTConfig

_BLOCK = "encoder.layers.{}"
_QKV = ("q_proj", "k_proj", "v_proj")

# The defaults are those of CLIPVisionConfig of transformers, since its first version.
_FIELDS = (
    Field("size", "image_size", 224, square),
    Field("patch", "patch_size", 32, square),
    Field("width", "hidden_size", 768),
    Field("layers", "num_hidden_layers", 12),
    Field("heads", "num_attention_heads", 12),
    Field("hidden", "intermediate_size", 3072),
    Field("activation", "hidden_act", "quick_gelu", {"gelu": "gelu", "quick_gelu": "quick_gelu"}),
    Field("eps", "layer_norm_eps", 1e-5),
    Field(None, "projection_dim", 512, there=lambda tower: tower.features),
    Field(None, "num_channels", 3),
)


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


def _features(config: EncoderConfig) -> str | None:
    if config.pooling != "class" or not isinstance(config.tower, ViTConfig):
        return None
    return "image_embeds" if config.tower.head else "pooler_output"


LAYOUT = transformers(
    ViTConfig,
    ("clip", "clip_vision_model"),
    lambda tower: ("clip_vision_model", "CLIPVisionModelWithProjection" if tower.head else "CLIPVisionModel"),
    _FIELDS,
    told=part_of("vision_config"),
    seen=lambda shapes: {
        "head": shapes["visual_projection.weight"][0] if "visual_projection.weight" in shapes else None
    },
    keys=_keys,
    prefixes=("vision_model.", ""),
    anchor="embeddings.class_embedding",
    ignored=("text_model.*", "text_projection.weight", "logit_scale", "*embeddings.position_ids"),
    features=_features,
    pairs=True,
)
