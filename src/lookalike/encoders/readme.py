"""The README of an encoder, in one form: of a model directory, of an export, and on the Hub."""

import re
from collections.abc import Mapping

_LEAD = "Turns an image into a vector, so that images of the same thing lie next to each other."

# What the Hub takes as the value of `license`; every other one is "other" with a name.
_KNOWN = r"mit|apache-2\.0|cc0-1\.0|unlicense|isc|zlib|(a|l)?gpl-\d\.\d|bsd(-\d-clause)?|cc-by(-nc)?(-sa|-nd)?-\d\.\d"


def readme(title: str, code: str, *parts: str, library: str, licence: str | None, words: str = "") -> str:
    """The whole file: front matter that the Hub reads, what the encoder is, Python lines that load it, more sections.

    Empty `parts` are left out; `library` is `library_name` on the Hub, or ""; `words` are sentences of what is inside.
    """
    name, front = (licence or "").lower(), [f"library_name: {library}"] if library else []
    front.append("pipeline_tag: image-feature-extraction")
    if re.fullmatch(_KNOWN, name):
        front.append(f"license: {name}")
    elif name:
        front += ["license: other", f"license_name: {re.sub(r'[^a-z0-9.-]+', '-', name).strip('-')}"]
    lead = f"# {title}\n\n{_LEAD} {words}".rstrip()
    whole = ["\n".join(["---", *front, "---"]), lead, f"```python\n{code.strip()}\n```", *filter(None, parts)]
    return "\n\n".join(whole) + "\n"


def words_and_code(text: str) -> tuple[str, str] | None:
    """What a README that `readme` made has as `words` and `code`; None if it has no such place."""
    found = re.search(r"lie next to each other\.(.*?)\n\n```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return (found[1].strip(), found[2]) if found else None


def table(rows: Mapping[str, object]) -> str:
    """Two columns without a head."""
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())])
