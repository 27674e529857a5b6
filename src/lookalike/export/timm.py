"""timm's layout, for the towers that its architectures hold: `config.json` and `model.safetensors`.

timm knows an architecture by its name and takes sizes beside it: a layout has a name for each family whose facts it
tells, and the importer must read the same tower from it.
"""

from pathlib import Path

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig
from lookalike.export.parts import Export, Target, Written
from lookalike.export.published import (
    PROJECTION,
    embedding_lines,
    kind,
    opening_lines,
    pixel_lines,
    read_back,
    write_projection,
)
from lookalike.published.layout import write_layout
from lookalike.published.layouts import holding
from lookalike.published.processors import from_timm


def write(export: Export, directory: Path) -> Written:
    """The two files, and `projection.safetensors` if there is a projection."""
    found = holding("timm", export.config, dict(export.tensors))
    if found is None:
        raise EncoderError(
            f"No architecture of timm holds this {kind(export.config)}.", hint="`--to onnx` takes every encoder"
        )
    layout, described, config, tensors = found
    projected = write_projection(config, tensors, directory)
    read, back = write_layout(layout, described, config, tensors, directory)
    exact = from_timm(directory, described) == config.preprocess
    keeps = f"The tower in timm's layout, as `{described['architecture']}` with its own sizes."
    keeps += f" The projection is in `{PROJECTION}`, for timm has no place for it." if projected else ""
    keeps += "" if exact else " timm's transform can't prepare images as this encoder takes them; the lines do."
    whole = read_back(config, read, back, directory)
    return Written(_code(config, exact, projected), keeps, read_back=whole)


def _code(config: EncoderConfig, exact: bool, projected: bool) -> str:
    """The README's lines."""
    lines = ["import timm", "import torch", "from PIL import Image, ImageOps"]
    lines += ["from safetensors.torch import load_file"] if projected else []
    lines += opening_lines(config, exact)
    lines += ["", "model = timm.create_model('local-dir:.', pretrained=True).eval()"]
    if exact:
        lines += ["transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))"]
    lines += [f"projection = load_file('{PROJECTION}')"] if projected else []
    lines += ["", "@torch.no_grad()", "def embed(path):"]
    lines += ["    pixels = transform(opened(path))[None]"] if exact else pixel_lines(config)
    lines += embedding_lines(config, "model({})", projected)
    return "\n".join(lines) + "\n"


TARGET = Target(write, "timm", reads=("timm", "torch", "torchvision"))
