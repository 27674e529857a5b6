"""lookalike push: a model directory, or an export, to the Hugging Face Hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lookalike.core.config import option
from lookalike.core.errors import EncoderError, UsageError
from lookalike.core.files import json_text, read_card
from lookalike.core.journal import note


@dataclass(frozen=True)
class Config:
    """Upload a model directory, or what `lookalike export` made, to the Hugging Face Hub.

    The model card is made from card.json: data, recipe, metrics with their definitions, and the licences of weights and
    data, of which the strictest counts and is named. HF_TOKEN and HF_ENDPOINT are honoured.
    """

    places: tuple[str, ...] = option(positional=True, metavar="[MODEL] ORG/NAME", default=())
    """Where to; made if it is not there. A model before it is the same as --model."""
    model: str = option(default="", metavar="MODEL")
    """The model: a directory, which may be an export's, a short name of `lookalike pull --list`, or ORG/NAME on the
    Hub."""
    private: bool = False
    """Make a new repository private."""


def main(config: Config) -> None:
    """Upload, and print where it is."""
    from lookalike.commands.models import named_model, only_model
    from lookalike.evaluation.metrics import METRICS
    from lookalike.targets.model_card import check_name, licences, model_card, public, strictest, upload

    usage = "lookalike push ORG/NAME --model MODEL"
    *given, repository = config.places or [""]
    model = only_model(given, config.model, usage)
    if not config.places or not model:
        raise UsageError("A model and the repository that it goes to are needed.", hint=usage)
    check_name(repository)
    directory = Path(named_model(model))
    card = read_card(directory) if directory.is_dir() else {}
    files, (words, code) = _files(directory, card.get("export")), _lines(directory, repository, "export" in card)
    card = public(card)
    readme = model_card(card, repository, words, code, {name: metric.words for name, metric in METRICS.items()})
    counts = strictest(licences(card))
    note(f"licence: {counts.licence}, of {counts.of} ({counts.terms.name}: {counts.terms.reason})")
    written = {"README.md": readme.encode(), "card.json": (json_text(card, ascii=False) + "\n").encode()}
    print(upload({**files, **written}, repository, config.private))


def _files(directory: Path, export: dict[str, Any] | None) -> dict[str, Path]:
    """The files beside README and card, by name; EncoderError if they are no whole model or not the checked export."""
    from lookalike.encoders.directory import FOLDER, read_model, read_text

    if export is None:
        read_model(directory)
        text = sorted((directory / FOLDER).iterdir()) if read_text(directory) else []
        files = [directory / "config.json", directory / "model.safetensors", *text]
    else:
        own = (directory / "README.md", directory / "card.json")
        files = [file for file in sorted(directory.rglob("*")) if file.is_file() and file not in own]
        if (found := sum(file.stat().st_size for file in files)) != export["bytes"]:
            raise EncoderError(
                f"The files of `{directory}` have {found:,} bytes; when it was exported they had {export['bytes']:,}.",
                hint="export it again, and leave the directory as it is",
            )
    return {file.relative_to(directory).as_posix(): file for file in files}


def _lines(directory: Path, repository: str, exported: bool) -> tuple[str, str]:
    """What a README says of what is inside ("" for a model), and the lines that load it: the export's, or ours."""
    from lookalike.encoders.readme import words_and_code

    file, name = directory / "README.md", repository.split("/")[-1]
    if not exported:
        return "", (
            f"# lookalike pull {repository} --out {name}\nimport lookalike\n\n"
            f"vectors = lookalike.load('{name}').embed(['image.jpg'])\n"
        )
    if found := words_and_code(file.read_text(encoding="utf-8")) if file.exists() else None:
        return found
    raise EncoderError(f"The README of `{directory}` has no lines that load it.", hint="export it again")
