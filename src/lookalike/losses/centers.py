"""Class centers [C K D] and cosines to them: K directions for each of C classes, whose lengths carry no meaning."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float32, Int32

from lookalike.core.later import Array, jax, jnp, made_at_first_call

_LEAST_SQUARE = 1e-12  # squared lengths are not taken below this: the zero vector is then its own unit form
_OPPOSED = 1e-6  # sums of unit vectors below this length a vector are rounding, and tell no direction
_SPREAD = 0.3  # how far further centers of a class start from its mean: the length of the noise beside a unit vector


def l2_normalize(x: Float[Array, "*shape D"]) -> Float[Array, "*shape D"]:
    """`x` divided by its length along the last axis; finite in value and gradient at zero."""
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, _LEAST_SQUARE))


def class_cosines(embedding_BD: Float[Array, "B D"], centers_CKD: Float32[Array, "C K D"]) -> Float32[Array, "B C"]:
    """Cosine of each embedding (unit length) to the nearest of the K centers of every class (Deng et al., 2020).

    The product is taken in the embedding's dtype and summed in float32.
    """
    unit_KCD = l2_normalize(centers_CKD).astype(embedding_BD.dtype).swapaxes(0, 1)
    classes, count, dimension = centers_CKD.shape
    cos_BX = _products(embedding_BD, unit_KCD.reshape(count * classes, dimension))
    return cos_BX.reshape(-1, count, classes).max(axis=1)


@made_at_first_call
def _products() -> Callable[[Float[Array, "X D"], Float[Array, "Y D"]], Float32[Array, "X Y"]]:
    """`_plain`, with a gradient of its own."""
    products = jax.custom_vjp(_plain)
    products.defvjp(_forward, _backward)
    return products


def _plain(a_XD: Float[Array, "X D"], b_YD: Float[Array, "Y D"]) -> Float32[Array, "X Y"]:
    """Dot products of all rows, in the rows' dtype and summed in float32."""
    return jnp.matmul(a_XD, b_YD.T, preferred_element_type=jnp.float32)


def _forward(a_XD, b_YD):  # type: ignore[no-untyped-def]
    return _products(a_XD, b_YD), (a_XD, b_YD)


def _backward(kept, gradient_XY):  # type: ignore[no-untyped-def]
    """The barrier keeps XLA from turning the large gradient's sides instead of the small result's: on a CPU that takes
    twice as long (benchmarks/softmax.py).
    """
    a_XD, b_YD = kept
    gradient_XY = gradient_XY.astype(a_XD.dtype)
    to_b_DY = jax.lax.optimization_barrier(jnp.matmul(a_XD.T, gradient_XY, preferred_element_type=jnp.float32))
    to_a_XD = jnp.matmul(gradient_XY, b_YD, preferred_element_type=jnp.float32)
    return to_a_XD.astype(a_XD.dtype), to_b_DY.T.astype(b_YD.dtype)


def own_cosines(
    embedding_BD: Float[Array, "B D"], centers_CKD: Float32[Array, "C K D"], label_B: Int32[Array, "B"]
) -> Float32[Array, "B"]:
    """Cosine of each embedding (unit length) to the nearest center of its own class."""
    own_BKD = l2_normalize(centers_CKD[label_B])
    return jnp.einsum("bd,bkd->bk", embedding_BD.astype(jnp.float32), own_BKD).max(axis=1)


def centers_at_means(
    embedding: Float32[np.ndarray, "N D"], label: Int32[np.ndarray, "N"], classes: int, count: int, seed: int
) -> Float32[Array, "C K D"]:
    """K = `count` centers a class, which start around its mean embedding, the first of them at it; around a random
    direction where its images take each other away, or where it has none. Embeddings have unit length.
    """
    dimension = embedding.shape[1]
    total = np.zeros((classes, dimension), np.float64)
    np.add.at(total, label, embedding)
    lengths = np.linalg.norm(total, axis=1, keepdims=True)
    opposed = lengths <= _OPPOSED * np.bincount(label, minlength=classes)[:, None]
    drawn = np.random.default_rng((seed, classes)).standard_normal((classes, dimension)) / dimension**0.5
    mean = np.where(opposed, drawn, total / np.where(opposed, 1.0, lengths))
    noise = np.random.default_rng(seed).standard_normal((classes, count, dimension)) * (_SPREAD / dimension**0.5)
    noise[:, 0] = 0.0
    return jnp.asarray(mean[:, None, :] + noise, jnp.float32)
