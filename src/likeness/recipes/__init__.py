"""Recipes: complete training configs by name. Flags override their leaves for a trial; a run worth a name becomes one.

Each kind has a file of its own, with what to expect in its docstring.
"""

from likeness.recipes.closed import LDA, PCA
from likeness.recipes.head import ARCFACE, HEAD
from likeness.recipes.tiny import TINY
from likeness.training.config import TrainConfig

__all__ = ["RECIPES"]

RECIPES: dict[str, TrainConfig] = {
    "pca": PCA,
    "lda": LDA,
    "head": HEAD,
    "arcface": ARCFACE,
    "tiny": TINY,
}
