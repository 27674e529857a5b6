"""Licences in order of what they forbid: of a model's weights and of the data it learned from, the strictest counts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Terms:
    """A group of licences that forbid about the same."""

    name: str
    """What the group is called."""
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


@dataclass(frozen=True)
class Verdict:
    """The licence that counts."""

    licence: str
    """Its name; "unknown" if there is none."""
    of: str
    """What has it: "the weights", "the data `shop`"."""
    terms: Terms


def terms_of(licence: str | None) -> Terms:
    """The group of a licence by its name. Non-commercial is looked for first: `cc-by-nc-sa-4.0` is more than that."""
    name = (licence or "").strip().lower()
    strict_first = (ORDER[5], ORDER[4], *ORDER[:4])
    for terms in strict_first if name else ():
        if re.fullmatch(terms.licences, name):
            return terms
    return ORDER[-1]


def strictest(named: Mapping[str, str | None]) -> Verdict:
    """Of all that a model was made from (what it is -> its licence, None if nobody said), what counts."""
    found = [Verdict(licence or "unknown", of, terms_of(licence)) for of, licence in named.items()]
    return max(found, key=lambda verdict: ORDER.index(verdict.terms))
