"""The layout of transformers: the class's own config and tensors, its image processor, and the projection.

A projection without a bias goes into CLIP's `visual_projection`, which changes no direction; every other one lies
beside the model, and the README's lines apply it.
"""

import tempfile
from pathlib import Path

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig
from lookalike.export.families import FAMILIES, Described, Family, at_its_size
from lookalike.export.parts import Export, Target, Written
from lookalike.export.published import (
    PROJECTION,
    embedding_lines,
    folded,
    kind,
    opening_lines,
    pixel_lines,
    read_back,
    same_tower,
    write_layout,
    write_processor,
    write_projection,
)
from lookalike.published.layouts import WEIGHTS
from lookalike.towers import ViTConfig
from lookalike.towers.programs.declare import shapes_of


def write(export: Export, directory: Path) -> Written:
    """`config.json`, `model.safetensors`, `preprocessor_config.json` and, where needed, `projection.safetensors`."""
    config, tensors = at_its_size(export.config), export.tensors
    family, described = family_of(config)
    if family.layout == "clip" and (inside := folded(config, tensors)):
        config, tensors = inside
        family, described = family_of(config)
    features = family.features(config)
    if features is None:
        raise EncoderError(
            f"{described['architectures'][0]} of transformers gives no features that are pooled by {config.pooling!r}.",
            hint="`--to onnx` takes every encoder",
        )
    exact = write_processor(config.preprocess, directory)
    written = write_projection(config, tensors, directory)
    tower, found = write_layout(family.layout, described | {"dtype": "float32"}, config, tensors, directory)
    if not exact and config.preprocess.mode == "pad":
        (directory / "preprocessor_config.json").unlink()  # it has no word for that, and a wrong one would be taken
    code = _code(config, described["architectures"][0], features, exact, written)
    back = read_back(config, tower, found, directory)
    return Written(code, _keeps(export, config, exact), read_back=back)


def family_of(config: EncoderConfig) -> tuple[Family, Described]:
    """The family whose class holds this tower, and the tower's config in its words.

    Raises:
        EncoderError: transformers has no class for it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        write_processor(config.preprocess, Path(scratch))
        for family in FAMILIES:
            described = family.describe(config)
            known = described is not None and WEIGHTS[family.layout].matches(described)
            if described is not None and known and _fits(family, config, described, Path(scratch)):
                return family, described
    raise EncoderError(
        f"transformers has no class for this {kind(config)}.", hint="`--to onnx` and `--to openvino` take every encoder"
    )


def _fits(family: Family, config: EncoderConfig, described: Described, directory: Path) -> bool:
    """Whether the layout has a place for every tensor, and its importer reads the same tower from `described`."""
    layout, tower = WEIGHTS[family.layout], config.tower
    if {key.ours for key in layout.keys(tower)} != set(shapes_of(tower)):
        return False
    # What a head's size is, the importer sees in the tensors alone.
    head = tower.head if isinstance(tower, ViTConfig) else None
    shapes = {"visual_projection.weight": (head, tower.width)} if head and isinstance(tower, ViTConfig) else {}
    try:
        return same_tower(layout.read(directory, described, shapes), config)
    except EncoderError:
        return False


def _code(config: EncoderConfig, model: str, features: str, exact: bool, projected: bool) -> str:
    """The README's lines."""
    lines = ["import torch", "from PIL import Image, ImageOps", f"from transformers import {model}"]
    lines[-1:] = [f"from transformers import AutoImageProcessor, {model}"] if exact else lines[-1:]
    lines += ["from safetensors.torch import load_file"] if projected else []
    lines += opening_lines(config, exact)
    lines += ["", f"model = {model}.from_pretrained('.').eval()"]
    lines += ["processor = AutoImageProcessor.from_pretrained('.', backend='pil')"] if exact else []
    lines += [f"projection = load_file('{PROJECTION}')"] if projected else []
    lines += ["", "@torch.no_grad()", "def embed(path):"]
    lines += (
        ["    pixels = processor(opened(path), return_tensors='pt')['pixel_values']"] if exact else pixel_lines(config)
    )
    lines += embedding_lines(config, f"model({{}}).{features}", projected)
    return "\n".join(lines) + "\n"


def _keeps(export: Export, config: EncoderConfig, exact: bool) -> str:
    """What is where, in words."""
    words = ["The tower and its image processor are those of transformers."]
    if config.projection != export.config.projection:
        words.append("The projection is inside `visual_projection`: it has no bias, so only lengths differ.")
    elif config.projection.kind == "linear":
        words.append(f"The projection is in `{PROJECTION}`, for the class has no place for it.")
    if config.mirror:
        words.append("The encoder takes the mean with the mirror image, as the lines below do.")
    if not exact:
        words.append("No image processor of transformers prepares images as this encoder takes them; the lines do.")
    return " ".join(words)


TARGET = Target(write, "transformers", reads=("torch", "transformers"))
