"""timm's layout, for the towers that its architectures hold: `config.json` and `model.safetensors`.

timm knows an architecture by its name and takes sizes beside it: here is a name for each family whose facts it tells,
and the importer must read the same tower from it.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from likeness.core.errors import EncoderError
from likeness.export.parts import Export, Written, preparation
from likeness.export.published import (
    PROJECTION,
    embedding_lines,
    kind,
    pixel_lines,
    read_back,
    same_tower,
    write_layout,
    write_projection,
)
from likeness.models.config import EncoderConfig, Tensors
from likeness.models.towers import ConvNeXtConfig, EfficientNetConfig, SwinConfig, ViTConfig
from likeness.models.weights import WEIGHTS, timm_convnext, timm_efficientnet
from likeness.models.weights.processors import from_timm
from likeness.models.weights.table import scatter

NEEDS = ()
READS = ("timm", "torch", "torchvision")

_SWINS = ("swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256")


def write(export: Export, directory: Path) -> Written:
    """The two files, and `projection.safetensors` if there is a projection."""
    config, tensors = _with_bias(export.config, dict(export.tensors))
    layout, described = _described(config)
    projected = write_projection(config, tensors, directory)
    read, found = write_layout(layout, described, config, tensors, directory)
    exact = from_timm(directory, described) == config.preprocess
    keeps = f"The tower in timm's layout, as `{described['architecture']}` with its own sizes."
    keeps += f" The projection is in `{PROJECTION}`, for timm has no place for it." if projected else ""
    keeps += "" if exact else " timm's transform can't prepare pictures as this encoder takes them; the lines do."
    back = read_back(config, read, found, directory)
    return Written(_code(config, exact, projected), keeps, "library_name: timm\n", read_back=back)


def _with_bias(config: EncoderConfig, tensors: Tensors) -> tuple[EncoderConfig, Tensors]:
    """Timm's head always has a bias."""
    tower = config.tower
    if not isinstance(tower, ViTConfig) or tower.head is None or tower.head_bias:
        return config, tensors
    zeros = np.zeros(tower.head, np.float32)
    return replace(config, tower=replace(tower, head_bias=True)), tensors | {"tower.head.bias": zeros}


def _described(config: EncoderConfig) -> tuple[str, dict[str, Any]]:
    """Layout and `config.json`.

    Raises:
        EncoderError: No architecture of those that are tried holds this tower.
    """
    tower, found = config.tower, None
    if isinstance(tower, ViTConfig) and (name := _vit(tower, config.pooling)):
        found = "timm_vit", _config(name, _vit_sizes(tower, config.pooling), config, tower.head or 0)
    elif isinstance(tower, SwinConfig):
        found = "timm_swin", _config(_SWINS[tower.version - 1], _swin_sizes(tower, config.preprocess.size), config, 0)
    elif isinstance(tower, EfficientNetConfig) and (name := timm_efficientnet.architecture_of(tower)):
        found = "timm_efficientnet", _config(name, {}, config, 0)
    elif isinstance(tower, ConvNeXtConfig) and (name := timm_convnext.architecture_of(tower)):
        found = "timm_convnext", _config(name, {}, config, 0)
    if found is None or not _fits(*found, config):
        raise EncoderError(
            f"No architecture of timm holds this {kind(config)}.", hint="`--to onnx` takes every encoder"
        )
    return found


def _vit(tower: ViTConfig, pooling: str) -> str | None:
    """A name for the family of this tower, whose facts timm takes from it; None: there is none.

    Means are taken behind the last norm in the `gap` architectures of SigLIP alone, and registers have no place among
    positions that count the class token.
    """
    if (pooling == "mean" and tower.class_token) or tower.rope == "counted":
        return None
    if tower.rope == "centred":
        return {
            "query_value": "vit_base_patch16_dinov3_qkvb",
            "none": "vit_base_patch16_dinov3",
        }.get(tower.qkv_bias)
    if tower.layer_scale:
        return None if tower.registers else "vit_base_patch14_dinov2"
    if not tower.class_token:
        gap = "_gap" if pooling == "mean" else ""
        large, small = f"vit_so400m_patch16_siglip{gap}_256", f"vit_base_patch16_siglip{gap}_224"
        return large if tower.activation == "gelu_tanh" else small
    if tower.norm_pre:
        return f"vit_base_patch16_clip_{'quickgelu_' if tower.activation == 'quick_gelu' else ''}224"
    return "vit_base_patch16_224"


