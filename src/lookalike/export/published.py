"""An encoder in a layout of `WEIGHTS`, written and read back: what comes back must be the encoder to the bit."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.core.files import write_json
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, Tensors, read_safetensors
from lookalike.export.parts import OPENED, preparation
from lookalike.imaging.preprocess import Preprocess
from lookalike.published.layouts import WEIGHTS
from lookalike.published.processors import from_transformers
from lookalike.published.table import export_tensors, import_model
from lookalike.towers import ViTConfig

PROJECTION = "projection.safetensors"
"""Where the projection lies if the layout has no place for it: `weight` [F D] and `bias` [D]."""


def write_layout(
    name: str, described: Mapping[str, Any], config: EncoderConfig, tensors: Mapping[str, np.ndarray], directory: Path
) -> tuple[EncoderConfig, Tensors]:
    """The tower of `config` in layout `name`, whose config file holds `described`; the preprocessing is there already.

    Returns:
        What the layout's importer reads from the directory.

    Raises:
        EncoderError: The layout can't hold this tower: another one would come back.
    """
    layout = WEIGHTS[name]
    write_json(directory / layout.files[0], described)
    write_tensors(directory / layout.files[1], export_tensors(layout, config, tensors))
    read, found = import_model(layout, directory)
    same = same_tower(read, config) and all(np.array_equal(found[name], tensors[name]) for name in found)
    if not same:
        raise EncoderError(f"The layout {name} has no place for this {kind(config)}.")
    return read, found


def same_tower(one: EncoderConfig, other: EncoderConfig) -> bool:
    """Whether two towers compute the same. How positions come to another size is each library's own affair."""
    a, b = one.tower, other.tower
    if isinstance(a, ViTConfig) and isinstance(b, ViTConfig):
        a, b = (replace(t, resampling="bicubic", pool_hidden=t.pool_hidden or t.hidden) for t in (a, b))
    return a == b


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """A safetensors file as torch's libraries expect it, with the counters of batch norms that they keep."""
    from safetensors.numpy import save_file

    counters = {
        f"{name.removesuffix('running_mean')}num_batches_tracked": np.zeros((), np.int64)
        for name in tensors
        if name.endswith(".running_mean")
    }
    save_file({**tensors, **counters}, path, metadata={"format": "pt"})


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


def processor(preprocess: Preprocess) -> dict[str, Any]:
    """`preprocessor_config.json` of transformers that comes nearest."""
    squash = preprocess.mode != "crop"
    size: dict[str, int] = (
        {"height": preprocess.resize, "width": preprocess.resize} if squash else {"shortest_edge": preprocess.resize}
    )
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": size,
        "resample": {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}[preprocess.interpolation],
        "do_center_crop": not squash or preprocess.resize != preprocess.size,
        "crop_size": {"height": preprocess.size, "width": preprocess.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }


def write_processor(preprocess: Preprocess, directory: Path) -> bool:
    """`preprocessor_config.json`; whether it says exactly what `preprocess` does."""
    write_json(directory / "preprocessor_config.json", processor(preprocess))
    return from_transformers(directory) == preprocess


def ratio(inside: int, width: int) -> float:
    """What `int(width * ratio)` gives `inside` of, as other libraries compute the width inside an MLP."""
    plain = inside / width
    return plain if int(width * plain) == inside else (inside + 0.5) / width


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
