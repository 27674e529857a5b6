"""`likeness push`: a model directory, or an export, to the Hugging Face Hub."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from likeness.core.config import option
from likeness.core.errors import EncoderError
from likeness.core.files import read_card
from likeness.core.journal import note


@dataclass(frozen=True)
class Config:
    """Upload a model directory, or what `likeness export` made, to the Hugging Face Hub.

    The model card is made from card.json: data, recipe, metrics with their definitions, and the licences of weights and
    data, of which the strictest counts and is named. HF_TOKEN and HF_ENDPOINT are honoured.
    """

    model: str = option(positional=True, metavar="MODEL")
    """A model directory, or an export."""
    repository: str = option(positional=True, metavar="ORG/NAME")
    """Where to; made if it is not there."""
    private: bool = False
    """Make a new repository private."""


def main(config: Config) -> None:
    """Upload, and print where it is."""
    from likeness.evaluation.metrics import DEFINITIONS
    from likeness.export.licences import strictest
    from likeness.export.model_card import licences, model_card, public
    from likeness.export.upload import upload

    directory = Path(config.model)
    card = public(_card(directory))
    code = _code(directory, card, config.repository)
    readme = model_card(card, config.repository, code, DEFINITIONS)
    counts = strictest(licences(card))
    note(f"licence: {counts.licence}, of {counts.of} ({counts.terms.name}: {counts.terms.reason})")
    replaced = {
        "README.md": readme.encode(),
        "card.json": (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode(),
    }
    print(upload(directory, config.repository, replaced, config.private))


def _card(directory: Path) -> dict[str, Any]:
    """The card of what is there; EncoderError if it is neither a model directory nor an export."""
    card = read_card(directory) if directory.is_dir() else {}
    if "export" not in card:
        from likeness.models.config import read_config

        read_config(directory)
    return card


def _code(directory: Path, card: dict[str, Any], repository: str) -> str:
    """The lines that load it: an export's own, or ours."""
    if "export" in card and (directory / "README.md").exists():
        text = (directory / "README.md").read_text(encoding="utf-8")
        if found := re.search(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            return found[1]
        raise EncoderError(f"The README of `{directory}` has no lines that load it.", hint="export it again")
    name = repository.split("/")[-1]
    return (
        f"# likeness pull {repository} --out {name}\nimport likeness\n\n"
        f"vectors = likeness.load('{name}').embed(['picture.jpg'])\n"
    )
