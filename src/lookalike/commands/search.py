"""lookalike search: images, or words, -> the nearest rows in an index, as a table, paths, JSON or a contact sheet."""

import hashlib
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lookalike.core.config import option
from lookalike.core.errors import CollectionError, UsageError
from lookalike.core.files import json_text, kind_of
from lookalike.core.journal import note, shown, table

if TYPE_CHECKING:
    import numpy as np

    from lookalike.core.shapes import Image
    from lookalike.data.collection import Collection
    from lookalike.retrieval.index import ExactIndex, Matches
    from lookalike.vectors.runtime import Embedder

_WINDOWS = 20  # that `--open` opens, at most


@dataclass(frozen=True)
class Config:
    """Find the images of an index that are nearest to each IMAGE, or to a text.

    An index is made by `lookalike index`. Scores are cosines: 1 is the same, and only scores of one encoder compare;
    those of texts are lower than those of images. An IMAGE whose very file is in the index does not find itself.
    """

    images: tuple[str, ...] = option(positional=True, metavar="IMAGE", default=())
    """Image files to search with; - is standard input."""
    index: str = option(default="", short="i", metavar="INDEX")
    """The index to search; unless given, LOOKALIKE_INDEX, then the only one in the current folder."""
    text: str | None = option(default=None, metavar="WORDS")
    """Words to search with, such as "a red kettle"; the encoder must have kept its text side (CLIP, SigLIP)."""
    k: int = option(default=5, short="k")
    """How many matches each query gets."""
    where: str | None = option(default=None, metavar="EXPR")
    """Search only rows that meet this condition over the columns: "domain = 'cars' AND price < 10"."""
    min_score: float = option(default=-1.0, metavar="S")
    """Leave out matches with a lower score."""
    with_self: bool = False
    """Find an IMAGE itself too, where it is in the index."""
    together: bool = False
    """Make one query of all IMAGEs and the words, their mean."""
    unlike: tuple[str, ...] = option(default=(), metavar="IMAGE")
    """Turn every query away from these images: what it has in common with them does not count."""
    not_: tuple[str, ...] = option(default=(), metavar="WORDS")
    """The same with words."""
    json: bool = False
    """Write one JSON document instead of a table."""
    sheet: str | None = option(default=None, metavar="FILE", writes=True)
    """Write a contact sheet, .png or .html, instead of a table."""
    paths: bool = False
    """Write the path of each match on a line of its own, and nothing else, for other programs."""
    null: bool = option(default=False, short="0")
    """The same with a zero byte behind each path instead of a line end, for `xargs -0`."""
    open: bool = False
    """Open the matches with the system's viewer, too."""
    model: str = option(default="", metavar="MODEL")
    """The model: a directory, a short name of `lookalike pull --list`, or ORG/NAME on the Hub. Unless given,
    LOOKALIKE_MODEL, then the one that the index was made with."""


@dataclass(frozen=True)
class _Part:
    """An image or a text that a query is made of."""

    name: str  # as it is shown
    image: str | bytes | None = None  # None: the name is a text
    against: bool = False


@dataclass(frozen=True)
class _Query:
    """What is searched with: one part, or several that make one vector."""

    parts: tuple[_Part, ...]

    @property
    def name(self) -> str:
        """`a.jpg + red - b.jpg`."""
        told = "".join(f" {'-' if part.against else '+'} {part.name}" for part in self.parts)
        return told.removeprefix(" + ")


def main(config: Config) -> None:
    """Search, and print or write what was found."""
    index, queries, matches = run(config)
    found: list[dict[str, Any]] = [
        {"query": query.name, "matches": matches.rows(number)} for number, query in enumerate(queries)
    ]
    if config.sheet:
        _write_sheet(config.sheet, queries, found, matches)
    if config.paths or config.null:
        _write_paths(found, index, b"\0" if config.null else b"\n")
    elif config.json:
        print(json_text(found))
    elif not config.sheet:
        print("\n\n".join(f"{shown(answer['query'])}\n{_table(answer['matches'])}" for answer in found))
    if config.open:
        _open([match["path"] for answer in found for match in answer["matches"]])


