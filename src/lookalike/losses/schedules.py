"""How wide a margin is, for whom and when: frozen values that turn one margin into many."""

from dataclasses import dataclass

from jaxtyping import Float, Float32, Int

from lookalike.core.config import in_range
from lookalike.core.later import Array, jnp

Margins = Float32[Array, ""] | Float32[Array, "C"]
Epoch = Int[Array, ""] | Float[Array, ""]
Sizes = Int[Array, "C"]


@dataclass(frozen=True)
class Constant:
    """One margin for all classes, all the time."""

    def margins(self, margin: float, _epoch: Epoch, _class_sizes: Sizes) -> Margins:
        """`margin`, a scalar."""
        return jnp.float32(margin)


@dataclass(frozen=True)
class Growing:
    """A margin that grows by a step each epoch, up to a top; the loss's own margin does not count.

    From 0.1 by 0.1 to 0.8 in the released code of the 2nd place of the Google Universal Image Embedding Challenge.
    """

    start: float = 0.1
    """The margin of the first epoch, in the unit of the loss's margin."""
    step: float = 0.1
    """Added after each whole epoch."""
    top: float = 0.8
    """The margin it stops at."""

    def __post_init__(self) -> None:
        in_range(self, 0.0, 1.5, "start", "step", "top")

    def margins(self, _margin: float, epoch: Epoch, _class_sizes: Sizes) -> Margins:
        """min(start + step floor(epoch), top), a scalar; epochs count from 0."""
        return jnp.minimum(self.start + self.step * jnp.floor(epoch.astype(jnp.float32)), self.top)


@dataclass(frozen=True)
class BySize:
    """A margin for each class, wider for smaller ones (Ha et al., 2020, arXiv:2010.05350).

    Scaled as in the released code of the 4th place of the Google Universal Image Embedding Challenge: the smallest
    class has `high`, the largest `low`.
    """

    power: float = -0.25
    """Class sizes are raised to it; below 0 gives smaller classes wider margins."""
    low: float = 0.05
    """The narrowest margin, in the unit of the loss's margin."""
    high: float = 0.5
    """The widest margin."""

    def __post_init__(self) -> None:
        in_range(self, -4.0, 4.0, "power")
        in_range(self, 0.0, 1.5, "low", "high")

    def margins(self, margin: float, _epoch: Epoch, class_sizes: Sizes) -> Margins:
        """Low + (high - low) (n^power - least) / (greatest - least) for a class of n images; `margin` for all where
        all classes are of one size. Classes without an image, as where a stage learns from some rows, don't count.
        """
        raised_C, there_C = jnp.maximum(class_sizes, 1).astype(jnp.float32) ** self.power, class_sizes > 0
        least = jnp.min(raised_C, where=there_C, initial=jnp.inf)
        span = jnp.max(raised_C, where=there_C, initial=-jnp.inf) - least
        share_C = jnp.clip((raised_C - least) / jnp.where(span > 0, span, 1.0), 0.0, 1.0)
        return jnp.where(span > 0, self.low + (self.high - self.low) * share_C, margin)


MarginSchedule = Constant | Growing | BySize
