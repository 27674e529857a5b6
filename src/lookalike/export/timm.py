"""timm's layout, for the towers that its architectures hold: `config.json` and `model.safetensors`.

timm knows an architecture by its name and takes sizes beside it: here is a name for each family whose facts it tells,
and the importer must read the same tower from it.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, Tensors, read_safetensors
from lookalike.export.parts import Export, Target, Written
from lookalike.export.published import (
    PROJECTION,
    embedding_lines,
    kind,
    opening_lines,
    pixel_lines,
    ratio,
    read_back,
    same_tower,
    write_layout,
    write_projection,
    write_tensors,
)
from lookalike.published.layouts import WEIGHTS, timm_convnext, timm_efficientnet
from lookalike.published.processors import from_timm
from lookalike.published.table import scatter
from lookalike.towers import ConvNeXtConfig, EfficientNetConfig, SwinConfig, ViTConfig
from lookalike.towers.programs.declare import shapes_of

_SWINS = ("swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256")

_PLAIN: dict[str, Any] = {
    "patch_bias": True,
    "class_token": True,
    "registers": False,
    "positions": "all",
    "rope": "none",
    "qkv_bias": "all",
    "layer_scale": False,
    "norm_pre": False,
    "activation": "gelu",
}
_CLIP = _PLAIN | {"norm_pre": True, "patch_bias": False}
_SIGLIP = _PLAIN | {"class_token": False, "positions": "patches"}
_DINO = _PLAIN | {"layer_scale": True}
_REGISTERS = _DINO | {"registers": True, "positions": "patches"}
_DINO3 = _DINO | {"positions": "none", "rope": "centred", "qkv_bias": "none"}
_BIASED = _DINO3 | {"qkv_bias": "query_value"}
_GATE = {"activation": "swiglu"}

VITS: dict[str, dict[str, Any]] = {
    "vit_base_patch16_224": _PLAIN,
    "vit_base_patch16_clip_224": _CLIP,
    "vit_base_patch16_clip_quickgelu_224": _CLIP | {"activation": "quick_gelu"},
    "vit_base_patch16_siglip_224": _SIGLIP,
    "vit_so400m_patch16_siglip_256": _SIGLIP | {"activation": "gelu_tanh"},
    "vit_base_patch14_dinov2": _DINO,
    "vit_giant_patch14_dinov2": _DINO | _GATE,
    "vit_base_patch14_reg4_dinov2": _REGISTERS,  # TIPS too, whose one register it takes
    "vit_giant_patch14_reg4_dinov2": _REGISTERS | _GATE,
    "vit_base_patch16_dinov3": _DINO3,
    "vit_base_patch16_dinov3_qkvb": _BIASED,
    "vit_small_plus_patch16_dinov3": _DINO3 | _GATE,
    "vit_small_plus_patch16_dinov3_qkvb": _BIASED | _GATE,
    "vit_pe_core_base_patch16_224": _CLIP | {"rope": "counted"},
    "vit_pe_core_gigantic_patch14_448": _CLIP | {"rope": "counted", "class_token": False, "positions": "patches"},
}
"""What timm makes of a name, in the fields of `ViTConfig`, whatever sizes it is given. Our importer reads most of these
from shapes, and so it would take a tower under a wrong name, which timm does not."""


def write(export: Export, directory: Path) -> Written:
    """The two files, and `projection.safetensors` if there is a projection."""
    config, tensors = _as_timm(export.config, dict(export.tensors))
    layout, described = _described(config)
    projected = write_projection(config, tensors, directory)
    read, found = write_layout(layout, described, config, tensors, directory)
    if layout == "timm_swin":
        file, size = directory / "model.safetensors", config.tower.features
        head = {"head.fc.weight": np.eye(size, dtype=np.float32), "head.fc.bias": np.zeros(size, np.float32)}
        write_tensors(file, read_safetensors(file) | head)
    exact = from_timm(directory, described) == config.preprocess
    keeps = f"The tower in timm's layout, as `{described['architecture']}` with its own sizes."
    keeps += f" The projection is in `{PROJECTION}`, for timm has no place for it." if projected else ""
    keeps += "" if exact else " timm's transform can't prepare images as this encoder takes them; the lines do."
    back = read_back(config, read, found, directory)
    return Written(_code(config, exact, projected), keeps, read_back=back)


def _as_timm(config: EncoderConfig, tensors: Tensors) -> tuple[EncoderConfig, Tensors]:
    """The same function as timm has it."""
    tower = config.tower
    if isinstance(tower, ViTConfig):
        tower, tensors = _with_bias(*_without_class_position(tower, tensors))
    elif isinstance(tower, SwinConfig) and tower.version == 1:
        tower, tensors = _with_middles(tower, tensors, config.preprocess.size)
    return replace(config, tower=tower), tensors


def _with_bias(tower: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
    """Timm's head always has a bias."""
    if tower.head is None or tower.head_bias:
        return tower, tensors
    return replace(tower, head_bias=True), tensors | {"tower.head.bias": np.zeros(tower.head, np.float32)}


