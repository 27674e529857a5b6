"""Licences in order of what they forbid: of a model's weights and of the data it learned from, the strictest counts."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lookalike.export.parts import lineage


class Terms(NamedTuple):
    """A group of licences that forbid about the same."""

    name: str
    reason: str
    """Why it stands where it stands."""
    licences: str
    """Pattern of the names that belong to it, in small letters."""


ORDER: tuple[Terms, ...] = (
    Terms("public domain", "it asks for nothing", r"cc0.*|pddl|unlicense|public.domain|publicdomain|0bsd|pdm.*|wtfpl"),
    Terms(
        "attribution",
        "it asks that the notice be kept or the authors be named",
        r"mit|apache.*|bsd.*|isc|zlib|cc.by(.\d\.\d)?(.[a-z]{2})?|odc.by|cdla.permissive.*|afl.*|ms.pl|ecl.*",
    ),
    Terms(
        "share alike",
        "what is derived from it must carry the same licence",
        r"cc.by.sa.*|a?gpl.*|lgpl.*|mpl.*|odbl|epl.*|eupl.*|cdla.sharing.*|osl.*|cc.sa.*",
    ),
    Terms(
        "restricted use",
        "it names uses that are forbidden, and what is derived must pass that on",
        r".*rail.*|llama.*|gemma.*|dinov3.*",
    ),
    Terms("no derivatives", "what is derived from it must not be passed on", r"cc.by.nd.*|cc.nd.*"),
    Terms(
        "non-commercial",
        "it allows no commercial use",
        r".*\bnc\b.*|.*non.?commercial.*|.*research.only.*|.*research.use.*|apple.amlr|fair.noncommercial.*|cc.by.nc.*",
    ),
    Terms("unknown", "nobody said what it allows, which is to be taken as nothing", r".*"),
)
"""From the most permissive to the strictest."""


class Verdict(NamedTuple):
    """The licence that counts ("unknown" if there is none), and what has it: "the weights", "the data `shop`"."""

    licence: str
    of: str
    terms: Terms


def terms_of(licence: str | None) -> Terms:
    """The group of a licence by its name. Non-commercial is looked for first: `cc-by-nc-sa-4.0` is more than that."""
    name = (licence or "").strip().lower()
    strict_first = (ORDER[5], ORDER[4], *ORDER[:4]) if name else ()
    return next((terms for terms in strict_first if re.fullmatch(terms.licences, name)), ORDER[-1])


def strictest(named: Mapping[str, str | None]) -> Verdict:
    """Of all that a model was made from (what it is -> its licence, None if nobody said), what counts."""
    found = [Verdict(licence or "unknown", of, terms_of(licence)) for of, licence in named.items()]
    return max(found, key=lambda verdict: ORDER.index(verdict.terms))


def licences(card: Mapping[str, Any]) -> dict[str, str | None]:
    """What the model was made from, and its licence: the weights, and all data that it or these learned from."""
    found: dict[str, str | None] = {}
    for origin in lineage(card):
        if "data" in origin:
            found |= _of_data(origin)
    if "data" not in origin or origin.get("license"):  # a tower that was made from scratch has no licence of its own
        found[f"the weights `{origin.get('source') or origin.get('name') or 'it began from'}`"] = origin.get("license")
    return found


def _of_data(card: Mapping[str, Any]) -> dict[str, str | None]:
    name, facts = Path(str(card["data"])).name, card.get("images", card.get("pictures"))  # cards of before 0.2
    told = facts.get("licences") if isinstance(facts, Mapping) else None
    if not isinstance(facts, Mapping) or not told:
        return {f"the data `{name}`": None}
    found: dict[str, str | None] = {f"{count:,} images of `{name}`": licence for licence, count in told.items()}
    untold = int(facts.get("rows", 0)) - sum(told.values())
    return found | ({f"{untold:,} images of `{name}` without a word": None} if untold > 0 else {})
