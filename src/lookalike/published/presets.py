"""Published models by short name: where they are, what they are, under which licence, and what the field says of them.

Facts from `presets.json`, which `scripts/presets` writes and explains; nothing else depends on them.
"""

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from lookalike.core.config import from_json, to_json
from lookalike.core.files import read_json
from lookalike.core.journal import table
from lookalike.towers import Pooling, Tower
from lookalike.towers.programs.declare import operations, parameters


@dataclass(frozen=True)
class Preset:
    """One published model."""

    repository: str
    """Its place on the Hugging Face Hub."""
    kind: str
    """What it is: "ViT-B/32"."""
    size: int
    """Side of its input, in pixels."""
    pooling: Pooling
    """How its tokens become features, as published."""
    license: str
    """Licence of the weights, a key of `LICENSES`."""
    standing: str
    """What others measured; empty if nothing was found."""
    seen: bool
    """Whether a public listing showed the repository; else its name is a guess."""
    tower: Tower
    """The image tower as it is pulled."""

    @property
    def forbids(self) -> str:
        """What the licence does not allow; empty if it is permissive."""
        return LICENSES[self.license]

    @property
    def parameters(self) -> int:
        """Numbers in the tower, projection included, text tower not."""
        return parameters(self.tower)

    @property
    def operations(self) -> int:
        """Floating-point operations for one image; see `declare.operations`."""
        return operations(self.tower, self.size)


def _tower(data: dict[str, Any]) -> Tower:
    """The tower; what is left out is as its family has it."""
    kind = next(kind for kind in get_args(Tower) if kind.__name__ == data["type"])
    defaults = {field.name: to_json(field.default) for field in fields(kind) if field.default is not MISSING}
    tower: Tower = from_json(kind, defaults | data)
    return tower


_DATA = read_json(Path(__file__).with_name("presets.json"))
PRESETS = {name: Preset(**{**facts, "tower": _tower(facts["tower"])}) for name, facts in _DATA["presets"].items()}
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
    headers = ["name", "tower", "M", "GFLOP", "px", "F", *speed, "licence", "source", "standing"]
    found: list[list[str]] = []
    for name, preset in PRESETS.items():
        aliases = "".join(f" ({alias})" for alias, wanted in ALIASES.items() if wanted == name)
        pace = [f"{measured[name]:,.3g}" if name in measured else ""] if measured else []
        costs = [f"{preset.parameters / 1e6:.1f}", f"{preset.operations / 1e9:.1f}", str(preset.size)]
        source = preset.repository + ("" if preset.seen else " ?")
        facts = [*costs, str(preset.tower.features), *pace, preset.license, source, preset.standing]
        found.append([name + aliases, preset.kind, *facts])
    return headers, found


LEGEND = (
    "M: millions of parameters of the image tower. GFLOP: billions of operations for one image, a multiplication and "
    "an addition counted as two. px: side of the input. F: numbers in the features. images/s: on two cores, random "
    "weights, `benchmarks/presets.py`. ?: the repository's name was not checked. standing: mAP on ILIAS, the score of "
    "the GUIE competition, k-NN on UnED; each on its own images, not to be compared. Begin with laptop, gpu or best."
)
"""What the columns are."""


def overview() -> str:
    """The table of presets, and what its licences forbid."""
    terms = [f"{name}: {words}." for name, words in LICENSES.items() if words]
    return "\n".join([table(*rows()), "", LEGEND, *terms])
