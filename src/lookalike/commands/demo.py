"""lookalike demo: made-up products, drawn, learned, measured and searched, offline; leaves one page."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lookalike.core.config import option
from lookalike.core.errors import StorageError
from lookalike.core.files import kind_of, write_bytes, write_json

if TYPE_CHECKING:
    import pyarrow as pa

    from lookalike.data.collection import Collection
    from lookalike.demo.page import Example, Page, Score
    from lookalike.encoders.encoder import Encoder

_MARK = "demo.json"
"""Says that a directory is a demonstration's, and of which options, so that the same command may go on in it."""
_QUERIES = 8
_FOUND = 5
_OWN = (
    "lookalike prepare photos --test 0.3 --out mine",
    "lookalike train tiny --data mine --out my-run",
    "lookalike index mine --model my-run/model --out mine",
)


@dataclass(frozen=True)
class Config:
    """Draw a few hundred images of made-up products, and show on them all that lookalike does.

    Needs no network and no images. Takes about three minutes on two cores and leaves a page, DIR/index.html. The
    same command again goes on where it stopped.
    """

    out: str = option(default="demo", metavar="DIR")
    """The directory for images, collection, run and page."""
    products: int = 60
    """How many products are drawn; a third of them is kept for the test."""
    views: int = 8
    """Images of each product."""
    images_only: bool = False
    """Draw the images and their table, DIR/products.csv, and stop."""


def main(config: Config) -> None:
    """The whole way: draw, prepare, train, evaluate, index, search, tell."""
    from lookalike.core.journal import note
    from lookalike.demo.page import to_html

    out, clock = Path(config.out), Clock()
    _occupy(out, config)
    with clock.step(f"lookalike demo --out {out} --images-only", "drew the images and their table"):
        table = _draw(config, out)
    if config.images_only:
        print(table)
        return
    page = out / "index.html"
    write_bytes(page, to_html(_told(out, table, clock)).encode())
    note(f"\nThe page is `{page}`: open it in a browser. The same with a folder of your own photos:\n")
    print("\n".join(_OWN))


def _told(out: Path, table: Path, clock: Clock) -> Page:
    """All steps after the drawing, and what they found."""
    from lookalike.data.collection import Collection
    from lookalike.demo.page import Page

    coll, run, model = str(out / "collection"), str(out / "run"), str(out / "run" / "model")
    untrained, vectors = str(out / "untrained"), str(out / "histogram.npy")
    with clock.step(f"lookalike prepare {table} --out {coll}", "stored the images in a collection"):
        _shown(["prepare", str(table), "--out", coll])
    with clock.step(f"lookalike train tiny --data {coll} --out {run}", "trained a small network from scratch"):
        _train(coll, run, untrained)
    with clock.step(f"lookalike evaluate {model} {coll}", "measured it on products it has never seen"):
        after = _measured([model, coll])
    with clock.step(f"lookalike evaluate {untrained} {coll}", "measured the network before training"):
        before = _measured([untrained, coll])
    collection = Collection.open(coll)
    with clock.step(f"lookalike evaluate --embeddings {vectors} {coll}", "measured a plain color histogram"):
        _histograms(collection, vectors)
        plain = _measured(["--embeddings", vectors, coll])
    with clock.step(f"lookalike index {coll} --model {model} --out {coll}", "made the collection searchable"):
        _shown(["index", coll, "--model", model, "--out", coll])
    rows = collection.table(["id", "source", "label", "split", "image"])
    with clock.step(f"lookalike search {coll} IMAGE... --where \"split = 'test'\"", f"searched {_QUERIES} images"):
        examples = _examples(collection, rows, out)
    labels, seen = set(rows["label"].to_pylist()), _labels(rows, "train")
    return Page(
        images=len(rows),
        products=len(labels),
        unseen=len(labels - seen),
        scores=[
            _score("color histogram", plain),
            _score("network before training", before),
            _score("network after training", after),
        ],
        baseline=1,
        curve=_curve(Path(run)),
        examples=examples,
        seconds=clock.steps,
        own=_OWN,
    )


@dataclass
class Clock:
    """Says each step's command as it begins, and keeps its seconds."""

    steps: list[tuple[str, str, float]] = field(default_factory=list)

    @contextmanager
    def step(self, command: str, words: str) -> Iterator[None]:
        """Time what happens inside."""
        from lookalike.core.journal import note

        note(f"\n$ {command}")
        begun = time.monotonic()
        yield
        self.steps.append((command, words, time.monotonic() - begun))


