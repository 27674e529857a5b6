"""What a training run is, as one frozen value: the recipe with its flags applied, saved as `RUN/config.json`.

A recipe is a list of stages, each of which takes over encoder and class centers of the one before. A run is a function
of this value, the collections and the model.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from lookalike.core.config import in_range, option
from lookalike.core.errors import UsageError
from lookalike.data.sampling import Mixture
from lookalike.imaging.augment import Background, Blur, Color, Crop, Erase, Flip, Gray, Jpeg, View
from lookalike.imaging.randaugment import RandAugment
from lookalike.losses import ArcFace, Constant, Geometry, Margin, MarginSchedule, Pairs, Projecting
from lookalike.towers import ConvNetConfig


@dataclass(frozen=True)
class Pca:
    """Directions of greatest variance."""

    power: float = 0.0
    """Each direction is multiplied by its variance to this power: 0 keeps distances, -0.5 whitens."""
    within: float = 0.0
    """How far the spread within classes is evened out first: 0 not at all (labels aren't looked at), 1 wholly."""
    shrinkage: float | None = None
    """Share of the identity in the covariance within classes, 0 to 1, for `within`; None: twice the features' share in
    features and images together, .2 at least and .95 at most."""

    def __post_init__(self) -> None:
        in_range(self, -1.0, 1.0, "power")
        in_range(self, 0.0, 1.0, "within", *(["shrinkage"] if self.shrinkage is not None else []))


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


@dataclass(frozen=True)
class Given:
    """The projection as it is; PCA in a half whitened metric where there is none of this dimension."""


EVENED = Pca(power=-0.25, within=1.0)
"""The closed form that is best of those measured: the spread within classes evened out as far as images tell it."""

ClosedForm = Pca | Lda
Start = Pca | Lda | Random | Given


@dataclass(frozen=True)
class Optimizer:
    """How gradients become steps, and at which learning rates: these rise in a straight line, then fall."""

    WAS: ClassVar[str] = "AdamW"

    algorithm: Literal["adamw", "sgd", "lion", "muon"] = "adamw"
    """adamw: Adam with decoupled weight decay. sgd: gradients with momentum. lion: signs (Chen et al., 2023). muon:
    matrices by orthogonal steps (Jordan et al., 2024), all else by Adam."""
    learning_rate: float = option(default=1e-4, was="rate")
    """Peak learning rate of the projection; 0 leaves it as it is."""
    centers_learning_rate: float = option(default=1e-4, was="centers_rate")
    """Peak learning rate of the class centers; 0 leaves them as they are."""
    tower_learning_rate: float = option(default=0.0, was="tower_rate")
    """Peak learning rate of the tower, where there is one to train."""
    weight_decay: float = option(default=0.0, was="decay")
    """Weight decay of kernels and weights, times the learning rate; norms, biases and centers have none."""
    momentum: float = 0.9
    """Share of the gradients before that a step keeps."""
    beta2: float = 0.999
    """Share of the squared gradients before that a step keeps, in adamw; of the gradients, in lion."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How learning rates fall behind their peak."""
    warmup: float = 0.05
    """Share of the steps in which the learning rates rise."""
    floor: float = 0.0
    """Share of the peak at which the learning rates begin to rise, and at which they end."""
    clip: float = 0.0
    """Longest gradient, over all numbers together; 0 does not clip."""
    sam: float = 0.0
    """Radius of sharpness-aware minimisation (Foret et al., 2021), at twice the work; 0 leaves it out."""

    def __post_init__(self) -> None:
        rates = "learning_rate", "centers_learning_rate", "tower_learning_rate"
        in_range(self, 0.0, math.inf, *rates, "weight_decay", "clip", "sam")
        in_range(self, 0.0, 1.0, "warmup", "floor")
        in_range(self, 0.0, 1 - 1e-6, "momentum", "beta2")  # of 1, Adam divides nothing by nothing


@dataclass(frozen=True)
class Augments:
    """How images are changed each time they are seen."""

    area: tuple[float, float] = (0.3, 1.0)
    """Smallest and largest share of the image that a random crop keeps; 1 and 1: its middle square."""
    flip: Flip = field(default_factory=Flip)
    """Mirrored at random."""
    color: Color = field(default_factory=Color)
    """Brightness, contrast, saturation."""
    erase: Erase = field(default_factory=Erase)
    """A rectangle blanked."""
    gray: Gray = field(default_factory=lambda: Gray(0.0))
    """Without colour."""
    blur: Blur = field(default_factory=lambda: Blur(0.0))
    """Out of focus."""
    jpeg: Jpeg = field(default_factory=lambda: Jpeg(0.0))
    """Stored badly."""
    background: Background = field(default_factory=lambda: Background(0.0))
    """In the light of another image."""
    rand: RandAugment = field(default_factory=lambda: RandAugment(0))
    """So many changes of a list, drawn at random."""

    def view(self, size: int) -> View:
        """All of them, in this order, on a crop of `size` pixels."""
        chances = self.flip, self.erase, self.gray, self.blur, self.jpeg, self.background
        used = {id(augment) for augment in chances if augment.chance > 0}
        used |= {id(self.color)} if any(vars(self.color).values()) else set()
        used |= {id(self.rand)} if self.rand.count else set()
        order = self.flip, self.rand, self.color, self.gray, self.blur, self.jpeg, self.background, self.erase
        crop = () if self.area == (1.0, 1.0) else (Crop(size, self.area),)
        return View(size, (*crop, *(augment for augment in order if id(augment) in used)))


@dataclass(frozen=True)
class Trained:
    """What of the tower learns, and how fast beside the rest of it."""

    blocks: int = -1
    """How many of its last blocks; what is before them stays as it is, and no gradient reaches it. -1: all."""
    layer_decay: float = 1.0
    """A block's learning rate is that of the one behind it times this."""
    lora: int = 0
    """Matrices learn only a product of this rank that is added to them (Hu et al., 2021), all else stays; 0: no."""
    rules: tuple[str, ...] = ()
    """PATTERN=FACTOR: tensors whose names fit the pattern learn at so many times the rate; at 0 they stay."""

    def __post_init__(self) -> None:
        in_range(self, -1.0, math.inf, "blocks")
        in_range(self, 0.0, math.inf, "lora")
        in_range(self, 0.0, 1.0, "layer_decay")
        for rule in self.rules:
            self.rule(rule)

    @staticmethod
    def rule(rule: str) -> tuple[str, float]:
        """Pattern and factor; UsageError if it says something else."""
        pattern, _, factor = rule.rpartition("=")
        try:
            value = float(factor)
        except ValueError:
            value = -1.0
        if not pattern or not 0 <= value < math.inf:
            raise UsageError(f"`{rule}` is no rule; expected PATTERN=FACTOR, the factor 0 or more: tower.position=0")
        return pattern, value


@dataclass(frozen=True)
class NewStage:
    """A new tower with random weights, where the recipe has no model to begin with."""

    WORD: ClassVar[str] = "new"

    tower: ConvNetConfig = field(default_factory=ConvNetConfig)
    """The new tower."""
    size: int = 64
    """Side of its input, in pixels."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "size")


@dataclass(frozen=True)
class FitStage:
    """A projection in closed form on the features of the tower as it is."""

    WORD: ClassVar[str] = "fit"

    fit: ClosedForm = field(default_factory=Pca)
    """PCA or LDA."""
    only: str = option(default="", metavar="EXPR")
    """Learn in this stage only from rows for which this Lance filter holds, too."""


@dataclass(frozen=True)
class _Steps:
    """What stages have that learn step by step."""

    loss: Margin | Pairs = field(default_factory=lambda: ArcFace(margin=0.1, scale=16.0))
    """The loss by which classes are told apart."""
    margin: MarginSchedule = field(default_factory=Constant)
    """How wide the margin is, for whom and when."""
    centers: int = 1
    """Centers of each class; an image counts for the nearest."""
    chunk: int = 0
    """Classes whose logits are held at a time; 0: all."""
    projecting: Projecting = field(default_factory=Projecting)
    """How the projection learns."""
    geometry: Geometry = field(default_factory=Geometry)
    """Terms that hold embeddings, features or weights to what they were, or to a larger encoder."""
    teacher: str = option(default="", metavar="COLUMN")
    """Vectors of the collection that `geometry.vectors` looks at."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    """Learning rates and their schedule."""
    mixture: Mixture = field(default_factory=Mixture)
    """Which images come how often."""
    only: str = option(default="", metavar="EXPR")
    """Learn in this stage only from rows for which this Lance filter holds, too."""
    augment: Augments = field(default_factory=Augments)
    """How images are changed each time they are seen."""
    batch: int = 128
    """Images in a step."""
    epochs: float = 20.0
    """How often each image is seen, on average."""
    steps: int = 0
    """How many steps; 0: as many as `epochs` needs."""
    ema: float = 0.0
    """Share of the running mean of the weights that a step leaves; it is what the stage makes. 0: the last weights."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "centers", "batch")
        _at_least(self, 0, "steps", "epochs", "chunk")
        if not 0 <= self.ema < 1:
            raise UsageError(f"`--ema` is {self.ema}; expected 0 or more, and less than 1.")


@dataclass(frozen=True)
class HeadStage(_Steps):
    """A projection trained on cached features of the tower as it is."""

    WORD: ClassVar[str] = "head"

    start: Start = field(default_factory=lambda: Pca(power=-0.125))
    """What the projection is before the first step."""
    copies: int = 0
    """Augmented copies of each image whose features are cached beside the image's own; each step draws among them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _learns(self.optimizer.learning_rate, self.optimizer.centers_learning_rate)
        _at_least(self, 0, "copies")


@dataclass(frozen=True)
class TuneStage(_Steps):
    """Tower and projection trained on images."""

    WORD: ClassVar[str] = "tune"

    optimizer: Optimizer = field(
        default_factory=lambda: Optimizer(
            learning_rate=1e-3, centers_learning_rate=1e-2, tower_learning_rate=1e-3, weight_decay=0.05
        )
    )
    """Learning rates and their schedule."""
    start: Start = field(default_factory=Given)
    """What the projection is before the first step."""
    trained: Trained = field(default_factory=Trained)
    """What of the tower learns."""
    size: int = 0
    """Side of the tower's input from this stage on, in pixels; positions are interpolated. 0: as it is."""
    stride: int = 0
    """Distance between a ViT's patches from this stage on, in pixels: below their side they overlap. 0: as it is."""
    copies: int = 0
    """Augmented copies of each image of which the map before the first trained block is cached: the blocks before it
    run once for each copy, and never again. 0: none, every step begins with images."""
    accumulate: int = 1
    """Parts into which a batch is cut, one after the other, to take less memory; terms within a batch are theirs."""
    interpolate: float = 1.0
    """Weights of the tower behind the stage: so much of the trained ones, the rest from before it (WiSE-FT)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the tower computes in; parameters and their gradients stay float32. bfloat16 is for accelerators."""
    remat: bool = False
    """Compute the blocks of a ViT or Swin twice instead of keeping what is inside them: less memory, more time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _learns(self.optimizer.learning_rate, self.optimizer.centers_learning_rate, self.optimizer.tower_learning_rate)
        _at_least(self, 0, "size", "stride", "copies")
        _at_least(self, 1, "accumulate")
        in_range(self, 0.0, 1.0, "interpolate")
        if self.batch % self.accumulate:
            raise UsageError(f"`--accumulate` is {self.accumulate}; expected a divisor of the batch, {self.batch}.")
        if self.copies and (self.trained.blocks < 0 or self.geometry.views.weight):
            raise UsageError(
                "Copies cache the map before the first trained block, and here all blocks learn, or two views count.",
                hint="`--trained.blocks 4`, or `--copies 0`",
            )


Stage = NewStage | FitStage | HeadStage | TuneStage
StepStage = HeadStage | TuneStage


@dataclass(frozen=True)
class TrainConfig:
    """A run: what it learns from, and its stages."""

    recipe: str = option(default="", fixed=True)
    """The recipe's name."""
    data: str = option(default="", metavar="COLL")
    """The collection to learn from: rows of split "train", or all where none has a split; labelled ones, if need be."""
    model: str = option(default="", metavar="MODEL")
    """The encoder to begin with: a directory, a short name of `lookalike pull --list`, or ORG/NAME on the Hub."""
    out: str = option(default="", metavar="RUN")
    """The run directory to write, or to go on with."""
    where: str = option(default="", metavar="EXPR")
    """Learn only from rows for which this Lance filter holds: "domain != 'cars'"."""
    unlabelled: str = option(default="", metavar="COLL", added=True)
    """A collection whose images help to choose the directions, without their labels: those that will be searched, say.
    It may be that of `--data`, of which those count that nothing else is learned from; never those of split "test"."""
    dimension: int = 64
    """Numbers in the embedding."""
    mirror: bool = False
    """Average the features of each image and of its mirror image, in heads and ever after."""
    zooms: tuple[float, ...] = option(default=(), added=True)
    """Average them with those of the image's center, enlarged: of so large shares of its side each. Every one costs as
    much as the image itself, in heads and ever after."""
    seed: int = 0
    """Of first weights, sampling, dropout, augmentation and every other random choice."""
    evaluate_every: int = 0
    """Steps between measurements; 0: before the first step and behind each stage."""
    stop_if_worse: bool = False
    """End a stage when a measurement is below the untouched encoder's and its own start's; the best weights so far are
    what it makes."""
    save_every: int = 200
    """Steps between checkpoints; there is always one after the last step and when interrupted."""
    log_every: int = 20
    """Steps between lines of metrics."""
    stages: tuple[Stage, ...] = option(default=(), fixed=True)
    """What is done, one after the other."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = option(default="auto", added=True)
    """Where it is computed; auto: on an accelerator, if JAX finds one. A run may go on elsewhere."""
    track: Literal["none", "tensorboard", "wandb"] = option(default="none", added=True)
    """Who is told the numbers besides `metrics.jsonl`: TensorBoard, in RUN/tensorboard, or Weights & Biases."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "dimension", "save_every", "log_every")
        _at_least(self, 0, "seed", "evaluate_every")
        if self.seed >= 2**32:  # JAX leaves further bits out, so that larger seeds would repeat
            raise UsageError(f"`--seed` is {self.seed}; expected less than {2**32}, as seeds have 32 bits.")

    @property
    def views(self) -> int:
        """How often the tower looks at an image for its features."""
        return (1 + self.mirror) * (1 + len(self.zooms))

    @property
    def names(self) -> tuple[str, ...]:
        """A word for each stage: new, fit, head, tune; the second of a kind is tune2."""
        words = [stage.WORD for stage in self.stages]
        return tuple(word + (str(n + 1) if (n := words[:i].count(word)) else "") for i, word in enumerate(words))


@dataclass(frozen=True)
class BestConfig(TrainConfig):
    """A run that tries several ways and keeps what does best on classes and domains that it kept back."""

    minutes: float = 60.0
    """How long it may take, about: tuning is shortened, or left out, to fit."""
    share: float = 1 / 3
    """Share of the tower's blocks that `last` tunes."""
    head: HeadStage = field(default_factory=HeadStage)
    """A projection on cached features."""
    last: TuneStage = field(default_factory=TuneStage)
    """The last blocks tuned, on cached copies; then a projection in closed form."""
    whole: TuneStage = field(default_factory=TuneStage)
    """The whole tower tuned; then a projection in closed form."""

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range(self, 0.0, math.inf, "minutes")
        in_range(self, 0.0, 1.0, "share")


def _learns(*rates: float) -> None:
    if not any(rates):
        raise UsageError(
            "All learning rates are 0, so that the stage trains nothing.", hint="`--optimizer.learning-rate 1e-4`"
        )


def _at_least(config: object, least: int, *names: str) -> None:
    for name in names:
        if not least <= getattr(config, name) < math.inf:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"`{flag}` is {getattr(config, name)}; expected {least} or more.", hint=f"{flag} {least}")