def run(config: Config, given: Mapping[str, bytes] | None = None) -> "tuple[str, list[_Query], Matches]":
    """Search: where the index is, the queries, and what they found. `given` are files that some IMAGEs name."""
    from lookalike.commands.indexes import index_of

    _check(config)
    queries = _queries(config, given or {})
    index = index_of(config.index)
    return index, queries, _matches(config, index, queries)


def _check(config: Config) -> None:
    """UsageError for what can't be meant."""
    if not (config.images or config.text is not None):
        raise UsageError("There is no IMAGE and no `--text` to search with.", hint="lookalike search IMAGE...")
    if config.images and kind_of(first := config.images[0]) == "collection":
        right = [*config.images[1:], *([] if config.text is None else ["--text", config.text])]
        raise UsageError(
            f"`{first}` is an index, not an image.",
            hint=f"lookalike search {shlex.join(right or ['IMAGE'])} -i {shlex.quote(first)}",
        )
    for flag, texts in (("--text", () if config.text is None else (config.text,)), ("--not", config.not_)):
        if not all(text.strip() for text in texts):
            raise UsageError(f"`{flag}` holds no words.", hint=f'{flag} "a red kettle"')
    if config.k < 1:
        raise UsageError(f"`-k` is {config.k}; at least 1 match is needed.", hint="-k 5")
    if not -1 <= config.min_score <= 1:
        raise UsageError(f"`--min-score` is {config.min_score}; expected a cosine, -1 to 1.", hint="--min-score 0.5")
    if config.json and (config.paths or config.null):
        raise UsageError(
            "`--json` and `--paths` both write to stdout.", hint="leave one out: `--json` has the paths too"
        )
    if config.sheet:
        from lookalike.pages.sheet import check_suffix

        check_suffix(config.sheet)  # before the seconds that an encoder may take to load


def _queries(config: Config, given: Mapping[str, bytes]) -> list[_Query]:
    """The queries, their images looked at."""
    from lookalike.data.sources import text

    def part(image: str, *, against: bool = False) -> _Part:
        return _Part(text(image), given[image] if image in given else _readable(image), against)

    words = [] if config.text is None else [config.text]
    parts = [part(image) for image in config.images] + [_Part(text(word)) for word in words]
    against = [part(image, against=True) for image in config.unlike]
    against += [_Part(text(word), against=True) for word in config.not_]
    alone = [tuple(parts)] if config.together else [(one,) for one in parts]
    return [_Query((*some, *against)) for some in alone]


def _readable(image: str) -> str | bytes:
    """`image`, or the bytes of what can be read only once: a pipe, standard input."""
    if image == "-":
        return sys.stdin.buffer.read()
    path = Path(image)
    if path.is_dir() or not path.exists():
        found = "is a directory" if path.is_dir() else "does not exist"
        raise UsageError(f"`{image}` {found}.", hint="IMAGE is an image file; several may be given")
    return image if path.is_file() else path.read_bytes()


def _matches(config: Config, place: str, queries: Sequence[_Query]) -> "Matches":
    """What each query finds."""
    import numpy as np

    from lookalike.retrieval.combined import combined
    from lookalike.retrieval.index import rows_with

    index, model, embedder = _opened(config, place)
    if left := len(index.collection) - len(index):
        note(
            f"{left:,} of {len(index.collection):,} images have no vector yet and are left out; "
            f"`lookalike index {shlex.quote(place)}` adds it"
        )
    vectors = _vectors(model, embedder, [part for query in queries for part in query.parts])
    made = []
    for query in queries:
        like, unlike = ([vectors[p] for p in query.parts if p.against == against] for against in (False, True))
        several = len(query.parts) > 1
        made.append(combined(np.stack(like), np.reshape(unlike, (-1, embedder.dimension))) if several else like[0])
    exclude = None if config.with_self else rows_with(index.collection, [_digests(query) for query in queries])
    matches = index.query(np.stack(made), config.k, config.where, exclude)
    _tell_doubt(index, queries, matches)
    low = matches.scores < config.min_score
    return replace(matches, ids=np.where(low, -1, matches.ids), scores=np.where(low, -np.inf, matches.scores))


