"""The README of a model on the Hub, made from `card.json`: data, recipe, metrics, and whose licence counts."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lookalike.encoders.readme import readme, table
from lookalike.export import TARGETS
from lookalike.export.licences import ORDER, Verdict, strictest, terms_of
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
    named, facts = licences(card), card.get("export")
    verdict = strictest(named)
    library = "lookalike"
    if isinstance(facts, Mapping):
        library = target_of(facts["target"]).library if facts["target"] in TARGETS else ""
    parts = [
        "## How it was made\n\n" + table(_made(card)),
        "\n".join(_metrics(card, definitions)),
        "\n".join(_licence_lines(named, verdict)),
        checked(facts) if isinstance(facts, Mapping) else "",
    ]
    return readme(card.get("name", name), code, *parts, library=library, licence=verdict.licence, words=words)


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
