"""The README of a model on the Hub, made from `card.json`: data, recipe, metrics, and whose licence counts."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lookalike.export.licences import ORDER, Verdict, strictest, terms_of

Card = Mapping[str, Any]

_LIBRARIES = {"transformers": "transformers", "sentence-transformers": "sentence-transformers", "onnx": "onnx"}
_LIBRARIES |= {"openvino": "openvino", "open_clip": "open_clip", "timm": "timm"}
_LIBRARIES |= {"safetensors": "safetensors", "tflite": "tflite", "torchscript": "pytorch", "submission": "pytorch"}

# What the Hub takes as the value of `license`; every other one is "other" with a name.
_KNOWN = r"(mit|apache-2\.0|cc0-1\.0|unlicense|isc|zlib|(a|l)?gpl-\d\.\d|bsd(-\d-clause)?|cc-by(-nc)?(-sa|-nd)?-\d\.\d)"


def public(card: Card) -> dict[str, Any]:
    """The card without what only this machine knows: of a path, its last part."""
    kept = dict(card)
    if isinstance(kept.get("data"), str):
        kept["data"] = Path(kept["data"]).name
    if isinstance(kept.get("began_from"), Mapping):
        kept["began_from"] = public(kept["began_from"])
    return kept


def licences(card: Card) -> dict[str, str | None]:
    """What the model was made from, and its licence: the weights, and all data that it or these learned from."""
    found: dict[str, str | None] = {}
    origin: Any = card
    while isinstance(origin, Mapping):
        if "data" in origin:
            found |= _of_data(origin)
        if not isinstance(origin.get("began_from"), Mapping):
            made_here = "data" in origin  # a tower that was made from scratch has no licence of its own
            if not made_here or origin.get("license"):
                found[f"the weights `{origin.get('source') or origin.get('name') or 'it began from'}`"] = origin.get(
                    "license"
                )
            break
        origin = origin["began_from"]
    return found


def _images(card: Card) -> Any:
    """Rows, licences and sources that the card names; cards of before 0.2 call them pictures."""
    return card.get("images", card.get("pictures"))


def _of_data(card: Card) -> dict[str, str | None]:
    name = Path(str(card["data"])).name
    facts = _images(card)
    told = facts.get("licences") if isinstance(facts, Mapping) else None
    if not told:
        return {f"the data `{name}`": None}
    found: dict[str, str | None] = {f"{count:,} images of `{name}`": licence for licence, count in told.items()}
    untold = int(facts.get("rows", 0)) - sum(told.values()) if isinstance(facts, Mapping) else 0
    return found | ({f"{untold:,} images of `{name}` without a word": None} if untold > 0 else {})


def model_card(card: Card, name: str, words: str, code: str, definitions: Mapping[str, str]) -> str:
    """The whole README.

    Args:
        card: What `card.json` says.
        name: ORG/NAME, for a card without a name.
        words: What is inside, in sentences; may be empty.
        code: Python lines that load the model.
        definitions: Metric -> what it means.
    """
    named = licences(card)
    verdict = strictest(named)
    parts = [
        _front(card, verdict),
        f"# {card.get('name', name)}\n\nTurns an image into a vector, so that images of the same thing lie next to "
        f"each other. {words}".rstrip()
        + f"\n\n```python\n{code.strip()}\n```",
        "\n".join(_made(card)),
        "\n".join(_metrics(card, definitions)),
        "\n".join(_licence_lines(named, verdict)),
        "\n".join(_exported(card)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front(card: Card, verdict: Verdict) -> str:
    """The front matter that the Hub reads."""
    licence = verdict.licence.lower()
    library = _LIBRARIES.get(str(_target(card)), "") if _target(card) else "lookalike"
    lines = ["---", *([f"library_name: {library}"] if library else [])]
    lines.append("pipeline_tag: image-feature-extraction")
    if re.fullmatch(_KNOWN, licence):
        lines.append(f"license: {licence}")
    else:
        lines += ["license: other", f"license_name: {re.sub(r'[^a-z0-9.-]+', '-', licence).strip('-')}"]
    return "\n".join([*lines, "---"])


def _target(card: Card) -> Any:
    facts = card.get("export")
    return facts.get("target") if isinstance(facts, Mapping) else None


def _made(card: Card) -> Iterator[str]:
    """Data and recipe."""
    yield "## How it was made\n\n| | |\n| --- | --- |"
    if "recipe" in card:
        yield f"| recipe | {card['recipe']} |"
    if "data" in card:
        yield f"| data | `{Path(str(card['data'])).name}` |"
    facts = _images(card)
    if isinstance(facts, Mapping):
        yield f"| images | {int(facts.get('rows', 0)):,} |"
        if facts.get("sources"):
            yield f"| sources | {', '.join(f'`{source}`' for source in facts['sources'])} |"
    origin = card.get("began_from", card)
    if isinstance(origin, Mapping) and (origin.get("source") or origin.get("name")):
        yield f"| {'began from' if 'began_from' in card else 'weights'} | {origin.get('source') or origin['name']} |"
    if "fingerprint" in card:
        yield f"| fingerprint | `{card['fingerprint']}` |"


def _metrics(card: Card, definitions: Mapping[str, str]) -> Iterator[str]:
    """Scores, before and after, and what they mean."""
    measured = card.get("metrics")
    if not isinstance(measured, Mapping) or not measured:
        return
    names = list(dict.fromkeys(name for values in measured.values() for name in values))
    yield "## Metrics\n\nOn classes that training never saw (split `test`), mean over domains."
    yield f"\n| | {' | '.join(names)} |\n| --- |{' ---: |' * len(names)}"
    for which, values in measured.items():
        yield f"| {which} | {' | '.join(f'{values[name]:.4f}' if name in values else '' for name in names)} |"
    yield ""
    yield from (f"- `{name}`: {definitions[name]}" for name in names if name in definitions)


def _licence_lines(named: Mapping[str, str | None], verdict: Verdict) -> Iterator[str]:
    yield "## Licences\n\n| of | licence | kind |\n| --- | --- | --- |"
    for of, licence in named.items():
        yield f"| {of} | {licence or 'unknown'} | {terms_of(licence).name} |"
    terms = verdict.terms
    yield f"\nThe strictest counts: **{verdict.licence}**, of {verdict.of} ({terms.name}: {terms.reason})."
    yield f"From the most permissive: {', '.join(terms.name for terms in ORDER)}."


def _exported(card: Card) -> Iterator[str]:
    facts = card.get("export")
    if isinstance(facts, Mapping):
        yield (
            f"## Checked\n\nExported as {facts['target']} by {facts['made_by']}. Over {facts['images']} drawn "
            f"images the smallest cosine with the encoder's own vector is {facts['minimum_cosine']:.6f}, computed by "
            f"{facts['checked_with']}."
        )
