"""An encoder as a value: its config, the names and shapes of its tensors, and its text side. No JAX here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from lookalike.core.config import option
from lookalike.core.errors import EncoderError
from lookalike.imaging.preprocess import Preprocess
from lookalike.towers import Pooling, Tower, ViTConfig
from lookalike.towers.ops import Shapes, Tensor, declare
from lookalike.towers.text import TextConfig

T = TypeVar("T")

Tensors = dict[str, np.ndarray]  # float32


@dataclass(frozen=True)
class ProjectionConfig:
    """Features to embedding: `l2_normalize(x @ weight [F D] + bias [D])`, or `l2_normalize(x)` for identity."""

    kind: Literal["identity", "linear"]
    features: int  # F
    dimension: int  # D
    l2_normalize_input: bool = option(default=True, was="unit_input")  # whether x is brought to length 1 first

    def __post_init__(self) -> None:
        if self.kind == "identity" and self.features != self.dimension:
            raise EncoderError(f"An identity projection can't turn {self.features} numbers into {self.dimension}.")


@dataclass(frozen=True)
class EncoderConfig:
    """All that turns an image into an embedding, but for the numbers in the tensors."""

    tower: Tower
    pooling: Pooling
    """How tokens become features: the class token (ViT alone), their mean, their generalised mean with p = 3
    (convolutional towers, whose tokens aren't negative), or a learned probe's attention (ViT with such a head)."""
    preprocess: Preprocess
    projection: ProjectionConfig
    mirror: bool = False  # whether the features are the mean of those of the image and of its mirror image
    zooms: tuple[float, ...] = option(default=(), added=True)
    """Features are the mean of those of the image and of its center, enlarged: of so large shares of the side each."""

    def __post_init__(self) -> None:
        if not all(0 < share < 1 for share in self.zooms):
            raise EncoderError(f"Zooms are {list(self.zooms)}; expected shares of the side, between 0 and 1.")
        tower, size, taken = self.tower, self.preprocess.size, self.projection.features
        if self.pooling not in tower.poolings:
            raise EncoderError(
                f"Pooling {self.pooling!r} does not go with the tower ({self.kind}).",
                hint=f"for this one: {', '.join(tower.poolings)}",
            )
        if tower.only_size not in (None, size):
            raise EncoderError(f"Images of {size} px can't enter a tower for {tower.only_size} px.")
        if taken != tower.features:
            raise EncoderError(f"The projection takes {taken} numbers, the tower gives {tower.features}.")

    @property
    def kind(self) -> str:
        """The tower's family: "ViT"."""
        return type(self.tower).__name__.removesuffix("Config")


@dataclass(frozen=True)
class TextSide:
    """All that turns a text into features, but for the projection, which is the encoder's."""

    config: TextConfig
    tensors: Tensors  # those of `shapes_of(config)`; empty where they were not asked for
    tokenizer: str  # the content of `tokenizer.json`
    image: str  # fingerprint of the image features that the texts belong to, 64 hex digits


def tensor_shapes(config: EncoderConfig) -> Shapes:
    """Name and shape of every tensor of the encoder; all are float32."""
    return {name: tensor.shape for name, tensor in declared(config).items()}


def declared(config: EncoderConfig) -> dict[str, Tensor]:
    """Every tensor of the encoder by its name: its shape, how it starts, whether it learns and decays."""
    tower, shape = declare(config.tower), (config.projection.features, config.projection.dimension)
    linear = {"projection.weight": Tensor(shape, "matrix"), "projection.bias": Tensor(shape[1:], "bias")}
    return {f"tower.{name}": t for name, t in tower.items()} | (linear if config.projection.kind == "linear" else {})


def below(part: Literal["tower", "projection"], tensors: Mapping[str, T]) -> dict[str, T]:
    """The tensors of one part, by their names in it."""
    return {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}


def check_tensors(shapes: Shapes, tensors: Mapping[str, np.ndarray], where: str) -> None:
    """EncoderError, naming every tensor that is missing, unknown, of a wrong shape or dtype, or not finite."""
    faults = [f"`{name}` is missing" for name in shapes if name not in tensors]
    faults += [f"`{name}` is unknown" for name in tensors if name not in shapes]
    for name in shapes.keys() & tensors.keys():
        found = tensors[name]
        if found.shape != shapes[name]:
            faults.append(f"`{name}` has shape {list(found.shape)}, expected {list(shapes[name])}")
        elif found.dtype != np.float32:
            faults.append(f"`{name}` is {found.dtype}, expected float32")
        elif not np.isfinite(found.sum(dtype=np.float64)):
            faults.append(f"`{name}` holds values that are not finite")
    if faults:
        raise misfit(where, sorted(faults), "get or make the model directory again: `lookalike pull ... --out MODEL`")


def misfit(where: object, faults: Sequence[str], hint: str = "") -> EncoderError:
    """What is said of tensors that a config does not describe: the first eight faults, and how many more."""
    more = f"; and {len(faults) - 8} more" if len(faults) > 8 else ""
    return EncoderError(f"The tensors of `{where}` do not fit its config: {'; '.join(faults[:8])}{more}.", hint=hint)


def meets(published: EncoderConfig, config: EncoderConfig) -> bool:
    """Whether the features of `config` lie in the space of those of `published`, with whose weights they are made:
    after another layer, pooling or head they don't; another input or overlapping patches leave it so.
    """
    tower = config.tower
    if isinstance(tower, ViTConfig) and isinstance(published.tower, ViTConfig):
        tower = replace(tower, size=published.tower.size, stride=published.tower.stride)
    return tower == published.tower and config.pooling == published.pooling
