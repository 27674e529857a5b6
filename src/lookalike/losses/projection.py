"""How a linear projection is trained: dropout, batch norm, prefixes, eight bits. What is kept is one linear map.

`embeddings` gives all that the loss is the mean over; `folded` the map that inference uses.
"""

from dataclasses import dataclass

from jaxtyping import Float, Float32, Key

from lookalike.core.config import in_range
from lookalike.core.errors import UsageError
from lookalike.core.later import Array, jax, jnp
from lookalike.losses.centers import l2_normalize

_MOMENTUM = 0.1  # share of a batch in the running statistics, as in the field's layers
_EPSILON = 1e-6  # added to variances; features of length 1 have a mean variance of at most 1 / F
_LEVELS = 127  # codes of eight bits run from -127 to 127
_LEAST_STEP = 1e-30

Memory = dict[str, Float32[Array, "F"]]
"""Running `mean` and `variance` of the features; empty without batch norm."""
Linear = tuple[Float32[Array, "F D"], Float32[Array, "D"]]


@dataclass(frozen=True)
class Projecting:
    """What is done to features and embeddings while a projection learns."""

    dropout: float = 0.0
    """Share of the features set to zero in each step."""
    samples: int = 1
    """Dropouts drawn in each step; the loss is the mean over them (Inoue, 2019, arXiv:1905.09788)."""
    batch_norm: bool = False
    """Features with mean 0 and variance 1 over the batch (Ioffe and Szegedy, 2015, arXiv:1502.03167), no affine."""
    nested: tuple[int, ...] = ()
    """Prefixes of the embedding that the loss is the mean over (Kusupati et al., 2022, arXiv:2205.13147)."""
    eight_bits: bool = False
    """Round embeddings to codes of eight bits, as a search does; gradients pass as if they were not."""

    def __post_init__(self) -> None:
        in_range(self, 1.0, 64.0, "samples")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"`dropout` of Projecting is {self.dropout}; expected 0 or more, and less than 1.")
        if self.samples > 1 and not self.dropout:
            raise UsageError(
                f"{self.samples} samples without dropout are all the same.", hint="give a `dropout` above 0"
            )
        if any(d < 1 for d in self.nested) or list(self.nested) != sorted(set(self.nested)):
            raise UsageError(f"`nested` of Projecting is {self.nested}; expected rising whole numbers, 1 or more.")


def first_memory(config: Projecting, width: int) -> Memory:
    """Running statistics of features of `width` numbers before the first step."""
    return {"mean": jnp.zeros(width), "variance": jnp.ones(width)} if config.batch_norm else {}


def embeddings(
    config: Projecting,
    weight: Float32[Array, "F D"],
    bias: Float32[Array, "D"],
    features_BF: Float[Array, "B F"],
    key: Key[Array, ""],
    memory: Memory,
) -> tuple[list[tuple[Float32[Array, "B _"], int]], Memory]:
    """Embeddings before they are brought to length 1, each with its dimension: one for each dropout and prefix; and the
    next memory. The loss is the mean over them; prefixes go with the same prefixes of the centers.
    """
    features_BF = features_BF.astype(jnp.float32)
    if config.batch_norm:
        features_BF, memory = _normalized(features_BF, memory)
    found = []
    for one in jax.random.split(key, config.samples):
        kept_BF = features_BF
        if config.dropout:
            stay = jax.random.bernoulli(one, 1.0 - config.dropout, features_BF.shape)
            kept_BF = jnp.where(stay, features_BF / (1.0 - config.dropout), 0.0)
        embedding_BD = kept_BF @ weight + bias[None, :]
        prefixes = [embedding_BD[:, :d] for d in config.nested or (len(bias),)]
        found += [(_in_eight_bits(x) if config.eight_bits else x, x.shape[1]) for x in prefixes]
    return found, memory


def folded(config: Projecting, weight: Float32[Array, "F D"], bias: Float32[Array, "D"], memory: Memory) -> Linear:
    """The one linear map that inference uses: weight and bias, with the running statistics in them."""
    if not config.batch_norm:
        return weight, bias
    inverse = jax.lax.rsqrt(memory["variance"] + _EPSILON)
    return weight * inverse[:, None], bias - (memory["mean"] * inverse) @ weight


def unfolded(config: Projecting, weight: Float32[Array, "F D"], bias: Float32[Array, "D"], memory: Memory) -> Linear:
    """The map to train such that `folded` gives this one: how a start in closed form meets batch norm."""
    if not config.batch_norm:
        return weight, bias
    return weight * jnp.sqrt(memory["variance"] + _EPSILON)[:, None], bias + memory["mean"] @ weight


def _normalized(features_BF: Float32[Array, "B F"], memory: Memory) -> tuple[Float32[Array, "B F"], Memory]:
    """By the batch's own statistics; the running ones take the unbiased variance."""
    mean, variance, count = features_BF.mean(axis=0), features_BF.var(axis=0), len(features_BF)
    now = {"mean": mean, "variance": variance * (count / max(count - 1, 1))}
    after = {n: (1.0 - _MOMENTUM) * memory[n] + _MOMENTUM * jax.lax.stop_gradient(now[n]) for n in now}
    return (features_BF - mean[None, :]) * jax.lax.rsqrt(variance + _EPSILON)[None, :], after


def _in_eight_bits(embedding_BD: Float32[Array, "B D"]) -> Float32[Array, "B D"]:
    """What codes of eight bits say of each row's direction, at its length; the gradient is that of the row itself."""
    row_BD = jax.lax.stop_gradient(embedding_BD)
    length_B1 = jnp.sqrt(jnp.square(row_BD).sum(axis=1, keepdims=True))
    return embedding_BD + (length_B1 * coded(l2_normalize(row_BD)) - row_BD)


def coded(row_BD: Float32[Array, "B D"]) -> Float32[Array, "B D"]:
    """Rows as the codes of a search in them say: center + step x code, the code one of -127 to 127.

    The center is the rows' mean, and one step fits all: the greatest difference from it, divided by 127.
    """
    center_D = row_BD.mean(axis=0, keepdims=True)
    step = jnp.maximum(jnp.abs(row_BD - center_D).max() / _LEVELS, _LEAST_STEP)
    return center_D + step * jnp.clip(jnp.round((row_BD - center_D) / step), -_LEVELS, _LEVELS)
