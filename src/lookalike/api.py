"""The verbs as functions: the same options, defaults and errors as on the command line, and results instead of prints.

Words on what is done go to stderr, as there. What is wrong is a `lookalike.Error`, with `message` and `hint`.
"""

from collections.abc import Iterable, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float32

from lookalike.core.errors import UsageError
from lookalike.core.settings import flag
from lookalike.places import Place, opened, path_of, several

if TYPE_CHECKING:
    from lookalike.data.collection import Collection
    from lookalike.evaluation.differences import Comparison
    from lookalike.evaluation.report import Report
    from lookalike.imaging.given import Given
    from lookalike.vectors.runtime import Embedder, Precision, Runtime

    Vectors = Float[np.ndarray, "N D"]


def prepare(
    sources: Place | Sequence[Place],
    out: Place,
    *,
    from_: Place | Sequence[Place] = (),
    size: int = 256,
    quality: int = 90,
    limit: int | None = None,
    test: float = 0.0,
    merge_labels: Place = "",
    workers: int = 0,
    exclude: Sequence[str] = (),
    preset: str = "",
    max_per_class: int | None = None,
    min_per_class: int = 1,
    max_classes: int | None = None,
    commercial: bool = False,
    retry_failed: bool = False,
    max_error_rate: float = 1.0,
    model: Place = "",
) -> "Collection":
    """Make a collection of images, or bring one up to date; `lookalike prepare --help` says what each option does.

    >>> photos = la.prepare("photos", "new.coll", test=0.5)
    >>> len(photos), sorted(set(photos.table(["split"])["split"].to_pylist()))
    (12, ['test', 'train'])

    Raises:
        Error: A source is missing or is none, an option is impossible, the disk is full.
    """
    from lookalike.commands.prepare import Config, run
    from lookalike.data.collection import Collection

    run(
        Config(
            sources=several(sources),
            out=fspath(out),
            from_=several(from_),
            size=size,
            quality=quality,
            limit=limit,
            test=test,
            merge_labels=fspath(merge_labels),
            workers=workers,
            exclude=tuple(exclude),
            preset=preset,
            max_per_class=max_per_class,
            min_per_class=min_per_class,
            max_classes=max_classes,
            commercial=commercial,
            retry_failed=retry_failed,
            max_error_rate=max_error_rate,
            model=fspath(model),
        )
    )
    return Collection.open(fspath(out))


def pull(
    source: str,
    out: Place,
    *,
    revision: str | None = None,
    preprocessing: Literal["check", "published", "imagenet", "seed"] = "check",
    size: int | None = None,
    stride: int | None = None,
    layer: int | None = None,
    pooling: Literal["class", "mean", "gem", "attention"] | None = None,
    features: Literal["pooled", "projected"] | None = None,
    text: bool = True,
) -> "Embedder":
    """Turn published weights into a model directory, and load it; `lookalike pull --help` says what each option does.

    >>> encoder = la.pull("published", "pulled")  # a directory, a short name ("laptop"), ORG/NAME on the Hub
    >>> encoder.dimension
    6

    Raises:
        Error: There is no such model, a tensor is missing or has another shape, no connection.
    """
    from lookalike.commands.pull import Config, main

    main(
        Config(
            source=source,
            out=fspath(out),
            revision=revision,
            preprocessing=preprocessing,
            size=size,
            stride=stride,
            layer=layer,
            pooling=pooling,
            features=features,
            text=text,
        )
    )
    return load(out)


def load(
    model: Place = "", runtime: "Runtime" = "auto", batch: int = 64, *, precision: "Precision | None" = None
) -> "Embedder":
    """The encoder, ready to embed: a model directory, a short name (`laptop`), or ORG/NAME on the Hub.

    >>> encoder = la.load("model")  # or "laptop", or "google/siglip2-base-patch16-256"
    >>> encoder.embed("kettle.jpg").shape
    (6,)

    What is not a directory is downloaded on first use, and kept in the cache. Without a name it is what LOOKALIKE_MODEL
    names, else `laptop`. onnx is ONNX Runtime on the CPU in float32, jax JAX's devices in float32, auto whichever is
    fast here; `batch` images go through at once.

    Raises:
        Error: No such model, or it is incomplete; no connection.
    """
    from lookalike.commands.models import model_of
    from lookalike.vectors import runtime as vectors

    return vectors.load(model_of(fspath(model)), runtime, batch, precision=precision)


