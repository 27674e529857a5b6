"""lookalike demo: made-up products, drawn, learned, measured and searched, offline; leaves one page."""

from __future__ import annotations

import io
import json
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lookalike.core.config import option
from lookalike.core.errors import StorageError
from lookalike.core.files import read_json, refuse_unless, write_bytes, write_json
from lookalike.core.journal import note, read_metrics

if TYPE_CHECKING:
    from lookalike.demo.page import Example, Score
    from lookalike.encoders.encoder import Encoder

# What suits drawings, and few steps, better than the recipe, which is made for photographs: nothing is cut out (a third
# of the images have something before the product), lamps differ more, and the mirror image counts too.
_DRAWN = (
    *("--mirror", "--augment.erase.chance", "0", "--augment.color.cast", "0.5"),
    *("--optimizer.learning-rate", "4e-3", "--optimizer.tower-learning-rate", "4e-3"),
)
_QUERIES = 8
_FOUND = 5
_OWN = (
    "lookalike index photos --test 0.3",
    "lookalike search photo.jpg --sheet matches.html",
    "lookalike pull laptop --out model",
    "lookalike train head --data photos.lookalike --model model --out run",
    "lookalike index photos --model run/model",
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
    seed: int = 0
    """Which products are drawn, in which places: another number, other products. The settings of the training were
    chosen on those of 0."""
    images_only: bool = False
    """Draw the images and their table, DIR/products.csv, and stop."""


def main(config: Config) -> None:
    """The whole way: draw, prepare, train, evaluate, index, search, tell."""
    import numpy as np

    from lookalike.data.collection import Collection
    from lookalike.demo.draw import draw
    from lookalike.demo.page import Page, histogram, to_html
    from lookalike.imaging.decode import decode

    out, steps = Path(config.out), list[tuple[str, str, float]]()
    _occupy(out, {"products": config.products, "views": config.views, "seed": config.seed})
    table = out / "products.csv"  # written last, so that it tells whether all is drawn
    drawn = f"--products {config.products} --views {config.views} --seed {config.seed}"
    with _step(steps, f"lookalike demo --out {out} {drawn} --images-only", "drew the images and their table"):
        if not table.exists():
            draw(out, config.seed, config.products, config.views)
    if config.images_only:
        print(table)
        return
    coll, run, model = str(out / "collection"), str(out / "run"), str(out / "run" / "model")
    untrained, vectors = str(out / "untrained"), str(out / "histogram.npy")
    with _step(steps, f"lookalike prepare {table} --out {coll}", "stored the images in a collection"):
        note(_data("prepare", str(table), "--out", coll))
    trains = f"lookalike train tiny --data {coll} --out {run} {shlex.join(_DRAWN)}"
    with _step(steps, trains, "trained a small network from scratch"):
        _train(coll, run, untrained)
    with _step(steps, f"lookalike evaluate {coll} --model {model}", "measured it on products it has never seen"):
        after = _score("network after training", coll, "--model", model)
    with _step(steps, f"lookalike evaluate {coll} --model {untrained}", "measured the network before training"):
        before = _score("network before training", coll, "--model", untrained)
    collection = Collection.open(coll)
    rows = collection.table(["id", "source", "label", "split", "image"])
    with _step(steps, f"lookalike evaluate {coll} --embeddings {vectors}", "measured a plain color histogram"):
        np.save(vectors, np.stack([histogram(decode(image)) for image in rows["image"].to_pylist()]))
        plain = _score("color histogram", coll, "--embeddings", vectors)
    with _step(steps, f"lookalike index {coll} --model {model}", "made the collection searchable"):
        _data("index", coll, "--model", model)
    with _step(steps, f"lookalike search IMAGE... -i {coll} --where \"split = 'test'\"", f"searched {_QUERIES} images"):
        examples = _examples(coll, [row for row in rows.to_pylist() if row["split"] == "test"], out)
    labels = rows["label"].to_pylist()
    seen = {label for label, split in zip(labels, rows["split"].to_pylist(), strict=True) if split == "train"}
    lines = [line for line in read_metrics(run) if line.get("encoder") in ("untouched", "tune", "trained")]
    page = Page(
        images=len(rows),
        products=len(set(labels)),
        unseen=len(set(labels) - seen),
        scores=[plain, before, after],
        curve=[(line["step"], line["mp@5"]) for line in lines],  # without the start, the untrained network again
        examples=examples,
        seconds=steps,
        own=_OWN,
        chosen_on=config.seed == Config.seed,
    )
    file = out / "index.html"
    write_bytes(file, to_html(page).encode())
    note(f"\nThe page is `{file}`: open it in a browser. The same with a folder of your own photos:\n")
    print("\n".join(_OWN))


def _occupy(out: Path, options: dict[str, int]) -> None:
    """Make `out` this demonstration's, or go on in it; StorageError if it is something else."""
    mark = out / "demo.json"
    if not mark.exists():
        refuse_unless(out, ("missing", "empty"), "demonstration")
    elif (found := {"seed": 0} | read_json(mark)) != options:
        raise StorageError(f"`{out}` holds a demonstration of {found}, not of {options}.", hint="give another `--out`")
    write_json(mark, options)


@contextmanager
def _step(steps: list[tuple[str, str, float]], command: str, words: str) -> Iterator[None]:
    """Say the command as it begins, and keep its seconds."""
    note(f"\n$ {command}")
    begun = time.monotonic()
    yield
    steps.append((command, words, time.monotonic() - begun))


def _data(*argv: str) -> str:
    """What the command line `argv` writes to stdout, which is for the last three commands; its words go to stderr."""
    from lookalike.commands import dispatch

    out = io.StringIO()
    with redirect_stdout(out):
        dispatch([*argv])
    return out.getvalue().rstrip("\n")


def _score(name: str, *argv: str) -> Score:
    """What `lookalike evaluate` finds; its table is shown."""
    from lookalike.demo.page import Score
    from lookalike.evaluation.report import Report

    report = Report(**json.loads(_data("evaluate", *argv, "--json", "-")))
    note(report.table())
    return Score(name, 64, report.metrics, {domain: found["mp@5"] for domain, found in report.per_domain.items()})


def _train(coll: str, run: str, untrained: str) -> None:
    """`lookalike train tiny`, measured a few times on the way; keeps the encoder as it was before the first step."""
    from lookalike.commands.train import configure, evaluation
    from lookalike.training.loop import train

    config = configure(["tiny", "--data", coll, "--out", run, "--evaluate-every", "100", *_DRAWN]).run
    score = evaluation(config)
    assert score is not None

    def measure(encoder: Encoder) -> Mapping[str, float]:
        if not Path(untrained).exists():
            encoder.save(untrained, {"name": "untrained"})
        return score(encoder)

    train(config, measure)


def _examples(coll: str, test: list[dict[str, Any]], out: Path) -> list[Example]:
    """Queries at equal distances through the test rows, and what `lookalike search` finds for them."""
    from lookalike.demo.page import Example
    from lookalike.pages.report import Hit

    queries = [test[int((i + 0.5) * len(test) / _QUERIES)] for i in range(_QUERIES)]
    files = [str(out / query["source"].partition("/")[2]) for query in queries]
    argv = ["search", *files, "-i", coll, "-k", str(_FOUND), "--where", "split = 'test'"]
    found = json.loads(_data(*argv, "--json", "--sheet", str(out / "matches.png")))
    image = {row["id"]: row["image"] for row in test}
    examples = []
    for query, answer in zip(queries, found, strict=True):
        hits = [Hit(image[m["id"]], m["label"], m["score"], m["label"] == query["label"]) for m in answer["matches"]]
        examples.append(Example(query["image"], query["label"], hits))
    return examples
