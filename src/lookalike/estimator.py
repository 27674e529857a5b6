"""An encoder with scikit-learn's habits: `fit` learns a projection in closed form, `transform` gives embeddings."""

from dataclasses import replace
from itertools import islice
from os import PathLike, fspath
from typing import Any

import numpy as np
from jaxtyping import Float32
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from lookalike.core.errors import UsageError
from lookalike.core.shapes import l2_normalize
from lookalike.encoders.config import ProjectionConfig
from lookalike.encoders.directory import read_model, write_model
from lookalike.training.config import EVENED, Pca
from lookalike.training.tasks import fitted
from lookalike.vectors.runtime import combine, load, prepared

Features = Float32[np.ndarray, "N F"]


class Embedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Images, or a tower's features, to embeddings of unit length.

    >>> images = sorted(Path("photos").rglob("*.png"))
    >>> labels = [image.parent.name for image in images]
    >>> embedder = la.Embedder("model", dimension=3).fit(images, labels)
    >>> embedder.transform(images[:2]).shape  # float32
    (2, 3)
    >>> embedder.save("model3")  # a model directory, for `la.load` and all verbs

    With labels the projection is what `lookalike train head` begins with, without them PCA. `train head` looks at each
    image several times and takes some steps behind it, which is better; this takes seconds.

    Like all estimators it looks at its parameters when it is fitted.

    Args:
        model: A model directory. None: what is given are features already, numbers [N F].
        dimension: Numbers of an embedding; as many as features and images allow, where these are fewer.
        mirror: Whether the features of each image are averaged with those of its mirror image.

    Attributes:
        weight_: [F D], and bias_ [D]: embeddings are features of length 1 times the one, plus the other, at length 1.
        n_features_in_: F.
    """

    def __init__(self, model: Any = None, dimension: Any = 64, mirror: Any = True) -> None:
        self.model = model
        self.dimension = dimension
        self.mirror = mirror

    def fit(self, X: Any, y: Any = None) -> "Embedder":
        """Learn the projection from images or features, and their labels where there are any.

        Raises:
            Error: An image can't be read; other numbers of images and labels; all images are equal.
            ValueError: Features that are no finite numbers, as scikit-learn says it.
        """
        features = self._features(X, reset=True)
        labels = np.zeros(len(features)) if y is None else np.asarray(y)
        if len(labels) != len(features):
            raise ValueError(f"There are {len(features)} images and {len(labels)} labels.")
        label = np.unique(labels, return_inverse=True)[1]
        dimension = min(self.dimension, features.shape[1], len(features) - 1)
        start = Pca() if y is None else EVENED
        self.weight_, self.bias_ = fitted(start, features, label, dimension, 0)
        self._n_features_out = dimension
        return self

    def transform(self, X: Any) -> Float32[np.ndarray, "N D"]:
        """Embeddings of images, or of features."""
        check_is_fitted(self)
        return l2_normalize(l2_normalize(self._features(X, reset=False)) @ self.weight_ + self.bias_)

    def save(self, path: "str | PathLike[str]") -> None:
        """Write the encoder, with this projection, as a model directory; UsageError without a model."""
        check_is_fitted(self)
        if self.model is None:
            raise UsageError("There is no tower to save: the estimator was fitted on features.", hint="Embedder(MODEL)")
        config, tensors = read_model(fspath(self.model))
        kind = ProjectionConfig("linear", self.n_features_in_, self.weight_.shape[1])
        kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("projection.")}
        kept |= {"projection.weight": self.weight_, "projection.bias": self.bias_}
        write_model(
            fspath(path), replace(config, projection=kind, mirror=self.mirror), kept, {"source": fspath(self.model)}
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]  # embeddings are, whatever the features are
        return tags

    def _features(self, X: Any, *, reset: bool) -> Features:
        if self.model is None:
            least = 2 if reset else 1
            checked: Features = validate_data(self, X, reset=reset, dtype=np.float32, ensure_min_samples=least)
            return checked
        if getattr(self, "_loaded", (None,))[0] != self.model:
            self._loaded = self.model, load(fspath(self.model))
        encoder = self._loaded[1]
        items, made = iter(X), [np.empty((0, encoder.config.tower.features), np.float32)]
        for several in prepared(iter(lambda: list(islice(items, encoder.engine.batch)), []), encoder.as_input):
            images = np.stack(several)
            mirrored = encoder.vectors(images, "mirrored") if self.mirror else None
            made.append(combine(encoder.vectors(images, "features"), mirrored))
        found = np.concatenate(made)
        if reset:
            self.n_features_in_ = found.shape[1]
        return found

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_loaded"}  # found again by its directory
