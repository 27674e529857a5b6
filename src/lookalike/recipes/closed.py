"""Projections in closed form: seconds of work once features are cached, nothing to tune, the bar for all training."""

from lookalike.training.config import Lda, Pca, PcaConfig

PCA = PcaConfig(fit=Pca(power=0.0))
"""Plain PCA. `--fit.power -0.25 --fit.within 0.5 --mirror` is worth two points of mP@5 (.538 for .515 where `head` has
.543), the mirror image for twice the work per image."""

LDA = PcaConfig(fit=Lda(shrinkage=0.7))
"""LDA with shrinkage: better than PCA on domains that it was fitted on, worse on others (.49 for .51 there)."""
