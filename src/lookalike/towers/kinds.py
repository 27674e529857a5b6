"""What kind of tensor a name means: how it starts, whether it learns, whether weights decay. The one rule over names.

The rank of a tensor tells none of it: stacked blocks give every bias an axis more.
"""

from typing import Literal

Kind = Literal["matrix", "kernel", "scale", "bias", "token", "temperature", "statistic"]
"""matrix, kernel: multiply what enters. scale, bias: of a norm, a layer or a channel. token: learned tokens and
positions. temperature: the logarithm of what multiplies cosines. statistic: a batch norm's, stored and not learned."""


def kind_of(name: str) -> Kind:
    """The kind of the tensor `name`, with or without the prefix `tower.`."""
    *_, owner, part = f".{name}".split(".")
    if part in ("mean", "variance"):
        return "statistic"
    if part in ("class_token", "registers", "position", "probe", "table"):
        return "token"
    if part == "logit_scale":
        return "temperature"
    if part == "bias":
        return "bias"
    if part.startswith("scale") or owner.startswith("norm"):
        return "scale"
    return "kernel" if owner == "conv" else "matrix"


def decays(name: str) -> bool:
    """Whether weight decay pulls the tensor to zero: what multiplies, and neither norms, scales, biases nor tokens."""
    return kind_of(name) in ("matrix", "kernel")
