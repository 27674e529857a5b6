"""Projections in closed form: seconds of work once features are cached, nothing to tune, the bar for all training."""

from likeness.training.config import Lda, Pca, PcaConfig

PCA = PcaConfig(fit=Pca(power=0.0))
"""Plain PCA. `--mirror --fit.power -0.125` is worth a point or two, for twice the work per image."""

LDA = PcaConfig(fit=Lda(shrinkage=0.7))
"""LDA with shrinkage: better than PCA on kinds of things it was fitted on, worse on others."""