def train(
    recipe: str, *, data: "Place | Collection", out: Place, model: Place = "", **options: Any
) -> "Embedder | None":
    """Make an encoder from a collection, following a recipe, and load it.

    >>> encoder = la.train("pca", data="photos.coll", model="model", out="run", dimension=2)
    >>> encoder.dimension
    2

    An option with a dot is given as `**{"loss.margin": 0.3}`; `unlabelled` may be a `Collection`, as `data` may.

    Options are those of `lookalike train RECIPE --help`, with `_` for `-`; a tuple where it takes several values. A run
    that was stopped goes on with the same call. None with `leave_out="domain"`, which makes no encoder of all domains:
    its table is in OUT/left-out.json.

    Raises:
        Error: No such recipe or option, a collection without what it learns from, another run in `out`.
    """
    from lookalike.commands.train import configure, run

    if "unlabelled" in options:
        options["unlabelled"] = path_of(options["unlabelled"])
    given = {"data": path_of(data), "out": fspath(out), **({"model": fspath(model)} if model else {}), **options}
    done = run(configure([recipe, *(word for name, value in given.items() for word in flag(name, value))]))
    return load(done.model) if done.model else None


def embed(
    images: "Given | Iterable[Given] | Collection",
    model: "Place | Embedder" = "",
    *,
    batch_size: int | None = None,
    progress: bool = False,
) -> Float32[np.ndarray, "*N D"]:
    """Embeddings of unit length: [N D] of images or of the rows of a collection by id, [D] of a single image.

    >>> la.embed(["kettle.jpg", "cup.jpg"], "model").shape
    (2, 6)
    >>> photos = la.Collection.open("photos.coll")
    >>> la.embed(photos, "model").shape  # stored there, too: only new images are embedded the next time
    (12, 6)

    `Encoder.embed` says what an image may be, and leaves out what can't be read if it is told so.

    Raises:
        Error: No such model; an image that can't be read.
    """
    from lookalike.data.collection import Collection
    from lookalike.vectors.column import stored_embeddings
    from lookalike.vectors.runtime import Embedder

    encoder = model if isinstance(model, Embedder) else load(model)
    if isinstance(images, Collection):
        stored: Float32[np.ndarray, "N D"] = stored_embeddings(encoder, opened(images))[1]
        return stored
    return encoder.embed(images, batch_size=batch_size, progress=progress)


def evaluate(
    given: "Place | Embedder | Vectors",
    collection: "Place | Collection | pa.Table",
    split: str = "test",
    protocol: Literal["merged", "separate"] = "merged",
    *,
    metrics: Sequence[str] = (),
    queries: Place | None = None,
    gallery: Place | None = None,
    distractors: Place | Sequence[Place] = (),
    where: str = "",
    bootstrap: int = 0,
    curve: bool = False,
    ann: bool = False,
    trained_on: Place | Sequence[Place] = (),
    device: Literal["none", "auto", "cpu", "gpu", "tpu"] = "none",
) -> "Report":
    """How well vectors bring images of one label together.

    >>> report = la.evaluate("model", "photos.coll", split="all")
    >>> report.n_queries, 0 < report.metrics["mp@5"] <= 1
    (12, True)

    Args:
        given: A model directory, an encoder, a column, a file of vectors, or vectors [N D]: row i of the i-th id.
        collection: What to measure on. A model's embeddings are read from it, or made and kept there. With vectors it
            may be a table with the columns `id` and `label` and, if it has them, `domain`, `split`, `group`,
            `is_query`, `is_gallery`.
        split: The rows that take part; "all" takes every row.
        protocol: "merged": one index of all domains; "separate": each domain in its own.
        metrics: Names such as "recall@10", "map@r"; unless given, mp@5, recall@1 and map@100.
        queries: A file that lists them, an id or a `source` a line.
        gallery: The same for what is searched.
        distractors: Collections whose images lie in the gallery too.
        where: A condition over the columns; rows that meet it take part: "outlier < 0.5", "duplicate_of IS NULL".
        bootstrap: How often classes, and queries, are drawn for `report.bootstrap`.
        curve: For `report.curve` and `report.calibration`.
        ann: Whether an approximate search by faiss is measured beside the exact one.
        device: Where queries are compared with the gallery by JAX; "none": on the processor, without it.
        trained_on: Collections that the vectors learned from, whose images are looked for among the queries.

    Raises:
        Error: No query has a relevant image, vectors that do not fit the rows, an unknown split.
    """
    from lookalike.commands.measured import Setting, measured, named
    from lookalike.evaluation import protocols
    from lookalike.evaluation.metrics import metrics_of

    if isinstance(given, np.ndarray) and isinstance(collection, pa.Table):
        return protocols.evaluate(given, collection, split, protocol, metrics=metrics_of(metrics))
    asked, sought = (fspath(place) if place else None for place in (queries, gallery))
    away, learned = several(distractors), several(trained_on)
    setting = Setting(
        split, protocol, tuple(metrics), asked, sought, away, where, learned, bootstrap, curve, ann, device
    )
    images = opened(cast("Place | Collection", collection))
    model = named(fspath(given), images) if isinstance(given, (str, PathLike)) else given
    return measured(model, images, setting).report


