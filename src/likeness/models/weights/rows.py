"""Rows that the tables of many layouts have: a norm, and a linear layer made of one or several of theirs."""

from likeness.models.weights.table import MATRIX, Key


def norm(ours: str, theirs: str) -> tuple[Key, ...]:
    """Scale and shift."""
    return Key(f"{ours}.weight", (f"{theirs}.weight",)), Key(f"{ours}.bias", (f"{theirs}.bias",))


def linear(ours: str, *theirs: str, biased: tuple[str, ...] | None = None) -> tuple[Key, ...]:
    """Matrices side by side, and the biases of those of them that have one (`biased`; None: all)."""
    biases = tuple(f"{name}.bias" for name in (theirs if biased is None else biased))
    weight = Key(f"{ours}.weight", tuple(f"{name}.weight" for name in theirs), MATRIX)
    return (weight, Key(f"{ours}.bias", biases)) if biases else (weight,)
