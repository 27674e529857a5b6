"""Convolutional towers in the layouts of transformers, with or without a classifier: ConvNeXt (plain and DINOv3's),
EfficientNet, MobileNetV2, ResNet.
"""

from dataclasses import replace
from math import ceil
from typing import Any

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, Tensors
from lookalike.published.layout import Parts, transformers
from lookalike.published.processors import square
from lookalike.published.table import Field, below, refuse
from lookalike.towers import ConvNeXtConfig, EfficientNetConfig, MobileNetV2Config
from lookalike.towers.inverted import Stage, divisible
from lookalike.towers.plans import ResNetConfig


def layers(conv: str, norm: str, names: dict[str, str]) -> dict[str, str]:
    """The rows of kernels and of the batch norms behind them, whose names end alike."""
    kinds = {"conv": conv, "norm": norm}
    return {f"{ours}.{kind}": f"{theirs}{word}" for ours, theirs in names.items() for kind, word in kinds.items()}


# ---------------------------------------------------------------------------------------------- ConvNeXt


def _widths(data: dict[str, Any]) -> tuple[int, ...]:
    stages = data["num_stages"]
    refuse({"num_stages": stages} if stages and stages != len(data["hidden_sizes"]) else {})
    return tuple(data["hidden_sizes"])


def blocks(theirs: str, kernel: str, norm: str, up: str, down: str, scale: str) -> dict[str, str]:
    """The rows of the blocks of a ConvNeXt."""
    rows = {"depthwise.conv": kernel, "depthwise": kernel, "norm": norm, "mlp.up": up, "mlp.down": down, "scale": scale}
    return below("stages.*.blocks", theirs, rows)


_SIZES = (
    Field("widths", "hidden_sizes", [96, 192, 384, 768], back=_widths),
    Field("depths", "depths", [3, 3, 9, 3]),
    Field(None, "hidden_act", "gelu"),
)
CONVNEXT = transformers(
    ConvNeXtConfig,
    {"convnext": "ConvNextModel"},
    (
        *_SIZES,
        Field("patch", "patch_size", 4, square),
        Field("last_eps", "layer_norm_eps", 1e-12),
        Field(
            *("layer_scale", "layer_scale_init_value", 1e-6),
            back=lambda data: data["layer_scale_init_value"] > 0,
            there=lambda tower: 1e-6 if tower.layer_scale else 0.0,
        ),
        Field(None, "num_stages", None, there=lambda tower: len(tower.widths)),
    ),
    fixed={"eps": 1e-6},  # of the norms in stages, which no config can change
    names={"stages.0.patch": "embeddings.patch_embeddings", "stages.0.norm": "embeddings.layernorm"}
    | below("stages.*", "encoder.stages.*.downsampling_layer", {"norm": "0", "patch": "1"})
    | blocks("encoder.stages.*.layers.{}", "dwconv", "layernorm", "pwconv1", "pwconv2", "layer_scale_parameter")
    | {"norm_post": "layernorm"},
    prefixes=("convnext.", ""),
    anchor="embeddings.patch_embeddings.weight",
)
DINOV3 = transformers(
    ConvNeXtConfig,
    {"dinov3_convnext": "DINOv3ConvNextModel"},
    (*_SIZES, Field(None, "num_stages", None), *(Field(eps, "layer_norm_eps", 1e-6) for eps in ("eps", "last_eps"))),
    told=lambda described, _: {key: value for key, value in described.items() if value is not None},
    names=below("stages.0", "stages.0.downsample_layers", {"patch": "0", "norm": "1"})
    | below("stages.*", "stages.*.downsample_layers", {"norm": "0", "patch": "1"})
    | blocks("stages.*.layers.{}", "depthwise_conv", "layer_norm", "pointwise_conv1", "pointwise_conv2", "gamma")
    | {"norm_post": "layer_norm"},
    anchor="stages.0.downsample_layers.0.weight",
    renamed=(("model.stages.", "stages."),),
)

# ------------------------------------------------------------------------------------------ EfficientNet

