"""What a target is, what it is given, and what it gives back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.encoders.config import EncoderConfig, TextSide
from lookalike.export import TARGETS
from lookalike.imaging.preprocess import Preprocess


@dataclass(frozen=True)
class Export:
    """An encoder, and how it is wanted."""

    config: EncoderConfig
    tensors: Mapping[str, np.ndarray]
    """Those of `tensor_shapes(config)`, by name."""
    card: Mapping[str, Any]
    """What the encoder says of itself."""
    preprocess: bool = True
    """Whether resizing and cropping go into the model, where the target can hold them."""
    int8: bool = False
    """Whether matrices are stored as whole numbers of 8 bits, where the target can hold them."""
    text: TextSide | None = None
    """Its text side, for the target that can hold one."""


@dataclass(frozen=True)
class Written:
    """What a target wrote."""

    code: str
    """Python lines that load it and define `embed(path)`: an image file to its vector [D] of unit length. Run in the
    directory; the README shows them and the check runs them."""
    keeps: str
    """One or two sentences for the README: what of the encoder is inside, and what is not."""
    embeds: bool = True
    """Whether the lines define `embed`; tensors alone can't."""
    read_back: tuple[EncoderConfig, Mapping[str, np.ndarray]] | None = None
    """The encoder as our own importer reads it from the files, for layouts that it knows."""


@dataclass(frozen=True)
class Target:
    """All that the house knows of a target: the value `TARGET` of its file."""

    write: Callable[[Export, Path], Written]
    """Writes an encoder into an empty directory; EncoderError for what the target has no place for."""
    library: str = ""
    """`library_name` on the Hub, if that has one for it."""
    needs: tuple[str, ...] = ()
    """Modules without which it can't write."""
    reads: tuple[str, ...] = ()
    """Those that its README's lines import."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Module -> what installs it, where that has another name."""
    graph: bool = False
    """Whether it is made of our own graph, which can leave the preprocessing out."""
    int8: bool = False
    """Whether it can hold whole numbers of 8 bits."""
    text: bool = False
    """Whether it takes the text side along."""


def target_of(name: str) -> Target:
    """The target of that name in `TARGETS`; imports its file."""
    target: Target = import_module(TARGETS[name]).TARGET
    return target


OPENED = """def opened(path):  # upright, on white, in 8 bits
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith('I'):  # 16 bits
        image = image.convert('I').point(lambda value: value / 257 + 0.5).convert('L')
    image = image.convert('RGBA')
    return Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image).convert('RGB')
"""
"""The lines that open an image file as `lookalike.imaging.decode.decode` does, but for color profiles."""

WHOLE = OPENED + "\ndef prepared(path):\n    return np.asarray(opened(path))\n"
"""The lines that only open an image file."""


def opening(export: Export) -> str:
    """The lines that make `prepared(path)` of an image file, for a graph with or without the preprocessing inside."""
    return WHOLE if export.preprocess else preparation(export.config.preprocess)


def preparation(preprocess: Preprocess) -> str:
    """The lines that prepare an image file outside of the model: a function `prepared(path)` -> uint8 [S S 3]."""
    if not preprocess.antialias:  # Pillow always does
        return (
            f"from lookalike.imaging.preprocess import Preprocess\n\n{OPENED}\n"
            f"def prepared(path):\n    return {preprocess}(np.asarray(opened(path)))\n"
        )
    size, side = preprocess.size, preprocess.resize
    sides = {
        "squash": f"({side}, {side})",
        "crop": f"[{side} * length // min(image.size) for length in image.size]",
        "pad": f"[max(1, round(length / (max(image.size) / {side}))) for length in image.size]",
    }
    start = "spare // 2" if preprocess.rounding == "floor" else "round(spare / 2)"
    if preprocess.mode != "crop" or preprocess.rounding == "even":
        start += " if spare > 0 else -(-spare // 2)"
    fill = preprocess.fill if preprocess.mode == "pad" else (0, 0, 0)
    return (
        f"{OPENED}\ndef prepared(path):\n    image = opened(path)\n    size = {sides[preprocess.mode]}\n"
        f"    image = image.resize(size, Image.Resampling.{preprocess.interpolation.upper()})\n"
        f"    left, top = ({start} for spare in (length - {size} for length in image.size))\n"
        f"    square = Image.new('RGB', ({size}, {size}), {fill})\n"
        "    square.paste(image, (-left, -top))\n    return np.asarray(square)\n"
    )