def _vit_sizes(tower: ViTConfig, pooling: str) -> dict[str, Any]:
    sizes: dict[str, Any] = {
        "img_size": tower.size,
        "patch_size": tower.patch,
        "embed_dim": tower.width,
        "depth": tower.layers,
        "num_heads": tower.heads,
        "mlp_ratio": tower.hidden / tower.width,
        "global_pool": {"class": "token", "mean": "avg", "attention": "map"}[pooling],
    }
    if tower.rope == "centred":
        sizes["num_reg_tokens"] = tower.registers
    return sizes


def _swin_sizes(tower: SwinConfig, size: int) -> dict[str, Any]:
    trained = {"pretrained_window_sizes": list(tower.trained_windows)} if tower.trained_windows else {}
    return {
        "img_size": size,
        "patch_size": tower.patch,
        "embed_dim": tower.width,
        "window_size": max(tower.windows),
        "depths": list(tower.depths),
        "num_heads": list(tower.heads),
        "mlp_ratio": tower.expansion,
        "global_pool": "avg",
        **trained,
    }


def _config(name: str, arguments: dict[str, Any], config: EncoderConfig, head: int) -> dict[str, Any]:
    preprocess = config.preprocess
    published = {
        "tag": "likeness",
        "num_classes": head,
        "input_size": [3, preprocess.size, preprocess.size],
        "interpolation": preprocess.interpolation,
        "crop_pct": preprocess.size / preprocess.resize,
        "crop_mode": {"crop": "center", "squash": "squash", "pad": "border"}[preprocess.mode],
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
    }
    return {
        "architecture": name,
        "num_classes": head,
        "num_features": config.tower.features,
        "global_pool": arguments.get("global_pool", "avg"),
        **({"model_args": arguments} if arguments else {}),
        "pretrained_cfg": published,
    }


def _fits(layout: str, described: dict[str, Any], config: EncoderConfig) -> bool:
    """Whether every tensor has a place, and the importer reads the same tower."""
    rules, tower = WEIGHTS[layout], config.tower
    keys = rules.keys(tower)
    if {key.ours for key in keys} != set(tower.shapes()) or not rules.matches(described):
        return False
    empty = {name: np.broadcast_to(np.float32(0), shape) for name, shape in tower.shapes().items()}
    shapes = {name: array.shape for name, array in scatter(keys, empty, "").items()}
    with tempfile.TemporaryDirectory() as scratch:
        try:
            read = rules.read(Path(scratch), described, shapes)
        except EncoderError:
            return False
    return same_tower(read, config) and read.pooling == config.pooling


def _code(config: EncoderConfig, exact: bool, projected: bool) -> str:
    """The README's lines."""
    lines = ["import timm", "import torch", "from PIL import Image"]
    lines += ["from safetensors.torch import load_file"] if projected else []
    lines += [] if exact else ["import numpy as np", "", preparation(config.preprocess).rstrip()]
    lines += ["", "model = timm.create_model('local-dir:.', pretrained=True).eval()"]
    if exact:
        lines += ["transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))"]
    lines += [f"projection = load_file('{PROJECTION}')"] if projected else []
    lines += ["", "@torch.no_grad()", "def embed(path):"]
    lines += ["    pixels = transform(Image.open(path).convert('RGB'))[None]"] if exact else pixel_lines(config)
    lines += embedding_lines(config, "model({})", projected)
    return "\n".join(lines) + "\n"
