"""Turns an image of anything into 64 numbers, so that images of the same thing lie next to each other.

Public names are found on first use, so that `import lookalike` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lookalike.api import compare, embed, evaluate, export, prepare, pull, train
    from lookalike.core.errors import LookalikeError as Error
    from lookalike.data.collection import Collection
    from lookalike.evaluation.protocols import Report
    from lookalike.retrieval.exact import knn
    from lookalike.retrieval.index import Index, Matches
    from lookalike.vectors.runtime import Embedder as Encoder
    from lookalike.vectors.runtime import load
    from lookalike.vectors.text import TextEmbedder, load_text

__version__ = "0.2.0"

_PLACES = {
    "Collection": "lookalike.data.collection:Collection",
    "Encoder": "lookalike.vectors.runtime:Embedder",
    "Error": "lookalike.core.errors:LookalikeError",
    "Index": "lookalike.retrieval.index:Index",
    "Matches": "lookalike.retrieval.index:Matches",
    "Report": "lookalike.evaluation.protocols:Report",
    "TextEmbedder": "lookalike.vectors.text:TextEmbedder",
    "compare": "lookalike.api:compare",
    "embed": "lookalike.api:embed",
    "evaluate": "lookalike.api:evaluate",
    "export": "lookalike.api:export",
    "knn": "lookalike.retrieval.exact:knn",
    "load": "lookalike.vectors.runtime:load",
    "load_text": "lookalike.vectors.text:load_text",
    "prepare": "lookalike.api:prepare",
    "pull": "lookalike.api:pull",
    "train": "lookalike.api:train",
}

__all__ = [
    "Collection",
    "Encoder",
    "Error",
    "Index",
    "Matches",
    "Report",
    "TextEmbedder",
    "__version__",
    "compare",
    "embed",
    "evaluate",
    "export",
    "knn",
    "load",
    "load_text",
    "prepare",
    "pull",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'lookalike' has no attribute {name!r}")
    module, _, found = _PLACES[name].partition(":")
    return getattr(import_module(module), found)


def __dir__() -> list[str]:
    return __all__
