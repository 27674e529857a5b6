"""One export, whole or not at all: what the target writes, the check, the card and the README."""

import importlib.util
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lookalike import __version__
from lookalike.core.config import did_you_mean
from lookalike.core.errors import UsageError
from lookalike.core.files import new_directory, write_json
from lookalike.core.journal import said_if_slow
from lookalike.core.shapes import Vectors
from lookalike.encoders.readme import readme
from lookalike.targets import TARGETS, parity
from lookalike.targets.model_card import checked
from lookalike.targets.parts import Export, Target, Written, target_of


def check_request(name: str, preprocess: bool, int8: bool) -> Target:
    """The target; UsageError unless it is there, can do what is wanted, and has the libraries that it writes with."""
    if name not in TARGETS:
        raise UsageError(
            f"There is no export target `{name}`.{did_you_mean(name, TARGETS)}", hint=f"targets: {', '.join(TARGETS)}"
        )
    target = target_of(name)
    for option, field, wanted in (("--no-preprocess", "graph", not preprocess), ("--int8", "int8", int8)):
        if wanted and not getattr(target, field):
            able = ", ".join(other for other in TARGETS if getattr(target_of(other), field))
            raise UsageError(f"`{option}` goes with the targets {able}; not with {name}.")
    if missing := absent(target.needs):
        raise UsageError(
            f"The target {name} is written by libraries that are not installed: {', '.join(missing)}.",
            hint=_install(target, missing),
        )
    return target


def write_export(
    name: str, export: Export, expected: Callable[[], Vectors], path: str | Path, least: float | None = None
) -> dict[str, Any]:
    """Write the new directory `path`, checked; what its card says of it. Nothing is left of one that does not pass.

    `expected` gives the encoder's own vectors of `parity.drawn_images()`; `least` is the smallest cosine that passes
    (None: the usual one, and no image nearer to another one's vector).
    """
    target = check_request(name, export.preprocess, export.int8)
    with new_directory(path, "export") as directory:
        with said_if_slow(f"writing the export as {name}"):
            written = target.write(export, directory)
        with said_if_slow("computing vectors of drawn images by the export"):
            found, by = _vectors(target, written, directory)
        with said_if_slow("computing the same by the encoder, in JAX"):
            measured = parity.compare(found, expected())
        parity.refuse(measured, name, least, export.int8)
        facts = {
            "target": name,
            "made_by": f"lookalike {__version__}",
            "minimum_cosine": round(measured.minimum, 7),
            "cosine_of_different_images": round(measured.different, 7),
            "images": len(parity.SIZES),
            "checked_with": by,
            "bytes": sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()),
        }
        write_json(directory / "card.json", {**export.card, "export": facts})
        title, licence = export.card.get("name", "An encoder"), export.card.get("license")
        words = written.keeps + (" `embed(path)` gives the vector of one image file." if target.reads else "")
        text = readme(title, written.code, checked(facts), library=target.library, licence=licence, words=words)
        (directory / "README.md").write_text(text, encoding="utf-8")
    return facts


def _vectors(target: Target, written: Written, directory: Path) -> tuple[Vectors, str]:
    """The export's vectors of the drawn images by the library that reads it, or else read back by us; and by whom."""
    missing = absent(target.reads)
    if target.reads and not missing:
        return parity.by_lines(written.code, directory), ", ".join(_versioned(target, name) for name in target.reads)
    if written.read_back is None:
        raise UsageError(
            f"Without {' and '.join(missing)}, which reads this target, the export can't be checked.",
            hint=_install(target, missing),
        )
    from lookalike.targets.onnx import run

    without = f", without {', '.join(missing)}" if missing else ""
    return run(*written.read_back, parity.drawn_images()), f"lookalike {__version__}{without}"


def absent(modules: Sequence[str]) -> list[str]:
    """Those of `modules` that are not installed."""
    return [name for name in modules if importlib.util.find_spec(name) is None]


def _install(target: Target, modules: Sequence[str]) -> str:
    return f"pip install {' '.join(target.packages.get(name, name) for name in modules)}"


def _versioned(target: Target, module: str) -> str:
    try:
        return f"{module} {version(target.packages.get(module, module))}"
    except PackageNotFoundError:
        return module
