"""What the files of a timm vision transformer don't show: facts of each family, found by the architecture's name.

Widths, layers and optional parts are read from the tensors' shapes; the number of heads, eps, the activation and the
kind of rotary positions can't be. They are those of timm 1.0 (`vision_transformer.py`, `eva.py`).
"""

import re
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from lookalike.towers.vit import Activation, Resampling

_SIZE = r"(?P<size>[a-z0-9_]+?)"


class Form(NamedTuple):
    """One architecture, as far as its name tells it."""

    family: "Family"
    size: str
    """tiny, base, so400m, ..."""
    grid: int | None
    """Patches along a side of the images that rotary positions were made for, where the name says it."""

    def heads(self, width: int) -> int:
        """Attention heads of a tower with tokens of this width."""
        return 16 if self.size in self.family.sixteen else width // 64


@dataclass(frozen=True)
class Family:
    """Architectures that have these facts in common."""

    names: str
    """Pattern of the whole name."""
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


_WIDE = ("so400m", "huge", "giant", "giantopt", "gigantic")

FAMILIES: tuple[Family, ...] = (
    Family(
        rf"vit_{_SIZE}_patch\d+_clip_quickgelu_\d+", eps=1e-5, activation="quick_gelu", sixteen=_WIDE, projects=True
    ),
    Family(rf"vit_{_SIZE}_patch\d+(_plus)?_clip_\d+", eps=1e-5, sixteen=_WIDE, projects=True),
    # Architectures that came with SigLIP 2 have the approximate GELU that both were trained with; timm gives older
    # ones the exact GELU, and so whoever uses its files has that.
    Family(r"vit_(?P<size>base)_patch32_siglip(_gap)?_256", activation="gelu_tanh"),
    Family(r"vit_(?P<size>large)_patch16_siglip(_gap)?_512", activation="gelu_tanh"),
    Family(r"vit_(?P<size>so400m|giantopt)_patch16_siglip(_gap)?_\d+", activation="gelu_tanh", sixteen=_WIDE),
    Family(r"vit_(?P<size>base|large|so400m)_patch\d+_siglip(_gap)?_\d+", sixteen=_WIDE),
    Family(r"vit_(?P<size>small|base|large|giant)_patch14(_reg4)?_dinov2"),
    Family(
        r"vit_(?P<size>base|large|so400m|giant)_patch14_reg1_tipsv2",
        sixteen=("so400m",),
        resampling="bilinear_antialias",
    ),
    Family(
        r"vit_(?P<size>tiny|small|small_plus|base|large|huge_plus)_patch16_dinov3(_qkvb)?", eps=1e-5, rope="centred"
    ),
    # The Perception Encoder's own code resizes positions without antialiasing, and counts places without stretching.
    Family(
        rf"vit_pe_core_{_SIZE}_patch(?P<patch>\d+)_(?P<side>\d+)",
        eps=1e-5,
        sixteen=("gigantic",),
        pool_heads=8,
        rope="counted",
        rope_theta=10_000.0,
        resampling="bilinear",
        projects=True,
    ),
    # Those that were trained with a text side alone have its projection; eva02_enormous norms behind, and is left out.
    Family(r"eva02_(?P<size>base|large)_patch\d+_clip_\d+", rope="scaled", rope_theta=10_000.0, projects=True),
    Family(r"eva02_(?P<size>tiny|small|base|large)_patch\d+_\d+", rope="scaled", rope_theta=10_000.0),
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


def learned_with_quick_gelu(architecture: str, tag: str) -> bool:
    """Whether timm's note on these weights says so, though their architecture has the exact GELU.

    It advises the `quickgelu` architecture for original results, and so we take that activation.
    """
    return any(re.fullmatch(names, f"{architecture}.{tag}") for names in _QUICK)


def family_of(architecture: object) -> Form | None:
    """Family and size of an architecture; None if it is no vision transformer that we know."""
    for family in FAMILIES:
        if isinstance(architecture, str) and (found := re.fullmatch(family.names, architecture)):
            parts = found.groupdict()
            grid = int(parts["side"]) // int(parts["patch"]) if "side" in parts else None
            return Form(family, parts["size"], grid)
    return None


PLAIN: dict[str, Any] = {
    "patch_bias": True,
    "class_token": True,
    "registers": False,
    "positions": "all",
    "rope": "none",
    "qkv_bias": "all",
    "layer_scale": False,
    "norm_pre": False,
    "activation": "gelu",
    "norm_attention": False,
    "norm_mlp": False,
}
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