MOST = 1000
"""Blocks of a tower beyond which its config is not believed."""
_LISTS = ("num_block_repeats", "kernel_sizes", "strides", "expand_ratios", "out_channels", "in_channels")


def _scaled(data: dict[str, Any], channels: int) -> int:
    return divisible(data["width_coefficient"] * channels, data["depth_divisor"])


def _stages(data: dict[str, Any]) -> tuple[Stage, ...]:
    if len({len(data[key]) for key in _LISTS}) != 1:
        raise EncoderError(f"lists of different lengths ({', '.join(_LISTS)}).")
    repeats = [ceil(data["depth_coefficient"] * number) for number in data["num_block_repeats"]]
    enter = [_scaled(data, channels) for channels in data["in_channels"]]
    leave = [_scaled(data, channels) for channels in (32, *data["out_channels"])]
    foreign = ["in_channels", "out_channels"] if enter != leave[:-1] else []
    foreign += ["hidden_dim"] if data["hidden_dim"] != _scaled(data, 1280) else []
    foreign += ["strides"] if not set(data["strides"]) <= {1, 2} else []
    foreign += ["squeeze_expansion_ratio"] if not data["squeeze_expansion_ratio"] > 0 else []
    foreign += ["num_block_repeats"] if sum(repeats) > MOST else []
    refuse({key: data[key] for key in foreign})
    rows = zip(repeats, data["kernel_sizes"], data["strides"], data["expand_ratios"], leave[1:], strict=True)
    return tuple(Stage("depthwise", *row, data["squeeze_expansion_ratio"]) for row in rows)


def _channels(tower: EfficientNetConfig) -> list[int]:
    """What leaves each stage, told as that of B0's size, which the class multiplies and rounds."""
    return [round(stage.channels / (tower.features / 1280)) for stage in tower.stages]


