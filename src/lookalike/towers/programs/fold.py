"""What can be folded into weights before a graph is recorded: a pure pass over named tensors, by the tower's forward.

A scale behind a linear layer goes into its matrix, a batch norm into the kernel before it (whose bias is then
`<name>.bias`), normalising an image into the first matrix or kernel.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lookalike.imaging.preprocess import Preprocess
from lookalike.towers.ops import Conv, Pooling, Value
from lookalike.towers.programs.declare import Declare

if TYPE_CHECKING:
    from lookalike.towers import Tower

Tensors = Mapping[str, np.ndarray]
"""Tensor name -> float32 array."""


def fold(tower: "Tower", pooling: Pooling, preprocess: Preprocess, tensors: Tensors) -> Tensors:
    """The tensors of the same tower for pixels from 0 to 255, without what was folded.

    Where zeros surround an image (`centred`), they stand for its mean colour, which the graph then subtracts itself.
    """
    ops = _Fold(tensors, preprocess)
    tower.forward(ops, Value("pixels", preprocess.size**2, 3), pooling)
    return ops.folded


def colors(preprocess: Preprocess) -> tuple[np.ndarray, np.ndarray]:
    """(mean, scale) so that the normalised image is `(x - mean) * scale` for `x` in 0 to 255."""
    mean = 255 * np.array(preprocess.mean, np.float64)
    scale = 1 / (255 * np.array(preprocess.std, np.float64))
    return mean.astype(np.float32), scale.astype(np.float32)


class _Fold(Declare):
    """A value knows what made it: the name of a linear layer or kernel, or the image."""

    def __init__(self, tensors: Tensors, preprocess: Preprocess) -> None:
        super().__init__()
        self.folded = dict(tensors)
        self.colors = colors(preprocess)

    def linear(self, name: str, x: Value, out: int, bias: bool = True) -> Value:
        whole, (mean, scale) = self.name(name), self.colors
        if x.data in ("pixels", "centred"):
            weight = np.tile(scale, x.width // 3)[:, None] * self.folded[f"{whole}.weight"]
            self.folded[f"{whole}.weight"] = weight
            if x.data == "pixels":
                before = self.folded.get(f"{whole}.bias", np.zeros(out, np.float32))
                self.folded[f"{whole}.bias"] = before - np.tile(mean, x.width // 3) @ weight
        return Value(whole, super().linear(name, x, out, bias).tokens, out)

    def cut(self, x: Value, patch: int, step: int | None = None, pad: bool = False, down: bool = False) -> Value:
        y = super().cut(x, patch, step, pad, down)
        if x.data != "pixels":
            return y
        return Value("centred" if pad and x.side % patch else "pixels", y.tokens, y.width)

    def conv(self, conv: Conv, x: Value) -> Value:
        y, name = super().conv(conv, x), self.name(conv.name)
        if x.data == "pixels":
            kernel = f"{name}.conv.weight"
            self.folded[kernel] = self.folded[kernel] * self.colors[1][:, None]
        return Value(name, y.tokens, y.width)

    def scale(self, name: str, x: Value) -> Value:
        if x.data is not None:
            by = self._take(name)
            self.folded[f"{x.data}.weight"] = self.folded[f"{x.data}.weight"] * by[..., None, :]
            if f"{x.data}.bias" in self.folded:
                self.folded[f"{x.data}.bias"] = self.folded[f"{x.data}.bias"] * by
        return super().scale(name, x)

    def batch_norm(self, name: str, x: Value, eps: float) -> Value:
        parts = [self._take(f"{name}.{part}").astype(np.float64) for part in ("weight", "bias", "mean", "variance")]
        weight, bias, mean, variance = parts
        gain = weight / np.sqrt(variance + eps)
        kernel = f"{x.data}.conv.weight"
        self.folded[kernel] = (self.folded[kernel] * gain).astype(np.float32)
        self.folded[f"{x.data}.bias"] = (bias - mean * gain).astype(np.float32)
        return super().batch_norm(name, x, eps)

    def _take(self, name: str) -> Any:
        return self.folded.pop(self.name(name))
