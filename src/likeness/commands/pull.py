"""`likeness pull`: a published model, or one of ours, to a model directory."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likeness.core.config import did_you_mean, option
from likeness.core.errors import EncoderError
from likeness.core.files import read_card, read_json, refuse_unless
from likeness.core.journal import note

if TYPE_CHECKING:
    from likeness.models.config import EncoderConfig, Tensors


@dataclass(frozen=True)
class Config:
    """Turn published weights into a model directory.

    SOURCE is a directory (CLIP or MobileNetV2 as transformers saves them, OpenCLIP's own form, or a model directory
    of ours), a short name such as clip-vit-b-32 or openclip-vit-h-14, or ORG/NAME on the Hugging Face Hub. Only
    safetensors are read. Every tensor must be there, have the right shape and be used.
    """

    source: str = option(positional=True, metavar="SOURCE")
    """A directory, a short name, or ORG/NAME."""
    out: str = option(metavar="MODEL")
    """The model directory to make."""


def main(config: Config) -> None:
    """Convert, and say what the model is."""
    refuse_unless(config.out, ("missing", "empty"), "encoder")
    path, card = _found(config.source)
    from likeness.models.config import write_model

    encoder, tensors, more = _read(path)
    write_model(config.out, encoder, tensors, card | more)
    tower, count = type(encoder.tower).__name__.removesuffix("Config"), sum(t.size for t in tensors.values())
    note(
        f"`{config.out}`: {tower}, {count / 1e6:.1f} M numbers, {encoder.preprocess.size} px, "
        f"{encoder.tower.features} features, embedding of {encoder.projection.dimension}"
    )


def _found(source: str) -> tuple[Path, dict[str, Any]]:
    """Where the model lies on this disk, and what is known about it."""
    from likeness.models.weights.presets import PRESETS

    path = Path(source)
    if path.is_dir():
        return path, {"name": path.resolve().name, "source": path.resolve().name}
    if path.exists():
        raise EncoderError(f"`{source}` is a file.", hint="give the directory that holds its config too")
    from likeness.models.weights.hub import download

    if preset := PRESETS.get(source):
        facts = {"name": source, "source": preset.repository, "license": preset.license}
        return download(preset.repository), facts
    if re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not source.startswith("."):
        return download(source), {"name": source.split("/")[1], "source": source}
    raise EncoderError(
        f"There is no model `{source}`.{did_you_mean(source, PRESETS)}",
        hint=f"give a directory, ORG/NAME on the Hugging Face Hub, or one of {', '.join(PRESETS)}",
    )


def _read(path: Path) -> "tuple[EncoderConfig, Tensors, dict[str, Any]]":
    """The encoder at `path`, ours or published, and what its own card says."""
    from likeness.models.config import read_model
    from likeness.models.weights import read_published

    described = read_json(path / "config.json") if (path / "config.json").exists() else None
    if isinstance(described, dict) and described.get("type") == "EncoderConfig":
        return *read_model(path), {key: value for key, value in read_card(path).items() if key != "fingerprint"}
    layout, config, tensors = read_published(path)
    return config, tensors, {"layout": layout}
