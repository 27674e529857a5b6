"""Public encoders on public sets, with all their numbers and with 64: a table that anyone with the files can fill.

    python benchmarks/public_table.py --from DIR --work WORK            every set in DIR, every preset
    python benchmarks/public_table.py --from DIR --work WORK --sets sop met --models siglip2-so-256 dinov3-l-16
    python benchmarks/public_table.py --work WORK --page table.html     the page again, of what is measured by now

DIR has a folder for each data set, named as `lookalike prepare --list` names it. A model is a preset's name, ORG/NAME,
or a model directory. Every query is searched among the set's own index, itself and its group left out by id, by our
`evaluate`: merged, split `test`. `64` is PCA in closed form on the images that the set has to learn from, without their
labels; sets without such images have none. Each measurement is appended to WORK/table.jsonl as it is made, and the same
command goes on behind the last one. A model whose weights can't be had is said, and tried again the next time.
"""

import argparse
import json
import time
from html import escape
from pathlib import Path
from typing import Any

import lookalike as la
from lookalike.core.files import write_bytes
from lookalike.core.journal import note, table
from lookalike.data.sources.datasets import DATASETS
from lookalike.published.presets import PRESETS

METRICS = ("mp@5", "recall@1", "map@100")
LOOKS = """:root { color-scheme: light dark } div { overflow-x: auto } table { border-collapse: collapse }
body { font: 15px/1.5 system-ui, sans-serif; margin: 24px; max-width: 70em } th:first-child, td:first-child {
text-align: left }
th, td { padding: 4px 10px; text-align: right; white-space: nowrap; border-bottom: 1px solid #8888 }"""


def measured(work: Path) -> list[dict[str, Any]]:
    """What was measured so far; a line that a kill left half is not."""
    file, found = work / "table.jsonl", list[dict[str, Any]]()
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            note(f"`{file}` has a line that was not written whole; it is measured again")
    return found


def keep(work: Path, entry: dict[str, Any]) -> None:
    """Append a measurement, on a line of its own."""
    with (work / "table.jsonl").open("a") as file:
        file.write("\n" * (file.tell() > 0 and not _ended(work)) + json.dumps(entry) + "\n")


def _ended(work: Path) -> bool:
    return (work / "table.jsonl").read_bytes().endswith(b"\n")


def model_of(name: str, work: Path) -> Path:
    """The model directory of a name, pulled into WORK the first time."""
    if Path(name).is_dir():
        return Path(name)
    place = work / "models" / name.replace("/", "--")
    if not place.exists():
        la.pull(name, place, text=False)
    return place


def collection_of(name: str, source: Path, work: Path) -> Path:
    """The collection of a data set, made the first time."""
    place = work / "sets" / f"{name}.lookalike"
    la.prepare(name, place, from_=source / name)
    return place


def wanted(model: Path, data: Path) -> list[str]:
    """What is measured of a model on a set: all its numbers; 64, if there are more and images to learn from."""
    more = la.load(model).dimension > 64 and la.Collection.open(data).table(["id"], "split = 'train'").num_rows
    return ["all", "64"] if more else ["all"]


def measure(numbers: str, model: Path, data: Path, work: Path) -> dict[str, Any]:
    """What those vectors find."""
    begun = time.monotonic()
    if numbers == "64":
        run = work / "runs" / f"{data.stem}-{model.name}"
        la.train("pca", data=data, model=model, out=run)
        model = run / "model"
    report = la.evaluate(model, data)
    told = {"metrics": dict(report.metrics), "half_width": dict(report.half_width), "n_queries": report.n_queries}
    told |= {"index": report.definition["index"], "encoder": report.model, "dimension": la.load(model).dimension}
    return {**told, "seconds": round(time.monotonic() - begun, 1)}


def page(found: list[dict[str, Any]]) -> str:
    """One page: a table a set, the best by mP@5 first, each with the 95 % interval over classes."""
    parts = []
    for name in sorted({entry["set"] for entry in found}):
        mine = sorted((e for e in found if e["set"] == name), key=lambda e: -e["metrics"]["mp@5"])
        lines = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells(entry))}</tr>" for entry in mine)
        head = "".join(f"<th>{escape(word)}</th>" for word in ("model", "numbers", *METRICS))
        said = f"{mine[0]['n_queries']:,} queries, {escape(mine[0]['index'])}"
        parts.append(f"<h2>{escape(name)}</h2><p>{said}</p><div><table><tr>{head}</tr>{lines}</table></div>")
    words = escape(__doc__ or "").split("\n\n")
    told = f"<p>{words[0]}</p><p>{words[-1]}</p>"
    title = (
        "<meta name=viewport content='width=device-width,initial-scale=1'><title>Public encoders, public sets</title>"
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8>{title}<style>{LOOKS}</style>{told}{''.join(parts)}</html>"
    )


def cells(entry: dict[str, Any]) -> list[str]:
    """A measurement as words."""
    told = []
    for name in METRICS:
        half = entry["half_width"][name]
        told.append(f"{entry['metrics'][name]:.4f}" + ("" if half is None else f" ± {half:.4f}"))
    return [entry["model"], f"{entry['dimension']:,}", *told]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=sorted(DATASETS))
    parser.add_argument("--models", nargs="+", default=list(PRESETS))
    parser.add_argument("--page", type=Path)
    arguments = parser.parse_args()
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    if arguments.source:
        sets = arguments.sets or [name for name in sorted(DATASETS) if (arguments.source / name).exists()]
        if not sets:
            parser.error(f"{arguments.source} has no folder named as a data set; `lookalike prepare --list` names them")
        done = {(entry["set"], entry["model"], entry["numbers"]) for entry in measured(work)}
        for name in sets:
            data = collection_of(name, arguments.source, work)
            for model in arguments.models:
                called = Path(model).name if Path(model).is_dir() else model
                try:
                    place = model_of(model, work)
                    for numbers in wanted(place, data):
                        if (name, called, numbers) not in done:
                            entry = measure(numbers, place, data, work)
                            keep(work, {"set": name, "model": called, "numbers": numbers, **entry})
                except la.Error as error:
                    note(f"{name}, {called}: {error.message}")
    found = measured(work)
    print(table(["set", "model", "numbers", *METRICS], [[entry["set"], *cells(entry)] for entry in found]))
    write_bytes(arguments.page or work / "table.html", page(found).encode())


if __name__ == "__main__":
    main()
