"""What the pages of `lookalike evaluate` show: the queries that find least, and the whole report."""

import shlex
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from lookalike import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lookalike.commands.measured import Measured, Setting
    from lookalike.data.collection import Collection
    from lookalike.evaluation.report import PerQuery, Report
    from lookalike.pages.queries import Asked, Pictures

METRIC = "mp@5"
WORST = 4  # queries of a domain
PAIRS = 12  # of classes, and of images
DRAWS = 1000
ALIKE = 0.95  # cosine from which on two images of one label are shown as near-duplicates


def write_worst(file: str, found: "Measured", collection: "Collection") -> None:
    """The page of the queries that find least in each domain."""
    from lookalike.pages.queries import Pictures, write_worst

    words = (
        f"What finds least in each domain of {collection.path}: in order of mP@5, and then of the score of the first "
        "match. ✓ and a green frame mark a match of the query's label, ✗ and a dashed red one any other; the number is "
        "its cosine."
    )
    write_worst(file, "The worst queries", words, worst(found, collection, Pictures(collection)))


def worst(found: "Measured", collection: "Collection", pictures: "Pictures") -> "dict[str, Sequence[Asked]]":
    """Domain -> its queries of the lowest value of the first metric; the surest wrong ones first."""
    per_query = _queries(found.report)
    values, first = next(iter(per_query.values.values())), per_query.first
    sure = np.zeros(len(values)) if first is None else first.score
    rows: dict[str, Any] = {}
    for domain in sorted(set(per_query.domain.tolist())):
        mine = np.flatnonzero((per_query.domain == domain) & (values < 1))
        rows[domain] = mine[np.lexsort((-sure[mine], values[mine]))[:WORST]]
    order = [place for some in rows.values() for place in some]
    shown = dict(zip(order, _asked(found, collection, pictures, np.array(order, np.int64)), strict=True))
    return {domain: [shown[place] for place in some] for domain, some in rows.items() if len(some)}


def _queries(report: "Report") -> "PerQuery":
    assert report.per_query is not None  # every measurement has them
    return report.per_query


def _asked(found: "Measured", collection: "Collection", pictures: "Pictures", places: np.ndarray) -> "list[Asked]":
    """The queries at these places of the report, as they are shown, in this order."""
    from lookalike.evaluation.examples import examples

    per_query = _queries(found.report)
    if per_query.rows is None or not len(places):
        return []
    report, rows = found.report, per_query.rows[places]
    made = examples(found.source.vectors, collection, report.split, report.protocol, asked=rows, **found.where)
    ids = np.sort(collection.table(["id"])["id"].to_numpy())[rows]
    by_id = {one.id: one for one in made}
    return pictures.asked([[vars(by_id[int(i)])] for i in ids], [""])


def write_report(file: str, found: "Measured", collection: "Collection", setting: "Setting", model: str | None) -> None:
    """The page of a whole measurement."""
    from lookalike.core.files import write_bytes
    from lookalike.pages.queries import Pictures
    from lookalike.pages.render import render

    report, pictures = found.report, Pictures(collection)
    page = {
        "title": f"{model or 'Vectors'} on {collection.path}",
        "report": report,
        "metric": next(iter(report.metrics)),
        "bars": _bars(report),
        "intervals": _intervals(report),
        "before": _before(found, collection, setting, model),
        "confusion": _confusion(report),
        "classes": _class_pairs(found, collection),
        "curve": _curve_lines(report),
        "calibration": _calibration(report),
        "worst": worst(found, collection, pictures),
        "suspects": _asked(found, collection, pictures, _suspects(_queries(report))),
        "alike": _asked(found, collection, pictures, _alike(_queries(report))),
        "map": _map(collection),
        "facts": _facts(found, collection, setting, model),
    }
    write_bytes(file, render("evaluation.html", **page).encode())


def _bars(report: "Report") -> list[dict[str, Any]]:
    """A bar a domain, of the first metric, with its interval, in percent of 1."""
    name, made = next(iter(report.metrics)), []
    for domain, values in report.per_domain.items():
        half = report.half_width_per_domain[domain][name]
        low, high = (max(0.0, values[name] - (half or 0)), min(1.0, values[name] + (half or 0)))
        made.append({"domain": domain, "value": values[name], "half": half, "low": 100 * low, "high": 100 * high})
    return made


def _intervals(report: "Report") -> tuple[list[str], list[list[str]]]:
    from lookalike.evaluation.bootstrap import intervals

    drawn = report.bootstrap or intervals(_queries(report), DRAWS)
    body = []
    for name, value in report.metrics.items():
        half = report.half_width[name]
        closed = "none: a domain has a single class" if half is None else f"{value - half:.4f} to {value + half:.4f}"
        told = (f"{low:.4f} to {high:.4f}" for low, high in (drawn["classes"][name], drawn["queries"][name]))
        body.append([name, f"{value:.4f}", closed, *told])
    return ["mean over domains", "value", "closed form", f"{drawn['draws']:,} draws of classes", "of queries"], body


