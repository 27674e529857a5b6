"""What the target torchscript writes, in PyTorch: images of any size prepared, transformers' tower, and its projection.

It is traced, but for the one choice by an image's size, which is scripted.
"""

import io
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, no_type_check

import torch
import transformers
from torch import Tensor, nn
from torch.nn.functional import normalize

from lookalike.imaging.resample import Arithmetic, magnifier, weights
from lookalike.published.layout import write_layout
from lookalike.published.processors import write_processor
from lookalike.targets.parts import Export
from lookalike.targets.published import in_transformers

TORCH = Arithmetic(torch.where, torch.sinc, torch.round, Tensor.long, Tensor.float, Tensor.double)


def save(export: Export, file: Path) -> None:
    """The program, traced and compiled, as one file: uint8 [B 3 H W] -> float32 [B D] of unit length."""
    (layout, described, config, tensors), name, features = in_transformers(export.config, export.tensors)
    with tempfile.TemporaryDirectory() as scratch:
        write_processor(config.preprocess, Path(scratch))
        write_layout(layout, described, config, tensors, Path(scratch))
        tower = getattr(transformers, name).from_pretrained(scratch).eval()
    read = eval(f"lambda found: found.{features}")  # as the lines of a README do
    whole, size = io.BytesIO(), config.preprocess.size  # torch's own writer ends the process on a full disk
    with warnings.catch_warnings(), torch.no_grad():
        # PyTorch deprecates TorchScript, and tracing warns of every size that it takes for a constant.
        for kind in (DeprecationWarning, FutureWarning, torch.jit.TracerWarning):
            warnings.simplefilter("ignore", kind)
        example = torch.zeros(2, 3, size, size, dtype=torch.uint8)
        program = torch.jit.trace(Program(export, tower, read).eval(), example, check_trace=False)
        torch.jit.save(program, whole)
    file.write_bytes(whole.getbuffer())


class Program(nn.Module):  # type: ignore[misc]
    """The whole, as it is traced: a `tower` of normalised images [B 3 S S], whose answer `read` finds features in."""

    def __init__(self, export: Export, tower: Any, read: Callable[[Any], Any]) -> None:
        super().__init__()
        self.config, self.tower, self.read = export.config, tower, read
        self.resampled = torch.jit.script(_resampled)
        preprocess = export.config.preprocess
        fill = preprocess.fill if preprocess.mode == "pad" else (0, 0, 0)
        for name, color in (("mean", preprocess.mean), ("std", preprocess.std), ("fill", fill)):
            self.register_buffer(name, torch.tensor(color, dtype=torch.float32)[:, None, None])
        self.register_buffer("place", torch.arange(preprocess.size)[:, None])
        for number, share in enumerate(export.config.zooms):
            self.register_buffer(f"zoom{number}", torch.tensor(magnifier(preprocess.size, share)))
        if export.config.projection.kind == "linear":
            for part in ("weight", "bias"):
                self.register_buffer(part, torch.tensor(export.tensors[f"projection.{part}"]))

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [B 3 H W], RGB, to float32 [B D]."""
        x = (self._squares(images) / 255.0 - self.mean) / self.std
        features = self._features(x)
        if self.config.mirror:
            features = (features + self._features(x.flip(3))) / 2.0
        if self.config.projection.l2_normalize_input:
            features = normalize(features)
        if self.config.projection.kind == "linear":
            features = features @ self.weight + self.bias
        return normalize(features)

    def _features(self, x: Tensor) -> Tensor:
        """The mean over the image and its zooms."""
        zooms = [getattr(self, f"zoom{number}") for number in range(len(self.config.zooms))]
        found = [self.read(self.tower(view)) for view in (x, *(zoom @ x @ zoom.t() for zoom in zooms))]
        return sum(found[1:], found[0]) / float(len(found))

    def _squares(self, images: Tensor) -> Tensor:
        """Resized and cropped, [B 3 S S] of 0 to 255, by the arithmetic of `export.pixels`."""
        p, made, shorter = self.config.preprocess, [], []
        (height, width), lines = images.shape[2:], (images[0, 0, :, 0], images[0, 0, 0])
        for line, length, resized in zip(lines, (height, width), p.resized(height, width, TORCH), strict=True):
            resized = resized + 0 * length  # a tensor, whatever the mode
            pixels = torch.ones_like(line, dtype=torch.int64).cumsum(0)[None] - 1  # they lie where the image does
            place = self.place + p.start(resized, TORCH)
            made.append(weights(place, pixels, length, resized, p.interpolation, p.antialias, TORCH))
            shorter.append(length - resized)
        (down, seen_y), (across, seen_x) = made
        x = self.resampled(images.float(), down, across.t(), torch.stack(shorter), p.antialias)
        return x + (1 - seen_y @ seen_x.t()) * self.fill


@no_type_check  # what is scripted must be as it is written
def _resampled(x: Tensor, down: Tensor, across: Tensor, shorter: Tensor, antialias: bool) -> Tensor:
    """By weights [S H] and [W S]; `shorter` says by how many pixels both sides shrink."""
    if not antialias:
        return (down @ (x @ across)).round().clamp(0.0, 255.0)
    if int(shorter[0]) > max(0, 2 * int(shorter[1])):  # Pillow 13 takes the columns first then
        return _rounded(_rounded(down @ x) @ across)
    return _rounded(down @ _rounded(x @ across))


@no_type_check
def _rounded(x: Tensor) -> Tensor:
    return torch.floor(x + 0.5).clamp(0.0, 255.0)
