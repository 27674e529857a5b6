"""Turns an image of anything into 64 numbers, so that images of the same thing lie next to each other.

Public names are found on first use, so that `import lookalike` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lookalike.data.collection import Collection
    from lookalike.evaluation.protocols import evaluate
    from lookalike.search.exact import knn
    from lookalike.search.index import Index, Matches
    from lookalike.vectors.runtime import Embedder, load
    from lookalike.vectors.text import TextEmbedder, load_text

__version__ = "0.2.0"

_PLACES = {
    "Collection": "lookalike.data.collection",
    "Embedder": "lookalike.vectors.runtime",
    "Index": "lookalike.search.index",
    "Matches": "lookalike.search.index",
    "TextEmbedder": "lookalike.vectors.text",
    "evaluate": "lookalike.evaluation.protocols",
    "knn": "lookalike.search.exact",
    "load": "lookalike.vectors.runtime",
    "load_text": "lookalike.vectors.text",
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
        raise AttributeError(f"module 'lookalike' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return __all__