def _before(
    found: "Measured", collection: "Collection", setting: "Setting", model: str | None
) -> dict[str, Any] | None:
    """The encoder that this one began with, and the tower's features before the projection, on the same queries.

    None where there is neither, or other rows lie in the gallery, which would have to be embedded for it too.
    """
    from lookalike.commands.models import untouched_of
    from lookalike.evaluation.differences import Comparison
    from lookalike.evaluation.metrics import metrics_of
    from lookalike.evaluation.protocols import evaluate
    from lookalike.vectors.column import ensure_features, stored_embeddings
    from lookalike.vectors.runtime import combine, load

    embedder = found.source.embedder
    if embedder is None or found.where.get("distractors") is not None:
        return None
    vectors, words = {}, []
    if began := None if model is None else untouched_of(model, collection.path):
        name, place = began
        if place is None:
            words.append(f"It began with {name}, which lies neither beside it nor beside the collection: not compared.")
        else:
            words.append(f"Untouched is {name}, with which it began.")
            vectors["untouched"] = stored_embeddings(load(place), collection)[1]
    if embedder.config.projection.kind != "identity":
        words.append("Before the projection there are its tower's features.")
        names = ensure_features(embedder, collection, embedder.config.mirror)
        vectors["before the projection"] = combine(*(collection.vectors(name)[1] for name in names))
    if not words:
        return None
    facts = {**found.where, "metrics": metrics_of(setting.metrics)}
    reports = {
        f"{name}, {each.shape[1]:,} numbers": evaluate(each, collection, setting.split, setting.protocol, **facts)
        for name, each in vectors.items()
    }
    reports[f"this encoder, {found.report.dimension:,} numbers"] = found.report
    table = Comparison(reports).rows() if vectors else None
    return {"words": " ".join([*words, "All have the same queries."] if vectors else words), "table": table}


def _map(collection: "Collection") -> dict[str, Any] | None:
    """Points where `lookalike map` put the images, colored by domain, or by label where there is one domain."""
    from lookalike.pages.points import SIDE, points

    if not {"map_x", "map_y"} <= {*collection.columns}:
        return None
    rows = collection.table(["domain", "label", "map_x", "map_y"], "map_x IS NOT NULL AND map_y IS NOT NULL")
    places = np.stack([rows["map_x"].to_numpy(), rows["map_y"].to_numpy()], axis=1)
    if not len(places):
        return None
    by = "domain" if len({*rows["domain"].to_pylist()}) > 1 else "label"
    parts = points(places, [name or "none" for name in rows[by].to_pylist()])
    words = f"{len(places):,} images as points, colored by {by}"
    return {"by": by, "side": SIDE, "parts": parts, "words": words}


def _confusion(report: "Report") -> tuple[list[str], list[list[str]]] | None:
    """Domains of wrong first matches: a line a domain of queries."""
    if not report.confusion:
        return None
    columns = sorted({name for line in report.confusion.values() for name in line})
    body = [
        [name, *(f"{line[column]:,}" if column in line else "" for column in columns)]
        for name, line in report.confusion.items()
    ]
    return ["domain of the query", *columns], body


def _class_pairs(found: "Measured", collection: "Collection") -> tuple[list[str], list[list[str]]] | None:
    """The classes whose queries find which other class first, most often."""
    per_query = _queries(found.report)
    first, rows = per_query.first, per_query.rows
    if first is None or rows is None:
        return None
    table = collection.table(["id", "label"]).sort_by("id")
    labels = [*table["label"].to_pylist(), None]
    wrong = np.flatnonzero(~first.hit & (first.row >= 0))
    pairs = Counter((labels[rows[i]], labels[first.row[i]]) for i in wrong.tolist())
    body = [[str(asked), str(other or "no label"), f"{count:,}"] for (asked, other), count in pairs.most_common(PAIRS)]
    return (["class of the query", "class of its first match", "queries"], body) if body else None


def _curve_lines(report: "Report") -> tuple[list[str], list[list[str]]] | None:
    from lookalike.evaluation.curve import lines

    return None if report.curve is None else lines(report.curve)


def _calibration(report: "Report") -> dict[str, Any] | None:
    from lookalike.evaluation.calibration import calibrate, in_words
    from lookalike.pages.curve import curve

    first = _queries(report).first
    if first is None:
        return None
    told = report.calibration or calibrate(first)
    points = [(round(100 * point["coverage"]), point["precision"]) for point in told["curve"]]
    return {"words": in_words(told), "curve": curve("precision over coverage, in percent", points, told["precision"])}


def _suspects(per_query: "PerQuery") -> np.ndarray:
    """Queries whose first match has another label and the highest score: one of both may be labelled wrongly."""
    first = per_query.first
    if first is None:
        return np.empty(0, np.int64)
    wrong = np.flatnonzero(~first.hit & (first.row >= 0))
    return np.asarray(wrong[np.argsort(-first.score[wrong], kind="stable")][:PAIRS])


def _alike(per_query: "PerQuery") -> np.ndarray:
    """Queries whose first match has their label and is nearly the same image; of two that find each other the first."""
    first, rows = per_query.first, per_query.rows
    if first is None or rows is None:
        return np.empty(0, np.int64)
    right = np.flatnonzero(first.hit & (first.score >= ALIKE))
    kept, seen = [], set()
    for place in right[np.argsort(-first.score[right], kind="stable")].tolist():
        pair = frozenset((int(rows[place]), int(first.row[place])))
        if pair not in seen:
            seen.add(pair)
            kept.append(place)
    return np.array(kept[:PAIRS], np.int64)


def _facts(found: "Measured", collection: "Collection", setting: "Setting", model: str | None) -> list[tuple[str, str]]:
    """Everything that a repetition needs."""
    report = found.report
    options = [("split", "test"), ("protocol", "merged"), ("queries", None), ("gallery", None), ("where", "")]
    words = ["lookalike", "evaluate", *([model] if model else ["--embeddings", "FILE"]), collection.path]
    for name, usual in options:
        if (value := getattr(setting, name)) != usual:
            words += [f"--{name}", str(value)]
    for name in ("metrics", "distractors"):
        if value := getattr(setting, name):
            words += [f"--{name}", *value]
    facts = [
        ("command", shlex.join(words)),
        ("lookalike", __version__),
        ("encoder", report.model or "vectors made elsewhere"),
        ("collection", report.collection or ""),
        ("queries", f"{report.n_queries:,}, and {report.n_skipped:,} left out"),
    ]
    return facts + list(report.definition.items())
