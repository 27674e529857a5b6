"""How vectors are measured, wherever they come from: a model, a column of the collection, a file."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lookalike.core.errors import StorageError, UsageError
from lookalike.core.files import locked
from lookalike.core.journal import note

if TYPE_CHECKING:
    from lookalike.core.shapes import Ids
    from lookalike.data.collection import Collection
    from lookalike.evaluation.differences import Comparison
    from lookalike.evaluation.report import Report
    from lookalike.evaluation.roles import Roles
    from lookalike.vectors.runtime import Embedder

NEAREST, SAMPLED = 10, 1000  # matches, of so many rows, by which an approximate search is held against the exact one
CALIBRATION = "calibration"  # the entry of a collection's card: column -> threshold


@dataclass(frozen=True)
class Setting:
    """Who is searched in what, and what is measured; fields are options of `lookalike evaluate`."""

    split: str = "test"
    protocol: str = "merged"
    metrics: tuple[str, ...] = ()
    queries: str | None = None
    gallery: str | None = None
    distractors: tuple[str, ...] = ()
    where: str = ""
    trained_on: tuple[str, ...] = ()
    bootstrap: int = 0
    curve: bool = False
    ann: bool = False
    device: str = "none"


@dataclass(frozen=True)
class Source:
    """Vectors of all rows of a collection, and where they are from."""

    vectors: np.ndarray
    model: str | None = None  # the fingerprint of what made them
    column: str | None = None  # in which the collection keeps them
    learned_from: tuple[str, ...] = ()
    milliseconds: float | None = None  # an image, where images were embedded for this
    embedder: "Embedder | None" = None


@dataclass(frozen=True)
class Measured:
    """A report, and what pages are made from."""

    report: "Report"
    source: Source
    where: dict[str, Any] = field(default_factory=dict)  # further arguments of `examples`, as of `evaluate`


def measured(given: "str | np.ndarray | Embedder", collection: "Collection", setting: Setting = Setting()) -> Measured:
    """What is measured of a model directory, a column, a file of vectors, an encoder, or vectors."""
    from lookalike.data.collection import Collection
    from lookalike.evaluation.ceiling import Ceiling
    from lookalike.evaluation.leakage import with_leakage
    from lookalike.evaluation.metrics import metrics_of
    from lookalike.evaluation.protocols import evaluate
    from lookalike.evaluation.roles import Roles

    metrics = metrics_of(setting.metrics)
    for place in setting.trained_on:  # what a model's card names may be gone; what is asked for may not
        Collection.open(place)
    Ceiling(len(collection), len(collection), len(collection), 1, 1).check()  # the least: before rows are looked at
    lists = {
        role: None if path is None else listed(path, collection)
        for role, path in (("queries", setting.queries), ("gallery", setting.gallery))
    }
    # First: a wrong split is told before hours of embedding.
    lists["only"] = collection.table(["id"], setting.where)["id"].to_numpy() if setting.where else None
    roles = Roles.of(collection, setting.split, **lists, among_others=bool(setting.distractors))
    source = source_of(given, collection, _teller(roles, setting, [metric.depth for metric in metrics.values()]))
    where: dict[str, Any] = {**lists, "distractors": _distractors(setting.distractors, source, collection)}

    usual = _on_devices(setting.device)

    def measure(vectors: np.ndarray, away: np.ndarray | None = where["distractors"], searcher: Any = usual) -> "Report":
        facts = {**where, "distractors": away, "metrics": metrics, "model": source.model, "searcher": searcher}
        return evaluate(vectors, collection, setting.split, setting.protocol, **facts)

    report = with_leakage(
        _told_where(measure(source.vectors), setting.where), collection, (*setting.trained_on, *source.learned_from)
    )
    report = _more(report, setting, source, measure)
    if setting.protocol == "merged" and not setting.where:
        _calibrate(report, source.column, collection)
    return Measured(report, source, where)


def _told_where(report: "Report", where: str) -> "Report":
    return replace(report, definition={**report.definition, "where": f"rows that meet {where}"}) if where else report


def _on_devices(device: str) -> Any:
    """What makes a search of a gallery on devices of this kind; None for the processor without JAX."""
    if device == "none":
        return None
    from lookalike.core.devices import described, start
    from lookalike.retrieval.devices import OnDevices

    devices = start(device)
    note(f"search on {described(devices)}")
    return lambda gallery: OnDevices(gallery, devices).search


def tell_shared(collection: "Collection", split: str) -> None:
    """Say so if classes stand in the split and in split `train`: what was trained on these is no stranger to them."""
    if split in ("all", "train"):
        return
    rows = collection.table(["domain", "label", "split"], "label IS NOT NULL").to_pylist()
    learned, asked = ({(r["domain"], r["label"]) for r in rows if r["split"] == one} for one in ("train", split))
    if both := learned & asked:
        note(
            f"{len(both):,} of {len(asked):,} classes of split `{split}` have images in split `train` too: of an "
            "encoder that learned from it the score says nothing of new classes"
        )


def _teller(roles: "Roles", setting: Setting, depths: "list[int | None]") -> Callable[[int, int], None]:
    """What is told how many numbers vectors have, and of how many bytes, before they are read: it says the memory."""
    from lookalike.data.collection import Collection
    from lookalike.evaluation.ceiling import Ceiling, depth_of

    further = sum(len(Collection.open(place)) for place in setting.distractors)
    classes = np.bincount(roles.label[roles.is_gallery & (roles.label >= 0)], minlength=1)
    depth = depth_of(depths, int(classes.max()))
    queries, gallery = int(roles.is_query.sum()), int(roles.is_gallery.sum()) + further

    def tell(width: int, size: int) -> None:
        Ceiling(roles.total + further, queries, gallery, width, depth, size, setting.device != "none").tell()

    return tell


def _more(report: "Report", setting: Setting, source: Source, measure: Any) -> "Report":
    """With what is asked for beside the means."""
    per_query = report.per_query
    if per_query is None:
        return report
    if setting.bootstrap:
        from lookalike.evaluation.bootstrap import intervals

        report = replace(report, bootstrap=intervals(per_query, setting.bootstrap))
    if setting.curve:
        from lookalike.evaluation.calibration import calibrate
        from lookalike.evaluation.curve import curve

        if setting.distractors:
            raise UsageError("`--curve` makes vectors smaller, and leaves distractors as they are: give one of both.")
        points = curve(source.vectors, lambda vectors: measure(vectors, None))
        report = replace(report, curve=points, calibration=calibrate(per_query.first) if per_query.first else None)
    return replace(report, approximate=_approximate(source, measure)) if setting.ann else report


def _approximate(source: Source, measure: Any) -> dict[str, Any]:
    """What an approximate search finds, by the same metrics, and how much of what the exact one does."""
    from lookalike.retrieval.approximate import Approximate, share_found
    from lookalike.retrieval.exact import knn

    made: list[dict[str, Any]] = []

    def searcher(gallery: np.ndarray) -> Any:
        approximate = Approximate(gallery)
        some = gallery[np.linspace(0, len(gallery) - 1, min(len(gallery), SAMPLED)).astype(int)]
        found, right = approximate.search(some, NEAREST)[1], knn(some, gallery, NEAREST, largest=1.0)[1]
        made.append({"rows": len(gallery), "how": approximate.words, "recall": share_found(found, right)})
        return approximate.search

    report = measure(source.vectors, searcher=searcher)
    recall = float(np.average([each["recall"] for each in made], weights=[each["rows"] for each in made]))
    how = "; ".join(dict.fromkeys(each["how"] for each in made))
    return {"how": how, f"recall@{NEAREST} of exact": recall, "metrics": dict(report.metrics)}


def named(given: str, collection: "Collection") -> str:
    """What `given` names, as `source_of` takes it: a file or a column stays, a model's name becomes its directory."""
    from lookalike.commands.models import named_model

    return given if Path(given).is_file() or is_column(given, collection) else named_model(given)


