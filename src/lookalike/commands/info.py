"""lookalike info: what a directory of ours holds, whichever kind it is."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lookalike.core.config import option, to_json
from lookalike.core.errors import UsageError
from lookalike.core.files import found_at, json_text, kind_of, read_card, read_json
from lookalike.core.journal import read_metrics, shown, table


@dataclass(frozen=True)
class Config:
    """Say what a collection, a model directory, a run or an export holds."""

    path: str = option(positional=True, metavar="PATH")
    """A directory that a command of ours wrote."""
    json: bool = False
    """Write one JSON document instead of tables."""
    page: str = option(metavar="FILE", default="", writes=True)
    """Of a collection, draw its domains and splits as a page (HTML), too."""


def main(config: Config) -> None:
    """Print what lies at `config.path`; UsageError if it is nothing of ours."""
    told = {"collection": _collection, "encoder": _encoder, "run": _run, "export": _export}
    path, kind = config.path, kind_of(config.path)
    if kind not in told:
        raise UsageError(
            f"{found_at(path)}; expected a collection, a model directory, a run or an export.",
            hint="they are made by `lookalike prepare`, `pull`, `train` and `export`",
        )
    size = 0
    for file in Path(path).rglob("*"):
        with contextlib.suppress(OSError):  # a writer has removed it meanwhile
            size += file.stat().st_size if file.is_file() else 0
    facts = {"kind": kind, "path": path, "bytes": size, **told[kind](path)}
    if config.page:
        _draw(facts, config.page)
    print(json_text(facts) if config.json else _text(facts))


def _collection(path: str) -> dict[str, Any]:
    from lookalike.data.collection import Collection
    from lookalike.data.failures import by_kind

    collection = Collection.open(path)
    groups = collection.table(["domain", "split", "label"]).group_by(["domain", "split"])
    counts = groups.aggregate([([], "count_all"), ("label", "count_distinct")]).to_pylist()
    counts.sort(key=lambda count: (count["domain"] or "", count["split"] or ""))
    named = {"domain": "domain", "split": "split", "images": "count_all", "classes": "label_count_distinct"}
    errors, columns = collection.errors(), []
    for field in collection.schema:
        empty = len(collection.table(["id"], f"`{field.name}` IS NULL")) if field.nullable else 0
        columns.append({"column": field.name, "type": str(field.type), "empty": empty})
    return {
        "rows": len(collection),
        "errors": len(errors),
        "version": collection.version,
        "fingerprint": collection.fingerprint,
        "model": collection.card.get("model"),
        "counts": [{name: count[key] for name, key in named.items()} for count in counts],
        "columns": columns,
        "duplicates": collection.card.get("duplicates"),
        "licences": collection.card.get("licences", {}),
        "errors_by_kind": [
            {"kind": kind, "images": images, "what to do": hint}
            for kind, images, hint in by_kind(errors["reason"].to_pylist())
        ],
        "first_errors": errors.select(["source", "reason"]).slice(0, 5).to_pylist(),
    }


def _draw(facts: dict[str, Any], file: str) -> None:
    from lookalike.pages.counts import write_counts

    if facts["kind"] != "collection":
        raise UsageError(f"`--page` is of a collection, and `{facts['path']}` is none.", hint="leave it out")
    counts: dict[str, dict[str, int]] = {}
    classes: dict[str, int] = {}
    for count in facts["counts"]:
        domain = count["domain"] or "none"
        counts.setdefault(domain, {})[count["split"] or "none"] = count["images"]
        classes[domain] = classes.get(domain, 0) + count["classes"]
    write_counts(Path(facts["path"]).name, counts, classes, file)


def _encoder(path: str) -> dict[str, Any]:
    """Of a model directory, without reading its tensors."""
    import math

    from lookalike.encoders.config import tensor_shapes
    from lookalike.encoders.directory import read_config, read_text

    config, text = read_config(path), read_text(path, tensors=False)
    return {
        "fingerprint": read_card(path).get("fingerprint"),
        "parameters": sum(math.prod(shape) for shape in tensor_shapes(config).values()),
        "features": config.projection.features,
        "dimension": config.projection.dimension,
        "config": to_json(config),
        "text": None if text is None else {"image": text.image, **to_json(text.config)},
        **_export(path),
    }


def _run(path: str) -> dict[str, Any]:
    last: dict[str, Any] = {}
    for line in read_metrics(path):
        last |= line
    checkpoints, model = Path(path) / "checkpoints", Path(path) / "model"
    return {
        "last": last,
        "checkpoints": sorted(entry.name for entry in checkpoints.iterdir()) if checkpoints.is_dir() else [],
        "model": str(model) if kind_of(model) == "encoder" else None,
        "config": read_json(Path(path) / "config.json"),
    }


def _export(path: str) -> dict[str, Any]:
    return {"card": read_card(path)}


def _text(facts: dict[str, Any]) -> str:
    """Facts as aligned text: single values first, trees as dotted names, lists of objects as tables."""
    tables = [v for v in facts.values() if isinstance(v, list) and all(isinstance(item, dict) for item in v)]
    single = [row for key, value in facts.items() if value not in tables for row in _leaves(key, value)]
    width = max(len(name) for name, _ in single)
    parts = ["\n".join(f"{name:<{width}}  {shown(value)}" for name, value in single)]
    for rows in filter(None, tables):
        parts.append(table(list(rows[0]), [["-" if v is None else v for v in row.values()] for row in rows]))
    return "\n\n".join(parts)


def _leaves(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in _leaves(f"{name}.{key}", inner)]
    if name == "bytes":
        return [("size", f"{value / 1e6:,.1f} MB")]
    if isinstance(value, list):
        return [(name, ", ".join(map(str, value)) or "-")]
    return [(name, "-" if value is None else f"{value:,}" if type(value) is int else str(value))]
