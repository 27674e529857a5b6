"""Vision transformers in timm's layout: CLIP, SigLIP, DINOv2 and 3, Perception Encoder, TIPS v2, EVA-02, plain ones.

`config.json` names an architecture, and `model.safetensors` holds the state of timm's `VisionTransformer`, or of its
`Eva` for towers with rotary positions, which names a few tensors differently. Widths, layers and optional parts are
read from the tensors' shapes. What these don't show are facts of each family (`FAMILIES`), found by the architecture's
name: the number of heads, eps, the activation and the kind of rotary positions, as timm 1.0 has them.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, Tensors
from lookalike.published.layout import Found, Parts
from lookalike.published.layouts.timm import BLOCK, described_as, refuse_arguments, shape_of, timm
from lookalike.published.processors import from_timm, ratio, square
from lookalike.published.table import Form, Names, block, pool
from lookalike.towers import ViTConfig
from lookalike.towers.vit import Activation, Resampling

_SIZE = r"(?P<size>[a-z0-9_]+?)"


class Family(NamedTuple):
    """Architectures that have these facts in common."""

    names: str
    """Pattern of their names; `size` is tiny, base, so400m..."""
    eps: float = 1e-6
    """timm's norms have 1e-6 unless a model says otherwise."""
    activation: Activation = "gelu"
    """Where the MLP has no gate, which is seen in its shapes."""
    sixteen: tuple[str, ...] = ()
    """Sizes with 16 heads, whatever their width; heads of the others have 64 numbers."""
    pool_heads: int | None = None
    """Heads of the attention pooling; None: as many as the blocks."""
    rope: Literal["none", "centred", "counted", "scaled"] = "none"
    rope_theta: float = 100.0
    resampling: Resampling = "bicubic_antialias"
    projects: bool = False
    """Whether the head of the published weights is the projection of a CLIP, and not a classifier."""
    size: str = ""
    """Of one of them, as its name has it."""
    grid: int | None = None
    """Patches along a side of the images that rotary positions were made for, where its name says it."""

    def heads(self, width: int) -> int:
        """Attention heads of a tower with tokens of this width."""
        return 16 if self.size in self.sixteen else width // 64


_WIDE = ("so400m", "huge", "giant", "giantopt", "gigantic")

_CLIPS: dict[str, Any] = {"eps": 1e-5, "sixteen": _WIDE, "projects": True}
_PE: dict[str, Any] = {"eps": 1e-5, "sixteen": ("gigantic",), "projects": True, "pool_heads": 8, "rope": "counted"}
FAMILIES: tuple[Family, ...] = (
    Family(rf"vit_{_SIZE}_patch\d+_clip_quickgelu_\d+", activation="quick_gelu", **_CLIPS),
    Family(rf"vit_{_SIZE}_patch\d+(_plus)?_clip_\d+", **_CLIPS),
    # Architectures that came with SigLIP 2 have the approximate GELU that both were trained with; timm gives older
    # ones the exact GELU, and so whoever uses its files has that.
    Family(r"vit_(?P<size>base)_patch32_siglip(_gap)?_256", activation="gelu_tanh"),
    Family(r"vit_(?P<size>large)_patch16_siglip(_gap)?_512", activation="gelu_tanh"),
    Family(r"vit_(?P<size>so400m|giantopt)_patch16_siglip(_gap)?_\d+", activation="gelu_tanh", sixteen=_WIDE),
    Family(r"vit_(?P<size>base|large|so400m)_patch\d+_siglip(_gap)?_\d+", sixteen=_WIDE),
    Family(r"vit_(?P<size>small|base|large|giant)_patch14(_reg4)?_dinov2"),
    Family(rf"vit_{_SIZE}_patch14_reg1_tipsv2", sixteen=("so400m",), resampling="bilinear_antialias"),
    Family(r"vit_(?P<size>tiny|small(_plus)?|base|large|huge_plus)_patch16_dinov3(_qkvb)?", eps=1e-5, rope="centred"),
    # The Perception Encoder's own code resizes positions without antialiasing, and counts places without stretching.
    Family(rf"vit_pe_core_{_SIZE}_patch(?P<patch>\d+)_(?P<side>\d+)", rope_theta=1e4, resampling="bilinear", **_PE),
    # Those that were trained with a text side alone have its projection; eva02_enormous norms behind, and is left out.
    Family(r"eva02_(?P<size>base|large)_patch\d+_clip_\d+", rope="scaled", rope_theta=1e4, projects=True),
    Family(r"eva02_(?P<size>tiny|small|base|large)_patch\d+_\d+", rope="scaled", rope_theta=1e4),
    Family(r"vit_(?P<size>tiny|small|base|large|huge|giant|gigantic)_patch\d+_\d+", sixteen=_WIDE),
    Family(r"vit_(?P<size>base|huge|giant)_patch\d+_gap_\d+", sixteen=("base", "huge", "giant")),
    Family(r"vit_(?P<size>medium|betwixt)_patch16_gap_\d+"),
    Family(r"vit_(?P<size>wee|little|medium|mediumd|betwixt|base)_patch16_reg\d_gap_\d+"),
)
"""In the order in which a name is tried."""

