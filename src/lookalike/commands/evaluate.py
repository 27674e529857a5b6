"""lookalike evaluate: how well vectors bring images of one label together."""

from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from lookalike.commands.outcome import tell
from lookalike.core.config import in_range, option
from lookalike.core.errors import UsageError
from lookalike.core.journal import note, table

if TYPE_CHECKING:
    from lookalike.commands.measured import Measured
    from lookalike.data.collection import Collection


@dataclass(frozen=True)
class Config:
    """Measure an encoder on a collection, or vectors made by anyone.

    Every query of the split is searched among the gallery images of the split. The model's embeddings are read from
    the collection, or made and kept there first; from which score on its matches are to be trusted is noted there too,
    for `search`. With --embeddings there is no model. With --text the queries are the names of the classes.
    """

    places: tuple[str, ...] = option(positional=True, metavar="[MODEL] COLL", default=())
    """The collection to measure on; a model before it is the same as --model."""
    model: str = option(default="", metavar="MODEL")
    """The model: a directory, a short name of `lookalike pull --list`, or ORG/NAME on the Hub. Unless given,
    LOOKALIKE_MODEL, then the one that COLL was indexed with, then `laptop`."""
    embeddings: str | None = option(default=None, metavar="FILE")
    """Vectors made by anyone: a .npy file, whose row i belongs to the i-th row of the collection by id; or a Parquet
    file with the columns `id` and `embedding`."""
    split: str = "test"
    """The rows that take part; "all" takes every row."""
    protocol: Literal["merged", "separate"] = "merged"
    """merged: one index of all domains. separate: each domain in its own."""
    metrics: tuple[str, ...] = option(default=(), metavar="NAME")
    """What is measured instead of mp@5, recall@1 and map@100: any of mp@K, p@K, recall@K, map@K, map@r, r-precision."""
    queries: str | None = option(default=None, metavar="FILE")
    """The queries: a text file with an id or a `source` of the collection a line."""
    gallery: str | None = option(default=None, metavar="FILE")
    """What is searched, in the same way; the file of the queries makes every query search among the others."""
    distractors: tuple[str, ...] = option(default=(), metavar="COLL")
    """Collections whose images lie in the gallery too and are relevant to nothing."""
    where: str = option(default="", metavar="EXPR")
    """Only rows that meet this condition over the columns take part: "outlier < 0.5 OR outlier IS NULL", "duplicate_of
    IS NULL", "cluster = 3"."""
    text: str | None = option(default=None, metavar="TEMPLATE")
    """Search with words instead of images: the names of the split's classes, each in the place of {} in this text, such
    as "a photo of a {}". Where the encoder has a projection, the same is told of the features before it, so that one
    sees what it costs. The encoder must have kept its text side."""
    trained_on: tuple[str, ...] = option(default=(), metavar="COLL")
    """Collections that the vectors learned from: queries that look like an image there are counted, and the score is
    told without them too. Split `train` of COLL, and what the model's card names and is still there, are looked at
    anyway."""
    bootstrap: int = option(default=0, metavar="DRAWS")
    """Intervals by drawing classes, and queries, so many times; 1000 is usual."""
    curve: bool = False
    """Measure fewer numbers (64, 32, 16, 8) and smaller ones (f16, int8, binary) too; precision against coverage."""
    ann: bool = False
    """Search approximately too, by faiss (the extra `ann`): its scores, and how much it finds of what the exact search
    does."""
    device: Literal["none", "auto", "cpu", "gpu", "tpu"] = "none"
    """Compare queries with the gallery on accelerators, by JAX; each of them holds a part of the gallery in its
    memory. none: on the processor, without JAX, which is faster than JAX there."""
    json: str | None = option(default=None, metavar="FILE", writes=True)
    """Write the whole report to this file; `-` writes it to stdout instead of the table."""
    worst: str | None = option(default=None, metavar="FILE.html", writes=True)
    """Write a page of the queries that find least in each domain, with what they find."""
    html: str | None = option(default=None, metavar="FILE.html", writes=True)
    """Write the whole report as one page: means, domains, intervals, curves, the worst queries, and how it was made."""

    def __post_init__(self) -> None:
        in_range(self, 0.0, 1e6, "bootstrap")


