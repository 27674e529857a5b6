"""The vectors that a verb looks at: those of the model that is named, else those that the collection has."""

import os
import shlex
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lookalike.core.errors import CollectionError, UsageError
from lookalike.core.journal import note

if TYPE_CHECKING:
    import numpy as np

    from lookalike.core.shapes import Ids, Vectors
    from lookalike.data.collection import Collection
    from lookalike.vectors.runtime import Embedder


@dataclass(frozen=True)
class Which:
    """A column of embeddings, and the directory of the model that made it; "": nobody noted it."""

    column: str
    model: str = ""
    is_index: bool = False  # the model that the collection is searched with, wherever it lies now


class Stored:
    """Vectors of all images of a collection: of length 1, in the order of ids."""

    def __init__(self, collection: "Collection", which: Which) -> None:
        """CollectionError: an image has none, or a number is not finite."""
        self.collection, self.which = collection, which
        self.ids, self.vectors = _read(collection, which.column)

    ids: "Ids"
    vectors: "Vectors"

    @cached_property
    def are_equal(self) -> bool:
        """Whether all vectors are the same, so that they tell nothing."""
        return len(self.ids) > 1 and bool((abs(self.vectors - self.vectors[0]) <= 1e-6).all())

    def refuse_equal(self) -> None:
        """CollectionError if all vectors are the same."""
        if self.are_equal:
            raise CollectionError(
                f"All {len(self.ids):,} vectors in column `{self.which.column}` of `{self.collection.path}` are equal: "
                "they tell no image from another.",
                hint="give another `--model`",
            )

    @cached_property
    def model(self) -> str:
        """The directory of the encoder that made them; CollectionError if it is not known, or no longer there."""
        from lookalike.commands.models import model_of

        if not self.which.model:
            raise CollectionError(f"`{self.collection.path}` does not say which encoder made `{self.which.column}`.")
        return model_of("", self.collection.path) if self.which.is_index else self.which.model

    @cached_property
    def embedder(self) -> "Embedder":
        """The encoder itself."""
        from lookalike.vectors.column import precision_of
        from lookalike.vectors.runtime import load

        return load(self.model, precision=precision_of(self.which.column))


def opened(path: str) -> "Collection":
    """The collection; CollectionError if it holds no image."""
    from lookalike.data.collection import Collection

    collection = Collection.open(path)
    if not len(collection):
        raise CollectionError(f"`{path}` holds no images.", hint=f"lookalike prepare SOURCE --out {shlex.quote(path)}")
    return collection


def which_vectors(path: str, asked: str) -> Which | None:
    """The column to look at, filled where images lack vectors; None if the collection has no vectors and no model."""
    from lookalike.commands.models import VARIABLE, model_of, named_model
    from lookalike.vectors.column import ensure_embeddings
    from lookalike.vectors.runtime import load

    collection = opened(path)
    if named := asked or os.environ.get(VARIABLE, ""):
        model = named_model(named)
        return Which(ensure_embeddings(load(model), collection).column, model)
    noted = _noted(collection)
    if noted is None:
        return None
    if noted.column in collection.columns and not len(collection.missing(noted.column)):
        return noted
    if not collection.card.get("model"):
        raise CollectionError(
            f"{len(collection.missing(noted.column)):,} of {len(collection):,} images of `{path}` have no vector in "
            f"`{noted.column}`.",
            hint=f"lookalike embed {shlex.quote(path)} --model MODEL",
        )
    model = model_of("", path)
    return Which(ensure_embeddings(load(model), collection).column, model)


def stored_vectors(path: str, asked: str, verb: str) -> Stored:
    """The vectors; CollectionError if there are none and no model to make them with is named or noted."""
    which = which_vectors(path, asked)
    if which is None:
        place = shlex.quote(path)
        raise CollectionError(
            f"`{path}` has no vectors, which `lookalike {verb}` looks at.",
            hint=f"`lookalike index {place}` makes them, or `lookalike {verb} {place} --model MODEL`",
        )
    return Stored(opened(path), which)


def _noted(collection: "Collection") -> Which | None:
    """What the collection knows of its vectors: those to search by, those that marked duplicates, or the only ones."""
    card: dict[str, Any] = collection.card
    model = card.get("model")
    if model:
        return Which(model["column"], model["path"], True)
    marked = (card.get("duplicates") or {}).get("embedding") or {}
    if marked.get("column") in collection.columns:
        return Which(marked["column"], marked["model"])
    kinds = ("embedding_", "features_")  # an encoder as it was published has features alone
    made = next((some for kind in kinds if (some := [n for n in collection.columns if n.startswith(kind)])), [])
    if len(made) > 1:
        raise UsageError(
            f"`{collection.path}` has vectors of {len(made)} encoders: {', '.join(made)}.",
            hint="`--model MODEL` says which to take",
        )
    return Which(made[0]) if made else None


def _read(collection: "Collection", column: str) -> "tuple[np.ndarray, np.ndarray]":
    import numpy as np

    from lookalike.core.shapes import l2_normalize

    ids, vectors = collection.vectors(column)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise CollectionError(
            f"{len(bad):,} of {len(ids):,} vectors in column `{column}` of `{collection.path}` are not finite, first "
            f"that of row {ids[bad[0]]}.",
            hint="give another `--model`",
        )
    return ids, l2_normalize(vectors)


def wrote(path: str) -> None:
    """Say that a file is there."""
    note(f"wrote `{path}`")
