"""INSTRE (Wang and Jiang, 2015): things, buildings and prints, each alone (S1, S2) or two together (M)."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from lookalike.core.errors import SourceError
from lookalike.data.sources.dataset import Count, Dataset, Row, is_picture
from lookalike.data.sources.lists import read_box
from lookalike.data.sources.tree import Tree

GROUND_TRUTH = "gnd_instre.mat"
PARTS = ("INSTRE-S1", "INSTRE-S2", "INSTRE-M")


def rows(tree: Tree) -> Iterator[Row]:
    """The class is a part's folder: `INSTRE-S1/...`, since the parts may use one name twice; what is there is taken.

    gnd_instre.mat, where it is there, says who is searched in whom (`qimlist` in `imlist`). Without it every image is
    both. The box that lies beside an image (002.txt: x y w h) is kept, four numbers each.
    """
    if tree.has(GROUND_TRUTH):
        listed = _lists(tree)
        named = [(_whole(name), key == "qimlist") for key in ("qimlist", "imlist") for name in listed[key]]
        for name, is_query in named:
            yield _row(tree, name, is_query, not is_query)
        return
    for part in PARTS:
        for name in tree.names(part):
            if is_picture(name):
                yield _row(tree, name, True, True)


def _row(tree: Tree, name: str, is_query: bool, is_gallery: bool) -> Row:
    box = read_box(tree, name.rpartition(".")[0] + ".txt")
    return Row(name, "/".join(name.split("/")[:2]), "test", is_query, is_gallery, more={"box": box})


def _whole(name: str) -> str:
    """A name of the ground truth from its part on, with a suffix."""
    start = min((at for part in PARTS if (at := name.find(f"{part}/")) >= 0), default=0)
    return name[start:] if is_picture(name) else f"{name[start:]}.jpg"


def _lists(tree: Tree) -> dict[str, list[str]]:
    from scipy.io import loadmat

    try:
        told: dict[str, Any] = loadmat(io.BytesIO(tree.read(GROUND_TRUTH)), simplify_cells=True)
        return {key: [str(name).strip() for name in np.atleast_1d(told[key])] for key in ("qimlist", "imlist")}
    except (ValueError, TypeError, KeyError, NotImplementedError, EOFError) as error:
        raise SourceError(
            f"`{GROUND_TRUTH}` of `{tree.place}` can't be read: {type(error).__name__}: {error}.",
            hint="download it again, or take it away: then every image is a query and in the gallery",
        ) from error


DATASET = Dataset(
    name="instre",
    title="INSTRE",
    what="things, buildings and prints in many surroundings",
    page="http://123.57.42.89/Dataset_ict/INSTRE",
    get="INSTRE_release.rar from its page, unpacked with `unrar x`; gnd_instre.mat of Iscen et al. beside it",
    size="2.3 GB",
    licence="unknown",
    forbids="not said",
    counts={"test": Count(None)},
    marks=((PARTS[0], PARTS[1]), (PARTS[0], GROUND_TRUTH)),
    rows=rows,
    columns=pa.schema([("box", pa.list_(pa.float64()))]),
)
