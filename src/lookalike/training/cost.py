"""What a step costs, counted from what the tower declares, and the least time in which a chip can do it.

A compiler's own count takes a scanned block once, however often it runs.
"""

from collections.abc import Sequence
from typing import NamedTuple

from lookalike.encoders.config import EncoderConfig
from lookalike.losses import Pairs
from lookalike.towers.ops import Block, Ops, Value
from lookalike.training.chips import Chip
from lookalike.training.config import StepStage, TuneStage
from lookalike.training.learner import place_of


class _Counted(Ops):
    """Notes how many operations there are before each place, and how many of these in stacked blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.passed, self.stacked, self._stacked_so_far = {0: 0}, {0: 0}, 0

    def see(self, x: Value) -> Value:
        """Notes the place."""
        x = super().see(x)
        self.passed[self.places], self.stacked[self.places] = self.operations, self._stacked_so_far
        return x

    def repeat(self, name: str, times: int, blocks: Sequence[Block], x: Value, last: Block | None = None) -> Value:
        """Notes the places between blocks, which all cost the same."""
        place, operations, stacked = self.places, self.operations, self._stacked_so_far
        x = super().repeat(name, times, blocks, x, last)
        each = (self.operations - operations) // times
        for done in range(1, times + 1):
            self.passed[place + done], self.stacked[place + done] = operations + done * each, stacked + done * each
        self._stacked_so_far = stacked + times * each
        return x


def step_operations(stage: StepStage, encoder: EncoderConfig, classes: int) -> int:
    """Additions and multiplications of one step of the whole batch: forward, gradient, and what is computed twice.

    What learns costs three times its forward: the products themselves, their gradient by what entered, and by the
    weights. What is before the first trained block is computed once, or not at all where its maps are cached. Matrices
    that stay among others that learn are counted as if they learned, and blocks that are computed twice as whole.
    """
    tuned, pairs, projecting = isinstance(stage, TuneStage), isinstance(stage.loss, Pairs), stage.projecting
    width, dimension = encoder.projection.features, encoder.projection.dimension
    projection = 2 * width * dimension * projecting.samples * (3 if tuned else 2)
    others = stage.batch if pairs else classes * stage.centers
    compared = 2 * others * sum(projecting.nested or (dimension,)) * projecting.samples
    compared *= 4 if stage.chunk and not pairs else 3
    tower = _tower_operations(stage, encoder) if isinstance(stage, TuneStage) else 0
    views = 2 if stage.geometry.views.weight else 1
    return stage.batch * (views * tower + projection + compared) * (2 if stage.optimizer.sam else 1)


def _tower_operations(stage: TuneStage, encoder: EncoderConfig) -> int:
    """Of one image."""
    tower, place, counted = encoder.tower, place_of(encoder.tower, stage.trained), _Counted()
    tower.forward(counted, Value(None, encoder.preprocess.size**2, 3), encoder.pooling)
    before = counted.passed[place]
    again = max(counted.stacked.values()) - counted.stacked[place] if stage.remat else 0
    return (0 if stage.copies else before) + 3 * (counted.operations - before) + again


class Traffic(NamedTuple):
    """Bytes that one step moves, of all chips together, without what is between layers."""

    memory: int  # to and from their own memories
    links: int  # that each chip gets from the others, or gives them


def step_traffic(state: int, learned: int, fixed: int, chips: int) -> Traffic:
    """Of a state, what of it is learned, and what stays, in bytes: the state is read and written, so is a gradient.

    Where they are split over chips, each chip gets the parts of the others for the forward and again for the gradient,
    and gives away its parts of the gradient.
    """
    others = (chips - 1) / chips
    return Traffic(2 * state + 2 * learned + fixed, round(others * (3 * learned + 2 * fixed)))


def roofline(chip: Chip, chips: int, operations: float, traffic: Traffic) -> float:
    """The least seconds for a step (Williams et al., 2009): the longest of computing, memory and links, all at peak,
    as if each hid the others.
    """
    links = traffic.links / chip.links if chip.links else 0.0
    return max(operations / (chips * chip.flops), traffic.memory / (chips * chip.bandwidth), links)
