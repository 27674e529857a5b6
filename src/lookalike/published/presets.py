"""Published models by short name: where they are, what they are, under which licence, and what the field says of them.

Facts; nothing else depends on them. Parameters and operations are computed from `tower`. A repository in `UNSEEN` is
named by its family's pattern or from memory: no public listing of it was at hand when this table was written, and
`lookalike pull` says so if it is not there. Standings are other people's figures: GUIE is the score of the 2022
competition (mP@5, 64 numbers), ILIAS is mAP@1k of its small version as a second hand reports it, UnED is that of the
first version of TIPS in its own readme. A tower without a standing has none that was found.
"""

from dataclasses import dataclass
from pathlib import Path

from lookalike.core.files import read_json
from lookalike.core.journal import table
from lookalike.towers import ConvNeXtConfig, MobileNetV2Config, SwinConfig, Tower, ViTConfig
from lookalike.towers.efficientnet import EFFICIENTNETS
from lookalike.towers.programs.declare import operations, parameters

LICENSES: dict[str, str] = {
    "apache-2.0": "",
    "mit": "",
    "cc-by-4.0": "asks that the authors be named",
    "dinov3": "forbids military use, asks that derivatives carry the same terms, and is accepted on the Hub first",
    "other": "is not named by the model's card: ask before using it in a product",
}
"""Licence of weights -> what it forbids or asks, in words that follow "which"; nothing for those that only ask to keep
the notice."""


@dataclass(frozen=True)
class Preset:
    """One published model."""

    repository: str
    """Its place on the Hugging Face Hub."""
    kind: str
    """What it is: "ViT-B/32"."""
    tower: Tower
    """The image tower as it is pulled."""
    size: int
    """Side of its input, in pixels."""
    license: str
    """Licence of the weights, a key of `LICENSES`."""
    standing: str = ""
    """What the field says of it; see the module's docstring."""

    @property
    def forbids(self) -> str:
        """What the licence does not allow; empty if it is permissive."""
        return LICENSES[self.license]

    @property
    def parameters(self) -> int:
        """Numbers in the tower, projection included, text tower not."""
        return parameters(self.tower)

    @property
    def operations(self) -> int:
        """Floating-point operations for one image; see `declare.operations`."""
        return operations(self.tower, self.size)


# --------------------------------------------------------------------------------------------- towers by family

# width, blocks, heads, width inside the MLP
_VITS = {
    "T": (192, 12, 3, 768),
    "S": (384, 12, 6, 1536),
    "B": (768, 12, 12, 3072),
    "L": (1024, 24, 16, 4096),
    "SO400M": (1152, 27, 16, 4304),
    "H": (1280, 32, 16, 5120),
    "g": (1408, 40, 16, 6144),
}


def _clip(letter: str, patch: int, size: int, head: int, repository: str, open_: bool, standing: str = "") -> Preset:
    tower = ViTConfig(size, patch, *_VITS[letter], "gelu" if open_ else "quick_gelu", head=head)
    license_ = "mit"  # of OpenAI's repository, and of LAION's cards
    return Preset(repository, f"ViT-{letter}/{patch}", tower, size, license_, standing)


def _siglip(letter: str, patch: int, size: int, repository: str, standing: str = "") -> Preset:
    width, layers, heads, hidden = _VITS[letter]
    tower = ViTConfig(
        *(size, patch, width, layers, heads, hidden, "gelu_tanh", 1e-6),
        patch_bias=True,
        class_token=False,
        positions="patches",
        norm_pre=False,
        pool_heads=heads,
    )
    return Preset(f"google/{repository}", f"ViT-{letter}/{patch}", tower, size, "apache-2.0", standing)


def _pe(letter: str, patch: int, size: int, head: int, standing: str = "") -> Preset:
    tower = ViTConfig(size, patch, *_VITS[letter], "gelu", rope="counted", rope_theta=10_000.0, pool_heads=8, head=head)
    repository = f"timm/PE-Core-{letter}-{patch}" + ("" if letter == "B" else f"-{size}")
    return Preset(repository, f"ViT-{letter}/{patch}", tower, size, "apache-2.0", standing)


