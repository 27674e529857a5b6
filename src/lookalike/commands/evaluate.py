"""lookalike evaluate: how well vectors bring images of one label together."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lookalike.core.config import option
from lookalike.core.errors import UsageError
from lookalike.core.files import json_text, write_json

if TYPE_CHECKING:
    import numpy as np

    from lookalike.data.collection import Collection
    from lookalike.evaluation.protocols import Report
    from lookalike.vectors.runtime import Embedder


@dataclass(frozen=True)
class Config:
    """Measure an encoder on a collection, or vectors made by anyone.

    Every query of the split is searched among the gallery images of the split. The model's embeddings are read from
    the collection, or made and kept there first. With --embeddings there is no model. With --text the queries are the
    names of the classes.
    """

    places: tuple[str, ...] = option(positional=True, metavar="[MODEL] COLL", default=())
    """The collection to measure on; a model before it is the same as --model."""
    model: str = option(default="", metavar="MODEL")
    """The model: a directory, a short name of `lookalike pull --list`, or ORG/NAME on the Hub. Unless given,
    LOOKALIKE_MODEL, then the one that COLL was indexed with, then `laptop`."""
    embeddings: str | None = option(default=None, metavar="FILE")
    """Vectors made by anyone, a .npy file: row i belongs to the i-th row of the collection by id."""
    split: str = "test"
    """The rows that take part; "all" takes every row."""
    protocol: Literal["merged", "separate"] = "merged"
    """merged: one index of all domains. separate: each domain in its own."""
    text: str | None = option(default=None, metavar="TEMPLATE")
    """Search with words instead of images: the names of the split's classes, each in the place of {} in this text, such
    as "a photo of a {}". Where the encoder has a projection, the same is told of the features before it, so that one
    sees what it costs. The encoder must have kept its text side."""
    trained_on: tuple[str, ...] = option(default=(), metavar="COLL")
    """Collections that the vectors learned from: queries that look like an image there are counted, and the score is
    told without them too. Split `train` of COLL, and what the model's card names and is still there, are looked at
    anyway."""
    json: str | None = option(default=None, metavar="FILE")
    """Write the whole report to this file; `-` writes it to stdout instead of the table."""


def main(config: Config) -> None:
    """Measure, and print the report."""
    from lookalike.commands.models import model_of
    from lookalike.data.collection import Collection
    from lookalike.evaluation.protocols import Roles

    *models, path = [*filter(None, [config.model]), *config.places] or [""]
    if not config.places or len(models) > (config.embeddings is None):
        raise UsageError(
            "Vectors come from one model or from `--embeddings`, not from both, and are measured on one collection; "
            f"the arguments are {len(config.places)}.",
            hint="lookalike evaluate COLL --model MODEL, or lookalike evaluate COLL --embeddings FILE",
        )
    collection = Collection.open(path)
    model = None if config.embeddings is not None else model_of("".join(models), path)
    if config.text is not None:
        Roles.of(collection, config.split)  # a wrong split is told before hours of embedding
        document, words = _by_text(config.text, config, model, collection)
    else:
        given = model or _read_vectors(config.embeddings or "")
        report = measured(given, collection, config.split, config.protocol, config.trained_on)
        document, words = report.to_json(), report.table()
    if config.json is not None and config.json != "-":
        write_json(config.json, document)
    print(json_text(document) if config.json == "-" else words)


def measured(
    given: "str | np.ndarray | Embedder",
    collection: "Collection",
    split: str,
    protocol: str,
    trained_on: Sequence[str] = (),
) -> "Report":
    """The report of a model directory, an encoder or vectors, with what its queries share with training."""
    import numpy as np

    from lookalike.evaluation.leakage import with_leakage
    from lookalike.evaluation.protocols import Roles, evaluate
    from lookalike.targets.parts import data_of
    from lookalike.vectors.column import stored_embeddings
    from lookalike.vectors.runtime import load

    Roles.of(collection, split)  # a wrong split is told before hours of embedding
    learned, fingerprint = list(trained_on), None
    if isinstance(given, np.ndarray):
        vectors = given
    else:
        embedder = load(given) if isinstance(given, str) else given
        learned += data_of(given) if isinstance(given, str) else ()
        vectors, fingerprint = stored_embeddings(embedder, collection)[1], embedder.fingerprint
    return with_leakage(evaluate(vectors, collection, split, protocol, model=fingerprint), collection, learned)


def _by_text(template: str, config: Config, model: str | None, collection: "Collection") -> tuple[dict[str, Any], str]:
    """What class names find, through the projection and, where there is one, without it: as a document and in words."""
    from lookalike.evaluation.zero_shot import Classes, evaluate_texts
    from lookalike.vectors.column import ensure_features, stored_embeddings
    from lookalike.vectors.runtime import combine, load
    from lookalike.vectors.text import load_text

    if model is None:
        raise UsageError(
            "Words are embedded by an encoder, and there is none.",
            hint="lookalike evaluate COLL --model MODEL --text TEMPLATE",
        )
    classes = Classes.of(collection, config.split)
    texts, image = classes.texts(template), load(model)
    words = load_text(model, image)
    by_words = partial(evaluate_texts, classes=classes, split=config.split, protocol=config.protocol, template=template)
    vectors = stored_embeddings(image, collection)[1]
    report = by_words(words.embed(texts), vectors, model=image.fingerprint, collection=collection)
    document = {**report.to_json(), "template": template, "unprojected": None}
    if image.config.projection.kind == "identity":
        return document, report.table()
    names = ensure_features(image, collection, image.config.mirror)
    features = combine(*(collection.vectors(name)[1] for name in names))
    before = by_words(words.features(texts), features, model=image.features_fingerprint, collection=collection)
    costs = "  ".join(f"{name} {report.metrics[name] - before.metrics[name]:+.4f}" for name in report.metrics)
    told = (
        f"through the projection to {image.dimension} numbers\n{report.table()}\n\n"
        f"before it, {features.shape[1]} numbers\n{before.table()}\n\n"
        f"what the projection changes, mean over domains: {costs}"
    )
    return document | {"unprojected": before.to_json()}, told


def _read_vectors(path: str) -> Any:
    """The matrix of float numbers in a .npy file; UsageError if it holds something else. Pickles stay closed."""
    import numpy as np

    if not Path(path).is_file():
        raise UsageError(f"There is no file `{path}` with embeddings.")
    hint = "numpy.save(FILE, vectors.astype(numpy.float32)) writes one, a row an image of the collection"
    try:
        with Path(path).open("rb") as file:
            vectors = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UsageError(f"`{path}` is not a .npy file, or can't be read as one: {error}.", hint=hint) from error
    if vectors.dtype not in (np.float16, np.float32, np.float64) or vectors.ndim != 2 or 0 in vectors.shape:
        raise UsageError(
            f"`{path}` holds {vectors.dtype} {list(vectors.shape)}; expected float16, float32 or float64 [N, D].",
            hint=hint,
        )
    return vectors
