"""`lookalike info PATH`: what a directory of ours holds, whichever kind it is."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lookalike.core.config import option
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


def main(config: Config) -> None:
    """Print what lies at `config.path`; UsageError if it is nothing of ours."""
    kind = kind_of(config.path)
    told = {"collection": collection_facts, "encoder": encoder_facts, "run": run_facts, "export": export_facts}
    if kind not in told:
        raise UsageError(
            f"{found_at(config.path)}; expected a collection, a model directory, a run or an export.",
            hint="they are made by `lookalike prepare`, `pull`, `train` and `export`",
        )
    facts = told[kind](config.path)
    if config.json:
        print(json_text(facts))
    else:
        print(_text(facts))


def collection_facts(path: str) -> dict[str, Any]:
    """Rows, classes, counts per domain and split, columns, vectors and errors of the collection at `path`."""
    from lookalike.data.collection import Collection

    collection = Collection.open(path)
    rows = collection.table(["domain", "split", "label"])
    counts = rows.group_by(["domain", "split"]).aggregate([("label", "count_distinct"), ([], "count_all")]).to_pylist()
    counts.sort(key=lambda count: (count["domain"] or "", count["split"] or ""))
    errors = collection.errors()
    return {
        "kind": "collection",
        "path": path,
        "rows": len(collection),
        "errors": len(errors),
        "version": collection.version,
        "bytes": _bytes(path),
        "fingerprint": collection.fingerprint,
        "model": collection.card.get("model"),
        "counts": [
            {
                "domain": count["domain"],
                "split": count["split"],
                "images": count["count_all"],
                "classes": count["label_count_distinct"],
            }
            for count in counts
        ],
        "columns": [
            {"column": field.name, "type": str(field.type), "empty": _empty(collection, field)}
            for field in collection.schema
        ],
        "first_errors": [{"source": row["source"], "reason": row["reason"]} for row in errors.slice(0, 5).to_pylist()],
    }


def _empty(collection: Any, field: Any) -> int:
    """How many rows have no value in the column `field`."""
    return len(collection.table(["id"], f"`{field.name}` IS NULL")) if field.nullable else 0


def encoder_facts(path: str) -> dict[str, Any]:
    """Tower, sizes, projection and card of the model directory at `path`, without reading its tensors."""
    import math

    from lookalike.core.config import to_json
    from lookalike.encoders.config import tensor_shapes
    from lookalike.encoders.directory import read_config, read_text

    config, text = read_config(path), read_text(path, tensors=False)
    card = read_card(path)
    numbers = {name: math.prod(shape) for name, shape in tensor_shapes(config).items()}
    return {
        "kind": "encoder",
        "path": path,
        "fingerprint": card.get("fingerprint"),
        "parameters": sum(numbers.values()),
        "bytes": _bytes(path),
        "features": config.projection.features,
        "dimension": config.projection.dimension,
        "config": to_json(config),
        "text": None if text is None else {"image": text.image, **to_json(text.config)},
        "card": card,
    }


def run_facts(path: str) -> dict[str, Any]:
    """Recipe values, last metrics, checkpoints and model of the training run at `path`."""
    last: dict[str, Any] = {}
    for line in read_metrics(path):
        last |= line
    checkpoints = Path(path) / "checkpoints"
    return {
        "kind": "run",
        "path": path,
        "bytes": _bytes(path),
        "last": last,
        "checkpoints": sorted(entry.name for entry in checkpoints.iterdir()) if checkpoints.is_dir() else [],
        "model": str(Path(path) / "model") if kind_of(Path(path) / "model") == "encoder" else None,
        "config": read_json(Path(path) / "config.json"),
    }


def export_facts(path: str) -> dict[str, Any]:
    """The card of the export at `path`: its target, how it was checked, and the encoder that it was made from."""
    return {"kind": "export", "path": path, "bytes": _bytes(path), "card": read_card(path)}


def _bytes(path: str) -> int:
    size = 0
    for file in Path(path).rglob("*"):
        with contextlib.suppress(OSError):  # a writer has removed it meanwhile
            size += file.stat().st_size if file.is_file() else 0
    return size


def _text(facts: dict[str, Any]) -> str:
    """Facts as aligned text: single values first, trees as dotted names, lists of objects as tables."""
    single = [row for key, value in facts.items() if not _is_table(value) for row in _leaves(key, value)]
    width = max(len(name) for name, _ in single)
    parts = ["\n".join(f"{name:<{width}}  {shown(value)}" for name, value in single)]
    for value in facts.values():
        if _is_table(value) and value:
            parts.append(table(list(value[0]), [["-" if v is None else v for v in row.values()] for row in value]))
    return "\n\n".join(parts)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _leaves(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in _leaves(f"{name}.{key}", inner)]
    if name == "bytes":
        return [("size", f"{value / 1e6:,.1f} MB")]
    if isinstance(value, list):
        return [(name, ", ".join(map(str, value)) or "-")]
    return [(name, "-" if value is None else f"{value:,}" if type(value) is int else str(value))]
