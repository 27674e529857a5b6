"""Published models by short name: facts from `presets.json`, which `scripts/presets` writes and explains."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from lookalike.core.config import from_json
from lookalike.core.files import read_json
from lookalike.core.journal import table
from lookalike.towers import Pooling, Tower
from lookalike.towers.ops import operations, parameters


@dataclass(frozen=True)
class Preset:
    """One published model."""

    repository: str
    kind: str
    """What it is: "ViT-B/32"."""
    size: int
    """Side of its input, in pixels."""
    pooling: Pooling
    license: str
    """Licence of the weights, a key of `LICENSES`."""
    standing: str
    """What others measured; empty if nothing was found."""
    tower: Tower


_DATA = read_json(Path(__file__).with_name("presets.json"))
PRESETS: dict[str, Preset] = {name: from_json(Preset, facts) for name, facts in _DATA["presets"].items()}
"""Short name -> model."""
LICENSES: dict[str, str] = _DATA["licenses"]
"""Licence of weights -> what it forbids or asks, in words that follow "which"; nothing for those that only ask to keep
the notice."""
ALIASES: dict[str, str] = _DATA["aliases"]
"""What to begin with -> short name."""
CHOICES: dict[str, str] = _DATA["choices"]
"""Short name -> what it is for, of the few that a person chooses from; those of `ALIASES` are the first."""
SPEEDS = Path(__file__).with_name("speeds.json")
"""What `benchmarks/presets.py` measured: {short name: {"float32": images a second, "auto": as `embed` runs it}}."""


def preset_of(name: str) -> tuple[str, Preset] | None:
    """The preset of a short name or of an alias, with its short name; None if there is none."""
    name = ALIASES.get(name, name)
    return (name, PRESETS[name]) if name in PRESETS else None


def images_per_second() -> dict[str, float]:
    """Short name -> images a second as `embed` runs the tower on two cores; empty until it was measured."""
    if not SPEEDS.exists():
        return {}
    return {name: float(figures["auto"]) for name, figures in read_json(SPEEDS).items()}


def _named(name: str) -> str:
    return name + "".join(f" ({alias})" for alias, wanted in ALIASES.items() if wanted == name)


def choices() -> tuple[list[str], list[list[str]]]:
    """Headers and rows of the table of `CHOICES`. Images a second are empty where they were not measured."""
    measured = images_per_second()
    found: list[list[str]] = []
    for name, purpose in CHOICES.items():
        preset = PRESETS[name]
        size = f"{4 * parameters(preset.tower) / 1e6:,.0f}"  # a float32 has four bytes
        pace = f"{measured[name]:,.3g}" if name in measured else ""
        found.append([_named(name), preset.kind, size, pace, preset.license, purpose])
    return ["name", "tower", "MB", "images/s", "licence", "for"], found


def rows() -> tuple[list[str], list[list[str]]]:
    """Headers and rows of the table of presets. Images a second are a column only if any were measured."""
    measured = images_per_second()
    speed = ["images/s"] if measured else []
    found: list[list[str]] = []
    for name, preset in PRESETS.items():
        costs = [f"{parameters(preset.tower) / 1e6:.1f}", f"{operations(preset.tower, preset.size) / 1e9:.1f}"]
        pace = [f"{measured[name]:,.3g}" if name in measured else ""] if measured else []
        sizes = [str(preset.size), str(preset.tower.features)]
        facts = [preset.license, preset.repository, preset.standing]
        found.append([_named(name), preset.kind, *costs, *sizes, *pace, *facts])
    return ["name", "tower", "M", "GFLOP", "px", "F", *speed, "licence", "source", "standing"], found


_LEGEND = (
    "M: millions of parameters of the image tower. GFLOP: billions of operations for one image, a multiplication and "
    "an addition counted as two. px: side of the input. F: numbers in the features. images/s: on two cores, random "
    "weights, `benchmarks/presets.py`. standing: mAP on ILIAS, the score of the GUIE competition, k-NN on UnED; each "
    "on its own images, not to be compared. Begin with laptop, gpu or best."
)
_LEGEND_OF_CHOICES = (
    "MB: the image tower in float32. images/s: on two cores. ILIAS: finding the same object among others. GUIE: the "
    "competition of 2022.\nlaptop, gpu and best are names too: lookalike pull laptop --out MODEL. "
    "lookalike pull --all lists all {count}."
)


def overview() -> str:
    """The table of presets, and what its licences forbid."""
    return "\n".join([table(*rows()), "", _LEGEND, *_terms(LICENSES)])


def shortlist() -> str:
    """The table of `CHOICES`, and what their licences forbid."""
    licenses = {PRESETS[name].license for name in CHOICES}
    return "\n".join([table(*choices()), "", _LEGEND_OF_CHOICES.format(count=len(PRESETS)), *_terms(licenses)])


def _terms(licenses: Collection[str]) -> list[str]:
    return [f"{name}: {words}." for name, words in LICENSES.items() if words and name in licenses]