def source_of(
    given: "str | np.ndarray | Embedder", collection: "Collection", tell: Callable[[int, int], None] | None = None
) -> Source:
    """Vectors of all rows: as they are, by an encoder, from a column, from a file, by a model directory.

    What is a file is one of vectors; what is not there, and is a column of the collection, is that; else it is a model.
    `tell` hears how many numbers a vector has, and of how many bytes, before they are read.
    """
    from lookalike.targets.parts import data_of
    from lookalike.vectors.column import ensure_embeddings, read_embeddings
    from lookalike.vectors.foreign import read_vectors
    from lookalike.vectors.runtime import load

    tell = tell or (lambda _width, _size: None)
    if isinstance(given, str) and Path(given).is_file():
        given = read_vectors(given, collection.table(["id"])["id"].to_numpy())
    if isinstance(given, np.ndarray):
        tell(given.shape[-1], given.dtype.itemsize)
        return Source(given)
    learned: tuple[str, ...] = ()
    if isinstance(given, str):
        if is_column(given, collection):
            tell(collection.schema.field(given).type.list_size, 4)
            return Source(collection.vectors(given)[1], column=given)
        learned, given = tuple(data_of(given)), load(given)
    tell(given.dimension, 4)
    begun = time.perf_counter()
    made = ensure_embeddings(given, collection)
    spent = 1000 * (time.perf_counter() - begun) / made.new if made.new else None
    vectors = read_embeddings(given, collection, made.column)[1]
    return Source(vectors, given.fingerprint, made.column, learned, spent, given)


