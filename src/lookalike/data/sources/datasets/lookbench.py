"""LookBench (Gao et al., 2026, arXiv:2601.14706): dated photos of clothes, searched for in a shop's."""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from lookalike.core.errors import SourceError
from lookalike.data.sources import Place
from lookalike.data.sources.dataset import Count, Dataset, Row
from lookalike.data.sources.store import located
from lookalike.data.sources.table import open_parquet
from lookalike.data.sources.tree import Tree

PARTS = ("real_studio_flat", "aigen_studio", "real_streetlook", "aigen_streetlook")
NOISE = "noise"  # images that belong to the gallery of every part
SAID = ("category", "main_attribute", "other_attributes", "task", "difficulty", "item_ID", "bbox")
_ROWS = 1024


def rows(tree: Tree) -> Iterator[Row]:
    """A part's query.parquet and gallery.parquet, and what lies in noise/; the images stand in the column `image`.

    The class is the category with all attributes, which have to match in the benchmark's fine Recall@1; noise has
    none. Its own code for single models asks for the same `item_ID`, which is kept as a column. Whole images are
    searched for, not what `bbox` frames of them. Columns but `image` may be missing: no public page tells their types.
    """
    for part in PARTS:
        for kind in ("query", "gallery"):
            if tree.has(name := f"{part}/{kind}.parquet"):
                yield from _rows(tree, name, part, kind == "query", True)
    for name in sorted(tree.names(NOISE)):
        if name.endswith(".parquet"):
            yield from _rows(tree, name, NOISE, False, False)


def _rows(tree: Tree, name: str, part: str, is_query: bool, is_labelled: bool) -> Iterator[Row]:
    place = tree.find([name])[0]
    assert place is not None, name
    if place.size is not None:
        raise SourceError(f"`{name}` lies in an archive, and Parquet files are not read there.", hint="unpack it")
    with open_parquet(located(place.path)) as file:
        if "image.bytes" not in {file.schema.column(i).path for i in range(len(file.schema))}:
            raise SourceError(f"`{name}` of `{tree.place}` has no column `image` with `bytes`.")
        there, row = [column for column in SAID if column in file.schema_arrow.names], 0
        if is_labelled and "category" not in there:
            raise SourceError(f"`{name}` of `{tree.place}` has no column `category`.")
        for batch in file.iter_batches(_ROWS, columns=[*there, "image.path"]):
            for told in batch.to_pylist():
                more = {column.lower(): _text(told.get(column)) for column in SAID}
                label = "/".join(more[key] or "" for key in ("category", "main_attribute", "other_attributes"))
                yield Row(
                    f"{name}/{row}",
                    label if is_labelled else None,
                    "test",
                    is_query,
                    not is_query,
                    more=more,
                    domain=f"lookbench/{part}",
                    place=Place(place.path, place.stamp, row, column="image.bytes"),
                )
                row += 1


def _text(value: Any) -> str | None:
    """A value as a text that is the same for the same attributes in any order."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(sorted(value))
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


DATASET = Dataset(
    name="lookbench",
    title="LookBench",
    what="clothes in the studio, on the street and drawn by machines, to be found in a shop's photos",
    page="https://huggingface.co/datasets/srpone/look-bench",
    get="hf download srpone/look-bench --repo-type dataset --local-dir lookbench",
    size="not said",
    licence="apache-2.0",
    forbids="nothing, if the licence is told along; it is there to be measured on",
    counts={"test": Count(None)},
    marks=tuple((f"{part}/query.parquet",) for part in PARTS),
    rows=rows,
    columns=pa.schema([(column.lower(), pa.string()) for column in SAID]),
    learn=False,
)