def _occupy(out: Path, config: Config) -> None:
    """Make `out` this demonstration's, or go on in it; StorageError if it is something else."""
    options = {"products": config.products, "views": config.views}
    mark = out / _MARK
    found = json.loads(mark.read_text()) if mark.exists() else None
    if found is None and kind_of(out) not in ("missing", "empty"):
        raise StorageError(
            f"`{out}` exists and is something else, so no demonstration is written there.", hint="give another `--out`"
        )
    if found not in (None, options):
        raise StorageError(f"`{out}` holds a demonstration of {found}, not of {options}.", hint="give another `--out`")
    write_json(mark, options)


def _draw(config: Config, out: Path) -> Path:
    from lookalike.demo.draw import draw

    table = out / "products.csv"  # written last, so that it tells whether all is drawn
    return table if table.exists() else draw(out, products=config.products, views=config.views)


def _data(argv: list[str]) -> str:
    """What the command line `argv` writes to stdout; its words go to stderr as always."""
    from lookalike.commands import dispatch

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        dispatch(argv)
    return out.getvalue()


def _shown(argv: list[str]) -> None:
    """Do what the command line `argv` does, with its data among the words: stdout is for the last three commands."""
    from lookalike.core.journal import note

    note(_data(argv).rstrip("\n"))


def _measured(argv: list[str]) -> dict[str, Any]:
    """`lookalike evaluate` as a document; its table is shown."""
    _shown(["evaluate", *argv])
    document: dict[str, Any] = json.loads(_data(["evaluate", *argv, "--json", "-"]))
    return document


def _train(coll: str, run: str, untrained: str) -> None:
    """`lookalike train tiny`, measured a few times on the way; keeps the encoder as it was before the first step."""
    from dataclasses import replace

    from lookalike.commands.train import evaluation
    from lookalike.recipes import RECIPES
    from lookalike.training.config import PixelsConfig
    from lookalike.training.loop import train

    recipe = RECIPES["tiny"]
    assert isinstance(recipe, PixelsConfig)
    config = replace(recipe, data=coll, out=run, evaluate_every=100)
    score = evaluation(config)
    assert score is not None

    def measure(encoder: Encoder) -> dict[str, float]:
        if not Path(untrained).exists():
            encoder.save(untrained, {"name": "untrained"})
        return score(encoder)

    train(config, measure)


def _curve(run: Path) -> list[tuple[int, float]]:
    """(step, mP@5) of every measurement but that of the start, which is the untrained network again."""
    from lookalike.core.journal import read_metrics

    return [
        (line["step"], line["mp@5"]) for line in read_metrics(run) if line.get("encoder") in ("untouched", "trained")
    ]


def _histograms(collection: Collection, path: str) -> None:
    import numpy as np

    from lookalike.demo.histogram import histogram
    from lookalike.imaging.decode import decode

    stored = collection.table(["image"])["image"].to_pylist()
    np.save(path, np.stack([histogram(decode(image)) for image in stored]))


def _labels(rows: pa.Table, split: str) -> set[str]:
    return {row["label"] for row in rows.select(["label", "split"]).to_pylist() if row["split"] == split}


def _score(name: str, report: dict[str, Any]) -> Score:
    from lookalike.demo.page import Score

    return Score(name, 64, report["metrics"], {domain: m["mp@5"] for domain, m in report["per_domain"].items()})


def _examples(collection: Collection, rows: pa.Table, out: Path) -> list[Example]:
    """Queries at equal distances through the test rows, and what `lookalike search` finds for them."""
    from lookalike.demo.page import Example, Hit

    test = [row for row in rows.to_pylist() if row["split"] == "test"]
    queries = [test[int((i + 0.5) * len(test) / _QUERIES)] for i in range(_QUERIES)]
    files = [str(out / query["source"].partition("/")[2]) for query in queries]
    argv = ["search", collection.path, *files, "-k", str(_FOUND + 1), "--where", "split = 'test'"]
    found = json.loads(_data([*argv, "--json", "--sheet", str(out / "matches.png")]))
    image = {row["id"]: row["image"] for row in test}
    examples = []
    for query, answer in zip(queries, found, strict=True):
        others = [match for match in answer["matches"] if match["id"] != query["id"]][:_FOUND]
        hits = [Hit(image[m["id"]], m["label"], m["score"], m["label"] == query["label"]) for m in others]
        examples.append(Example(query["image"], query["label"], hits))
    return examples
