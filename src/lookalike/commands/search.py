"""lookalike search: images, or words, -> the nearest rows in a collection, as a table, JSON or a contact sheet."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lookalike.core.config import option
from lookalike.core.errors import CollectionError, UsageError
from lookalike.core.files import json_text
from lookalike.core.journal import note, shown, table

if TYPE_CHECKING:
    from lookalike.retrieval.index import Matches


@dataclass(frozen=True)
class Config:
    """Find the images of a collection that are nearest to each IMAGE, or to a text.

    The collection needs embeddings (`lookalike index` or `lookalike embed` writes them). Scores are cosines: 1 is the
    same, and only scores of one encoder compare; those of texts are lower than those of images.
    """

    collection: str = option(positional=True, metavar="COLL")
    """The collection to search."""
    images: tuple[str, ...] = option(positional=True, metavar="IMAGE", default=())
    """Image files to search with; - is standard input."""
    text: str | None = option(default=None, metavar="WORDS")
    """Words to search with, such as "a red kettle"; the encoder must have kept its text side (CLIP, SigLIP)."""
    k: int = option(default=5, short="k")
    """How many matches each query gets."""
    where: str | None = option(default=None, metavar="EXPR")
    """Search only rows that meet this condition over the columns: "domain = 'cars' AND price < 10"."""
    json: bool = False
    """Write one JSON document instead of a table."""
    sheet: str | None = option(default=None, metavar="FILE")
    """Write a contact sheet, .png or .html, instead of a table."""
    model: str | None = option(default=None, metavar="MODEL")
    """The model directory; without it the one that `lookalike index` noted."""


def main(config: Config) -> None:
    """Search, and print or write what was found."""
    from lookalike.data.sources import text

    if not config.images and config.text is None:
        raise UsageError(
            "There is no IMAGE and no `--text` to search with.", hint=f"lookalike search {config.collection} IMAGE..."
        )
    if config.text is not None and not config.text.strip():
        raise UsageError("`--text` holds no words.", hint='--text "a red kettle"')
    if config.k < 1:
        raise UsageError(f"`-k` is {config.k}; at least 1 match is needed.", hint="-k 5")
    if config.sheet:
        from lookalike.pages.sheet import check_suffix

        check_suffix(config.sheet)  # before the seconds that an encoder may take to load
    images = [_readable(image) for image in config.images]
    names = [text(query) for query in (*config.images, *([] if config.text is None else [config.text]))]
    matches = _matches(config, images, names)
    found: list[dict[str, Any]] = [{"query": name, "matches": matches.rows(query)} for query, name in enumerate(names)]
    if config.sheet:
        _write_sheet(config.sheet, images, found, matches)
    if config.json:
        print(json_text(found))
    elif not config.sheet:
        print("\n\n".join(f"{shown(answer['query'])}\n{_table(answer['matches'])}" for answer in found))


def _readable(image: str) -> str | bytes:
    """`image`, or the bytes of what can be read only once: a pipe, standard input."""
    if image == "-":
        return sys.stdin.buffer.read()
    path = Path(image)
    if path.is_dir() or not path.exists():
        found = "is a directory" if path.is_dir() else "does not exist"
        raise UsageError(f"`{image}` {found}.", hint="IMAGE is an image file; several may be given")
    return image if path.is_file() else path.read_bytes()


def _matches(config: Config, images: "Sequence[str | bytes]", names: Sequence[str]) -> "Matches":
    """The matches of the images and, last, of the text."""
    import numpy as np

    from lookalike.data.collection import Collection
    from lookalike.retrieval.index import Index
    from lookalike.vectors.column import embeddings_of, precision_of
    from lookalike.vectors.runtime import load

    collection = Collection.open(config.collection)
    noted = collection.card.get("model", {})
    model = config.model or noted.get("path")
    if model is None:
        raise CollectionError(
            f"`{config.collection}` does not say which encoder to search with.",
            hint="`--model MODEL` names it; `lookalike index` notes it for good",
        )
    if config.model is None and not Path(model).exists():
        raise CollectionError(
            f"`{config.collection}` was indexed with the encoder `{model}`, which is no longer there.",
            hint="`--model MODEL` says where it is now",
        )
    embedder = load(model, precision=precision_of(noted.get("column", "")))
    if config.model is None and embedder.fingerprint != noted["fingerprint"]:
        raise CollectionError(
            f"`{config.collection}` was indexed by another encoder ({noted['fingerprint'][:8]}) than `{model}` is "
            f"now ({embedder.fingerprint[:8]}).",
            hint=f"lookalike index {config.collection} --model {model} --out {config.collection}",
        )
    column = embeddings_of(embedder, collection, noted.get("column", ""))
    if (precision := precision_of(column)) not in (None, embedder.precision):
        embedder = load(model, precision=precision)  # queries like the rows
    try:
        index = Index.open(config.collection, column)
    except CollectionError as error:
        error.hint = error.hint.replace("MODEL", model)
        raise
    if left := len(collection) - len(index):
        note(f"{left:,} of {len(collection):,} images have no vector yet and are left out; `lookalike index` adds it")
    vectors = [embedder.embed(images)]
    if config.text is not None:
        from lookalike.vectors.text import load_text

        vectors.append(load_text(model, embedder).embed(names[-1:]))
    return index.query(np.concatenate(vectors), config.k, config.where)


def _table(rows: list[dict[str, Any]]) -> str:
    cells = [[r["source"], r["label"] or "-", r["domain"] or "-", r["id"], f"{r['score']:.4f}"] for r in rows]
    return table(["source", "label", "domain", "id", "score"], cells) if rows else "no match"


def _write_sheet(
    path: str, images: "Sequence[str | bytes]", answers: Sequence[dict[str, Any]], matches: "Matches"
) -> None:
    from lookalike.imaging.decode import decode
    from lookalike.pages.sheet import SHARP, Found, Line, fitted, write_sheet, written

    lines = []
    for query, answer in enumerate(answers):
        pairs = zip(matches.images(query), answer["matches"], strict=True)
        found = [Found(data, row["label"] or "-", row["source"], row["score"]) for data, row in pairs]
        if query < len(images):
            data = image if isinstance(image := images[query], bytes) else Path(image).read_bytes()
            lines.append(Line(fitted(decode(data, SHARP)), answer["query"], found))
        else:
            lines.append(Line(written(answer["query"]), answer["query"], found, is_words=True))
    write_sheet(path, lines)
    note(f"wrote `{path}`")
