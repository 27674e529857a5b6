"""What a step costs, counted from what the tower declares, and the least time in which a chip can do it.

A compiler's own count takes a scanned block once, however often it runs.
"""

from collections.abc import Sequence
from typing import NamedTuple

from lookalike.encoders.config import EncoderConfig
from lookalike.losses import Pairs
from lookalike.towers.ops import Attention, Block, Ops, Value
from lookalike.training.chips import Chip
from lookalike.training.config import StepStage, TuneStage
from lookalike.training.learner import place_of


class _Counted(Ops):
    """Operations of one image's forward as JAX computes it: all, before a place, and in scanned blocks behind it those
    that a gradient computes again.

    A gradient keeps what linear layers give, and computes attention and convolutions again; with `remat` it keeps
    nothing but what enters a block, and leaves out only a last linear layer whose output is added and no more.
    """

    def __init__(self, place: int, remat: bool) -> None:
        super().__init__()
        self.place, self.remat, self.front, self.again, self.spared = place, remat, 0, 0, 0

    def see(self, x: Value) -> Value:
        """Notes what is before the place."""
        x = super().see(x)
        if self.places == self.place:
            self.front = self.operations
        return x

    def linear(self, name: str, x: Value, out: int, bias: bool = True, scale: str = "") -> Value:
        """Notes what is not computed again."""
        before = self.operations
        y = super().linear(name, x, out, bias, scale)
        self.spared = self.operations - before + (0 if self.remat else self.spared)
        self.spared *= not (self.remat and scale)
        return y

    def norm(self, name: str, x: Value, eps: float, groups: int = 0) -> Value:
        """What goes in is needed by its gradient."""
        self.spared *= not self.remat
        return super().norm(name, x, eps, groups)

    def attend(self, name: str, x: Value, how: Attention) -> Value:
        """All tokens' queries are computed, whichever of them asks."""
        y = super().attend(name, x, how)
        self._count(x.tokens - y.tokens, x.width, x.width)
        return y

    def repeat(self, name: str, times: int, blocks: Sequence[Block], x: Value, last: Block | None = None) -> Value:  # noqa: ARG002
        """Blocks all cost the same but for a `last` one, which is not scanned."""
        early = min(max(self.place - self.places, 0), times)
        one, y = self._alone(blocks[0], x)
        if early:
            self.front = self.operations + early * one.operations
        alike = times
        if last is not None and not self.remat and early < times:
            other, y = self._alone(last, x)
            alike, self.operations = times - 1, self.operations + other.operations
        scanned = (alike - early) // len(blocks) * len(blocks)
        self.again += scanned * (one.operations - one.spared)
        self.operations += alike * one.operations
        self.places += times
        return y

    def _alone(self, block: Block, x: Value) -> tuple["_Counted", Value]:
        counted = _Counted(0, self.remat)
        return counted, block(counted, x)


def _counted(encoder: EncoderConfig, place: int = 0, remat: bool = False) -> _Counted:
    counted = _Counted(place, remat)
    encoder.tower.forward(counted, Value(None, encoder.preprocess.size**2, 3), encoder.pooling)
    return counted


def embed_operations(encoder: EncoderConfig) -> int:
    """Additions and multiplications for the features of one image."""
    return _counted(encoder).operations


def step_operations(stage: StepStage, encoder: EncoderConfig, classes: int) -> int:
    """Additions and multiplications of one step of the whole batch: forward, gradient, and what is computed twice.

    What learns costs three times its forward: the products themselves, their gradient by what entered, and by the
    weights; of the first layer too, though no gradient by the image is computed. What is before the first trained block
    is computed once, or not at all where its maps are cached. Matrices that stay among others that learn are counted as
    if they learned. Norms, activations and the optimizer are left out: a few hundredths.
    """
    tuned, pairs, projecting = isinstance(stage, TuneStage), isinstance(stage.loss, Pairs), stage.projecting
    width, dimension = encoder.projection.features, encoder.projection.dimension
    projection = 2 * width * dimension * projecting.samples * (3 if tuned else 2)
    others = stage.batch if pairs else classes * stage.centers
    compared = 2 * others * sum(projecting.nested or (dimension,)) * projecting.samples
    compared *= 4 if 0 < stage.chunk < classes and not pairs else 3
    tower = _tower_operations(stage, encoder) if isinstance(stage, TuneStage) else 0
    views = 2 if stage.geometry.views.weight else 1
    return stage.batch * (views * tower + projection + compared) * (2 if stage.optimizer.sam else 1)


def _tower_operations(stage: TuneStage, encoder: EncoderConfig) -> int:
    """Of one image."""
    found = _counted(encoder, place_of(encoder.tower, stage.trained), stage.remat)
    return (0 if stage.copies else found.front) + 3 * (found.operations - found.front) + found.again


class Traffic(NamedTuple):
    """Bytes that one step moves, of all chips together, without what is between layers."""

    memory: int  # to and from their own memories
    links: int  # that each chip gets from the others, or gives them


def step_traffic(state: int, learned: int, fixed: int, chips: int, *, half: bool = False) -> Traffic:
    """Of a state, what of it is learned, and what stays, in bytes: the state is read and written, so is a gradient.

    Where they are split over chips, each chip gets the parts of the others for the forward and again for the gradient,
    and gives away its parts of the gradient. With `half` parts pass in bfloat16; gradients are float32 all the same.
    """
    others, fetched = (chips - 1) / chips, (1 if half else 2) * (learned + fixed)
    return Traffic(2 * state + 2 * learned + fixed, round(others * (fetched + learned)))


def roofline(chip: Chip, chips: int, operations: float, traffic: Traffic) -> float:
    """The least seconds for a step (Williams et al., 2009): the longest of computing, memory and links, all at peak,
    as if each hid the others.
    """
    links = traffic.links / chip.links if chip.links else 0.0
    return max(operations / (chips * chip.flops), traffic.memory / (chips * chip.bandwidth), links)
