"""Licences by their names, in order of what they forbid."""

import re
from typing import NamedTuple


class Terms(NamedTuple):
    """Licences that forbid about the same: what they are called, why they stand there, and a pattern of their names."""

    name: str
    reason: str
    licences: str


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


def terms_of(licence: str | None) -> Terms:
    """The group of a licence by its name, the strictest that fits: `cc-by-nc-sa-4.0` asks for more than to share."""
    name = (licence or "").strip().lower()
    strict_first = ORDER[-2::-1] if name else ()
    return next((terms for terms in strict_first if re.fullmatch(terms.licences, name)), ORDER[-1])


def commercial(licence: str | None) -> bool:
    """Whether what has this licence may go into a product that is sold: it says so, and asks for no more than a notice,
    or that what is derived from it stays as free.
    """
    return terms_of(licence) in ORDER[:3]
