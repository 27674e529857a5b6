"""The README of a model on the Hub, made from `card.json`: data, recipe, metrics, and whose licence counts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lookalike.encoders.readme import readme, table
from lookalike.export import TARGETS
from lookalike.export.licences import ORDER, licences, strictest, terms_of
from lookalike.export.parts import target_of

Card = Mapping[str, Any]


def public(card: Card) -> dict[str, Any]:
    """The card without what only this machine knows: of a path, its last part."""
    kept = dict(card)
    if isinstance(kept.get("data"), str):
        kept["data"] = Path(kept["data"]).name
    if isinstance(kept.get("began_from"), Mapping):
        kept["began_from"] = public(kept["began_from"])
    return kept


def model_card(card: Card, name: str, words: str, code: str, definitions: Mapping[str, str]) -> str:
    """The whole README.

    Args:
        card: What `card.json` says.
        name: ORG/NAME, for a card without a name.
        words: What is inside, in sentences; may be empty.
        code: Python lines that load the model.
        definitions: Metric -> what it means.
    """
    facts, library = card.get("export"), "lookalike"
    if isinstance(facts, Mapping):
        library = target_of(facts["target"]).library if facts["target"] in TARGETS else ""
    parts = [
        "## How it was made\n\n" + table(_made(card)),
        _metrics(card.get("metrics"), definitions),
        _licences(licences(card)),
        checked(facts) if isinstance(facts, Mapping) else "",
    ]
    counts = strictest(licences(card)).licence
    return readme(card.get("name", name), code, *parts, library=library, licence=counts, words=words)


def checked(facts: Mapping[str, Any]) -> str:
    """The section on how near an export is to its encoder."""
    return (
        f"## Checked\n\nExported as {facts['target']} by {facts['made_by']}. Over {facts['images']} drawn images the "
        f"smallest cosine with the encoder's own vector is {facts['minimum_cosine']:.6f} (two different images: at "
        f"most {facts['cosine_of_different_images']:.4f}), computed by {facts['checked_with']}."
    )


def _made(card: Card) -> dict[str, str]:
    """Data and recipe."""
    rows = {"recipe": str(card["recipe"])} if "recipe" in card else {}
    if "data" in card:
        rows["data"] = f"`{Path(str(card['data'])).name}`"
    facts = card.get("images")
    if isinstance(facts, Mapping):
        rows["images"] = f"{int(facts.get('rows', 0)):,}"
        if facts.get("sources"):
            rows["sources"] = ", ".join(f"`{source}`" for source in facts["sources"])
    origin = card.get("began_from", card)
    if isinstance(origin, Mapping) and (origin.get("source") or origin.get("name")):
        rows["began from" if "began_from" in card else "weights"] = str(origin.get("source") or origin["name"])
    return rows | ({"fingerprint": f"`{card['fingerprint']}`"} if "fingerprint" in card else {})


def _metrics(measured: Any, definitions: Mapping[str, str]) -> str:
    """Scores, before and after, and what they mean."""
    if not isinstance(measured, Mapping) or not measured:
        return ""
    names = list(dict.fromkeys(name for values in measured.values() for name in values))
    lines = ["## Metrics\n\nOn classes that training never saw (split `test`), mean over domains.\n"]
    lines += [f"| | {' | '.join(names)} |\n| --- |{' ---: |' * len(names)}"]
    for which, values in measured.items():
        lines.append(f"| {which} | {' | '.join(f'{values[name]:.4f}' if name in values else '' for name in names)} |")
    return "\n".join([*lines, "", *(f"- `{name}`: {definitions[name]}" for name in names if name in definitions)])


def _licences(named: Mapping[str, str | None]) -> str:
    licence, of, terms = strictest(named)
    lines = ["## Licences\n\n| of | licence | kind |\n| --- | --- | --- |"]
    lines += [f"| {of} | {licence or 'unknown'} | {terms_of(licence).name} |" for of, licence in named.items()]
    lines += [f"\nThe strictest counts: **{licence}**, of {of} ({terms.name}: {terms.reason})."]
    return "\n".join([*lines, f"From the most permissive: {', '.join(terms.name for terms in ORDER)}."])
