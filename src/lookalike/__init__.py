"""Turns an image of anything into 64 numbers, so that images of the same thing lie next to each other.

    import lookalike as la

    index = la.index("photos")                # makes or refreshes photos.lookalike
    found = la.search("kettle.jpg", index)    # Matches: .rows(0), .to_pandas(); images in a notebook
    vectors = la.embed(["a.jpg", "b.jpg"])    # float32 [2 D], of length 1

Find         index, search, Index, Matches, knn
Embed        load -> Encoder, embed; load_text -> TextEmbedder
Collections  prepare -> Collection, split, prune, TorchDataset (for PyTorch)
Look         duplicates, outliers, clusters, map
Models       pull, train, export; Embedder (for scikit-learn)
Measure      evaluate -> Report, compare, judge
Errors       Error, with `message` and `hint`

`help(la.search)` says what one takes, gives and raises, with an example that runs; `lookalike VERB --help` has the same
options for a shell. Public names are found on first use, so that `import lookalike` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lookalike.api import compare, embed, evaluate, export, judge, load, prepare, pull, train
    from lookalike.core.errors import LookalikeError as Error
    from lookalike.data.collection import Collection
    from lookalike.estimator import Embedder
    from lookalike.evaluation.report import Report
    from lookalike.explore import clusters, duplicates, map, outliers, split
    from lookalike.finding import Index, index, prune, search
    from lookalike.retrieval.exact import knn
    from lookalike.retrieval.index import Matches
    from lookalike.torch_dataset import TorchDataset
    from lookalike.vectors.runtime import Embedder as Encoder
    from lookalike.vectors.text import TextEmbedder, load_text

__version__ = "0.2.0"

_PLACES = {
    "Collection": "lookalike.data.collection:Collection",
    "Embedder": "lookalike.estimator:Embedder",
    "Encoder": "lookalike.vectors.runtime:Embedder",
    "Error": "lookalike.core.errors:LookalikeError",
    "Index": "lookalike.finding:Index",
    "Matches": "lookalike.retrieval.index:Matches",
    "Report": "lookalike.evaluation.report:Report",
    "TextEmbedder": "lookalike.vectors.text:TextEmbedder",
    "TorchDataset": "lookalike.torch_dataset:TorchDataset",
    "clusters": "lookalike.explore:clusters",
    "compare": "lookalike.api:compare",
    "duplicates": "lookalike.explore:duplicates",
    "embed": "lookalike.api:embed",
    "evaluate": "lookalike.api:evaluate",
    "export": "lookalike.api:export",
    "index": "lookalike.finding:index",
    "judge": "lookalike.api:judge",
    "knn": "lookalike.retrieval.exact:knn",
    "load": "lookalike.api:load",
    "load_text": "lookalike.vectors.text:load_text",
    "map": "lookalike.explore:map",
    "outliers": "lookalike.explore:outliers",
    "prepare": "lookalike.api:prepare",
    "prune": "lookalike.finding:prune",
    "pull": "lookalike.api:pull",
    "search": "lookalike.finding:search",
    "split": "lookalike.explore:split",
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
    "clusters",
    "compare",
    "duplicates",
    "embed",
    "evaluate",
    "export",
    "index",
    "judge",
    "knn",
    "load",
    "load_text",
    "map",
    "outliers",
    "prepare",
    "prune",
    "pull",
    "search",
    "split",
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
