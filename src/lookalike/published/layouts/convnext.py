"""ConvNeXt in the layouts of transformers: ConvNextModel, with or without a classifier, and DINOv3ConvNextModel."""

from typing import Any

from lookalike.published.fields import Field, kept, refuse
from lookalike.published.layout import Found, map_features, transformers
from lookalike.published.processors import square
from lookalike.published.table import KERNEL, MATRIX, PATCH, Form, Key, linear, norm
from lookalike.towers import ConvNeXtConfig

NEIGHBOURS = Form(PATCH.ours, lambda a: a.reshape(2, 2, -1, a.shape[1]).transpose(3, 2, 0, 1), axes=4)
"""A kernel of 2 x 2 with stride 2, to a matrix [4 * in, out]."""


def _widths(data: dict[str, Any]) -> tuple[int, ...]:
    widths, stages = tuple(data["hidden_sizes"]), data.get("num_stages") or len(data["hidden_sizes"])
    refuse({} if stages == len(widths) else {"num_stages": stages})
    return widths


# The defaults are those of ConvNextConfig and DINOv3ConvNextConfig of transformers.
_FIELDS = (
    Field("widths", "hidden_sizes", [96, 192, 384, 768], back=_widths),
    Field("depths", "depths", [3, 3, 9, 3], back=lambda data: tuple(data["depths"])),
    Field(None, "hidden_act", "gelu"),
    Field(None, "num_channels", 3),
)
_PLAIN = (
    *_FIELDS,
    Field("patch", "patch_size", 4, square),
    Field("last_eps", "layer_norm_eps", 1e-12),
    Field(
        *("layer_scale", "layer_scale_init_value", 1e-6),
        back=lambda data: data["layer_scale_init_value"] > 0,
        there=lambda tower: 1e-6 if tower.layer_scale else 0.0,
    ),
    Field(None, "num_stages", None, there=lambda tower: len(tower.widths)),
)
_DINOV3 = (
    *_FIELDS,
    Field(None, "num_stages", None, kept),
    Field("eps", "layer_norm_eps", 1e-6),
    Field("last_eps", "layer_norm_eps", 1e-6),
)


def patches(stage: int, patch: str, behind: str) -> tuple[Key, ...]:
    """The rows of what starts a stage: patches and their norm."""
    return (
        Key(f"stages.{stage}.patch.weight", (f"{patch}.weight",), NEIGHBOURS if stage else PATCH),
        Key(f"stages.{stage}.patch.bias", (f"{patch}.bias",)),
        *norm(f"stages.{stage}.norm", behind),
    )


def blocks(config: ConvNeXtConfig, stage: int, theirs: str, *names: str, form: Form = MATRIX) -> tuple[Key, ...]:
    """The rows of the blocks of a stage.

    Args:
        config: The tower's.
        stage: Its number.
        theirs: What the names of a block start with; `{}` stands for its number.
        names: Of kernel, norm, first matrix, second matrix, scale.
        form: How the matrices are laid out.
    """
    ours, (kernel, between, up, down, scale) = f"stages.{stage}.blocks", names
    return (
        Key(f"{ours}.depthwise.conv.weight", (f"{theirs}.{kernel}.weight",), KERNEL),
        Key(f"{ours}.depthwise.bias", (f"{theirs}.{kernel}.bias",)),
        *norm(f"{ours}.norm", f"{theirs}.{between}"),
        *linear(f"{ours}.mlp.up", f"{theirs}.{up}", form=form),
        *linear(f"{ours}.mlp.down", f"{theirs}.{down}", form=form),
        *((Key(f"{ours}.scale", (f"{theirs}.{scale}",)),) if config.layer_scale else ()),
    )


def _keys(config: ConvNeXtConfig) -> tuple[Key, ...]:
    keys = [*patches(0, "embeddings.patch_embeddings", "embeddings.layernorm")]
    for i in range(len(config.widths)):
        stage, names = f"encoder.stages.{i}", ("dwconv", "layernorm", "pwconv1", "pwconv2", "layer_scale_parameter")
        if i:
            keys += patches(i, f"{stage}.downsampling_layer.1", f"{stage}.downsampling_layer.0")
        keys += blocks(config, i, f"{stage}.layers.{{}}", *names)
    return *keys, *norm("norm_post", "layernorm")


def _keys_dinov3(config: ConvNeXtConfig) -> tuple[Key, ...]:
    keys: list[Key] = []
    names = ("depthwise_conv", "layer_norm", "pointwise_conv1", "pointwise_conv2", "gamma")
    for i in range(len(config.widths)):
        patch, behind = (1, 0) if i else (0, 1)  # the first stage norms its patches, the others what becomes theirs
        start = f"stages.{i}.downsample_layers"
        keys += patches(i, f"{start}.{patch}", f"{start}.{behind}")
        keys += blocks(config, i, f"stages.{i}.layers.{{}}", *names)
    return *keys, *norm("norm_post", "layer_norm")


def _silent(described: dict[str, Any], _: Found) -> dict[str, Any]:
    """What is null is as where it is left out."""
    return {key: value for key, value in described.items() if value is not None}


LAYOUT = transformers(
    ConvNeXtConfig,
    ("convnext",),
    lambda _: ("convnext", "ConvNextModel"),
    _PLAIN,
    fixed={"eps": 1e-6},  # of the norms in stages, which no config can change
    pooling=lambda _: "mean",
    keys=_keys,
    prefixes=("convnext.", ""),
    anchor="embeddings.patch_embeddings.weight",
    ignored=("classifier.weight", "classifier.bias"),
    features=map_features,
)
LAYOUT_DINOV3 = transformers(
    ConvNeXtConfig,
    ("dinov3_convnext",),
    lambda _: ("dinov3_convnext", "DINOv3ConvNextModel"),
    _DINOV3,
    told=_silent,
    pooling=lambda _: "mean",
    keys=_keys_dinov3,
    anchor="stages.0.downsample_layers.0.weight",
    renamed=(("model.stages.", "stages."),),
    features=map_features,
)
