"""lookalike export: an encoder in the form that another program loads."""

import os
from dataclasses import dataclass
from typing import Any

from lookalike.core.config import in_range, option
from lookalike.core.files import read_card, refuse_unless
from lookalike.core.journal import note
from lookalike.core.shapes import Vectors
from lookalike.targets import TARGETS


@dataclass(frozen=True)
class Config:
    """Take an encoder elsewhere: in the layout of another library, or as a graph with the preprocessing inside.

    Targets: TARGETS. Each export is checked before it is kept: drawn images go through the lines that its README
    shows, and their vectors are compared with the encoder's own.
    """

    to: str = option(metavar="TARGET")
    """The target."""
    out: str = option(metavar="DIR")
    """The directory to make."""
    given: tuple[str, ...] = option(positional=True, metavar="[MODEL]", default=())
    """The same as --model."""
    model: str = option(default="", metavar="MODEL")
    """The model: a directory, a short name of `lookalike pull --list`, or ORG/NAME on the Hub. Unless given,
    LOOKALIKE_MODEL, then `laptop`."""
    preprocess: bool = True
    """Resizing and cropping inside, where the target is a graph; without, it takes squares."""
    int8: bool = False
    """Large matrices as whole numbers of 8 bits, for CPUs, where the target can hold them."""
    min_cosine: float | None = None
    """The smallest cosine with the encoder's vectors that passes; 0.9999 unless told, with --int8 0.995."""

    def __post_init__(self) -> None:
        in_range(self, -1.0, 1.0, "min_cosine")


Config.__doc__ = (Config.__doc__ or "").replace("TARGETS", ", ".join(TARGETS))


def main(config: Config) -> None:
    """Write, check, and say how near it is and how large."""
    facts = run(config)
    note(
        f"`{config.out}`: {config.to}, {facts['bytes'] / 1e6:,.1f} MB, smallest cosine {facts['minimum_cosine']:.6f} "
        f"over {facts['images']} images (different images: at most {facts['cosine_of_different_images']:.4f}), "
        f"computed by {facts['checked_with']}"
    )


def run(config: Config) -> dict[str, Any]:
    """Write and check; the facts of the check."""
    from lookalike.commands.models import model_of, only_model
    from lookalike.encoders.directory import read_model, read_text
    from lookalike.targets.parts import Export
    from lookalike.targets.writing import check_request, write_export

    # Their bars and reports of loading are about our own scratch files.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    target = check_request(config.to, config.preprocess, config.int8)
    refuse_unless(config.out, ("missing", "empty"), "export")
    model = model_of(only_model(config.given, config.model, "lookalike export --model MODEL --to TARGET --out DIR"))
    encoder, tensors = read_model(model)
    text = read_text(model) if target.text else None
    export = Export(encoder, tensors, read_card(model), config.preprocess, config.int8, text)
    facts: dict[str, Any] = write_export(config.to, export, lambda: vectors(model), config.out, config.min_cosine)
    return facts


def vectors(model: str) -> Vectors:
    """What the encoder gives for the images of the check, by JAX: the graph must not be its own witness."""
    import jax

    from lookalike.targets.parity import drawn_images
    from lookalike.vectors.runtime import load

    with jax.default_matmul_precision("highest"):
        return load(model, runtime="jax", batch=2).embed(drawn_images())
