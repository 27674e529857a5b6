"""What the targets that write a published layout share: the projection beside the tower, and the README's lines."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from lookalike.encoders.config import EncoderConfig, ProjectionConfig, Tensors
from lookalike.encoders.directory import read_safetensors
from lookalike.export.parts import OPENED, preparation
from lookalike.published.layout import write_tensors
from lookalike.towers import ViTConfig

PROJECTION = "projection.safetensors"
"""Where the projection lies if the layout has no place for it: `weight` [F D] and `bias` [D]."""


def write_projection(config: EncoderConfig, tensors: Mapping[str, np.ndarray], directory: Path) -> bool:
    """The projection in a file of its own, if there is one; whether there is."""
    if config.projection.kind == "identity":
        return False
    parts = ("weight", "bias")
    write_tensors(directory / PROJECTION, {part: np.ascontiguousarray(tensors[f"projection.{part}"]) for part in parts})
    return True


def read_back(
    config: EncoderConfig, tower: EncoderConfig, tensors: Tensors, directory: Path
) -> tuple[EncoderConfig, Tensors]:
    """The encoder that a directory holds: the tower as its importer read it, and the projection beside it."""
    if config.projection.kind == "identity":
        return replace(config, tower=tower.tower), tensors
    projection = read_safetensors(directory / PROJECTION)
    return replace(config, tower=tower.tower), tensors | {f"projection.{name}": t for name, t in projection.items()}


def folded(config: EncoderConfig, tensors: Mapping[str, np.ndarray]) -> tuple[EncoderConfig, Tensors] | None:
    """The same encoder with its projection inside the head of a CLIP tower, or None where that is not exact.

    With L2 normalisation behind both, `(x H) W` is `x (H W)`: without a bias, only
    lengths differ, and the last step removes them.
    """
    tower, projection = config.tower, config.projection
    if not isinstance(tower, ViTConfig) or tower.head_bias or projection.kind == "identity":
        return None
    if np.any(tensors["projection.bias"]):
        return None
    weight = tensors["projection.weight"].astype(np.float64)
    if tower.head:
        weight = tensors["tower.head.weight"].astype(np.float64) @ weight
    others = {name: tensor for name, tensor in tensors.items() if not name.startswith("projection.")}
    size = projection.dimension
    return replace(
        config, tower=replace(tower, head=size), projection=ProjectionConfig("identity", size, size)
    ), others | {"tower.head.weight": weight.astype(np.float32)}


def kind(config: EncoderConfig) -> str:
    """What a tower is called in messages."""
    return type(config.tower).__name__.removesuffix("Config")


def embedding_lines(config: EncoderConfig, run: str, projected: bool) -> list[str]:
    """The last lines of `embed` in torch: features of `pixels`, mirror, projection, unit length.

    Args:
        config: The encoder.
        run: What gives the features, with `{}` for the pixels: "model({}).pooler_output".
        projected: Whether `projection` holds a weight and a bias that are to be applied.
    """
    lines = [f"    features = {run.format('pixels')}"]
    if config.mirror:
        lines.append(f"    features = (features + {run.format('pixels.flip(-1)')}) / 2")
    if projected and config.projection.l2_normalize_input:
        lines.append("    features = torch.nn.functional.normalize(features)")
    if projected:
        lines.append("    features = features @ projection['weight'] + projection['bias']")
    return [*lines, "    return torch.nn.functional.normalize(features)[0].numpy()"]


def opening_lines(config: EncoderConfig, exact: bool) -> list[str]:
    """Lines that make `opened(path)`, or, where no transform of the library is `exact`, `prepared(path)` too."""
    return ["", OPENED.rstrip()] if exact else ["import numpy as np", "", preparation(config.preprocess).rstrip()]


def pixel_lines(config: EncoderConfig) -> list[str]:
    """Lines of `embed` that prepare pixels [1, 3, S, S] by `prepared(path)`, without the library's own transform."""
    mean, std = config.preprocess.mean, config.preprocess.std
    return [
        f"    pixels = (prepared(path) / 255 - np.array({list(mean)})) / np.array({list(std)})",
        "    pixels = torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]",
    ]
