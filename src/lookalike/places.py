"""What the functions of `lookalike` take: places, as paths or opened already."""

from collections.abc import Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lookalike.data.collection import Collection
    from lookalike.retrieval.index import ExactIndex

Place = str | PathLike[str]


def several(places: Place | Sequence[Place]) -> tuple[str, ...]:
    """One place or several, as paths."""
    return (fspath(places),) if isinstance(places, (str, PathLike)) else tuple(fspath(place) for place in places)


def path_of(place: "Place | Collection | ExactIndex") -> str:
    """Where a collection lies."""
    if isinstance(place, (str, PathLike)):
        return fspath(place)
    collection: Any = getattr(place, "collection", place)
    return str(collection.path)


def opened(place: "Place | Collection | ExactIndex") -> "Collection":
    """A collection as it is now; CollectionError if there is none.

    One that a program has opened may have been written to since, by another function of ours: by `train`, say.
    """
    from lookalike.data.collection import Collection

    if isinstance(place, (str, PathLike)):
        return Collection.open(fspath(place))
    found = place if isinstance(place, Collection) else place.collection
    return found if found.is_latest else Collection.open(found.path)
