"""The README of a model on the Hub, made from `card.json`: data, recipe, metrics, and whose licence counts; the upload.

Of the licences of a model's weights and of the data that it learned from, the strictest counts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lookalike.core.errors import EncoderError
from lookalike.core.licences import ORDER, Terms, terms_of
from lookalike.encoders.readme import readme, table
from lookalike.targets import TARGETS
from lookalike.targets.parts import lineage, target_of

Card = Mapping[str, Any]


class Verdict(NamedTuple):
    """The licence that counts, and what has it."""

    licence: str  # "unknown" if there is none
    of: str  # "the weights `clip`", "the data `shop`"
    terms: Terms


def strictest(named: Mapping[str, str | None]) -> Verdict:
    """Of all that a model was made from (what it is -> its licence, None if nobody said), what counts."""
    found = [Verdict(licence or "unknown", of, terms_of(licence)) for of, licence in named.items()]
    return max(found, key=lambda verdict: ORDER.index(verdict.terms))


def licences(card: Card) -> dict[str, str | None]:
    """What the model was made from, and its licence: the weights, and all data that it or these learned from."""
    found: dict[str, str | None] = {}
    for origin in lineage(card):
        if "data" in origin:
            found |= _of_data(origin)
        if isinstance(origin.get("unlabelled"), Mapping):
            found |= _of_data(origin["unlabelled"])
        first = "began_from" not in origin and "blend" not in origin
        if first and ("data" not in origin or origin.get("license")):  # a tower from scratch has no licence of its own
            name = origin.get("source") or origin.get("name") or "it began from"
            found[f"the weights `{name}`"] = origin.get("license")
    return found


def _of_data(card: Card) -> dict[str, str | None]:
    name, facts = Path(str(card["data"])).name, card.get("images", card.get("pictures"))  # cards of before 0.2
    told = facts.get("licences") if isinstance(facts, Mapping) else None
    if not isinstance(facts, Mapping) or not told:
        return {f"the data `{name}`": None}
    found: dict[str, str | None] = {f"{count:,} images of `{name}`": licence for licence, count in told.items()}
    untold = int(facts.get("rows", 0)) - sum(told.values())
    return found | ({f"{untold:,} images of `{name}` without a word": None} if untold > 0 else {})


def public(card: Card) -> dict[str, Any]:
    """The card without what only this machine knows: of a path, its last part."""
    kept = dict(card)
    if isinstance(kept.get("data"), str):
        kept["data"] = Path(kept["data"]).name
    for name in ("unlabelled", "began_from"):
        if isinstance(kept.get(name), Mapping):
            kept[name] = public(kept[name])
    if isinstance(kept.get("blend"), list):
        parts = (part for part in kept["blend"] if isinstance(part, Mapping))
        kept["blend"] = [{"share": part.get("share"), "card": public(part.get("card") or {})} for part in parts]
    return kept


def model_card(card: Card, name: str, words: str, code: str, definitions: Mapping[str, str]) -> str:
    """The whole README, with the `words` and `code` of the model's own; `definitions` say what a metric means."""
    facts, library, named = card.get("export"), "lookalike", licences(card)
    if isinstance(facts, Mapping):
        library = target_of(facts["target"]).library if facts["target"] in TARGETS else ""
    parts = [
        "## How it was made\n\n" + table(_made(card)),
        _metrics(card.get("metrics"), definitions),
        _licences(named),
        checked(facts) if isinstance(facts, Mapping) else "",
    ]
    licence = strictest(named).licence
    return readme(card.get("name", name), code, *parts, library=library, licence=licence, words=words)


def checked(facts: Mapping[str, Any]) -> str:
    """The section on how near an export is to its encoder."""
    return (
        f"## Checked\n\nExported as {facts['target']} by {facts['made_by']}. Over {facts['images']} drawn images the "
        f"smallest cosine with the encoder's own vector is {facts['minimum_cosine']:.6f} (two different images: at "
        f"most {facts['cosine_of_different_images']:.4f}), computed by {facts['checked_with']}."
    )


def _made(card: Card) -> dict[str, str]:
    rows = {"recipe": str(card["recipe"])} if "recipe" in card else {}
    if "data" in card:
        rows["data"] = f"`{Path(str(card['data'])).name}`"
    if isinstance(card.get("unlabelled"), Mapping):
        rows["without labels"] = f"`{Path(str(card['unlabelled']['data'])).name}`"
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


def check_name(repository: str) -> None:
    """EncoderError if `repository` is no ORG/NAME that the Hub takes."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repository)
        if "/" not in repository:
            raise HFValidationError
    except HFValidationError as error:
        raise EncoderError(f"`{repository}` is no name of a model on the Hub.", hint="it is ORG/NAME") from error


def upload(files: Mapping[str, Path | bytes], repository: str, private: bool) -> str:
    """Files to the Hub in one commit, whole or not at all; its address. A repository that is there stays as it is."""
    from huggingface_hub import CommitOperationAdd, HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
    token = "`hf auth login`, or set HF_TOKEN to a token that may write"
    reasons = {
        401: ("the token is missing or wrong", token),
        403: ("the token may not write there", token),
        404: ("there is no such user or organisation, or it may not be seen", f"look at the name; {token}"),
    }
    try:
        api = HfApi()
        api.create_repo(repository, private=private or None, exist_ok=True)
        return str(api.create_commit(repository, operations, commit_message="Upload by lookalike").commit_url)
    except HfHubHTTPError as error:
        status = error.response.status_code
        reason, hint = reasons.get(status, ("it does not say why", "give the same command again later"))
        raise EncoderError(f"The Hub refuses to take `{repository}` ({status}): {reason}.", hint=hint) from error
    except (HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:  # the disk's
            raise
        first = (str(error) or type(error).__name__).splitlines()[0]
        hint = f"look whether `{constants.ENDPOINT}` answers (HF_ENDPOINT sets another address)"
        hint = "unset HF_HUB_OFFLINE where there is a connection" if constants.HF_HUB_OFFLINE else hint
        raise EncoderError(
            f"`{repository}` was not uploaded: there is no connection to the Hub ({first}).",
            hint=f"{hint}, and give the same command again",
        ) from error
