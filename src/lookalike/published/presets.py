"""Published models by short name: facts from `presets.json`, which `scripts/presets` writes and explains."""

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
    seen: bool
    """Whether a public listing showed the repository; else its name is a guess."""
    tower: Tower


_DATA = read_json(Path(__file__).with_name("presets.json"))
PRESETS: dict[str, Preset] = {name: from_json(Preset, facts) for name, facts in _DATA["presets"].items()}
"""Short name -> model."""
LICENSES: dict[str, str] = _DATA["licenses"]
"""Licence of weights -> what it forbids or asks, in words that follow "which"; nothing for those that only ask to keep
the notice."""
ALIASES: dict[str, str] = _DATA["aliases"]
"""What to begin with -> short name."""
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


def rows() -> tuple[list[str], list[list[str]]]:
    """Headers and rows of the table of presets. Images a second are a column only if any were measured."""
    measured = images_per_second()
    speed = ["images/s"] if measured else []
    found: list[list[str]] = []
    for name, preset in PRESETS.items():
        named = name + "".join(f" ({alias})" for alias, wanted in ALIASES.items() if wanted == name)
        costs = [f"{parameters(preset.tower) / 1e6:.1f}", f"{operations(preset.tower, preset.size) / 1e9:.1f}"]
        pace = [f"{measured[name]:,.3g}" if name in measured else ""] if measured else []
        sizes = [str(preset.size), str(preset.tower.features)]
        source = preset.repository + ("" if preset.seen else " ?")
        found.append([named, preset.kind, *costs, *sizes, *pace, preset.license, source, preset.standing])
    return ["name", "tower", "M", "GFLOP", "px", "F", *speed, "licence", "source", "standing"], found


_LEGEND = (
    "M: millions of parameters of the image tower. GFLOP: billions of operations for one image, a multiplication and "
    "an addition counted as two. px: side of the input. F: numbers in the features. images/s: on two cores, random "
    "weights, `benchmarks/presets.py`. ?: the repository's name was not checked. standing: mAP on ILIAS, the score of "
    "the GUIE competition, k-NN on UnED; each on its own images, not to be compared. Begin with laptop, gpu or best."
)


def overview() -> str:
    """The table of presets, and what its licences forbid."""
    terms = [f"{name}: {words}." for name, words in LICENSES.items() if words]
    return "\n".join([table(*rows()), "", _LEGEND, *terms])
