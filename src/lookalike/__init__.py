"""Turns an image of anything into 64 numbers, so that images of the same thing lie next to each other.

Public names are found on first use, so that `import lookalike` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lookalike.api import compare, embed, evaluate, export, index, load, prepare, pull, search, train
    from lookalike.core.errors import LookalikeError as Error
    from lookalike.data.collection import Collection
    from lookalike.estimator import Embedder
    from lookalike.evaluation.report import Report
    from lookalike.retrieval.exact import knn
    from lookalike.retrieval.index import Index, Matches
    from lookalike.torch_dataset import TorchDataset
    from lookalike.vectors.runtime import Embedder as Encoder
    from lookalike.vectors.text import TextEmbedder, load_text

__version__ = "0.2.0"

_PLACES = {
    "Collection": "lookalike.data.collection:Collection",
    "Embedder": "lookalike.estimator:Embedder",
    "Encoder": "lookalike.vectors.runtime:Embedder",
    "Error": "lookalike.core.errors:LookalikeError",
    "Index": "lookalike.retrieval.index:Index",
    "Matches": "lookalike.retrieval.index:Matches",
    "Report": "lookalike.evaluation.report:Report",
    "TextEmbedder": "lookalike.vectors.text:TextEmbedder",
    "TorchDataset": "lookalike.torch_dataset:TorchDataset",
    "compare": "lookalike.api:compare",
    "embed": "lookalike.api:embed",
    "evaluate": "lookalike.api:evaluate",
    "export": "lookalike.api:export",
    "index": "lookalike.api:index",
    "knn": "lookalike.retrieval.exact:knn",
    "load": "lookalike.api:load",
    "load_text": "lookalike.vectors.text:load_text",
    "prepare": "lookalike.api:prepare",
    "pull": "lookalike.api:pull",
    "search": "lookalike.api:search",
    "train": "lookalike.api:train",
}

_OTHERS = {"Embedder": ("sklearn", "scikit-learn"), "TorchDataset": ("torch", "torch")}
"""Names that need a library that is no part of the installation: what is imported, what is installed."""

__all__ = [
    "Collection",
    "Embedder",
    "Encoder",
    "Error",
    "Index",
    "Matches",
    "Report",
    "TextEmbedder",
    "TorchDataset",
    "__version__",
    "compare",
    "embed",
    "evaluate",
    "export",
    "index",
    "knn",
    "load",
    "load_text",
    "prepare",
    "pull",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'lookalike' has no attribute {name!r}")
    place, _, found = _PLACES[name].partition(":")
    try:
        module = import_module(place)
    except ModuleNotFoundError as error:
        if name not in _OTHERS or error.name != _OTHERS[name][0]:
            raise
        from lookalike.core.errors import UsageError

        raise UsageError(
            f"`lookalike.{name}` needs {_OTHERS[name][1]}, which is not installed here.",
            hint=f"pip install {_OTHERS[name][1]}",
        ) from error
    return getattr(module, found)


def __dir__() -> list[str]:
    return __all__
