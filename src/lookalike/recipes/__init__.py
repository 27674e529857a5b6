"""Recipes: complete training configs by name. Flags override their leaves for a trial; a run worth a name becomes one.

Each kind has a file of its own, with what to expect in its docstring.
"""

from lookalike.recipes.closed import LDA, PCA
from lookalike.recipes.head import ARCFACE, HEAD
from lookalike.recipes.tiny import TINY
from lookalike.training.config import TrainConfig

__all__ = ["ABOUT", "RECIPES"]

RECIPES: dict[str, TrainConfig] = {
    "pca": PCA,
    "lda": LDA,
    "head": HEAD,
    "arcface": ARCFACE,
    "tiny": TINY,
}

ABOUT: dict[str, str] = {
    "pca": "PCA of a frozen tower's features, in closed form",
    "lda": "LDA with shrinkage, in closed form; needs labels",
    "head": "a projection trained gently on a frozen tower's features; the one to begin with",
    "arcface": "the same as the field trains it, for comparison",
    "tiny": "a small tower from scratch, on images; or `--model` tuned",
}
"""What each is, in one line of help."""
