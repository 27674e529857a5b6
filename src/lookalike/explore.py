"""The verbs that look at a collection, as functions: the same options, defaults and errors as on the command line."""

from collections.abc import Sequence
from os import fspath
from typing import TYPE_CHECKING, Literal

from lookalike.places import path_of

if TYPE_CHECKING:
    from lookalike.data.collection import Collection
    from lookalike.exploring.results import Clusters, Duplicates, Map, Outliers, Split
    from lookalike.places import Place
    from lookalike.retrieval.index import ExactIndex

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

    >>> found = la.duplicates("photos.lookalike", html="duplicates.html")
    >>> all(len(group) > 1 for group in found.groups)  # ids, rising
    True
    >>> _ = la.duplicates("photos.lookalike", not_same=[0, 1])  # remembered

    Raises:
        Error: No such collection or model; vectors that are not finite; a collection that can't be written to.
    """
    from lookalike.commands.duplicates import Config, run

    return run(
        Config(
            collection=path_of(collection),
            model=fspath(model),
            cosine=cosine,
            not_same=tuple(not_same),
            not_same_from=fspath(not_same_from),
            html=None if html is None else fspath(html),
        )
    )


def outliers(collection: "Where", *, model: "Place" = "", most: int = 1000, html: "Place | None" = None) -> "Outliers":
    """Images whose labels are suspect or that are unlike their label, the worst first; column `outlier` has the scores.

    >>> worst = la.outliers("photos.lookalike").rows[0]
    >>> type(worst.label), 0 <= worst.score <= 1
    (<class 'str'>, True)

    Raises:
        Error: No such collection or model; no vectors; no labels; a collection that can't be written to.
    """
    from lookalike.commands.outliers import Config, run

    return run(Config(path_of(collection), fspath(model), most, html=None if html is None else fspath(html)))


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

    >>> for cluster in la.clusters("photos.lookalike", least=2).clusters:
    ...     assert cluster.name and len(cluster.ids) >= 2

    Raises:
        Error: No such collection or model; no vectors; too few images; scikit-learn is not installed.
    """
    from lookalike.commands.clusters import Config, run

    page = None if html is None else fspath(html)
    return run(Config(path_of(collection), fspath(model), least, sample, fspath(words), html=page))


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

    >>> found = la.map("photos.lookalike", html="map.html")
    >>> len(found.ids) == len(found.places)
    True

    Raises:
        Error: No such collection or model; no vectors; too few images; PaCMAP is not installed.
    """
    from lookalike.commands.map import Config, run

    return run(Config(path_of(collection), fspath(model), fspath(html), color, thumbs, seed))


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

    >>> done = la.split("photos.lookalike", test=0.5)
    >>> any(la.split("photos.lookalike", check=True).shared.values())
    False

    Raises:
        Error: No such collection; a split that is there, without `replace`; shares that are impossible; no labels.
    """
    from lookalike.commands.split import Config, run

    return run(Config(path_of(collection), test, val, by, seed, replace, check))