_QUICK = (
    r"vit_\w+\.(openai|metaclip_400m|metaclip_2pt5b)",
    r"vit_base_patch32_clip_224\.laion400m_e32",
    r"vit_large_patch14_clip_224\.dfn2b",
    r"vit_huge_patch14_clip_(224|378)\.dfn5b",
    r"vit_huge_patch14_clip_224\.metaclip2_worldwide",
)
"""Weights of which timm notes that they learned with the quick GELU, though their architecture has the exact one; it
advises another architecture for original results, and so we take that activation."""


def family_of(architecture: object) -> Family | None:
    """What the name of an architecture tells; None if it is no vision transformer that we know."""
    for family in FAMILIES:
        if isinstance(architecture, str) and (found := re.fullmatch(family.names, architecture)):
            parts = found.groupdict()
            grid = int(parts["side"]) // int(parts["patch"]) if "side" in parts else None
            return family._replace(size=parts["size"], grid=grid)
    return None


PLAIN: dict[str, Any] = {"patch_bias": True, "class_token": True, "registers": False, "positions": "all"}
PLAIN |= {"rope": "none", "qkv_bias": "all", "layer_scale": False, "norm_pre": False, "activation": "gelu"}
PLAIN |= {"norm_attention": False, "norm_mlp": False}
_CLIP = PLAIN | {"norm_pre": True, "patch_bias": False}
_SIGLIP = PLAIN | {"class_token": False, "positions": "patches"}
_DINO = PLAIN | {"layer_scale": True}
_REGISTERS = _DINO | {"registers": True, "positions": "patches"}
_DINO3 = _DINO | {"positions": "none", "rope": "centred", "qkv_bias": "none"}
_BIASED = _DINO3 | {"qkv_bias": "query_value"}
_GATE = {"activation": "swiglu"}
_EVA = PLAIN | _GATE | {"rope": "scaled", "qkv_bias": "query_value"}

VITS: dict[str, dict[str, Any]] = {
    "vit_base_patch16_224": PLAIN,
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
    "eva02_small_patch14_224": _EVA,
    "eva02_base_patch14_224": _EVA | {"norm_mlp": True},
    "eva02_base_patch16_clip_224": _EVA | {"norm_mlp": True, "norm_attention": True},
    "vit_pe_core_gigantic_patch14_448": _CLIP | {"rope": "counted", "class_token": False, "positions": "patches"},
}
"""What timm makes of a name, in the fields of `ViTConfig`, whatever sizes it is given. Our importer reads most of these
from shapes, and so it would take a tower under a wrong name, which timm does not."""

POOLINGS = {"token": "class", "avg": "mean", "map": "attention"}
"""timm's words for how tokens become features, and ours."""

# Arguments with which a model was made that say what the shapes say as well, or nothing about its features.
_KNOWN = {"embed_dim", "depth", "mlp_ratio", "patch_size", "class_token", "reg_tokens", "num_reg_tokens", "img_size"}
_KNOWN |= {"fc_norm", "use_fc_norm", "in_chans", "pos_drop_rate", "patch_drop_rate", "init_values", "global_pool"}
_KNOWN |= {"attn_pool_mlp_ratio", "dynamic_img_size", "dynamic_img_pad"}
_KNOWN |= {"num_heads", "attn_pool_num_heads", "act_layer", "ref_feat_shape"}  # which are read

_NAMES = {"patch": "patch_embed.proj", "class_token": "cls_token", "registers": "reg_token", "position": "pos_embed"}
_NAMES |= {"blocks.attention.norm": "blocks.{}.attn.norm", "blocks.mlp.norm": "blocks.{}.mlp.norm"}
_NAMES |= {"norm_pre": "norm_pre", **pool("attn_pool", "latent", "(q|kv|kv)", "proj", "norm")}


def names(config: ViTConfig, head: str = "head") -> Names:
    """The table of a trunk, whose projection is called `head`."""
    rows = block("blocks.{}", *BLOCK, scale="ls#.gamma" if config.rope == "none" else "gamma_#")
    if config.norm_mlp:  # of EVA-02, base and large
        rows["blocks.attention.qkv"] = "blocks.{}.attn.(q|k|v)_proj"
    elif config.qkv_bias == "query_value":
        rows["blocks.attention.qkv.bias"] = "blocks.{}.attn.(q|v)_bias"
    if config.activation == "swiglu" and (config.rope == "centred" or config.norm_mlp):
        rows["blocks.mlp.up"] = "blocks.{}.mlp.(fc1_g|fc1_x)"
    return {**_NAMES, **rows, "norm_post": "fc_norm" if config.norm_pooled else "norm", "head": head}


