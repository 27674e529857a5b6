"""ILIAS (Kordopatis-Zilos et al., 2025): single things, searched for among very many images."""

from collections.abc import Iterator
from itertools import chain

import pyarrow as pa

from lookalike.core.journal import note
from lookalike.data.sources.dataset import Count, Dataset, Row, is_picture
from lookalike.data.sources.lists import read_box
from lookalike.data.sources.tree import Tree

DISTRACTORS = "yfcc100m"


def rows(tree: Tree) -> Iterator[Row]:
    """INSTANCE/query/Q*.jpg is searched for among INSTANCE/pos/P*.jpg of all, and among distractors without a label.

    The box of what is meant (Q*_bbox.txt: x y w h) is kept, four numbers each. Queries in words are passed over.
    """
    core = "ilias_core/" if tree.has("ilias_core") else ""
    for name in tree.names(core.rstrip("/")):
        instance, _, rest = name.removeprefix(core).partition("/")
        kind, _, image = rest.partition("/")
        if kind not in ("query", "pos") or "/" in image or not is_picture(image):
            continue
        box = read_box(tree, name.rpartition(".")[0] + "_bbox.txt")
        yield Row(name, instance, "test", kind == "query", kind == "pos", more={"box": box})
    distractors = (name for name in tree.names(DISTRACTORS) if is_picture(name))
    first = next(distractors, None)
    for name in chain([first], distractors) if first else ():
        yield Row(name, None, "test", is_query=False)
    if not first:
        note(f"ilias: there are no distractors below `{DISTRACTORS}`: scores without them say little")


DATASET = Dataset(
    name="ilias",
    title="ILIAS",
    what="single things, searched for among up to 100 million images",
    page="https://vrg.fel.cvut.cz/ilias",
    get="ilias_core.tar and the tar files below yfcc100m/ from https://vrg.fel.cvut.cz/ilias_data",
    size="not said",
    licence="unknown",
    forbids="training; the authors' own images are CC BY 4.0, the others keep what they had",
    counts={"test": Count(None)},
    marks=(("ilias_core/*/query/Q*",), ("*/query/Q*",)),
    rows=rows,
    columns=pa.schema([("box", pa.list_(pa.float64()))]),
    learn=False,
)