def _dino(letter: str, registers: int, repository: str, standing: str = "") -> Preset:
    tower = ViTConfig(
        *(224, 14, *_VITS[letter], "gelu", 1e-6),
        patch_bias=True,
        registers=registers,
        layer_scale=True,
        norm_pre=False,
    )
    return Preset(repository, f"ViT-{letter}/14", tower, 224, "apache-2.0", standing)


def _tips(letter: str, repository: str, standing: str) -> Preset:
    tower = ViTConfig(
        *(448, 14, *_VITS[letter], "gelu", 1e-6), patch_bias=True, registers=1, layer_scale=True, norm_pre=False
    )
    return Preset(repository, f"ViT-{letter}/14", tower, 448, "cc-by-4.0", standing)


def _dino3(letter: str, standing: str = "") -> Preset:
    tower = ViTConfig(
        *(224, 16, *_VITS[letter], "gelu", 1e-5),
        patch_bias=True,
        registers=4,
        positions="none",
        rope="centred",
        qkv_bias="query_value",
        layer_scale=True,
        norm_pre=False,
    )
    repository = f"facebook/dinov3-vit{letter.lower()}16-pretrain-lvd1689m"
    return Preset(repository, f"ViT-{letter}/16", tower, 224, "dinov3", standing)


_CONVNEXTS = {
    "tiny": ((96, 192, 384, 768), (3, 3, 9, 3)),
    "small": ((96, 192, 384, 768), (3, 3, 27, 3)),
    "base": ((128, 256, 512, 1024), (3, 3, 27, 3)),
    "large": ((192, 384, 768, 1536), (3, 3, 27, 3)),
}


def _convnext(name: str, dino: bool) -> Preset:
    tower = ConvNeXtConfig(*_CONVNEXTS[name])
    repository = f"facebook/dinov3-convnext-{name}-pretrain-lvd1689m" if dino else f"timm/convnext_{name}.fb_in22k"
    return Preset(repository, f"ConvNeXt-{name[0].upper()}", tower, 224, "dinov3" if dino else "apache-2.0")


