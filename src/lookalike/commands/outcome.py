"""What a verb says at its end: words, or a JSON document where `--json` asks for one."""

from typing import Any

from lookalike.core.files import json_text, write_json


def tell(document: Any, words: str, file: str | None) -> None:
    """Print `words`; `document` goes into `file`, or if that is `-` to stdout instead of them."""
    if file is not None and file != "-":
        write_json(file, document)
    print(json_text(document) if file == "-" else words)