def _tell_doubt(index: "ExactIndex", queries: Sequence[_Query], matches: "Matches") -> None:
    """Say of queries of one image that their best match is below the score to trust, where `evaluate` measured that."""
    from lookalike.commands.measured import threshold_of

    noted = threshold_of(index.collection, index.column)
    if noted is None or not matches.scores.shape[1]:
        return
    for query, best in zip(queries, matches.scores[:, 0].tolist(), strict=True):
        single = len(query.parts) == 1 and query.parts[0].image is not None
        if single and -1 <= best < noted["threshold"]:
            note(
                f"`{query.name}`: nothing found for sure. Its best match has {best:.3f}; only from "
                f"{noted['threshold']:.3f} on are {100 * noted['precision']:.0f} % of first matches right"
            )


def _opened(config: Config, place: str) -> "tuple[ExactIndex, str, Embedder]":
    """The index at `place`, the model to search it with, and its encoder."""
    from lookalike.commands.models import VARIABLE
    from lookalike.data.collection import Collection
    from lookalike.retrieval.index import Index

    embedder, model, column = encoder_of(Collection.open(place), config.model)
    try:
        return Index.open(place, column), model, embedder
    except CollectionError as error:
        error.hint = f"lookalike index {shlex.quote(place)} --model {shlex.quote(model)}"
        if os.environ.get(VARIABLE) and not config.model:
            error.hint += f"; or unset {VARIABLE}, which names this model"
        raise


def encoder_of(collection: "Collection", asked: str) -> "tuple[Embedder, str, str]":
    """The encoder to search a collection with, its model, and the column of its vectors, which may not be there yet.

    `asked` is what `--model` says. CollectionError if nobody says which, or the model is no longer what was noted.
    """
    from lookalike.commands.models import VARIABLE, model_of
    from lookalike.vectors.column import embeddings_of, precision_of
    from lookalike.vectors.runtime import load

    place, noted = collection.path, collection.card.get("model", {})
    is_asked, again = bool(asked or os.environ.get(VARIABLE)), f"lookalike index {shlex.quote(place)}"
    if not noted and not is_asked:
        raise CollectionError(
            f"`{place}` does not say which encoder to search with.",
            hint=f"`{again}` makes it an index; `--model MODEL` names the encoder of its embeddings",
        )
    model = model_of(asked, place)
    embedder = load(model, precision=precision_of(noted.get("column", "")))
    if not is_asked and embedder.fingerprint != noted["fingerprint"]:
        raise CollectionError(
            f"`{place}` was indexed by another encoder ({noted['fingerprint'][:8]}) than `{model}` is "
            f"now ({embedder.fingerprint[:8]}).",
            hint=f"{again} --model {shlex.quote(model)}",
        )
    column = embeddings_of(embedder, collection, noted.get("column", ""))
    if (precision := precision_of(column)) not in (None, embedder.precision):
        embedder = load(model, precision=precision)  # queries like the rows
    return embedder, model, column


def _vectors(model: str, embedder: "Embedder", parts: Sequence[_Part]) -> "dict[_Part, np.ndarray]":
    """The vector of each part, images and texts apart, each of them once."""
    parts = list(dict.fromkeys(parts))
    images, texts = ([part for part in parts if (part.image is None) == is_text] for is_text in (False, True))
    found = dict(zip(images, embedder.embed([part.image for part in images if part.image is not None]), strict=True))
    if texts:
        from lookalike.vectors.text import load_text

        found |= dict(zip(texts, load_text(model, embedder).embed([part.name for part in texts]), strict=True))
    return found