def compare(
    *given: "Place | Embedder | Vectors",
    data: "Place | Collection",
    split: str = "test",
    protocol: Literal["merged", "separate"] = "merged",
    names: Sequence[str] = (),
    metrics: Sequence[str] = (),
    where: str = "",
    bootstrap: int = 0,
) -> "Comparison":
    """Encoders, or vectors, on the same queries: differences with their 95 % intervals and p.

    >>> compared = la.compare("model", "other", data="photos.coll", split="all")
    >>> sorted(compared.reports)
    ['model', 'other']
    >>> print(compared.table())
    mp@5  recall@1  map@100
    ...

    The table says what each has more than the first; `pairs()` and `to_json()` have a - b, where a was given before b.
    Rows that meet the condition `where` take part; with `bootstrap`, intervals and p are of so many draws.

    Raises:
        Error: Fewer than two; as `evaluate`.
    """
    from lookalike.commands.measured import Setting, compared, named

    if len(given) < 2:
        raise UsageError(f"There is nothing to compare: {len(given)} were given.", hint="compare(one, other, data=...)")
    if names and len(names) != len(given):
        raise UsageError(f"There are {len(given)} to compare, and {len(names)} names.")
    called = [str(one) if isinstance(one, (str, PathLike)) else f"vectors {i}" for i, one in enumerate(given, 1)]
    collection, called = opened(data), list(names) or called
    if len(set(called)) < len(called):
        raise UsageError(f"Two have one name: {', '.join(called)}.", hint="names=[...] tells them apart")
    sources = [named(fspath(one), collection) if isinstance(one, (str, PathLike)) else one for one in given]
    setting = Setting(split, protocol, tuple(metrics), where=where, bootstrap=bootstrap)
    return compared(dict(zip(called, sources, strict=True)), collection, setting)[0]


def judge(model: Place, from_: Place, *, kinds: Sequence[str] = (), out: Place = "judge.lookalike") -> "Report":
    """Measure a model as the Google Universal Image Embedding challenge did, on queries drawn from public data sets.

    >>> report = la.judge("model", "sets")  # of which toys/ holds images of ours
    >>> [*report.per_domain], report.definition["judge"].startswith("judge-")
    (['toys'], True)

    `lookalike judge --list` shows the kinds of object, and what belongs into `from_`; `out` is the collection of what
    is drawn. Only reports with one `definition["judge"]` compare.

    Raises:
        Error: No such model; a kind that is unknown, or of which nothing is there; a damaged data set.
    """
    from lookalike.commands.judge import Config, run

    return run(Config(model=fspath(model), from_=fspath(from_), kinds=tuple(kinds), out=fspath(out)))


def export(
    model: Place,
    to: str,
    out: Place,
    *,
    preprocess: bool = True,
    int8: bool = False,
    min_cosine: float | None = None,
) -> dict[str, Any]:
    """Take an encoder to another library or runtime, checked; the facts of the check.

    >>> facts = la.export("model", "onnx", "encoder-onnx")
    >>> facts["minimum_cosine"] > 0.999, facts["bytes"] > 0
    (True, True)

    Raises:
        Error: No such target, or one that can't hold this encoder; vectors that are not near enough.
    """
    from lookalike.commands.export import Config, run

    config = Config(
        model=fspath(model), to=to, out=fspath(out), preprocess=preprocess, int8=int8, min_cosine=min_cosine
    )
    return run(config)
