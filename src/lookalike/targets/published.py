"""Targets that are published layouts, and what these share with OpenCLIP's: safetensors, transformers and timm.

A projection without a bias goes into the head of a CLIP, which changes no direction; every other one lies beside it.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.encoders.config import EncoderConfig, ProjectionConfig, Tensors, below
from lookalike.encoders.directory import read_safetensors
from lookalike.published.layout import Layout, described_in, export_tensors, holds, write_layout, write_tensors
from lookalike.published.layouts import WEIGHTS, holding
from lookalike.published.processors import from_timm, write_processor
from lookalike.published.stored import Published
from lookalike.targets.lines import tower_lines, views
from lookalike.targets.parts import Export, Target, Written, lineage, refused
from lookalike.towers import ViTConfig

Held = tuple[Layout, dict[str, Any], EncoderConfig, Tensors]  # an encoder as it has it, and its config file in it
PROJECTION = "projection.safetensors"  # where the layout has no place for it: `weight` [F D] and `bias` [D]


def hold(
    library: str, refusal: str, config: EncoderConfig, tensors: Mapping[str, np.ndarray], folds: bool = False
) -> Held:
    """How a library holds an encoder, its projection in the head if it `folds` that and may; else EncoderError."""
    inside = folded(config, tensors) if folds else None
    for candidate in (inside, (config, dict(tensors))):
        if candidate and (held := holding(library, *candidate)):
            return held
    raise refused(f"{refusal} this {type(config.tower).__name__.removesuffix('Config')}.")


def put(
    export: Export, held: Held, directory: Path, exact: bool, keeps: str, library: str, load: str, pixels: str, run: str
) -> Written:
    """The layout's files, and the projection if it lies beside; `exact`: the library's own transform gives `pixels`."""
    layout, described, config, tensors = held
    projection = write_projection(config, tensors, directory)
    read, found = write_layout(layout, described, config, tensors, directory)
    if projection:
        keeps += f" The projection is in `{PROJECTION}`, for the layout has no place for it."
    elif export.config.projection.kind == "linear":
        keeps += " It has no bias, so only lengths differ."
    if told := views(config):
        keeps += f" The encoder takes{told.removeprefix(',')}, as the lines below do."
    if not exact:
        keeps += f" No transform of {library} prepares images as this encoder takes them; the lines do."
    code = tower_lines(config, library, load, pixels if exact else "", run, PROJECTION if projection else None)
    return Written(code, keeps, (replace(config, tower=read.tower), found | projection))


def write_projection(config: EncoderConfig, tensors: Mapping[str, np.ndarray], directory: Path) -> Tensors:
    """The projection in a file of its own, if there is one; its tensors as they are read back."""
    if config.projection.kind == "identity":
        return {}
    write_tensors(directory / PROJECTION, below("projection", tensors))
    return {f"projection.{name}": tensor for name, tensor in read_safetensors(directory / PROJECTION).items()}


def folded(config: EncoderConfig, tensors: Mapping[str, np.ndarray]) -> tuple[EncoderConfig, Tensors] | None:
    """The same encoder with its projection inside the head of a CLIP tower, or None where that is not exact.

    `(x H) W` is `x (H W)`: without a bias only lengths differ, and the last step removes them.
    """
    tower, projection = config.tower, config.projection
    if not isinstance(tower, ViTConfig) or tower.head_bias or projection.kind == "identity":
        return None
    if tensors["projection.bias"].any():
        return None
    weight = tensors["projection.weight"].astype(np.float64)
    if tower.head:
        weight = tensors["tower.head.weight"].astype(np.float64) @ weight
    size = projection.dimension
    made = replace(config, tower=replace(tower, head=size), projection=ProjectionConfig("identity", size, size))
    others = {name: tensor for name, tensor in tensors.items() if not name.startswith("projection.")}
    return made, others | {"tower.head.weight": weight.astype(np.float32)}


def in_transformers(
    config: EncoderConfig, tensors: Mapping[str, np.ndarray], folds: bool = False
) -> tuple[Held, str, str]:
    """How transformers holds an encoder, the name of the class, and which of its outputs are the features."""
    held = hold("transformers", "transformers has no class for", config, tensors, folds)
    layout, described, config, _ = held
    described["dtype"] = "float32"
    name, features = described["architectures"][0], layout.features(config)
    if features is None:
        raise refused(f"{name} of transformers gives no features that are pooled by {config.pooling!r}.")
    return held, name, features


def write_transformers(export: Export, directory: Path) -> Written:
    """`config.json`, `model.safetensors`, `preprocessor_config.json` and, where needed, `projection.safetensors`."""
    held, name, features = in_transformers(export.config, export.tensors, folds=True)
    config = held[2]
    exact = write_processor(config.preprocess, directory)
    load, keeps = f"model = transformers.{name}.from_pretrained('.').eval()", "The tower is that of transformers."
    if exact:
        load += "\ntransform = transformers.AutoImageProcessor.from_pretrained('.', backend='pil')"
    if config.projection != export.config.projection:
        keeps += " The projection is inside `visual_projection`."
    pixels = "transform(opened(path), return_tensors='pt')['pixel_values']"
    written = put(export, held, directory, exact, keeps, "transformers", load, pixels, f"model({{}}).{features}")
    if not exact and config.preprocess.mode == "pad":
        (directory / "preprocessor_config.json").unlink()  # it has no word for that, and a wrong one would be taken
    return written


def write_timm(export: Export, directory: Path) -> Written:
    """`config.json`, `model.safetensors`, and `projection.safetensors` if there is a projection."""
    held = hold("timm", "No architecture of timm holds", export.config, export.tensors)
    described = held[1]
    exact = from_timm(directory, described) == held[2].preprocess
    keeps = f"The tower in timm's layout, as `{described['architecture']}` with its own sizes."
    load = "model = timm.create_model('local-dir:.', pretrained=True).eval()"
    if exact:
        load += "\ntransform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))"
    return put(export, held, directory, exact, keeps, "timm", load, "transform(opened(path))[None]", "model({})")


def write_safetensors(export: Export, directory: Path) -> Written:
    """The tensors alone, named as in the layout that the tower came in, else in transformers', else as we do."""
    config, file = export.config, directory / "model.safetensors"
    came_in = (origin.get("layout") for origin in lineage(export.card))
    held = (name for name in came_in if name in WEIGHTS and holds(WEIGHTS[name], config.tower))
    usual = (n for n, layout in WEIGHTS.items() if layout.library == "transformers" and described_in(layout, config))
    name = next(chain(held, usual), None)
    if name is None:
        write_tensors(file, below("tower", export.tensors))
        found = read_safetensors(file)
    else:
        layout = WEIGHTS[name]
        write_tensors(file, export_tensors(layout, config, export.tensors))
        published = Published(directory, file.name, layout.renamed)
        found = layout.tensors(published, config.tower, layout.prefixes[0])
    projection = write_projection(config, export.tensors, directory)
    code = f"from safetensors.numpy import load_file\n\ntower = load_file('{file.name}')\n"
    keeps = f"Tensors alone, float32: the tower in {f'the layout {name}' if name else 'our own names'}."
    if projection:
        code += f"projection = load_file('{PROJECTION}')\n"
        keeps += f" `{PROJECTION}` has `weight` [features, dimension] and `bias` [dimension]."
    return Written(code, keeps, (config, {f"tower.{name}": tensor for name, tensor in found.items()} | projection))


SAFETENSORS = Target(write_safetensors, "safetensors")
TRANSFORMERS = Target(write_transformers, "transformers", reads=("torch", "transformers"))
TIMM = Target(write_timm, "timm", reads=("timm", "torch", "torchvision"))
