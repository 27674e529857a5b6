"""What a training run is, as one frozen value: the recipe with its flags applied, saved as `RUN/config.json`.

Three kinds: `PcaConfig` (closed form), `HeadConfig` (a projection on cached features), `PixelsConfig` (a tower on
images). A run is a function of this value, the collection and the model.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from lookalike.core.config import in_range, option
from lookalike.core.errors import UsageError
from lookalike.data.sampling import Sample
from lookalike.imaging.augment import Color, Erase, Flip
from lookalike.losses import ArcFace, Margin, SimilarityDistillation
from lookalike.towers import ConvNetConfig


@dataclass(frozen=True)
class Pca:
    """Directions of greatest variance."""

    power: float = 0.0
    """Each direction is multiplied by its variance to this power: 0 keeps distances, -0.5 whitens."""
    within: float = 0.0
    """How far the spread within classes is evened out first: 0 not at all (labels aren't looked at), 1 wholly."""
    shrinkage: float = 0.7
    """Share of the identity in the covariance within classes, 0 to 1; for `within`."""

    def __post_init__(self) -> None:
        in_range(self, -1.0, 1.0, "power")
        in_range(self, 0.0, 1.0, "within", "shrinkage")


@dataclass(frozen=True)
class Lda:
    """Directions in which classes lie far apart, measured by the spread within them."""

    shrinkage: float = 0.7
    """Share of the identity in the covariance within classes, 0 to 1."""

    def __post_init__(self) -> None:
        in_range(self, 0.0, 1.0, "shrinkage")


@dataclass(frozen=True)
class Random:
    """Gaussian numbers, of a size that keeps lengths."""


ClosedForm = Pca | Lda
Start = Pca | Lda | Random


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay; the learning rate warms up linearly and falls as a cosine to zero."""

    learning_rate: float = option(default=1e-4, was="rate")
    """Peak learning rate of the projection."""
    centers_learning_rate: float = option(default=1e-4, was="centers_rate")
    """Peak learning rate of the class centers."""
    tower_learning_rate: float = option(default=0.0, was="tower_rate")
    """Peak learning rate of the tower, where there is one to train."""
    weight_decay: float = option(default=0.0, was="decay")
    """Weight decay of kernels and weights, times the learning rate; norms, biases and centers have none."""
    warmup: float = 0.05
    """Share of the steps in which the learning rates rise."""
    clip: float = 0.0
    """Longest gradient, over all numbers together; 0 does not clip."""

    def __post_init__(self) -> None:
        in_range(
            self, 0.0, math.inf, "learning_rate", "centers_learning_rate", "tower_learning_rate", "weight_decay", "clip"
        )
        in_range(self, 0.0, 1.0, "warmup")


@dataclass(frozen=True)
class Augments:
    """How images are changed each time they are seen."""

    area: tuple[float, float] = (0.3, 1.0)
    """Smallest and largest share of the image that a random crop keeps."""
    flip: Flip = field(default_factory=Flip)
    """Mirrored at random."""
    color: Color = field(default_factory=Color)
    """Brightness, contrast, saturation."""
    erase: Erase = field(default_factory=Erase)
    """A rectangle blanked."""


@dataclass(frozen=True)
class _Run:
    """What every kind of run has; each kind is a final class with these flags beside its own."""

    data: str = option(default="", metavar="COLL")
    """The collection to learn from: rows of split "train", or all where none has a split; labelled ones, if need be."""
    model: str = option(default="", metavar="MODEL")
    """The encoder whose features are projected."""
    out: str = option(default="", metavar="RUN")
    """The run directory to write, or to go on with."""
    where: str = option(default="", metavar="EXPR")
    """Learn only from rows for which this Lance filter holds: "domain != 'cars'"."""
    dimension: int = 64
    """Numbers in the embedding."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "dimension")


@dataclass(frozen=True)
class PcaConfig(_Run):
    """A projection in closed form on the features of a frozen tower."""

    mirror: bool = False
    """Average the features of each image and of its mirror image, in training and ever after."""
    fit: ClosedForm = field(default_factory=Pca)
    """PCA or LDA."""


@dataclass(frozen=True)
class _Steps(_Run):
    """What runs have that learn step by step with a margin loss."""

    loss: Margin = field(default_factory=lambda: ArcFace(margin=0.1, scale=16.0))
    """The margin loss."""
    centers: int = 1
    """Centers of each class; an image counts for the nearest."""
    distill: SimilarityDistillation = option(default_factory=SimilarityDistillation, was="keep")  # noqa: RUF009
    """The term that keeps the geometry of the tower's features."""
    dropout: float = 0.0
    """Share of the features set to zero in each step."""
    optimizer: AdamW = field(default_factory=AdamW)
    """Learning rates and their schedule."""
    sample: Sample = "balanced"
    """balanced: every class equally often; uniform: every image equally often."""
    batch: int = 128
    """Images in a step."""
    epochs: float = 20.0
    """How often each image is seen, on average."""
    steps: int = 0
    """How many steps; 0: as many as `epochs` needs."""
    seed: int = 0
    """Of first weights, sampling, dropout, augmentation and every other random choice."""
    evaluate_every: int = 0
    """Steps between measurements; 0: before the first step and after the last."""
    save_every: int = 200
    """Steps between checkpoints; there is always one after the last step and when interrupted."""
    log_every: int = 20
    """Steps between lines of metrics."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "dimension", "centers", "batch", "save_every", "log_every")
        _at_least(self, 0, "steps", "seed", "evaluate_every", "epochs")
        if self.seed >= 2**32:  # JAX leaves further bits out, so that larger seeds would repeat
            raise UsageError(f"`--seed` is {self.seed}; expected less than {2**32}, as seeds have 32 bits.")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"`--dropout` is {self.dropout}; expected 0 or more, and less than 1.")


@dataclass(frozen=True)
class HeadConfig(_Steps):
    """A projection trained with a margin loss on the features of a frozen tower."""

    mirror: bool = True
    """Average the features of each image and of its mirror image; in training, mix the two at random."""
    start: Start = field(default_factory=lambda: Pca(power=-0.125))
    """What the projection is before the first step."""


@dataclass(frozen=True)
class PixelsConfig(_Steps):
    """A whole encoder trained on images: its tower from scratch, or a given one tuned."""

    model: str = option(default="", metavar="MODEL")
    """The encoder to tune; none: a new tower as `tower` says."""
    optimizer: AdamW = field(
        default_factory=lambda: AdamW(
            learning_rate=1e-3, centers_learning_rate=1e-2, tower_learning_rate=1e-3, weight_decay=0.05
        )
    )
    """Learning rates and their schedule."""
    tower: ConvNetConfig = field(default_factory=ConvNetConfig)
    """The new tower."""
    size: int = 64
    """Side of the new tower's input, in pixels."""
    augment: Augments = field(default_factory=Augments)
    """How images are changed each time they are seen."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the tower computes in; parameters and their gradients stay float32. bfloat16 is for accelerators."""
    remat: bool = False
    """Compute the blocks of a ViT or Swin twice instead of keeping what is inside them: less memory, more time."""


def _at_least(config: _Run, least: int, *names: str) -> None:
    for name in names:
        if not least <= getattr(config, name) < math.inf:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"`{flag}` is {getattr(config, name)}; expected {least} or more.", hint=f"{flag} {least}")


TrainConfig = PcaConfig | HeadConfig | PixelsConfig
