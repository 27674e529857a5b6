"""Published models by short name: where they are, how large, under which licence. Facts; no code depends on them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """One published model."""

    repository: str
    """Its place on the Hugging Face Hub."""
    tower: str
    """What it is."""
    size: int
    """Side of its input, in pixels."""
    features: int
    """Numbers in its features (F)."""
    parameters: float
    """Millions of parameters of the image tower, projection included."""
    license: str
    """Licence of the weights: what the model card says or, for OpenAI's CLIP, its repository."""
    forbids: str = ""
    """What it does not allow, in words that follow "which"; empty if it is permissive."""


PRESETS: dict[str, Preset] = {
    "clip-vit-b-32": Preset("openai/clip-vit-base-patch32", "ViT-B/32", 224, 512, 87.8, "mit"),
    "clip-vit-b-16": Preset("openai/clip-vit-base-patch16", "ViT-B/16", 224, 512, 86.2, "mit"),
    "clip-vit-l-14": Preset("openai/clip-vit-large-patch14", "ViT-L/14", 224, 768, 304.0, "mit"),
    "clip-vit-l-14-336": Preset("openai/clip-vit-large-patch14-336", "ViT-L/14", 336, 768, 304.3, "mit"),
    "openclip-vit-b-32": Preset("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "ViT-B/32", 224, 512, 87.8, "mit"),
    "openclip-vit-b-16": Preset("laion/CLIP-ViT-B-16-laion2B-s34B-b88K", "ViT-B/16", 224, 512, 86.2, "mit"),
    "openclip-vit-l-14": Preset("laion/CLIP-ViT-L-14-laion2B-s32B-b82K", "ViT-L/14", 224, 768, 304.0, "mit"),
    "openclip-vit-h-14": Preset("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "ViT-H/14", 224, 1024, 632.1, "mit"),
    "mobilenet-v2": Preset("google/mobilenet_v2_1.0_224", "MobileNetV2 1.0", 224, 1280, 2.2, "other"),
}
"""Short name -> model."""

ALIASES: dict[str, str] = {}


def preset_of(name: str) -> tuple[str, Preset] | None:
    """The preset of a short name or of an alias, with its short name; None if there is none."""
    name = ALIASES.get(name, name)
    return (name, PRESETS[name]) if name in PRESETS else None


def overview() -> str:
    return ""
