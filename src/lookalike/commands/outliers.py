"""lookalike outliers: labels that don't fit, and images that fit no label, ranked, on a page and as a column."""

import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lookalike.commands.outcome import tell
from lookalike.core.config import in_range, option
from lookalike.core.errors import CollectionError
from lookalike.core.journal import note, table

if TYPE_CHECKING:
    import numpy as np

    from lookalike.commands.stored import Stored
    from lookalike.exploring.labels import Fits
    from lookalike.exploring.results import Outliers

_SHOWN, _PAGE = 20, 100  # rows in the table, and on the page
_BESIDE = 3  # images of its own label and of the other one, on the page


@dataclass(frozen=True)
class Config:
    """Find images whose labels are suspect, and images that are unlike all others of their label.

    Every image is compared with the others of its label and with those of all other labels, never with itself or with
    its near duplicates, which would share its mistake (`lookalike duplicates` marks them). The score is from 0 to 1;
    above 0.5 another label fits better than the image's own by more than is usual in the collection, or the image is
    far outside of its label. A label with one image can't be judged.

    Column `outlier` gets the score: `lookalike train head --where "outlier < 0.5 OR outlier IS NULL"` learns from what
    is not suspect.
    """

    collection: str = option(positional=True, metavar="COLL")
    """The collection or index."""
    model: str = option(default="", metavar="MODEL")
    """Look at this model's vectors: a directory, a short name of `lookalike pull --list`, or ORG/NAME on the Hub.
    Unless given, LOOKALIKE_MODEL, then those that the collection has."""
    most: int = 1000
    """List so many images at most; the column has the scores of all."""
    json: str | None = option(default=None, metavar="FILE", writes=True)
    """Write the list to this file; `-` writes it to stdout instead of the table."""
    html: str | None = option(default=None, metavar="FILE", writes=True)
    """Write a page with the worst, each beside images of its own label and of the one that fits better."""

    def __post_init__(self) -> None:
        in_range(self, 1.0, math.inf, "most")


def main(config: Config) -> None:
    """Find, mark, and print or write the list."""
    found = run(config)
    tell(found.to_json(), _table(found), config.json)


def run(config: Config) -> "Outliers":
    """Find and mark: the list."""
    import numpy as np
    import pyarrow as pa

    from lookalike.commands.stored import Stored, opened, stored_vectors, wrote
    from lookalike.data.made import check_made, write_made
    from lookalike.exploring.labels import classes_of, fits_of, score_of
    from lookalike.exploring.results import Outlier, Outliers

    collection = opened(config.collection)
    check_made(collection, "outliers", ("outlier",))
    _refuse_without_labels(config.collection, collection.table(["label"])["label"].null_count, len(collection))
    which = stored_vectors(config.collection, config.model, "outliers").which
    with opened(config.collection).locked("outliers"):
        stored = Stored(opened(config.collection), which)
        stored.refuse_equal()
        marks = ["duplicate_of"] if "duplicate_of" in stored.collection.columns else []
        rows = stored.collection.table(["id", "domain", "label", *marks])
        classes, labels = classes_of(rows["domain"].to_pylist(), rows["label"].to_pylist())
        fits = fits_of(stored.vectors, classes, _copies(stored.ids, rows["duplicate_of"] if marks else None))
        score = score_of(fits)
        unknown = np.isnan(score)
        write_made(stored.collection, "outliers", stored.ids, {"outlier": pa.array(score, mask=unknown)})
        judged = np.flatnonzero(~unknown)
        order = judged[np.argsort(-score[judged], kind="stable")]
        found = [
            Outlier(
                int(stored.ids[row]),
                labels[classes[row]],
                float(score[row]),
                labels[fits.nearest[row]] if fits.nearest[row] >= 0 else None,
                "odd" if fits.odd[row] > max(0.5, fits.doubt[row]) else "label",
            )
            for row in order[: config.most]
        ]
        if config.html is not None:
            _write_page(config, stored, classes, labels, fits, score, order)
            wrote(config.html)
    _tell(score, len(labels), int((unknown & (classes >= 0)).sum()))
    return Outliers(tuple(found), len(judged))


def _refuse_without_labels(path: str, missing: int, images: int) -> None:
    if missing == images:
        raise CollectionError(
            f"No image of `{path}` has a label, and outliers are images that don't fit theirs.",
            hint=f"`lookalike clusters {shlex.quote(path)}` groups images without labels",
        )


def _copies(ids: "np.ndarray", marks: "object | None") -> "np.ndarray":
    """The row that each is marked as a duplicate of, or that others are marked as duplicates of; -1: neither."""
    import numpy as np
    import pyarrow.compute as pc

    found = np.full(len(ids), -1, np.int64)
    if marks is None:
        return found
    first = pc.fill_null(marks, -1).to_numpy()
    at = np.minimum(np.searchsorted(ids, first), len(ids) - 1)
    known = (first >= 0) & (ids[at] == first)
    found[known] = at[known]
    found[at[known]] = np.where(found[at[known]] < 0, at[known], found[at[known]])
    return found


def _tell(score: "np.ndarray", labels: int, single: int) -> None:
    suspected = int((score > 0.5).sum())
    note(f"{suspected:,} of {len(score):,} images are suspected: column `outlier` is above 0.5")
    if single:
        note(f"{single:,} images are the only ones of their labels, or have only copies beside them: not judged")
    if labels == 1:
        note("there is one label, so that no other can fit better: only odd images are told")


def _table(found: "Outliers") -> str:
    if not found.rows:
        return "no image could be judged"
    rows = [[f"{r.score:.3f}", r.id, r.label, r.suggested or "-", r.reason] for r in found.rows[:_SHOWN]]
    left = len(found.rows) - len(rows)
    return table(["score", "id", "label", "fits better", "why"], rows) + (
        f"\n\nand {left:,} more in the order of their scores: --json FILE" if left else ""
    )


def _write_page(
    config: Config,
    stored: "Stored",
    classes: "np.ndarray",
    labels: list[str],
    fits: "Fits",
    score: "np.ndarray",
    order: "np.ndarray",
) -> None:
    import numpy as np

    from lookalike.exploring.labels import nearest_in
    from lookalike.pages.looks import Card, Section, write_looks

    sections = []
    for place, row in enumerate(order[:_PAGE].tolist(), 1):
        own, other = classes[row], fits.nearest[row]
        is_odd = fits.odd[row] > max(0.5, fits.doubt[row])
        cards = [Card(int(stored.ids[row]), f"score {score[row]:.3f}")]
        for name, number in (("its label", own), *((("fits better", other),) if other >= 0 and not is_odd else ())):
            near = nearest_in(stored.vectors, row, np.flatnonzero(classes == number), _BESIDE)
            cosines = stored.vectors[near] @ stored.vectors[row]
            cards += [
                Card(int(stored.ids[at]), f"{name}, cosine {cosine:.3f}")
                for at, cosine in zip(near.tolist(), cosines.tolist(), strict=True)
            ]
        words = (
            "It is unlike the other images of its label."
            if is_odd
            else f"`{labels[other]}` fits better."
            if other >= 0
            else "Nothing else is near."
        )
        sections.append(Section(f"{place}. Labelled {labels[own]}", words, cards))
    title = f"Outliers in {Path(config.collection).name}"
    lead = f"{int((score > 0.5).sum()):,} of {len(score):,} images are suspected, the worst first."
    write_looks(config.html or "", title, lead, sections, stored.collection)
