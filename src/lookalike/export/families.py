"""Towers in the words of transformers: which class holds one, its `config.json`, and where its features come out.

Each function says the config of a tower, or None if its class has no place for it. What is said is read back by the
importer of the same layout, so that a config can't be right in one direction only.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from lookalike.encoders.config import EncoderConfig
from lookalike.towers import ConvNeXtConfig, EfficientNetConfig, MobileNetV2Config, SwinConfig, ViTConfig

Described = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """How transformers holds the towers of one layout."""

    layout: str
    """Its name in `WEIGHTS`."""
    describe: Callable[[EncoderConfig], Described | None]
    """`config.json`, whose first architecture is the class; None: this layout is not for this tower."""
    features: Callable[[EncoderConfig], str | None]
    """Which of its outputs are the features, as Python behind the output's name; None: none is."""


def clip(config: EncoderConfig) -> Described | None:
    """CLIPVisionConfig."""
    tower = config.tower
    if not isinstance(tower, ViTConfig) or tower.activation not in ("gelu", "quick_gelu"):
        return None
    return {
        "architectures": ["CLIPVisionModelWithProjection" if tower.head else "CLIPVisionModel"],
        "model_type": "clip_vision_model",
        "hidden_size": tower.width,
        "intermediate_size": tower.hidden,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
        "num_channels": 3,
        "image_size": tower.size,
        "patch_size": tower.patch,
        "hidden_act": tower.activation,
        "layer_norm_eps": tower.eps,
        "projection_dim": tower.head or tower.width,
    }


def siglip(config: EncoderConfig) -> Described | None:
    """SiglipVisionConfig."""
    tower = config.tower
    if not isinstance(tower, ViTConfig):
        return None
    activations = {"gelu_tanh": "gelu_pytorch_tanh", "gelu": "gelu", "quick_gelu": "quick_gelu"}
    return {
        "architectures": ["SiglipVisionModel"],
        "model_type": "siglip_vision_model",
        "hidden_size": tower.width,
        "intermediate_size": tower.hidden,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
        "num_channels": 3,
        "image_size": tower.size,
        "patch_size": tower.patch,
        "hidden_act": activations.get(tower.activation, "gelu"),
        "layer_norm_eps": tower.eps,
        "vision_use_head": tower.pool_heads is not None,
    }


def dinov2(config: EncoderConfig) -> Described | None:
    """Dinov2Config, or Dinov2WithRegistersConfig."""
    tower = config.tower
    if not isinstance(tower, ViTConfig) or (tower.hidden % tower.width and tower.activation != "swiglu"):
        return None
    gated = tower.activation == "swiglu"
    registers = {"num_register_tokens": tower.registers} if tower.registers else {}
    return {
        "architectures": ["Dinov2WithRegistersModel" if registers else "Dinov2Model"],
        "model_type": "dinov2_with_registers" if registers else "dinov2",
        "hidden_size": tower.width,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
        # With a gate, two thirds of this are the width inside.
        "mlp_ratio": 4 if gated else tower.hidden // tower.width,
        "hidden_act": "gelu",
        "layer_norm_eps": tower.eps,
        "image_size": tower.size,
        "patch_size": tower.patch,
        "num_channels": 3,
        "qkv_bias": tower.qkv_bias == "all",
        "use_swiglu_ffn": gated,
        **registers,
    }


def dinov3(config: EncoderConfig) -> Described | None:
    """DINOv3ViTConfig."""
    tower = config.tower
    if not isinstance(tower, ViTConfig):
        return None
    gated = tower.activation == "swiglu"
    return {
        "architectures": ["DINOv3ViTModel"],
        "model_type": "dinov3_vit",
        "patch_size": tower.patch,
        "image_size": tower.size,
        "hidden_size": tower.width,
        "intermediate_size": tower.hidden,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
        "hidden_act": "silu" if gated else "gelu",
        "layer_norm_eps": tower.eps,
        "rope_theta": tower.rope_theta,
        "num_channels": 3,
        "query_bias": tower.qkv_bias != "none",
        "key_bias": tower.qkv_bias == "all",
        "value_bias": tower.qkv_bias != "none",
        "proj_bias": True,
        "mlp_bias": True,
        "use_gated_mlp": gated,
        "num_register_tokens": tower.registers,
    }


def swin(config: EncoderConfig) -> Described | None:
    """SwinConfig, or Swinv2Config."""
    tower = config.tower
    if not isinstance(tower, SwinConfig):
        return None
    second = tower.version == 2
    trained = {"pretrained_window_sizes": list(tower.trained_windows or [0] * len(tower.depths))} if second else {}
    return {
        "architectures": ["Swinv2Model" if second else "SwinModel"],
        "model_type": "swinv2" if second else "swin",
        "image_size": config.preprocess.size,
        "patch_size": tower.patch,
        "num_channels": 3,
        "embed_dim": tower.width,
        "depths": list(tower.depths),
        "num_heads": list(tower.heads),
        "window_size": max(tower.windows),
        "mlp_ratio": tower.expansion,
        "qkv_bias": True,
        "hidden_act": "gelu",
        "use_absolute_embeddings": False,
        "layer_norm_eps": tower.eps,
        **trained,
    }


