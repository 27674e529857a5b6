"""What of a tower learns and what stays, by rules over names; the features as a function of what learns.

What stays before the first trained block is cut off the gradient, or out of the step: its map may be cached instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, UInt8

from lookalike.core.errors import UsageError
from lookalike.encoders.config import below, declared
from lookalike.encoders.encoder import Encoder
from lookalike.towers import Tower
from lookalike.towers.ops import Tensor, halves, places
from lookalike.towers.programs.halves import behind, front
from lookalike.training.config import Trained

Tensors = dict[str, Float32[Any, "..."]]  # arrays of NumPy, until they are put on devices
Factor = float | Float32[np.ndarray, "L"]  # of a tensor, or of each of the blocks that are stacked in it


class Fixed(NamedTuple):
    """What does not learn, by its names in the encoder."""

    front: Tensors  # before the cut
    back: Tensors  # behind it
    first: Tensors | None = None  # what does learn, as it was; where a stage holds to it


@dataclass(frozen=True, eq=False)
class Division:
    """An encoder's tower, divided into what learns and what stays."""

    encoder: Encoder
    place: int  # where the tower is cut; 0: it is not, as something learns from the first block on
    lora: int
    learned: Tensors
    fixed: Fixed
    factors: Mapping[str, Factor]  # of learning rates, for each learned tensor

    def features(self, learned: Tensors, fixed: Fixed, images: UInt8[Array, "B S S 3"]) -> Float32[Array, "B F"]:
        """Features of images that the encoder's preprocessing made."""
        if not self.place:
            return self._whole(learned, fixed).features(images)
        return self.features_of_maps(learned, fixed, jax.lax.stop_gradient(self.maps(fixed.front, images)))

    def maps(self, tensors: Tensors, images: UInt8[Array, "B S S 3"]) -> Any:
        """The map [B P F] at the cut, from the tensors before it."""
        x = self.encoder.normalise(images)
        return front(self.encoder.config.tower, below("tower", tensors), x, self.place, self.encoder.dtype)

    def features_of_maps(self, learned: Tensors, fixed: Fixed, maps: Any) -> Float32[Array, "B F"]:
        """Features from the map [B P F] at the cut."""
        config, tensors = self.encoder.config, below("tower", self._merged(learned, fixed.back))
        size, dtype, remat = config.preprocess.size, self.encoder.dtype, self.encoder.remat
        return behind(config.tower, config.pooling, tensors, maps, self.place, size, dtype, remat)

    def merged(self, learned: Tensors, fixed: Fixed) -> Tensors:
        """The tower's tensors: what is learned in its place, products of low rank added."""
        back = self._merged(learned, fixed.back)
        both = {name: jnp.concatenate([fixed.front[name], back[name]]) for name in fixed.front.keys() & back.keys()}
        return fixed.front | back | both

    def _whole(self, learned: Tensors, fixed: Fixed) -> Encoder:
        config = replace(self.encoder.config, zooms=())  # steps see crops of their own
        return replace(self.encoder, config=config, tensors={**self.encoder.tensors, **self.merged(learned, fixed)})

    def _merged(self, learned: Tensors, back: Tensors) -> Tensors:
        if not self.lora:
            return back | learned
        names = [name.removesuffix(".lora_a") for name in learned if name.endswith(".lora_a")]
        return back | {n: back[n] + (learned[f"{n}.lora_a"] @ learned[f"{n}.lora_b"]).astype("float32") for n in names}