_SWINS = {
    "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}


def _swin(name: str) -> Preset:
    tower = SwinConfig(1, *_SWINS[name], (7,) * 4, (3,) * 4)
    return Preset(f"timm/swin_{name}_patch4_window7_224.ms_in22k", f"Swin-{name[0].upper()}", tower, 224, "mit")


def _swin2(name: str) -> Preset:
    tower = SwinConfig(2, *_SWINS[name], (12, 12, 12, 6), (6, 6, 0, 0))
    return Preset(f"timm/swinv2_{name}_window12_192.ms_in22k", f"Swin v2-{name[0].upper()}", tower, 192, "mit")


def _efficientnet(name: str, size: int) -> Preset:
    first = name.startswith("b")
    repository = f"timm/tf_efficientnet_{name}.ns_jft_in1k" if first else f"timm/tf_efficientnet{name}.in21k"
    kind = f"EfficientNet {name.upper().replace('_', '-')}"
    return Preset(repository, kind, EFFICIENTNETS[name], size, "apache-2.0")


# ------------------------------------------------------------------------------------------------------ the table

_OPENAI = "timm/vit_{}_clip_{}.openai"  # OpenAI's own repositories on the Hub hold pickles for half of them

PRESETS: dict[str, Preset] = {
    "clip-vit-b-32": _clip("B", 32, 224, 512, _OPENAI.format("base_patch32", 224), False),
    "clip-vit-b-16": _clip("B", 16, 224, 512, _OPENAI.format("base_patch16", 224), False),
    "clip-vit-l-14": _clip("L", 14, 224, 768, _OPENAI.format("large_patch14", 224), False),
    "clip-vit-l-14-336": _clip("L", 14, 336, 768, _OPENAI.format("large_patch14", 336), False),
    "openclip-vit-b-32": _clip("B", 32, 224, 512, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", True),
    "openclip-vit-b-16": _clip("B", 16, 224, 512, "laion/CLIP-ViT-B-16-laion2B-s34B-b88K", True),
    "openclip-vit-l-14": _clip("L", 14, 224, 768, "laion/CLIP-ViT-L-14-laion2B-s32B-b82K", True, "ILIAS 12.7"),
    "openclip-vit-h-14": _clip(
        *("H", 14, 224, 1024, "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", True),
        "GUIE 0.603 with PCA, 0.728 trained whole (1st place)",
    ),
    "openclip-vit-g-14": _clip("g", 14, 224, 1024, "laion/CLIP-ViT-g-14-laion2B-s34B-b88K", True),
    "siglip-b-16-224": _siglip("B", 16, 224, "siglip-base-patch16-224"),
    "siglip-b-16-384": _siglip("B", 16, 384, "siglip-base-patch16-384"),
    "siglip-l-16-384": _siglip("L", 16, 384, "siglip-large-patch16-384", "ILIAS 24.2, 34.3 behind a linear layer"),
    "siglip-so400m-14-384": _siglip(
        "SO400M", 14, 384, "siglip-so400m-patch14-384", "GUIE 0.721, frozen, behind a linear layer"
    ),
    "siglip2-b-32-256": _siglip("B", 32, 256, "siglip2-base-patch32-256"),
    "siglip2-b-16-224": _siglip("B", 16, 224, "siglip2-base-patch16-224"),
    "siglip2-b-16-384": _siglip("B", 16, 384, "siglip2-base-patch16-384"),
    "siglip2-l-16-256": _siglip("L", 16, 256, "siglip2-large-patch16-256"),
    "siglip2-l-16-512": _siglip("L", 16, 512, "siglip2-large-patch16-512", "ILIAS 25.3, 37.3 behind a linear layer"),
    "siglip2-so400m-14-384": _siglip("SO400M", 14, 384, "siglip2-so400m-patch14-384"),
    "siglip2-so400m-16-512": _siglip("SO400M", 16, 512, "siglip2-so400m-patch16-512"),
    "pe-core-t-16-384": _pe("T", 16, 384, 512),
    "pe-core-s-16-384": _pe("S", 16, 384, 512),
    "pe-core-b-16-224": _pe("B", 16, 224, 1024),
    "pe-core-l-14-336": _pe("L", 14, 336, 1024, "ILIAS 27.1, 39.6 behind a linear layer: the best there"),
    "tips2-b-14-448": _tips("B", "google/tipsv2-b14", "UnED 62.7 (version 1, frozen)"),
    "tips2-l-14-448": _tips("L", "google/tipsv2-l14", "UnED 67.8 (version 1, frozen)"),
    "tips2-so400m-14-448": _tips("SO400M", "google/tipsv2-so400m14", "UnED 68.6 (version 1, frozen)"),
    "dinov2-s-14": _dino("S", 0, "facebook/dinov2-small"),
    "dinov2-b-14": _dino("B", 0, "facebook/dinov2-base"),
    "dinov2-l-14": _dino("L", 0, "facebook/dinov2-large", "ILIAS 18.5, 23.5 behind a linear layer"),
    "dinov2-reg-s-14": _dino("S", 4, "facebook/dinov2-with-registers-small"),
    "dinov2-reg-b-14": _dino("B", 4, "facebook/dinov2-with-registers-base"),
    "dinov2-reg-l-14": _dino("L", 4, "facebook/dinov2-with-registers-large"),
    "dinov3-s-16": _dino3("S"),
    "dinov3-b-16": _dino3("B"),
    "dinov3-l-16": _dino3("L", "ILIAS 31.1: the best without training; 32.9 behind a linear layer"),
    **{f"dinov3-convnext-{name[0]}": _convnext(name, dino=True) for name in _CONVNEXTS},
    **{f"convnext-{name[0]}": _convnext(name, dino=False) for name in _CONVNEXTS},
    **{f"swin-{name[0]}": _swin(name) for name in _SWINS},
    **{f"swin2-{name[0]}": _swin2(name) for name in ("base", "large")},
    **{
        f"efficientnet-{name.replace('_', '-')}": _efficientnet(name, size)
        for name, size in zip(EFFICIENTNETS, (224, 240, 260, 300, 380, 456, 528, 600, 300, 384, 384), strict=True)
    },
    "mobilenet-v2": Preset(
        "google/mobilenet_v2_1.0_224", "MobileNetV2 1.0", MobileNetV2Config(same_padding=True), 224, "other"
    ),
}
"""Short name -> model."""

ALIASES: dict[str, str] = {
    "laptop": "siglip2-b-32-256",
    "gpu": "pe-core-l-14-336",
    "best": "siglip-so400m-14-384",
}
"""What to begin with -> short name; all under Apache-2.0, and all with a text side. laptop: a third of the operations
of a ViT-B/16. gpu: the best on ILIAS behind a linear layer. best: the best frozen tower of GUIE, at twice the cost."""

UNSEEN: frozenset[str] = frozenset(
    {
        "clip-vit-b-16",
        "openclip-vit-b-32",
        "openclip-vit-b-16",
        "siglip-b-16-384",
        "siglip-l-16-384",
        "siglip2-b-16-384",
        "siglip2-l-16-256",
        "siglip2-l-16-512",
        "pe-core-t-16-384",
        "pe-core-b-16-224",
        "tips2-b-14-448",
        "tips2-l-14-448",
        "tips2-so400m-14-448",
        "dinov2-s-14",
        "dinov2-b-14",
        "dinov2-l-14",
        "dinov2-reg-s-14",
        "dinov2-reg-l-14",
        "dinov3-convnext-s",
        "dinov3-convnext-b",
        "dinov3-convnext-l",
        "convnext-t",
        "convnext-s",
        "convnext-l",
        "swin-s",
        "swin-l",
        "swin2-b",
        "swin2-l",
        "mobilenet-v2",
        "efficientnet-b1",
        "efficientnet-b3",
        "efficientnet-b4",
        "efficientnet-b5",
        "efficientnet-b6",
        "efficientnet-b7",
        "efficientnet-v2-m",
        "efficientnet-v2-l",
    }
)
"""Short names whose repository was not seen; see the module's docstring."""


def preset_of(name: str) -> tuple[str, Preset] | None:
    """The preset of a short name or of an alias, with its short name; None if there is none."""
    name = ALIASES.get(name, name)
    return (name, PRESETS[name]) if name in PRESETS else None


SPEEDS = Path(__file__).with_name("speeds.json")
"""What `benchmarks/presets.py` measured: {short name: {"float32": images a second, "auto": as `embed` runs it}}."""


def images_per_second() -> dict[str, float]:
    """Short name -> images a second as `embed` runs the tower on two cores; empty until it was measured."""
    if not SPEEDS.exists():
        return {}
    return {name: float(figures["auto"]) for name, figures in read_json(SPEEDS).items()}


def rows() -> tuple[list[str], list[list[str]]]:
    """Headers and rows of the table of presets. Images a second are a column only if any were measured."""
    measured = images_per_second()
    speed = ["images/s"] if measured else []
    headers = ["name", "tower", "M", "GFLOP", "px", "F", *speed, "licence", "source", "standing"]
    found: list[list[str]] = []
    for name, preset in PRESETS.items():
        aliases = "".join(f" ({alias})" for alias, wanted in ALIASES.items() if wanted == name)
        pace = [f"{measured[name]:,.3g}" if name in measured else ""] if measured else []
        costs = [f"{preset.parameters / 1e6:.1f}", f"{preset.operations / 1e9:.1f}", str(preset.size)]
        source = preset.repository + (" ?" if name in UNSEEN else "")
        facts = [*costs, str(preset.tower.features), *pace, preset.license, source, preset.standing]
        found.append([name + aliases, preset.kind, *facts])
    return headers, found


LEGEND = (
    "M: millions of parameters of the image tower. GFLOP: billions of operations for one image, a multiplication and "
    "an addition counted as two. px: side of the input. F: numbers in the features. images/s: on two cores, random "
    "weights, `benchmarks/presets.py`. ?: the repository's name was not checked. standing: mAP on ILIAS, the score of "
    "the GUIE competition, k-NN on UnED; each on its own images, not to be compared. Begin with laptop, gpu or best."
)
"""What the columns are."""


def overview() -> str:
    """The table of presets, and what its licences forbid."""
    terms = [f"{name}: {words}." for name, words in LICENSES.items() if words]
    return "\n".join([table(*rows()), "", LEGEND, *terms])