def _digests(query: _Query) -> set[bytes]:
    """SHA-256 of the files of a query's own images."""
    images = [part.image for part in query.parts if part.image is not None and not part.against]
    return {
        hashlib.sha256(image if isinstance(image, bytes) else Path(image).read_bytes()).digest() for image in images
    }


def _table(rows: list[dict[str, Any]]) -> str:
    cells = [
        [f"{r['score']:.4f}", r["label"] or "-", r["domain"] or "-", r["id"], r["path"] or r["source"]] for r in rows
    ]
    return table(["score", "label", "domain", "id", "path"], cells) if rows else "no match"


def _write_paths(found: Sequence[dict[str, Any]], index: str, end: bytes) -> None:
    """The paths as bytes, as file systems have them; all of them, or CollectionError or UsageError before the first."""
    paths = [match["path"] for answer in found for match in answer["matches"]]
    if None in paths:
        raise CollectionError(
            f"`{index}` does not know where all of its images lie.", hint=f"lookalike index {shlex.quote(index)}"
        )
    if end == b"\n" and (broken := [path for path in paths if "\n" in path]):
        raise UsageError(f"`{broken[0]}` has a line end in its name.", hint="`-0` ends paths with a zero byte instead")
    sys.stdout.flush()
    sys.stdout.buffer.write(b"".join(os.fsencode(path) + end for path in paths))


def _open(paths: Sequence[str | None]) -> None:
    """Show files in the system's viewer; what is none on this disk (members of archives, addresses) is counted."""
    files = [path for path in dict.fromkeys(paths) if path is not None and Path(path).is_file()]
    if others := len({*paths}) - len(files):
        note(f"matches that are no files on this disk, and are not opened: {others:,}; `--sheet` shows all")
    if len(files) > _WINDOWS:
        raise UsageError(
            f"`--open` would open {len(files):,} windows; expected at most {_WINDOWS}.", hint="--sheet FILE"
        )
    viewer = "open" if sys.platform == "darwin" else "xdg-open"
    for file in files:
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            code = subprocess.run([viewer, file], check=False, **quiet).returncode  # type: ignore[call-overload]
        except FileNotFoundError:
            code = 127
        if code:
            raise UsageError(
                f"`{viewer}` can't open `{file}` (exit code {code}).", hint="--sheet matches.html, and open that"
            )


def _write_sheet(path: str, queries: Sequence[_Query], answers: Sequence[dict[str, Any]], matches: "Matches") -> None:
    from lookalike.pages.sheet import Found, Line, told_apart, write_sheet

    short = told_apart([part.name for query in queries for part in query.parts if part.image is not None])
    lines = []
    for number, (query, answer) in enumerate(zip(queries, answers, strict=True)):
        pairs = zip(matches.images(number), answer["matches"], strict=True)
        found = []
        for data, row in pairs:
            title = row["label"] or Path(row["source"]).name
            found.append(Found(data, shown(title), shown(row["source"]), row["score"], row["path"]))
        named = _Query(tuple(replace(part, name=short.get(part.name, part.name)) for part in query.parts))
        lines.append(Line(_pictured(query), shown(named.name), found, shown(query.name)))
    write_sheet(path, lines)
    note(f"wrote `{path}`")


def _pictured(query: _Query) -> "Image":
    """What a sheet shows of a query."""
    from lookalike.imaging.decode import decode
    from lookalike.pages.sheet import SHARP, fitted, joined, written

    images = []
    for part in query.parts:
        data = Path(part.image).read_bytes() if isinstance(part.image, str) else part.image
        images.append(written(part.name) if data is None else fitted(decode(data, SHARP)))
    return joined(images, [part.against for part in query.parts]) if len(images) > 1 else images[0]
