"""One export, whole or not at all: what the target writes, the check, the card and the README."""

import importlib.util
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from lookalike import __version__
from lookalike.core.errors import UsageError
from lookalike.core.files import new_directory, write_json
from lookalike.core.shapes import Vectors
from lookalike.export import TARGETS, parity
from lookalike.export.parts import Export, Written

PACKAGES = {"open_clip": "open_clip_torch", "PIL": "pillow", "ai_edge_litert": "ai-edge-litert"}
"""Names under which modules are installed, where that is another one."""

_GRAPHS = ("onnx", "openvino", "saved_model", "tflite")  # made of our own graph, with or without preprocessing
_BYTES = ("onnx", "openvino")


def check_request(target: str, preprocess: bool, int8: bool) -> Any:
    """The target's module, if it is there, can do what is asked, and has the libraries that it writes with.

    Raises:
        UsageError: One of these is not so.
    """
    from lookalike.core.config import did_you_mean

    if target not in TARGETS:
        raise UsageError(
            f"There is no export target `{target}`.{did_you_mean(target, TARGETS)}",
            hint=f"targets: {', '.join(TARGETS)}",
        )
    for option, asked, targets in (("--no-preprocess", not preprocess, _GRAPHS), ("--int8", int8, _BYTES)):
        if asked and target not in targets:
            raise UsageError(f"`{option}` goes with the targets {', '.join(targets)}; not with {target}.")
    module = import_module(TARGETS[target])
    if missing := absent(module.NEEDS):
        raise UsageError(
            f"The target {target} is written by libraries that are not installed: {', '.join(missing)}.",
            hint=_install(missing),
        )
    return module


def absent(libraries: Sequence[str]) -> list[str]:
    """Those of `libraries` that are not installed."""
    return [name for name in libraries if importlib.util.find_spec(name) is None]


def write_export(
    target: str, export: Export, expected: Callable[[], Vectors], path: str | Path, least: float | None = None
) -> dict[str, Any]:
    """Write the directory `path`, checked; nothing is left of one that does not pass.

    Args:
        target: A key of `TARGETS`.
        export: The encoder, and how it is wanted.
        expected: Gives the encoder's own vectors of `parity.drawn_images()`; called once the target has written.
        path: Must not exist, or be empty.
        least: The smallest cosine that passes; None: the usual one, and no image nearer to another one's vector.

    Returns:
        What the card says of the export: "target", "minimum_cosine", "bytes" and more.

    Raises:
        UsageError: The target is none of ours, or lacks a library.
        EncoderError: The target can't hold this encoder, or the check failed.
        StorageError: The disk refuses, or something else is there.
    """
    module = check_request(target, export.preprocess, export.int8)
    with new_directory(path, "export") as directory:
        written: Written = module.write(export, directory)
        found, by = _checked(module, written, directory)
        measured = parity.compare(found, expected())
        parity.refuse(measured, target, least, export.int8)
        facts = {
            "target": target,
            "made_by": f"lookalike {__version__}",
            "minimum_cosine": round(measured.minimum, 7),
            "cosine_of_different_images": round(measured.apart, 7),
            "images": measured.images,
            "checked_with": by,
            "bytes": sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()),
        }
        write_json(directory / "card.json", {**export.card, "export": facts})
        (directory / "README.md").write_text(readme(export.card, written, facts), encoding="utf-8")
    return facts


def _checked(module: Any, written: Written, directory: Path) -> tuple[Vectors, str]:
    """The export's vectors of the images, and what computed them.

    Where the library that reads the target is not installed, the files are read back by our own importer.
    """
    images = parity.drawn_images()
    if written.embeds and not absent(module.READS):
        with tempfile.TemporaryDirectory() as scratch:
            embed = parity.embedder(written.code, directory)
            vectors = [embed(path) for path in parity.save(images, Path(scratch))]
        return np.stack(vectors), ", ".join(_versioned(name) for name in module.READS)
    if written.read_back is None:
        if not written.embeds:
            raise ValueError("a target whose lines define no `embed` must give `read_back`")
        raise UsageError(
            f"Without {' and '.join(absent(module.READS))}, which reads this target, the export can't be checked.",
            hint=_install(absent(module.READS)),
        )
    from lookalike.export.onnx import run

    config, tensors = written.read_back
    missing = f", without {', '.join(absent(module.READS))}" if written.embeds else ""
    return run(config, tensors, images), f"lookalike {__version__}{missing}"


def _install(libraries: Sequence[str]) -> str:
    return f"pip install {' '.join(PACKAGES.get(name, name) for name in libraries)}"


def readme(card: Mapping[str, Any], written: Written, facts: Mapping[str, Any]) -> str:
    """What the directory is, the lines that load it, and how near it is to the encoder."""
    licence = f"license: {card['license']}\n" if card.get("license") else ""
    told = "`embed(path)` gives the vector of one image file. " if written.embeds else ""
    near = f"{facts['minimum_cosine']:.6f} (two different images: at most {facts['cosine_of_different_images']:.4f})"
    return (
        f"---\n{written.front}pipeline_tag: image-feature-extraction\n{licence}---\n\n"
        f"# {card.get('name', 'An encoder')}\n\nTurns an image into a vector, so that images of the same thing lie "
        f"next to each other. {written.keeps}\n\n```python\n{written.code}```\n\n"
        f"{told}Over {facts['images']} drawn images its smallest cosine with the encoder's own vector is {near}, "
        f"computed by {facts['checked_with']}. Exported by {facts['made_by']} as {facts['target']}.\n"
    )


def _versioned(module: str) -> str:
    try:
        return f"{module} {version(PACKAGES.get(module, module))}"
    except PackageNotFoundError:
        return module
