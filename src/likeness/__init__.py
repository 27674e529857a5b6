"""Turns a picture of anything into 64 numbers, so that pictures of the same thing lie next to each other.

Public names are found on first use, so that `import likeness` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from likeness.data.collection import Collection as Collection
    from likeness.embedding.runtime import Embedder as Embedder
    from likeness.embedding.runtime import load as load
    from likeness.embedding.text import TextEmbedder as TextEmbedder
    from likeness.embedding.text import load_text as load_text
    from likeness.evaluation.protocols import evaluate as evaluate
    from likeness.search.exact import knn as knn
    from likeness.search.index import Index as Index
    from likeness.search.index import Matches as Matches

__version__ = "0.1.0"

_PLACES = {
    "Collection": "likeness.data.collection",
    "Embedder": "likeness.embedding.runtime",
    "Index": "likeness.search.index",
    "Matches": "likeness.search.index",
    "TextEmbedder": "likeness.embedding.text",
    "evaluate": "likeness.evaluation.protocols",
    "knn": "likeness.search.exact",
    "load": "likeness.embedding.runtime",
    "load_text": "likeness.embedding.text",
}

__all__ = [
    "Collection",
    "Embedder",
    "Index",
    "Matches",
    "TextEmbedder",
    "__version__",
    "evaluate",
    "knn",
    "load",
    "load_text",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'likeness' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return __all__