def efficientnet(config: EncoderConfig) -> Described | None:
    """EfficientNetConfig. Channels are told as those of B0's size, which the class multiplies and rounds."""
    tower = config.tower
    if not isinstance(tower, EfficientNetConfig):
        return None
    width = tower.features / 1280
    out = [round(stage.channels / width) for stage in tower.stages]
    return {
        "architectures": ["EfficientNetModel"],
        "model_type": "efficientnet",
        "num_channels": 3,
        "image_size": config.preprocess.size,
        "width_coefficient": width,
        "depth_coefficient": 1.0,
        "depth_divisor": 8,
        "kernel_sizes": [stage.kernel for stage in tower.stages],
        "in_channels": [32, *out[:-1]],
        "out_channels": out,
        "depthwise_padding": list(tower.symmetric),
        "strides": [stage.stride for stage in tower.stages],
        "num_block_repeats": [stage.repeats for stage in tower.stages],
        "expand_ratios": [stage.expansion for stage in tower.stages],
        "squeeze_expansion_ratio": tower.stages[0].squeeze,
        "hidden_act": "swish",
        "hidden_dim": tower.features,
        "pooling_type": "mean",
        "batch_norm_eps": tower.eps,
    }


def convnext(config: EncoderConfig) -> Described | None:
    """ConvNextConfig; its first norms have a fixed eps."""
    tower = config.tower
    if not isinstance(tower, ConvNeXtConfig) or tower.eps != 1e-6 or tower.kernel != 7:
        return None
    return {
        "architectures": ["ConvNextModel"],
        "model_type": "convnext",
        "num_channels": 3,
        "image_size": config.preprocess.size,
        "patch_size": tower.patch,
        "num_stages": len(tower.widths),
        "hidden_sizes": list(tower.widths),
        "depths": list(tower.depths),
        "hidden_act": "gelu",
        "layer_norm_eps": tower.last_eps,
        "layer_scale_init_value": 1e-6 if tower.layer_scale else 0.0,
    }


def dinov3_convnext(config: EncoderConfig) -> Described | None:
    """DINOv3ConvNextConfig."""
    tower = config.tower
    if not isinstance(tower, ConvNeXtConfig) or (tower.patch, tower.kernel) != (4, 7) or not tower.layer_scale:
        return None
    return {
        "architectures": ["DINOv3ConvNextModel"],
        "model_type": "dinov3_convnext",
        "num_channels": 3,
        "image_size": config.preprocess.size,
        "hidden_sizes": list(tower.widths),
        "depths": list(tower.depths),
        "hidden_act": "gelu",
        "layer_norm_eps": tower.eps,
    }


def at_its_size(config: EncoderConfig) -> EncoderConfig:
    """The same function in the words of transformers, for images of the encoder's own size.

    TensorFlow's padding of an EfficientNet depends on the size: where a kernel with a stride of 2 enters a map with an
    odd side it is symmetric, elsewhere the odd pixel comes last, which is how transformers pads all others.
    """
    tower = config.tower
    if not isinstance(tower, EfficientNetConfig) or tower.padding != "same" or config.preprocess.size % 2:
        return config
    side, inputs, number, symmetric = config.preprocess.size // 2, tower.stem, 0, []
    for stage in tower.stages:
        if tower.first_residual and stage.stride == 1 and inputs == stage.channels:
            return config  # adds what the first block of a stage never adds there
        if stage.stride == 2:
            symmetric += [number] if side % 2 else []
            side = -(-side // 2)
        inputs, number = stage.channels, number + stage.repeats
    fixed = replace(tower, padding="late", symmetric=tuple(symmetric), first_residual=False)
    return replace(config, tower=fixed)


def mobilenet_v2(config: EncoderConfig) -> Described | None:
    """MobileNetV2Config."""
    tower = config.tower
    if not isinstance(tower, MobileNetV2Config):
        return None
    return {
        "architectures": ["MobileNetV2Model"],
        "model_type": "mobilenet_v2",
        "num_channels": 3,
        "image_size": config.preprocess.size,
        "depth_multiplier": tower.multiplier,
        "depth_divisible_by": tower.divisor,
        "min_depth": tower.minimum,
        "expand_ratio": tower.expansion,
        "output_stride": tower.output_stride,
        "first_layer_is_expansion": tower.first_is_expansion,
        "finegrained_output": tower.fine_output,
        "hidden_act": "relu6",
        "tf_padding": tower.same_padding,
        "layer_norm_eps": tower.eps,
    }


def _clip_features(config: EncoderConfig) -> str | None:
    if config.pooling != "class" or not isinstance(config.tower, ViTConfig):
        return None
    return "image_embeds" if config.tower.head else "pooler_output"


def _token_features(config: EncoderConfig) -> str | None:
    """Behind the last norm, which these classes have in both of their outputs."""
    prefix = config.tower.prefix if isinstance(config.tower, ViTConfig) else 0
    return {
        "class": "pooler_output",
        "attention": "pooler_output",
        "mean": f"last_hidden_state[:, {prefix}:].mean(dim=1)",
    }.get(config.pooling)


def _map_features(config: EncoderConfig) -> str | None:
    return "pooler_output" if config.pooling == "mean" else None


FAMILIES: tuple[Family, ...] = (
    Family("clip", clip, _clip_features),
    Family("siglip", siglip, _token_features),
    Family("dinov2", dinov2, _token_features),
    Family("dinov3_vit", dinov3, _token_features),
    Family("swin", swin, _map_features),
    Family("swinv2", swin, _map_features),
    Family("efficientnet", efficientnet, _map_features),
    Family("convnext", convnext, _map_features),
    Family("dinov3_convnext", dinov3_convnext, _map_features),
    Family("mobilenet_v2", mobilenet_v2, _map_features),
)
"""In the order in which they are tried."""