def divide(encoder: Encoder, trained: Trained, seed: int = 0) -> Division:
    """The encoder's tower divided as `trained` says; UsageError if nothing of it learns, or a rule fits no tensor."""
    config = encoder.config
    known = {name: tensor for name, tensor in declared(config).items() if name.startswith("tower.")}
    count, place = places(config.tower), place_of(config.tower, trained)
    factors = {name: _factor(name, tensor, trained, count, place) for name, tensor in known.items()}
    factors = {name: factor for name, factor in factors.items() if np.any(factor) and trained.blocks}
    _refuse(trained, known, factors)
    early, late = ({f"tower.{n}": shape for n, shape in half.items()} for half in halves(config.tower, place))
    tensors = {name: encoder.tensors[name] for name in known}
    stacked = {name for name, tensor in known.items() if tensor.blocks}
    before = {n: tensors[n][: shape[0]] if n in stacked else tensors[n] for n, shape in early.items()}
    back = {n: tensors[n][len(tensors[n]) - shape[0] :] if n in stacked else tensors[n] for n, shape in late.items()}
    factors = {n: f[-late[n][0] :] if isinstance(f, np.ndarray) else f for n, f in factors.items()}
    if trained.lora:
        learned = _low_rank(back, known, factors, trained.lora, seed)
        factors = {name: factors[name.rpartition(".")[0]] for name in learned}
        return Division(encoder, place, trained.lora, learned, Fixed(before, back), factors)
    learned = {name: back[name] for name in factors}
    still = {name: tensor for name, tensor in back.items() if name not in factors}
    return Division(encoder, place, 0, learned, Fixed(before, still), factors)


def place_of(tower: Tower, trained: Trained) -> int:
    """The place behind which the tower learns; 0: all of it does."""
    count = places(tower)
    return 0 if trained.blocks < 0 or trained.blocks >= count else count - trained.blocks


def decays(config: Any) -> frozenset[str]:
    """Names of the tensors that weight decay is for; products of low rank decay as matrices do."""
    names = {name for name, tensor in declared(config).items() if tensor.decays}
    return frozenset(names | {f"{name}.lora_{part}" for name in names for part in "ab"})


def stacked(config: Any) -> frozenset[str]:
    """Names of the tensors in which blocks are stacked, of their products of low rank too."""
    names = {name for name, tensor in declared(config).items() if tensor.blocks}
    return frozenset(names | {f"{name}.lora_{part}" for name in names for part in "ab"})


def _factor(name: str, tensor: Tensor, trained: Trained, count: int, place: int) -> Factor:
    """Of a tensor's learning rate; one behind the last block has 1, the last block layer_decay, and so on."""
    if not tensor.trained:
        return 0.0
    at = tensor.place + np.arange(max(tensor.blocks, 1))
    factor = np.where(at < place, 0.0, trained.layer_decay ** (count - at).astype(np.float64))
    for pattern, times in map(trained.rule, trained.rules):
        if fnmatchcase(name, pattern):
            factor = factor * times
    return factor.astype(np.float32) if tensor.blocks else float(factor[0])


def _refuse(trained: Trained, known: Mapping[str, Tensor], factors: Mapping[str, Factor]) -> None:
    for pattern, _ in map(trained.rule, trained.rules):
        if not any(fnmatchcase(name, pattern) for name in known):
            near = next(iter(known))
            raise UsageError(f"No tensor of the tower is called `{pattern}`.", hint=f"they are called like `{near}`")
    if not factors:
        raise UsageError(
            "Nothing of the tower learns in this stage.",
            hint="`--trained.blocks 1` or more; or a recipe that trains a projection alone: `lookalike train head`",
        )


def _low_rank(
    back: Tensors, known: Mapping[str, Tensor], factors: Mapping[str, Factor], rank: int, seed: int
) -> Tensors:
    """For each matrix that would learn, two that are multiplied: `lora_a` random, `lora_b` zero (Hu et al., 2021).

    Kernels of 1x1 are matrices too.
    """
    found: Tensors = {}
    rng = np.random.default_rng((seed, rank))
    for name in factors:
        shape, kind = back[name].shape, known[name].kind
        if kind == "matrix" or (kind == "kernel" and shape[-4:-2] == (1, 1) and shape[-2] > 1):
            size = min(rank, *shape[-2:])
            first = rng.standard_normal((*shape[:-1], size)) / shape[-2] ** 0.5
            found[f"{name}.lora_a"] = first.astype(np.float32)
            found[f"{name}.lora_b"] = np.zeros((*shape[:-2], size, shape[-1]), np.float32)
    if not found:
        raise UsageError("No matrix of the tower learns, so that `--trained.lora` has nothing to add to.")
    return found
