"""TorchScript: one file for PyTorch, with preprocessing, tower and projection inside.

The tower is transformers' own class with the weights that the target `transformers` writes; the rest is in
`torch_program`.
"""

import tempfile
from pathlib import Path
from typing import Any

from lookalike.export import transformers as layout
from lookalike.export.parts import OPENED, Export, Target, Written
from lookalike.published.layout import write_layout
from lookalike.published.processors import write_processor
from lookalike.towers import ViTConfig

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
        EncoderError: transformers has no class for the tower, or it does not give the features.
    """
    import transformers

    from lookalike.export.torch_program import compiled

    held, described, config, tensors = layout.held(export.config, dict(export.tensors))
    name, output = described["architectures"][0], layout.features_of(held, described, config)
    with tempfile.TemporaryDirectory() as scratch:
        write_processor(config.preprocess, Path(scratch))
        write_layout(held, described, config, tensors, Path(scratch))
        model = getattr(transformers, name).from_pretrained(scratch).eval()
    prefix = config.tower.prefix if isinstance(config.tower, ViTConfig) else 0

    def features(found: Any) -> Any:
        if output.isidentifier():
            return getattr(found, output)
        if found.last_hidden_state.ndim == 4:
            return found.pooler_output.flatten(1)
        tokens = found.last_hidden_state
        return tokens[:, 0] if config.pooling == "class" else tokens[:, prefix:].mean(dim=1)

    file.write_bytes(compiled(export, model, features))


TARGET = Target(write, "pytorch", needs=("torch", "transformers"), reads=("torch",))
