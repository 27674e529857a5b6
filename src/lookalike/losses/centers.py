"""Centers: the direction of each class, learned beside the encoder and left behind when training ends."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32

# Squared lengths are not taken below this, so that the zero vector has a unit form (itself) and a slope.
_LEAST_SQUARE = 1e-12

# Sums of unit vectors below this length a vector are rounding, and tell no direction.
_OPPOSED = 1e-6

# How far further centers of a class start from its mean, as the length of the noise beside a unit vector.
_SPREAD = 0.3


def l2_normalize(x: Float[Array, "*shape D"]) -> Float[Array, "*shape D"]:
    """`x` divided by its length along the last axis; finite in value and slope at zero."""
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, _LEAST_SQUARE))


def class_cosines(embedding_BD: Float32[Array, "B D"], weight_CKD: Float32[Array, "C K D"]) -> Float32[Array, "B C"]:
    """Cosine of each embedding (unit length) to the nearest of the K centers of every class (Deng et al., 2020).

    The lengths of the centers carry no meaning: they are divided out.
    """
    classes, count, dimension = weight_CKD.shape
    cos_BX = embedding_BD @ l2_normalize(weight_CKD).reshape(classes * count, dimension).T
    return cos_BX if count == 1 else cos_BX.reshape(-1, classes, count).max(axis=2)


def centers_at_means(
    embedding: Float32[np.ndarray, "N D"], label: Int32[np.ndarray, "N"], count: int, seed: int
) -> Float32[Array, "C K D"]:
    """Centers that start at the mean embedding of each class; at random where its images take each other away.

    Args:
        embedding: Embeddings of the training images, of unit length.
        label: Their classes, 0 to C - 1; every class has an image.
        count: K, the centers of each class. The first is the mean, the others lie around it.
        seed: Of the noise that sets the others apart.
    """
    classes, dimension = int(label.max()) + 1, embedding.shape[1]
    total = np.zeros((classes, dimension), np.float64)
    np.add.at(total, label, embedding)
    lengths = np.linalg.norm(total, axis=1, keepdims=True)
    opposed = lengths < _OPPOSED * np.bincount(label, minlength=classes)[:, None]
    drawn = np.random.default_rng((seed, classes)).standard_normal((classes, dimension)) / dimension**0.5
    mean = np.where(opposed, drawn, total / np.where(opposed, 1.0, lengths))
    noise = np.random.default_rng(seed).standard_normal((classes, count, dimension)) * (_SPREAD / dimension**0.5)
    noise[:, 0] = 0.0
    return jnp.asarray(mean[:, None, :] + noise, jnp.float32)
