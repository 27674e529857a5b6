"""The layout of transformers: the class's own config and tensors, its image processor, and the projection.

A projection without a bias goes into CLIP's `visual_projection`, which changes no direction; every other one lies
beside the model, and the README's lines apply it.
"""

from pathlib import Path
from typing import Any

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, Tensors
from lookalike.export.parts import Export, Target, Written
from lookalike.export.published import (
    PROJECTION,
    embedding_lines,
    folded,
    kind,
    opening_lines,
    pixel_lines,
    read_back,
    write_projection,
)
from lookalike.published.layout import Layout, write_layout
from lookalike.published.layouts import holding
from lookalike.published.layouts.clip import LAYOUT as CLIP
from lookalike.published.processors import write_processor


def write(export: Export, directory: Path) -> Written:
    """`config.json`, `model.safetensors`, `preprocessor_config.json` and, where needed, `projection.safetensors`."""
    layout, described, config, tensors = held(export.config, dict(export.tensors))
    if layout is CLIP and (inside := folded(config, tensors)):
        layout, described, config, tensors = held(*inside)
    features = features_of(layout, described, config)
    exact = write_processor(config.preprocess, directory)
    written = write_projection(config, tensors, directory)
    tower, found = write_layout(layout, described, config, tensors, directory)
    if not exact and config.preprocess.mode == "pad":
        (directory / "preprocessor_config.json").unlink()  # it has no word for that, and a wrong one would be taken
    code = _code(config, described["architectures"][0], features, exact, written)
    back = read_back(config, tower, found, directory)
    return Written(code, _keeps(export, config, exact), read_back=back)


def held(config: EncoderConfig, tensors: Tensors) -> tuple[Layout, dict[str, Any], EncoderConfig, Tensors]:
    """The layout of transformers whose class holds this tower, its config, and the encoder as that class has it.

    Raises:
        EncoderError: transformers has no class for it.
    """
    found = holding("transformers", config, tensors)
    if found is None:
        raise EncoderError(
            f"transformers has no class for this {kind(config)}.",
            hint="`--to onnx` and `--to openvino` take every encoder",
        )
    layout, described, config, tensors = found
    return layout, described | {"dtype": "float32"}, config, tensors


def features_of(layout: Layout, described: dict[str, Any], config: EncoderConfig) -> str:
    """Which output of the class are the features; EncoderError if none is."""
    features = layout.features(config)
    if features is None:
        raise EncoderError(
            f"{described['architectures'][0]} of transformers gives no features that are pooled by {config.pooling!r}.",
            hint="`--to onnx` takes every encoder",
        )
    return features


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
