"""What the target torchscript writes, in PyTorch: images of any size prepared, a tower, and its projection.

Loaded where torch is. The one choice by the size of an image is scripted, all else is traced: the geometry of
`Preprocess` and the matrices of `resample.weights` run here on tensors. None of them is made while tracing, which would
keep its device, so that the program runs wherever it is loaded to.
"""

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final, no_type_check

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lookalike.export.parts import Export
from lookalike.imaging.preprocess import Preprocess
from lookalike.imaging.resample import Arithmetic, weights

TORCH = Arithmetic(
    torch.where,
    torch.sinc,
    torch.round,
    lambda x: x.to(torch.int64),
    lambda x: x.to(torch.float32),
    lambda x: x.double(),
)


def compiled(export: Export, tower: Any, read: Callable[[Any], Any]) -> memoryview:
    """The program as a file: uint8 [B 3 H W] -> float32 [B E] of unit length.

    Args:
        export: The encoder.
        tower: A module that takes normalised images [B 3 S S].
        read: Finds the features [B F] in what it gives.
    """
    preprocess, size = export.config.preprocess, export.config.preprocess.size
    with warnings.catch_warnings(), torch.no_grad():
        # PyTorch deprecates TorchScript, and tracing warns of every size that it takes for a constant.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        sides = torch.jit.trace(Sides(preprocess), (torch.arange(size), torch.arange(size)), check_trace=False)
        encode = torch.jit.trace(Encode(export, tower, read), torch.zeros(2, 3, size, size), check_trace=False)
        program = torch.jit.script(Program(sides, encode, preprocess.antialias).eval())
        whole = io.BytesIO()  # torch's own writer ends the process where the disk is full
        torch.jit.save(program, whole)
    return whole.getbuffer()


class Sides(nn.Module):  # type: ignore[misc]
    """From the places of an image's pixels along both sides, [H] and [W], to what resizing needs."""

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.register_buffer("place", torch.arange(preprocess.size)[:, None])
        self.register_buffer("fill", _column(preprocess.fill if preprocess.mode == "pad" else (0, 0, 0)))

    def forward(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights [S H] and [W S], what lies around the image [3 S S], and how much shorter each side becomes [2]."""
        p, lengths, made = self.preprocess, (rows[-1] + 1, columns[-1] + 1), []
        resized = [length * 0 + side for length, side in zip(lengths, p.resized(*lengths, TORCH), strict=True)]
        for pixels, length, side in zip((rows, columns), lengths, resized, strict=True):
            place = self.place + p.start(side, TORCH)
            made.append(weights(place, pixels[None], length, side, p.interpolation, p.antialias, TORCH))
        (down, seen_y), (across, seen_x) = made
        shorter = torch.stack([length - side for length, side in zip(lengths, resized, strict=True)])
        return down, across.t(), (1 - seen_y @ seen_x.t()) * self.fill, shorter


class Encode(nn.Module):  # type: ignore[misc]
    """Squares [B 3 S S] of 0 to 255 to vectors [B E]."""

    def __init__(self, export: Export, tower: Any, read: Callable[[Any], Any]) -> None:
        super().__init__()
        self.tower, self.read, self.config = tower, read, export.config
        self.register_buffer("mean", _column(export.config.preprocess.mean))
        self.register_buffer("std", _column(export.config.preprocess.std))
        if export.config.projection.kind == "linear":
            for part in ("weight", "bias"):
                self.register_buffer(part, torch.tensor(export.tensors[f"projection.{part}"]))

    def forward(self, squares: Tensor) -> Tensor:
        """Vectors of unit length."""
        x = (squares / 255.0 - self.mean) / self.std
        features = self.read(self.tower(x))
        if self.config.mirror:
            features = (features + self.read(self.tower(x.flip(3)))) / 2.0
        if self.config.projection.l2_normalize_input:
            features = normalize(features)
        if self.config.projection.kind == "linear":
            features = features @ self.weight + self.bias
        return normalize(features)


@no_type_check  # what is scripted must be as it is written
class Program(nn.Module):  # type: ignore[misc]
    """The whole."""

    antialias: Final[bool]

    def __init__(self, sides: Any, encode: Any, antialias: bool) -> None:
        super().__init__()
        self.sides, self.encode, self.antialias = sides, encode, antialias

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [B 3 H W], RGB, to float32 [B E]; the arithmetic of `export.pixels`."""
        height, width = images.shape[2], images.shape[3]
        down, across, around, shorter = self.sides(
            torch.arange(height, device=images.device), torch.arange(width, device=images.device)
        )
        x = images.to(torch.float32)
        if not self.antialias:
            x = (down @ (x @ across)).round().clamp(0.0, 255.0)
        elif int(shorter[0]) > max(0, 2 * int(shorter[1])):  # Pillow 13 takes the columns first then
            x = _rounded(_rounded(down @ x) @ across)
        else:
            x = _rounded(down @ _rounded(x @ across))
        return self.encode(x + around)


@no_type_check
def _rounded(x: Tensor) -> Tensor:
    """Whole numbers from 0 to 255; halves go up, as in Pillow."""
    return torch.floor(x + 0.5).clamp(0.0, 255.0)


def _column(colors: Sequence[float | int]) -> Tensor:
    return torch.tensor(colors, dtype=torch.float32)[:, None, None]