def main(config: Config) -> None:
    """Measure, and print the report."""
    from lookalike.commands.measured import Setting, measured, tell_shared
    from lookalike.commands.models import model_of
    from lookalike.data.collection import Collection

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
        document, words = _by_text(config.text, config, model, collection)
    else:
        setting = Setting(**{each.name: getattr(config, each.name) for each in fields(Setting)})
        tell_shared(collection, config.split)
        found = measured(model or _file(config.embeddings), collection, setting)
        document, words = found.report.to_json(), _words(found)
        _write_pages(config, setting, model, collection, found)
    tell(document, words, config.json)


def _file(path: str | None) -> Any:
    """The vectors' file as `measured` takes it: what isn't there is told as a file, not as a model."""
    from pathlib import Path

    if path is None or not Path(path).is_file():
        raise UsageError(
            f"There is no file `{path}` with embeddings.", hint="lookalike evaluate --embeddings FILE.npy COLL"
        )
    return path


def _words(found: "Measured") -> str:
    """The table, and what was asked for beside it."""
    from lookalike.evaluation import curve
    from lookalike.evaluation.calibration import in_words

    report, parts = found.report, [found.report.table()]
    if report.bootstrap is not None:
        lines = [
            [f"drawing {what}", *(f"{low:.4f} to {high:.4f}" for low, high in report.bootstrap[what].values())]
            for what in ("classes", "queries")
        ]
        parts.append(table([f"95 % interval by {report.bootstrap['draws']:,} draws", *report.metrics], lines))
    if report.curve is not None:
        parts.append(table(*curve.lines(report.curve)))
    if report.approximate is not None:
        told = [f"{100 * value:.2f} %" for name, value in report.approximate.items() if name.startswith("recall")]
        values = "  ".join(f"{name} {value:.4f}" for name, value in report.approximate["metrics"].items())
        parts.append(
            f"approximately ({report.approximate['how']}): {values}; "
            f"of the 10 nearest rows that the exact search finds, {told[0]} are found"
        )
    if report.calibration is not None:
        parts.append(in_words(report.calibration))
    return "\n\n".join(parts)


def _write_pages(config: Config, setting: Any, model: str | None, collection: "Collection", found: "Measured") -> None:
    if config.worst is not None or config.html is not None:
        from lookalike.commands import evaluation_pages

        if config.worst is not None:
            evaluation_pages.write_worst(config.worst, found, collection)
            note(f"wrote `{config.worst}`")
        if config.html is not None:
            evaluation_pages.write_report(config.html, found, collection, setting, model)
            note(f"wrote `{config.html}`")


def _by_text(template: str, config: Config, model: str | None, collection: "Collection") -> tuple[dict[str, Any], str]:
    """What class names find, through the projection and, where there is one, without it: as a document and in words."""
    from lookalike.evaluation.metrics import metrics_of
    from lookalike.evaluation.zero_shot import Classes, evaluate_texts
    from lookalike.vectors.column import ensure_embeddings, ensure_features
    from lookalike.vectors.runtime import combine, load
    from lookalike.vectors.text import load_text

    for name in ("queries", "gallery", "distractors", "where", "bootstrap", "curve", "ann", "device", "worst", "html"):
        if getattr(config, name) not in (None, "", (), 0, "none"):
            raise UsageError(f"`--{name}` is for images as queries, and `--text` makes them words: give one of both.")
    if model is None:
        raise UsageError(
            "Words are embedded by an encoder, and there is none.", hint="lookalike evaluate MODEL COLL --text"
        )
    classes = Classes.of(collection, config.split)
    texts, image = classes.texts(template), load(model)
    words = load_text(model, image)
    by_words = partial(
        evaluate_texts,
        classes=classes,
        split=config.split,
        protocol=config.protocol,
        template=template,
        metrics=metrics_of(config.metrics),
    )
    vectors = collection.vectors(ensure_embeddings(image, collection).column)[1]
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
