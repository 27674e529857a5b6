"""Rows that the tables of many layouts have: a norm, and a linear layer made of one or several of theirs."""

from lookalike.published.table import MATRIX, Form, Key


def norm(ours: str, theirs: str) -> tuple[Key, ...]:
    """Scale and shift."""
    return Key(f"{ours}.weight", (f"{theirs}.weight",)), Key(f"{ours}.bias", (f"{theirs}.bias",))


def linear(ours: str, *theirs: str, biased: tuple[str, ...] | None = None, form: Form = MATRIX) -> tuple[Key, ...]:
    """Matrices side by side, laid out as `form` says, and the biases of those that have one (`biased`; None: all)."""
    biases = tuple(f"{name}.bias" for name in (theirs if biased is None else biased))
    weight = Key(f"{ours}.weight", tuple(f"{name}.weight" for name in theirs), form)
    return (weight, Key(f"{ours}.bias", biases)) if biases else (weight,)
