"""Weights of encoders on one tower, averaged: soups (Wortsman et al., 2022, arXiv:2203.05482), and WiSE-FT, which leads
a tuned tower part of the way back to where it came from (Wortsman et al., 2021, arXiv:2109.01903).
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig


def blended(tensors: Sequence[Mapping[str, Any]], shares: Sequence[float]) -> dict[str, Any]:
    """The weighted mean of each tensor that all have; `shares` are brought to a sum of 1.

    A projection is averaged over those that have one of the same shape as the last one's; where an untouched encoder
    has none, it is that of the others.
    """
    last, found = tensors[-1], {}
    for name, tensor in last.items():
        pairs = [
            (t[name], s) for t, s in zip(tensors, shares, strict=True) if name in t and t[name].shape == tensor.shape
        ]
        total = sum(share for _, share in pairs)
        if not total:  # only those without a share have it
            found[name] = tensor
        else:
            found[name] = sum((share / total) * each for each, share in pairs)
    return found


def refuse_unless_alike(configs: Mapping[str, EncoderConfig]) -> None:
    """EncoderError, naming the first field that differs, unless all have one tower and one preprocessing."""
    (first, config), *others = configs.items()
    for name, other in others:
        for field in fields(config):
            if field.name in ("projection", "mirror", "zooms"):
                continue
            mine, theirs = getattr(config, field.name), getattr(other, field.name)
            if mine != theirs:
                raise EncoderError(
                    f"Weights of `{first}` and `{name}` can't be averaged: their {field.name} differ.",
                    hint="blend models that were trained from the same one, at the same size",
                )