def _without_class_position(tower: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
    """Beside registers, timm has positions for patches alone: the class token's is added to the token itself."""
    if not tower.registers or tower.positions != "all":
        return tower, tensors
    token, position = tensors["tower.class_token"], tensors["tower.position"]
    moved = {"tower.class_token": token + position[0], "tower.position": position[1:]}
    return replace(tower, positions="patches"), tensors | moved


def _with_middles(tower: SwinConfig, tensors: Tensors, size: int) -> tuple[SwinConfig, Tensors]:
    """A window that is larger than its map is as large as the map, and only the middle of its table is asked."""
    windows, shifts, cut = list(tower.windows), list(tower.shifts), {}
    for i, side in enumerate(tower.sides(size)):
        if side < (window := windows[i]):
            name = f"tower.stages.{i}.blocks.attention.table"
            depth, _, heads = tensors[name].shape
            square = tensors[name].reshape(depth, 2 * window - 1, 2 * window - 1, heads)
            inner = slice(window - side, window + side - 1)
            cut[name] = np.ascontiguousarray(square[:, inner, inner].reshape(depth, -1, heads))
            windows[i], shifts[i] = side, side // 2
    return replace(tower, windows=tuple(windows), shifts=tuple(shifts)), tensors | cut


def _described(config: EncoderConfig) -> tuple[str, dict[str, Any]]:
    """Layout and `config.json`.

    Raises:
        EncoderError: No architecture of those that are tried holds this tower.
    """
    tower, found = config.tower, None
    features, size = tower.features, config.preprocess.size
    if isinstance(tower, ViTConfig) and (name := _vit(tower, config.pooling)):
        found = "timm_vit", _config(name, _vit_sizes(tower, config.pooling), config, "head", tower.head or 0)
    elif isinstance(tower, SwinConfig) and (name := _swin(tower, size)):
        # Without a head, timm takes its own names for older ones: here is one that changes nothing.
        found = "timm_swin", _config(name, _swin_sizes(tower, size), config, "head.fc", features)
    elif isinstance(tower, EfficientNetConfig) and (name := timm_efficientnet.architecture_of(tower)):
        found = "timm_efficientnet", _config(name, {}, config, "classifier")
    elif isinstance(tower, ConvNeXtConfig) and (name := timm_convnext.architecture_of(tower)):
        found = "timm_convnext", _config(name, {}, config, "head.fc")
    if found is None or not _fits(*found, config):
        raise EncoderError(
            f"No architecture of timm holds this {kind(config)}.", hint="`--to onnx` takes every encoder"
        )
    return found


def _vit(tower: ViTConfig, pooling: str) -> str | None:
    """A name that timm makes this tower of, given its sizes; None: there is none.

    eps, rotary frequencies and the number of heads in the pooling are left to `_fits`.
    """
    asked = (tower.pool_heads is not None) == (pooling == "attention")
    if tower.rope == "none":
        # Its pooling has the blocks' heads and MLP, and does not ask what stands before the patches.
        same = (tower.pool_heads or tower.heads, tower.pool_hidden or tower.hidden) == (tower.heads, tower.hidden)
        asked = asked and same and not (tower.pool_heads and tower.prefix)
    if tower.rope == "centred":
        # It takes images of any size, but no piece of a patch; and widths inside a gate are rounded up.
        asked = asked and tower.size % tower.patch == 0 and (tower.activation != "swiglu" or tower.hidden % 8 == 0)
    if not asked:
        return None
    facts = {field: getattr(tower, field) for field in _PLAIN} | {"registers": tower.registers > 0}
    if tower.rope == "centred":
        facts["registers"] = False  # there, any number
    return next((name for name, made in VITS.items() if made == facts), None)


def _vit_sizes(tower: ViTConfig, pooling: str) -> dict[str, Any]:
    rotary, gated = tower.rope != "none", tower.activation == "swiglu"
    sizes: dict[str, Any] = {
        "img_size": tower.size,
        "patch_size": tower.patch,
        "embed_dim": tower.width,
        "depth": tower.layers,
        "num_heads": tower.heads,
        # Both halves of a gate are counted where they lie in one matrix.
        "mlp_ratio": ratio(tower.hidden * (2 if gated and not rotary else 1), tower.width),
        "num_reg_tokens" if rotary else "reg_tokens": tower.registers,
        "use_fc_norm" if rotary else "fc_norm": tower.norm_pooled,
        "global_pool": {"class": "token", "mean": "avg", "attention": "map"}[pooling],
    }
    if tower.rope == "counted":
        sizes["ref_feat_shape"] = [tower.grid, tower.grid]
    if tower.rope == "counted" and tower.pool_heads:
        inside = tower.pool_hidden or tower.hidden
        sizes |= {"attn_pool_num_heads": tower.pool_heads, "attn_pool_mlp_ratio": ratio(inside, tower.width)}
    return sizes


def _swin(tower: SwinConfig, size: int) -> str | None:
    """A name for this tower; None: timm would give its maps other windows, or cut them elsewhere."""
    sides, largest = tower.sides(size), max(tower.windows)
    whole = size % (tower.patch * 2 ** (tower.stages - 1)) == 0
    windows = tuple(min(side, largest) for side in sides)
    return _SWINS[tower.version - 1] if whole and tower.windows == windows else None


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


def _config(
    name: str, arguments: dict[str, Any], config: EncoderConfig, classifier: str, head: int = 0
) -> dict[str, Any]:
    preprocess = config.preprocess
    published = {
        "tag": "lookalike",
        "classifier": classifier,  # what gives way if another number of classes is asked for
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
    if {key.ours for key in keys} != set(shapes_of(tower)) or not rules.matches(described):
        return False
    empty = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes_of(tower).items()}
    shapes = {name: array.shape for name, array in scatter(keys, empty, "").items()}
    with tempfile.TemporaryDirectory() as scratch:
        try:
            read = rules.read(Path(scratch), described, shapes)
        except EncoderError:
            return False
    return same_tower(read, config) and read.pooling == config.pooling


def _code(config: EncoderConfig, exact: bool, projected: bool) -> str:
    """The README's lines."""
    lines = ["import timm", "import torch", "from PIL import Image, ImageOps"]
    lines += ["from safetensors.torch import load_file"] if projected else []
    lines += opening_lines(config, exact)
    lines += ["", "model = timm.create_model('local-dir:.', pretrained=True).eval()"]
    if exact:
        lines += ["transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))"]
    lines += [f"projection = load_file('{PROJECTION}')"] if projected else []
    lines += ["", "@torch.no_grad()", "def embed(path):"]
    lines += ["    pixels = transform(opened(path))[None]"] if exact else pixel_lines(config)
    lines += embedding_lines(config, "model({})", projected)
    return "\n".join(lines) + "\n"


TARGET = Target(write, "timm", reads=("timm", "torch", "torchvision"))
