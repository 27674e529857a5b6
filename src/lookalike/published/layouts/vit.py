"""Plain vision transformers in the layout of transformers: ViTModel, with or without pooler or classifier.

google/vit-base-patch16-224, facebook/dino-vitb16 and facebook/deit-tiny-patch16-224 are published in it. The features
are the class token behind the last norm, as the classifier reads it; the pooler, a layer behind it, is left out.
"""

from lookalike.encoders.config import EncoderConfig
from lookalike.published.fields import Field
from lookalike.published.layout import transformers
from lookalike.published.processors import square
from lookalike.published.table import PATCH, TOKEN, TOKENS, Key, linear, norm
from lookalike.towers import ViTConfig

_BLOCK = "encoder.layer.{}"
_ACTIVATIONS = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "quick_gelu": "quick_gelu"}

# The defaults are those of ViTConfig of transformers.
_FIELDS = (
    Field("size", "image_size", 224, square),
    Field("patch", "patch_size", 16, square),
    Field("width", "hidden_size", 768),
    Field("layers", "num_hidden_layers", 12),
    Field("heads", "num_attention_heads", 12),
    Field("hidden", "intermediate_size", 3072),
    Field("activation", "hidden_act", "gelu", _ACTIVATIONS),
    Field("eps", "layer_norm_eps", 1e-12),
    Field("qkv_bias", "qkv_bias", True, {True: "all", False: "none"}),
    Field(None, "num_channels", 3),
)


def _keys(config: ViTConfig) -> tuple[Key, ...]:
    qkv = tuple(f"{_BLOCK}.attention.attention.{part}" for part in ("query", "key", "value"))
    return (
        Key("patch.weight", ("embeddings.patch_embeddings.projection.weight",), PATCH),
        Key("patch.bias", ("embeddings.patch_embeddings.projection.bias",)),
        Key("class_token", ("embeddings.cls_token",), TOKEN),
        Key("position", ("embeddings.position_embeddings",), TOKENS),
        *norm("blocks.norm1", f"{_BLOCK}.layernorm_before"),
        *linear("blocks.attention.qkv", *qkv, biased=qkv if config.qkv_bias == "all" else ()),
        *linear("blocks.attention.out", f"{_BLOCK}.attention.output.dense"),
        *norm("blocks.norm2", f"{_BLOCK}.layernorm_after"),
        *linear("blocks.mlp.up", f"{_BLOCK}.intermediate.dense"),
        *linear("blocks.mlp.down", f"{_BLOCK}.output.dense"),
        *norm("norm_post", "layernorm"),
    )


def _features(config: EncoderConfig) -> str | None:
    return {"class": "last_hidden_state[:, 0]", "mean": "last_hidden_state[:, 1:].mean(dim=1)"}.get(config.pooling)


LAYOUT = transformers(
    ViTConfig,
    ("vit",),
    lambda _: ("vit", "ViTModel"),
    _FIELDS,
    fixed={"patch_bias": True, "norm_pre": False},
    keys=_keys,
    prefixes=("", "vit."),
    anchor="embeddings.cls_token",
    ignored=("pooler.dense.*", "vit.pooler.dense.*", "classifier.*", "*embeddings.mask_token"),
    features=_features,
)
