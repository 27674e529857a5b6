"""likeness evaluate: how well vectors bring images of one label together."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from likeness.core.config import option
from likeness.core.errors import UsageError

if TYPE_CHECKING:
    from likeness.core.shapes import Vectors
    from likeness.data.collection import Collection

_NPY = b"\x93NUMPY"


@dataclass(frozen=True)
class Config:
    """Measure an encoder on a collection, or vectors made by anyone.

    Every query of the split is searched among the gallery images of the split. The model's embeddings are read from
    the collection, or made and kept there first. With --embeddings there is no MODEL.
    """

    places: tuple[str, ...] = option(positional=True, metavar="[MODEL] COLL", default=())
    """The model directory, and the collection to measure on."""
    embeddings: str | None = option(default=None, metavar="FILE")
    """Vectors made by anyone, a .npy file: row i belongs to the i-th row of the collection by id."""
    split: str = "test"
    """The rows that take part; "all" takes every row."""
    protocol: Literal["merged", "separate"] = "merged"
    """merged: one index of all domains. separate: each domain in its own."""
    json: str | None = option(default=None, metavar="FILE")
    """Write the whole report to this file; `-` writes it to stdout instead of the table."""


def main(config: Config) -> None:
    """Measure, and print the report."""
    from likeness.core.files import write_json
    from likeness.data.collection import Collection
    from likeness.evaluation.protocols import COLUMNS, Cast, evaluate

    model, path = _places(config)
    collection = Collection.open(path)
    Cast.of(collection.table(COLUMNS), config.split)  # a wrong split is told before hours of embedding
    if model is None:
        vectors, fingerprint = read_vectors(config.embeddings or ""), None
    else:
        vectors, fingerprint = _embedded(model, collection)
    report = evaluate(vectors, collection, config.split, config.protocol, model=fingerprint)
    if config.json == "-":
        print(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
        return
    if config.json is not None:
        write_json(config.json, report.to_json())
    print(report.table())


def _places(config: Config) -> tuple[str | None, str]:
    """Model directory (None with `--embeddings`) and collection."""
    match config.places, config.embeddings:
        case (model, collection), None:
            return model, collection
        case (collection,), str():
            return None, collection
        case (model, collection), str():
            raise UsageError(
                f"Vectors come from `{config.embeddings}` or from `{model}`, not from both.",
                hint=f"likeness evaluate --embeddings {config.embeddings} {collection}",
            )
    raise UsageError(
        f"A model directory and a collection are needed, and the arguments are {len(config.places)}.",
        hint="likeness evaluate MODEL COLL, or likeness evaluate --embeddings FILE COLL",
    )


def _embedded(model: str, collection: "Collection") -> tuple["Vectors", str]:
    """The encoder's embeddings of every row, made first where they are missing, and its fingerprint."""
    from likeness.embedding.column import ensure_embeddings
    from likeness.embedding.runtime import load

    embedder = load(model)
    if len(collection.missing(embedder.embedding_column)):  # where nothing is, a collection may be read-only
        ensure_embeddings(embedder, collection)
    return collection.vectors(embedder.embedding_column)[1], embedder.fingerprint


def read_vectors(path: str) -> Any:
    """The matrix of float numbers in a .npy file; UsageError if it holds something else. Pickles stay closed."""
    import numpy as np

    if not Path(path).is_file():
        raise UsageError(f"There is no file `{path}` with embeddings.")
    with Path(path).open("rb") as file:
        if file.read(len(_NPY)) != _NPY:
            raise UsageError(f"`{path}` is not a .npy file.", hint="numpy.save(FILE, vectors) writes one")
    try:
        vectors = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UsageError(f"`{path}` can't be read as an array of numbers: {error}.") from error
    if vectors.dtype not in (np.float16, np.float32, np.float64) or vectors.ndim != 2 or 0 in vectors.shape:
        raise UsageError(
            f"`{path}` holds {vectors.dtype} {list(vectors.shape)}; expected float16, float32 or float64 [N, D].",
            hint="numpy.save(FILE, vectors.astype(numpy.float32)), a row an image of the collection",
        )
    return vectors