def forms(config: ViTConfig) -> dict[str, Form]:
    """How rotary positions of the Perception Encoder and EVA-02 are laid out.

    They turn neighbours (2i, 2i + 1) of a head, the first columns first; we turn i and i + half a head, rows first. The
    same is computed if queries and keys are rearranged, both in the same way. EVA-02 may have queries, keys and values
    apart; its values, and so what comes after them, are rearranged too.
    """
    if config.rope not in ("counted", "scaled"):
        return {}
    width, half, counted = config.width, config.width // config.heads // 2, config.rope == "counted"
    pair = np.roll(np.arange(half), half // 2 if counted else 0)  # ours in the order of theirs: rows, then columns
    head = np.concatenate([2 * pair, 2 * pair + 1])
    turned = (np.arange(config.heads)[:, None] * 2 * half + head).reshape(-1)
    whole = np.concatenate([turned, turned + width, (np.arange(width) if counted else turned) + 2 * width])

    def turn(a: np.ndarray) -> np.ndarray:
        return a[whole[: len(a)]] if len(a) in (width, 3 * width) else a  # a wrong shape is told later

    def back(a: np.ndarray) -> np.ndarray:
        return a[np.argsort(whole[: len(a)])]

    vector = Form(turn, back, axes=1)
    found = {"qkv.weight": Form(lambda a: turn(a).T, lambda a: back(a.T), axes=2), "qkv.bias": vector}
    if not counted:
        found |= {"norm.weight": vector, "norm.bias": vector}
        found["out.weight"] = Form(lambda a: turn(a.T), lambda a: back(a).T, axes=2)
    return {f"blocks.attention.{name}": form for name, form in found.items()}


def trunk(
    path: Path, architecture: str, arguments: Mapping[str, Any], size: int, shapes: Found, head: str | None
) -> ViTConfig:
    """The tower of a timm model in `path`, made with `arguments` for images of `size` pixels.

    `head` is the name of the projection among the `shapes` of its tensors; None: there is none.
    """
    family = family_of(architecture)
    if family is None:
        raise EncoderError(f"The architecture `{architecture}` of `{path}` is not known.")
    refuse_arguments(path, arguments, _KNOWN)
    if (activation := arguments.get("act_layer", family.activation)) not in ("gelu", "gelu_tanh", "quick_gelu"):
        raise EncoderError(f"`{path}` has activation {activation!r}; expected gelu, gelu_tanh or quick_gelu.")
    width, _, _, patch = shape_of(shapes, "patch_embed.proj.weight", 4, path)
    hidden = shape_of(shapes, "blocks.0.mlp.fc2.weight", 2, path)[1]
    gated = "blocks.0.mlp.fc1_g.weight" in shapes or shapes.get("blocks.0.mlp.fc1.weight", (0,))[0] == 2 * hidden
    heads = int(arguments.get("num_heads") or family.heads(width))
    positions = shapes["pos_embed"][1] if "pos_embed" in shapes else 0
    pools = "attn_pool.latent" in shapes
    some_bias = {"blocks.0.attn.q_bias", "blocks.0.attn.q_proj.bias"} & shapes.keys()
    config = ViTConfig(
        size=size,
        patch=patch,
        width=width,
        layers=len({name.split(".")[1] for name in shapes if name.startswith("blocks.")}),
        heads=heads,
        hidden=hidden,
        activation="swiglu" if gated else activation,
        eps=family.eps,
        patch_bias="patch_embed.proj.bias" in shapes,
        class_token="cls_token" in shapes,
        registers=shapes["reg_token"][1] if "reg_token" in shapes else 0,
        positions="none" if not positions else "all" if positions == (size // patch) ** 2 + 1 else "patches",
        resampling=family.resampling,
        rope=family.rope,
        rope_theta=family.rope_theta,
        rope_grid=square(arguments.get("ref_feat_shape") or 16, path) if family.rope == "scaled" else 0,
        norm_attention="blocks.0.attn.norm.weight" in shapes,
        norm_mlp="blocks.0.mlp.norm.weight" in shapes,
        qkv_bias="all" if "blocks.0.attn.qkv.bias" in shapes else "query_value" if some_bias else "none",
        layer_scale=bool({"blocks.0.ls1.gamma", "blocks.0.gamma_1"} & shapes.keys()),
        norm_pre="norm_pre.weight" in shapes,
        norm_pooled="fc_norm.weight" in shapes and "norm.weight" not in shapes,
        pool_heads=int(arguments.get("attn_pool_num_heads") or family.pool_heads or heads) if pools else None,
        pool_hidden=shape_of(shapes, "attn_pool.mlp.fc2.weight", 2, path)[1] if pools else None,
        head=shape_of(shapes, f"{head}.weight", 2, path)[0] if head else None,
        head_bias=head is not None and f"{head}.bias" in shapes,
    )
    made_for = arguments.get("ref_feat_shape") or family.grid or config.grid
    sides = {made_for} if isinstance(made_for, int) else set(made_for)
    if config.rope == "counted" and sides != {config.grid}:
        raise EncoderError(
            f"The rotary positions of `{path}` were made for {max(sides)} patches a side and are stretched to "
            f"{config.grid}, which is not supported."
        )
    return config


def _read(path: Path, described: dict[str, Any], shapes: Found) -> tuple[ViTConfig, Any]:
    """A head is a projection where CLIP's has its published size; else it is a classifier, and is left out: a head of
    another size was trained by somebody for classes, and tags tell a fine-tuning on ImageNet (`..._ft_in12k_in1k`).
    """
    name, published = described["architecture"], described.get("pretrained_cfg") or {}
    tag = str(published.get("tag") or "")
    arguments = dict(described.get("model_args") or {})
    if any(re.fullmatch(weights, f"{name}.{tag}") for weights in _QUICK):
        arguments.setdefault("act_layer", "quick_gelu")
    pooling = arguments.get("global_pool") or described.get("global_pool")
    if pooling not in POOLINGS:
        raise EncoderError(f"The model in `{path}` has pooling {pooling!r}; expected one of {', '.join(POOLINGS)}.")
    size = square(arguments.get("img_size") or from_timm(path, described).size, path)
    family, classes = family_of(name), described.get("num_classes")
    tuned = classes != published.get("num_classes", classes) or re.search(r"in\d+k", tag)
    projects = family and family.projects and not tuned and "head.weight" in shapes
    return trunk(path, name, arguments, size, shapes, "head" if projects else None), POOLINGS[pooling]


def _restated(config: EncoderConfig, tensors: Tensors) -> Parts:
    """Timm's head always has a bias; and beside registers it has positions for patches alone, so that the class token's
    is added to the token itself.
    """
    tower = config.tower
    if not isinstance(tower, ViTConfig):
        return config, tensors
    if tower.registers and tower.positions == "all":
        token, position = tensors["tower.class_token"], tensors["tower.position"]
        tensors = {**tensors, "tower.class_token": token + position[0], "tower.position": position[1:]}
        tower = replace(tower, positions="patches")
    if tower.head is not None and not tower.head_bias:
        tensors = {**tensors, "tower.head.bias": np.zeros(tower.head, np.float32)}
        tower = replace(tower, head_bias=True)
    return replace(config, tower=tower), tensors


def _describe(config: EncoderConfig) -> dict[str, Any] | None:
    """eps, rotary frequencies and the number of heads in the pooling are left to the reading back."""
    tower = config.tower
    if not isinstance(tower, ViTConfig) or (name := _named(tower, config.pooling)) is None:
        return None
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
        "global_pool": next(theirs for theirs, ours in POOLINGS.items() if ours == config.pooling),
    }
    if tower.rope in ("counted", "scaled"):
        sizes["ref_feat_shape"] = [tower.rope_grid or tower.grid] * 2
    if tower.rope == "counted" and tower.pool_heads:
        inside = tower.pool_hidden or tower.hidden
        sizes |= {"attn_pool_num_heads": tower.pool_heads, "attn_pool_mlp_ratio": ratio(inside, tower.width)}
    return described_as(name, config, "head", sizes, tower.head or 0)


def _named(tower: ViTConfig, pooling: str) -> str | None:
    """A name that timm makes this tower of, given its sizes; None: there is none."""
    asked = (tower.pool_heads is not None) == (pooling == "attention")
    if tower.rope == "none":
        # Its pooling has the blocks' heads and MLP, and does not ask what stands before the patches.
        same = (tower.pool_heads or tower.heads, tower.pool_hidden or tower.hidden) == (tower.heads, tower.hidden)
        asked = asked and same and not (tower.pool_heads and tower.prefix)
    if tower.rope == "centred":
        # It takes images of any size, but no piece of a patch; and widths inside a gate are rounded up.
        asked = asked and tower.size % tower.patch == 0 and (tower.activation != "swiglu" or tower.hidden % 8 == 0)
    registers = tower.registers > 0 and tower.rope != "centred"  # there, any number
    facts = {field: getattr(tower, field) for field in PLAIN} | {"registers": registers}
    return next((name for name, made in VITS.items() if asked and made == facts), None)


LAYOUT = timm(
    family_of,
    anchor="patch_embed.proj.weight",
    names=names,
    forms=forms,
    read=_read,
    describe=_describe,
    restated=_restated,
    ignored=("head.*", "rope.*"),
)