def _at_its_size(config: EncoderConfig, tensors: Tensors) -> Parts:
    """The same function in the words of transformers, for images of the encoder's own size.

    TensorFlow's padding of an EfficientNet depends on the size: where a kernel with a stride of 2 enters a map with an
    odd side it is symmetric, elsewhere the odd pixel comes last, which is how transformers pads all others.
    """
    tower = config.tower
    if not isinstance(tower, EfficientNetConfig) or tower.padding != "same" or config.preprocess.size % 2:
        return config, tensors
    side, inputs, number, symmetric = config.preprocess.size // 2, tower.stem, 0, []
    for stage in tower.stages:
        if tower.first_residual and stage.stride == 1 and inputs == stage.channels:
            return config, tensors  # adds what the first block of a stage never adds there
        if stage.stride == 2:
            symmetric += [number] if side % 2 else []
            side = -(-side // 2)
        inputs, number = stage.channels, number + stage.repeats
    fixed = replace(tower, padding="late", symmetric=tuple(symmetric), first_residual=False)
    return replace(config, tower=fixed), tensors


_AT = "encoder.blocks.*"
EFFICIENTNET = transformers(
    EfficientNetConfig,
    {"efficientnet": "EfficientNetModel"},
    (
        Field(
            *("stages", "num_block_repeats", [1, 2, 2, 3, 3, 4, 1]),
            back=_stages,
            there=lambda t: [s.repeats for s in t.stages],
        ),
        Field(None, "kernel_sizes", [3, 3, 5, 3, 5, 5, 3], there=lambda t: [s.kernel for s in t.stages]),
        Field(None, "strides", [1, 2, 2, 2, 1, 2, 1], there=lambda t: [s.stride for s in t.stages]),
        Field(None, "expand_ratios", [1, 6, 6, 6, 6, 6, 6], there=lambda t: [s.expansion for s in t.stages]),
        Field(None, "in_channels", [32, 16, 24, 40, 80, 112, 192], there=lambda t: [32, *_channels(t)[:-1]]),
        Field(None, "out_channels", [16, 24, 40, 80, 112, 192, 320], there=_channels),
        Field("stem", "width_coefficient", 2.0, back=lambda data: _scaled(data, 32), there=lambda t: t.features / 1280),
        Field("features", "hidden_dim", 2560),
        Field(None, "depth_coefficient", 3.1, there=lambda _: 1.0),
        Field(None, "depth_divisor", 8, there=lambda _: 8),
        Field("symmetric", "depthwise_padding", []),
        Field(None, "squeeze_expansion_ratio", 0.25, there=lambda t: t.stages[0].squeeze),
        Field("eps", "batch_norm_eps", 0.001),
        Field(None, "hidden_act", "swish", {"swish": "swish", "silu": "swish"}, there=lambda _: "swish"),
        Field(None, "pooling_type", "mean"),
    ),
    fixed={"padding": "late", "first_residual": False},
    names={
        "stem.conv": "embeddings.convolution",
        "stem.norm": "embeddings.batchnorm",
        "last.conv": "encoder.top_conv",
        "last.norm": "encoder.top_bn",
        "blocks.*.squeeze": f"{_AT}.squeeze_excite",
        **layers("expand_conv", "expand_bn", {"blocks.*.expand": f"{_AT}.expansion."}),
        **layers("depthwise_conv", "depthwise_norm", {"blocks.*.depthwise": f"{_AT}.depthwise_conv."}),
        **layers("project_conv", "project_bn", {"blocks.*.project": f"{_AT}.projection."}),
    },
    prefixes=("efficientnet.", ""),
    anchor="embeddings.convolution.weight",
    restated=_at_its_size,
)

# ------------------------------------------------------------------------------- MobileNetV2 and ResNet

_PARTS = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}
MOBILENET_V2 = transformers(
    MobileNetV2Config,
    {"mobilenet_v2": "MobileNetV2Model"},
    (
        Field("multiplier", "depth_multiplier", 1.0),
        Field("divisor", "depth_divisible_by", 8),
        Field("minimum", "min_depth", 8),
        Field("expansion", "expand_ratio", 6.0),
        Field("output_stride", "output_stride", 32),
        Field("first_is_expansion", "first_layer_is_expansion", True),
        Field("fine_output", "finegrained_output", True),
        Field("same_padding", "tf_padding", True),
        Field("eps", "layer_norm_eps", 0.001),
        Field(None, "hidden_act", "relu6"),
    ),
    names=layers(
        *(".convolution", ".normalization"),
        {
            "stem": "conv_stem.first_conv",
            "last": "conv_1x1",
            # Our first bottleneck is part of their stem, and they count from the second.
            **{f"blocks.0.{ours}": f"conv_stem.{theirs}" for ours, theirs in _PARTS.items()},
            **{f"blocks.*.{ours}": f"layer.*-1.{theirs}" for ours, theirs in _PARTS.items()},
        },
    ),
    prefixes=("mobilenet_v2.", ""),
    anchor="conv_stem.first_conv.convolution.weight",
)

_PLACES = {"first": "layer.0", "second": "layer.1", "third": "layer.2", "shortcut": "shortcut"}
_RESNET = {f"stages.*.blocks.*.{ours}": f"encoder.stages.*.layers.*.{theirs}" for ours, theirs in _PLACES.items()}
RESNET = transformers(
    ResNetConfig,
    {"resnet": "ResNetModel"},
    (
        Field("stem", "embedding_size", 64),
        Field("widths", "hidden_sizes", [256, 512, 1024, 2048]),
        Field("depths", "depths", [3, 4, 6, 3]),
        Field("bottleneck", "layer_type", "bottleneck", {"bottleneck": True, "basic": False}),
        Field("stride_first", "downsample_in_bottleneck", False),
        Field(None, "downsample_in_first_stage", False),
        Field(None, "hidden_act", "relu"),
    ),
    names=layers(".convolution", ".normalization", {"stem": "embedder.embedder", **_RESNET}),
    outputs={"mean": "pooler_output.flatten(1)"},
    prefixes=("", "resnet."),
    anchor="embedder.embedder.convolution.weight",
)
