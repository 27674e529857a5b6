"""TorchScript: one file for PyTorch, with preprocessing, tower and projection inside.

The tower is transformers' own class with the weights that the target `transformers` writes, traced; around it is a
program in TorchScript that prepares images and projects, whose arithmetic is that of `pixels`.
"""

import io
import tempfile
import warnings
from pathlib import Path
from typing import Any

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig
from lookalike.export import transformers as layout
from lookalike.export.families import at_its_size
from lookalike.export.parts import OPENED, Export, Written
from lookalike.export.published import write_layout, write_processor
from lookalike.imaging.preprocess import Preprocess

NEEDS = ("torch", "transformers")
READS = ("torch",)

_MATRIX = """
def matrix(self, length: int, resized: int):
    spare = resized - {size}
    start = {start}
    place = torch.arange({size}, device=self.mean.device)[:, None] + start
    pixels = torch.arange(length, device=self.mean.device)[None]
    seen = (place >= 0) & (place < resized)
{weights}
    return weights * seen, seen.to(torch.float32)
"""

_FILTERED = """
    apart = ((2 * pixels + 1) * resized - (2 * place + 1) * length).to(torch.float32)
    t = (apart / float(2 * max(length, resized))).abs()
    weights = {kernel}
    weights = weights / torch.where(seen, weights.sum(dim=1, keepdim=True), torch.ones_like(apart))
    weights = torch.round(weights * 4194304.0) / 4194304.0
"""

_NEAREST = """
    nearest = torch.div((2 * place + 1) * length, 2 * resized, rounding_mode='floor')
    weights = (pixels == nearest).to(torch.float32)
"""

# Keys' cubic with a = -0.5, and Lanczos' window of three, as Pillow has them.
_KERNELS = {
    "bilinear": "torch.relu(1.0 - t)",
    "bicubic": "torch.where(t < 1.0, (1.5 * t - 2.5) * t * t + 1.0, "
    "torch.where(t < 2.0, ((-0.5 * t + 2.5) * t - 4.0) * t + 2.0, torch.zeros_like(t)))",
    "lanczos": "torch.where(t < 3.0, torch.sinc(t) * torch.sinc(t / 3.0), torch.zeros_like(t))",
}

_SIZES = {
    "squash": "rows, columns = {resize}, {resize}",
    "crop": "rows, columns = {resize} * height // min(height, width), {resize} * width // min(height, width)",
    "pad": "ratio = float(max(height, width)) / {resize}.0\n"
    "    rows, columns = max(1, int(round(height / ratio))), max(1, int(round(width / ratio)))",
}

_FORWARD = """
def forward(self, images):
    height, width = int(images.shape[2]), int(images.shape[3])
    {sizes}
    down, seen_y = self.matrix(height, rows)
    across, seen_x = self.matrix(width, columns)
    x = images.to(torch.float32)
    if height > rows and height - rows > 2 * (width - columns):  # Pillow 13 takes the columns first then
        x = torch.floor(torch.matmul(down, x) + 0.5).clamp(0.0, 255.0)
        x = torch.matmul(x, across.t())
    else:
        x = torch.floor(torch.matmul(x, across.t()) + 0.5).clamp(0.0, 255.0)
        x = torch.matmul(down, x)
    x = torch.floor(x + 0.5).clamp(0.0, 255.0)
    x = x + (1.0 - torch.matmul(seen_y, seen_x.t())) * self.fill
    x = (x / 255.0 - self.mean) / self.std
    features = self.tower(x)
{mirror}{unit}{linear}
    return torch.nn.functional.normalize(features)
"""

CODE = (
    """import numpy as np
import torch
from PIL import Image, ImageOps

"""
    + OPENED
    + """
model = torch.jit.load({file})

@torch.no_grad()
def embed(path):
    image = np.array(opened(path))
    return model(torch.from_numpy(image).permute(2, 0, 1)[None])[0].numpy()
"""
)
"""The README's lines, but for the file."""


