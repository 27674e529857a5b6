"""Accelerators by their data sheets, and topologies of them by name: what a run is planned for. No JAX here."""

import re
from dataclasses import dataclass
from math import prod

from lookalike.core.config import did_you_mean
from lookalike.core.errors import UsageError


@dataclass(frozen=True)
class Chip:
    """One accelerator: peak figures, of which a program reaches a share."""

    name: str
    flops: float  # a second, in bfloat16; products of float32 are rounded to it by default
    bandwidth: float  # bytes a second to and from its own memory
    memory: int  # bytes
    links: float = 0.0  # bytes a second to the chips beside it, all links together; 0: it is alone


# Google Cloud's pages "TPU v5e", "TPU v5p" and "TPU v6e" (Trillium): peak compute per chip (bf16), HBM bandwidth,
# HBM capacity, inter-chip interconnect bandwidth (1600, 4800 and 3584 Gbit/s).
CHIPS: dict[str, Chip] = {
    "v5e": Chip("TPU v5e", 197e12, 819e9, 16 * 2**30, 200e9),
    "v5p": Chip("TPU v5p", 459e12, 2765e9, 95 * 2**30, 600e9),
    "v6e": Chip("TPU v6e", 918e12, 1640e9, 32 * 2**30, 448e9),
}
"""Kind, as in a topology's name -> chip."""

LOCAL = "local"  # the devices that JAX finds here


@dataclass(frozen=True)
class Topology:
    """Chips beside each other: 2x4 of v5e."""

    name: str
    chip: Chip
    sides: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many chips."""
        return prod(self.sides)

    @property
    def host(self) -> list[int]:
        """Sides of what one host holds, in three directions: libtpu's own, 2 by 2, does not divide smaller ones."""
        return [min(self.sides[0], 2), min(self.sides[1], 2), 1]


def topology_of(name: str) -> Topology:
    """The topology of a name like `v5e:2x4` or `v5p:2x2x1`; UsageError if there is no such thing."""
    kind, _, shape = name.partition(":")
    if kind not in CHIPS:
        raise UsageError(
            f"`--topology` is `{name}`, and the kind `{kind}` is not known.{did_you_mean(kind, CHIPS)}",
            hint=f"kinds: {', '.join(CHIPS)}; `v5e:1x1` is Colab's, `v5e:2x4` Kaggle's; `local` is this machine",
        )
    wanted = 3 if kind == "v5p" else 2
    if not re.fullmatch("x".join([r"[1-9]\d{0,2}"] * wanted), shape):
        hint = f"{kind}:2x2x1" if wanted == 3 else f"{kind}:2x4"
        raise UsageError(f"`--topology` is `{name}`; expected {wanted} sides behind `{kind}`.", hint=hint)
    return Topology(name, CHIPS[kind], tuple(map(int, shape.split("x"))))
