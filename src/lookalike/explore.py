"""The verbs that look at a collection, as functions: the same options, defaults and errors as on the command line."""

from collections.abc import Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from lookalike.data.collection import Collection
    from lookalike.exploring.results import Clusters, Duplicates, Map, Outliers, Split
    from lookalike.retrieval.index import ExactIndex

    Place = str | PathLike[str]
    Where = Place | Collection | ExactIndex


def duplicates(
    collection: "Where",
    *,
    model: "Place" = "",
    cosine: float | None = None,
    not_same: Sequence[int] = (),
    not_same_from: "Place" = "",
    html: "Place | None" = None,
) -> "Duplicates":
    """Groups of images that are the same or nearly so; column `duplicate_of` marks all but the first of each.

        found = lookalike.duplicates("photos.lookalike", html="duplicates.html")
        found.groups[0]                                              # ids, rising
        lookalike.duplicates("photos.lookalike", not_same=[12, 57])  # remembered

    Raises:
        Error: No such collection or model; vectors that are not finite; a collection that can't be written to.
    """
    from lookalike.commands.duplicates import Config, run

    return run(
        Config(
            collection=_path(collection),
            model=fspath(model),
            cosine=cosine,
            not_same=tuple(not_same),
            not_same_from=fspath(not_same_from),
            html=None if html is None else fspath(html),
        )
    )


def outliers(collection: "Where", *, model: "Place" = "", most: int = 1000, html: "Place | None" = None) -> "Outliers":
    """Images whose labels are suspect or that are unlike their label, the worst first; column `outlier` has the scores.

        worst = lookalike.outliers("photos.lookalike").rows[0]
        print(worst.id, worst.label, worst.suggested, worst.score)

    Raises:
        Error: No such collection or model; no vectors; no labels; a collection that can't be written to.
    """
    from lookalike.commands.outliers import Config, run

    return run(Config(_path(collection), fspath(model), most, html=None if html is None else fspath(html)))


def clusters(
    collection: "Where",
    *,
    model: "Place" = "",
    least: int = 5,
    sample: int = 10000,
    words: "Place" = "",
    html: "Place | None" = None,
) -> "Clusters":
    """Images that lie together, the largest cluster first, with names; column `cluster` has the numbers, -1 for none.

        for cluster in lookalike.clusters("photos.lookalike").clusters[:5]:
            print(cluster.number, cluster.name, len(cluster.ids))

    Raises:
        Error: No such collection or model; no vectors; too few images; scikit-learn is not installed.
    """
    from lookalike.commands.clusters import Config, run

    page = None if html is None else fspath(html)
    return run(Config(_path(collection), fspath(model), least, sample, fspath(words), html=page))


def map(
    collection: "Where",
    *,
    model: "Place" = "",
    html: "Place" = "",
    color: str = "",
    thumbs: int = 0,
    seed: int = 0,
) -> "Map":
    """All images on a plane, like ones beside each other: a page to look at; columns `map_x` and `map_y` the places.

        found = lookalike.map("photos.lookalike", html="map.html")
        print(found.ids[0], found.places[0])

    Raises:
        Error: No such collection or model; no vectors; too few images; PaCMAP is not installed.
    """
    from lookalike.commands.map import Config, run

    return run(Config(_path(collection), fspath(model), fspath(html), color, thumbs, seed))


def split(
    collection: "Where",
    *,
    test: float = 0.2,
    val: float = 0.0,
    by: Literal["class", "group", "duplicates"] = "class",
    seed: int = 0,
    replace: bool = False,
    check: bool = False,
) -> "Split":
    """Write the column `split`, so that no class, group or near duplicates stand on two sides; `check` only looks.

        print(lookalike.split("photos.coll", test=0.2, val=0.1).counts)
        assert not any(lookalike.split("photos.coll", check=True).shared.values())

    Raises:
        Error: No such collection; a split that is there, without `replace`; shares that are impossible; no labels.
    """
    from lookalike.commands.split import Config, run

    return run(Config(_path(collection), test, val, by, seed, replace, check))


def _path(place: "Where") -> str:
    from lookalike.api import _path as path_of

    return path_of(place)