def write(export: Export, directory: Path) -> Written:
    """`model.pt`."""
    save(export, directory / "model.pt")
    keeps = (
        "Input: uint8 `[batch, 3, height, width]`, RGB, of any height and width. Output: float32 "
        f"`[batch, {export.config.projection.dimension}]` of unit length. Everything is inside."
    )
    return Written(CODE.format(file="'model.pt'"), keeps)


def save(export: Export, file: Path) -> None:
    """The program, traced and compiled, as one file.

    Raises:
        EncoderError: transformers has no class for the tower, or the preprocessing has no antialiasing.
    """
    import torch

    if not export.config.preprocess.antialias:
        raise EncoderError(
            "This encoder resizes without antialiasing, which the TorchScript program does not do.",
            hint="`--to onnx` takes every encoder",
        )
    with warnings.catch_warnings():
        # PyTorch deprecates TorchScript, and tracing warns of every size that it takes for a constant.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        program = _program(_traced(export), export)
        for source in _sources(export.config):
            program.define(source)
        program.eval()
        whole = io.BytesIO()  # torch's own writer ends the process where the disk is full
        torch.jit.save(program, whole)
        file.write_bytes(whole.getbuffer())


def _traced(export: Export) -> Any:
    """The tower up to its features."""
    import torch
    import transformers

    config = at_its_size(export.config)
    family, described = layout.family_of(config)
    features = family.features(config)
    if features is None:
        raise EncoderError(
            f"{described['architectures'][0]} of transformers gives no features that are pooled by {config.pooling!r}.",
            hint="`--to onnx` takes every encoder",
        )
    with tempfile.TemporaryDirectory() as scratch:
        write_processor(config.preprocess, Path(scratch))
        write_layout(family.layout, described | {"dtype": "float32"}, config, export.tensors, Path(scratch))
        kind = getattr(transformers, described["architectures"][0])
        model = kind.from_pretrained(scratch).eval()
    read = eval(f"lambda found: found.{features}")  # one of the few in `families`

    class Tower(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixels):  # type: ignore[no-untyped-def]
            return read(self.model(pixels))

    size = config.preprocess.size
    with torch.no_grad():
        return torch.jit.trace(Tower(), torch.zeros(2, 3, size, size), check_trace=False)


def _program(tower: Any, export: Export) -> Any:
    """The tower and the numbers around it, still without functions."""
    import torch

    preprocess, projection = export.config.preprocess, export.config.projection
    numbers = {
        name: torch.tensor(values, dtype=torch.float32)[:, None, None]
        for name, values in (("mean", preprocess.mean), ("std", preprocess.std), ("fill", preprocess.fill))
    }
    if projection.kind == "linear":
        numbers |= {part: torch.tensor(export.tensors[f"projection.{part}"]) for part in ("weight", "bias")}

    class Program(torch.jit.ScriptModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.tower = tower
            for name, value in numbers.items():
                self.register_buffer(name, value)

    return Program()


def _sources(config: EncoderConfig) -> tuple[str, str]:
    """The two functions of the program, in TorchScript."""
    preprocess, projection = config.preprocess, config.projection
    nearest = preprocess.interpolation == "nearest"
    weights = _NEAREST if nearest else _FILTERED.format(kernel=_KERNELS[preprocess.interpolation])
    linear = "    features = torch.matmul(features, self.weight) + self.bias\n" if projection.kind == "linear" else ""
    matrix = _MATRIX.format(size=preprocess.size, start=_start(preprocess), weights=weights.strip("\n"))
    forward = _FORWARD.format(
        sizes=_SIZES[preprocess.mode].format(resize=preprocess.resize),
        mirror="    features = (features + self.tower(x.flip(3))) / 2.0\n" if config.mirror else "",
        unit="    features = torch.nn.functional.normalize(features)\n" if projection.l2_normalize_input else "",
        linear=linear,
    )
    return matrix, forward


def _start(preprocess: Preprocess) -> str:
    """Where the square begins in the resized image; negative where it begins before it."""
    half = "spare // 2" if preprocess.rounding == "floor" else "int(round(spare / 2))"
    if preprocess.mode == "crop" and preprocess.rounding == "floor":
        return half
    return f"({half}) if spare >= 0 else -((-spare) // 2)"
