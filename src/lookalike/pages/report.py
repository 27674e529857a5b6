"""The page of a run: curves, the table against the untouched encoder, queries that got better and worse.

It is read from the run's directory alone, and from the collection's images:

RUN/metrics.jsonl               the curves
RUN/config.json                 what was asked for
RUN/evaluation/untouched.json   how the encoder did that was begun with: metrics, domains, single queries
RUN/evaluation/latest.json      and the one that was measured last
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.core.files import read_json, write_bytes
from lookalike.core.journal import read_metrics
from lookalike.core.shapes import Image
from lookalike.data.collection import Collection
from lookalike.imaging.decode import decode, encode_jpeg
from lookalike.pages.curve import Curve, curve
from lookalike.pages.render import render
from lookalike.pages.sheet import fitted

PAGE, MEASURED = "report.html", "evaluation"
FEW, SIDE = 4, 160  # queries of each kind; pixels of an image


@dataclass(frozen=True)
class Hit:
    """An image that a search returned, its cosine with the query, and whether it shows the same thing."""

    jpeg: bytes
    label: str
    score: float
    right: bool


@dataclass(frozen=True)
class Change:
    """A query, and what two encoders find for it; precisions are mP@5."""

    jpeg: bytes
    label: str
    before: Sequence[Hit]
    after: Sequence[Hit]
    precision_before: float
    precision_after: float


@dataclass(frozen=True)
class RunPage:
    """All that the page tells."""

    name: str
    machine: str  # backend, devices, versions
    measured: str  # which encoder was measured last; "" if none was
    curves: Sequence[Curve]
    metrics: Sequence[str]
    table: Sequence[tuple[str, Mapping[str, float], Mapping[str, float]]]  # of what, latest, untouched
    better: Sequence[Change]
    worse: Sequence[Change]
    config: Sequence[tuple[str, str]]  # dotted names and values


def write_report(run: str | Path, collection: str | Path, machine: str, into: str | Path = "") -> None:
    """Write the run's `report.html` anew, whole or not at all, with images of `collection`: into the run, or `into`
    another directory, by whose name the page is called then.
    """
    into = Path(into or run)
    page = replace(read_run(Path(run), Collection.open(collection), machine), name=into.name)
    write_bytes(into / PAGE, to_html(page).encode())


def to_html(page: RunPage) -> str:
    """The page as one HTML document."""
    return render("report.html", page=page)


def read_run(run: Path, collection: Collection, machine: str) -> RunPage:
    """What there is to tell of the run so far."""
    untouched, latest = (_measured(run, name) for name in ("untouched", "latest"))
    table = [
        (name, found, untouched.get("per_domain", {}).get(name, {}))
        for name, found in latest.get("per_domain", {}).items()
    ]
    better, worse = _changes(untouched, latest)
    images = _images(collection, [*better, *worse])
    return RunPage(
        run.resolve().name,
        machine,
        latest.get("encoder", ""),
        list(_curves(read_metrics(run))),
        list(latest.get("metrics", {})),
        [*table, ("mean over domains", latest["metrics"], untouched.get("metrics", {}))] if latest else [],
        [images(*pair) for pair in better],
        [images(*pair) for pair in worse],
        list(_leaves("", read_json(run / "config.json"))),
    )


def _measured(run: Path, name: str) -> dict[str, Any]:
    path = run / MEASURED / f"{name}.json"
    found: dict[str, Any] = read_json(path) if path.exists() else {}
    return found


def _curves(lines: Sequence[Mapping[str, Any]]) -> Iterator[Curve]:
    """Loss, cosine to the own center, and the first metric on the split `test`, over the run's steps."""
    for name, title in (("loss", "loss"), ("cosine", "mean cosine to the own center")):
        values = [(line["step"], float(line[name])) for line in lines if line.get(name) is not None]
        if values:
            yield curve(title, values)
    measured = [line for line in lines if "encoder" in line]
    if not measured:
        return
    metric = next(name for name in measured[0] if name not in ("step", "encoder", "dimension"))
    base = next((line[metric] for line in measured if line["encoder"] == "untouched"), None)
    values = [(line["step"], float(line[metric])) for line in measured if line["encoder"] != "untouched"]
    if values:
        yield curve(f"{metric} on unseen classes; the dashed line is the untouched encoder", values, base)


Pair = tuple[Mapping[str, Any], Mapping[str, Any]]  # a query as the untouched encoder and the latest one found for it


def _changes(untouched: Mapping[str, Any], latest: Mapping[str, Any]) -> tuple[list[Pair], list[Pair]]:
    """The queries that gained most, and those that lost most."""
    before = {query["id"]: query for query in untouched.get("queries", ())}
    pairs = [(before[query["id"]], query) for query in latest.get("queries", ()) if query["id"] in before]

    def gain(pair: Pair) -> float:
        return float(pair[1]["precision"] - pair[0]["precision"])

    better = sorted((pair for pair in pairs if gain(pair) > 0), key=lambda pair: -gain(pair))
    worse = sorted((pair for pair in pairs if gain(pair) < 0), key=gain)
    return better[:FEW], worse[:FEW]


def _images(collection: Collection, pairs: Sequence[Pair]) -> Callable[[Mapping[str, Any], Mapping[str, Any]], Change]:
    """What turns a pair into what is shown of it; images are read at once, and made small."""
    wanted = {query["id"] for pair in pairs for query in pair}
    wanted |= {match[0] for pair in pairs for query in pair for match in query["found"]}
    ids = sorted(wanted)
    rows = collection.take(np.array(ids, np.int64), ["image", "label"]).to_pylist() if ids else []
    shown = {i: (_small(decode(row["image"])), row["label"] or "") for i, row in zip(ids, rows, strict=True)}

    def hits(query: Mapping[str, Any]) -> list[Hit]:
        return [Hit(*shown[i], score, right) for i, score, right in query["found"]]

    def change(before: Mapping[str, Any], after: Mapping[str, Any]) -> Change:
        return Change(*shown[after["id"]], hits(before), hits(after), before["precision"], after["precision"])

    return change


def _small(image: Image) -> bytes:
    return encode_jpeg(fitted(image, SIDE), quality=85)


def _leaves(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Dotted names and values of a JSON tree; a stage is named by its place."""
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value, 1):
            yield from _leaves(f"{name}.{key}".lstrip("."), inner)
    else:
        yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