def is_column(given: str, collection: "Collection") -> bool:
    """Whether it names vectors of the collection, and no path."""
    from lookalike.data.collection import is_vector

    return not Path(given).exists() and given in collection.columns and is_vector(collection.schema.field(given))


def listed(path: str, collection: "Collection") -> "Ids":
    """The ids of rows that a file lists, one a line: an id, or the row's `source`; a first line `id` is passed over."""
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"`{path}` can't be read as a list of rows: {reason}.", hint="a line an id") from error
    rows = collection.table(["id", "source"])
    ids: list[int] = rows["id"].to_pylist()
    by_source: dict[str, list[int]] = {}
    for number, source in zip(ids, rows["source"].to_pylist(), strict=True):
        by_source.setdefault(source, []).append(number)
    known, found = set(ids), []
    for number, line in enumerate(lines, 1):
        if not line or (number == 1 and line in ("id", "source")):
            continue
        if line in by_source:
            found += by_source[line]
        elif line.isdecimal() and int(line) in known:
            found.append(int(line))
        else:
            raise UsageError(
                f"Line {number} of `{path}` is `{line}`, which is neither an id nor a source of `{collection.path}`.",
                hint="`Collection.open(COLL).table(['id', 'source'])` lists both",
            )
    if not found:
        raise UsageError(f"`{path}` lists no row.", hint="a line an id")
    return np.array(found, np.int64)


def _distractors(places: Sequence[str], source: Source, collection: "Collection") -> "np.ndarray | None":
    """The vectors of the images of other collections, but for files that are in `collection` too."""
    from lookalike.data.collection import Collection
    from lookalike.vectors.column import stored_embeddings

    if not places:
        return None
    if source.embedder is None:
        raise UsageError(
            "Distractors are embedded by a model, and there is none.", hint="lookalike evaluate COLL --model MODEL"
        )
    own = set(collection.table(["sha256"])["sha256"].to_pylist())
    parts = []
    for place in places:
        other = Collection.open(place)
        vectors = stored_embeddings(source.embedder, other)[1]
        away = np.array([digest not in own for digest in other.table(["sha256"])["sha256"].to_pylist()], bool)
        if left := int((~away).sum()):
            note(f"{left:,} images of `{place}` are in `{collection.path}` too, and are no distractors")
        parts.append(vectors[away])
    return np.concatenate(parts)


def _calibrate(report: "Report", column: str | None, collection: "Collection") -> None:
    """Note in the collection's card from which score on its first matches are to be trusted, for `search`.

    Nothing is noted where another process writes to the collection, or nobody may: measuring needs no right to.
    """
    from lookalike.evaluation.calibration import calibrate

    if column is None or report.per_query is None or report.per_query.first is None:
        return
    found = {name: value for name, value in calibrate(report.per_query.first).items() if name != "curve"}
    found["split"] = report.split
    noted = collection.card.get(CALIBRATION, {})
    if noted.get(column) == found:
        return
    try:
        with locked(collection.path, "evaluate"):
            collection.update_card({CALIBRATION: {**noted, column: found}})
    except StorageError:
        note(f"`{collection.path}` can't be written to now: its card does not get the score to trust")


def threshold_of(collection: "Collection", column: str) -> "dict[str, Any] | None":
    """What the card notes of the column: `threshold`, `precision` and so on; None where nothing was measured."""
    found: dict[str, Any] = collection.card.get(CALIBRATION, {}).get(column) or {}
    return found if found.get("threshold") is not None else None


def compared(
    given: "Mapping[str, str | np.ndarray | Embedder]", collection: "Collection", setting: Setting
) -> "tuple[Comparison, dict[str, Measured]]":
    """What several encoders, columns or vectors find for the same queries, by name; `bootstrap` are the draws."""
    from lookalike.evaluation.differences import Comparison, Cost

    found = {name: measured(one, collection, replace(setting, bootstrap=0)) for name, one in given.items()}
    costs = {name: Cost(each.source.vectors.shape[-1], each.source.milliseconds) for name, each in found.items()}
    return Comparison({name: each.report for name, each in found.items()}, costs, setting.bootstrap), found
