"""What to say of tensors that lie in pickles alone: they are never read, and one command converts them."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from lookalike.core.errors import EncoderError

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def is_pickle(name: str) -> bool:
    """Whether a file of that name is a pickle, by its ending."""
    return name.endswith(_PICKLES)


def no_tensors(path: Path) -> EncoderError:
    """What is wrong with a directory that has a config and no safetensors."""
    pickles = sorted(file.name for file in path.iterdir() if is_pickle(file.name))
    if not pickles:
        return EncoderError(
            f"`{path}` has no safetensors beside its config.", hint="copy or pull the model directory again"
        )
    return pickles_only(str(path), pickles, before=f"cd {shlex.quote(str(path))} && ")


def pickles_only(where: str, pickles: Sequence[str], before: str) -> EncoderError:
    """What is wrong with a place that holds tensors only as pickles; the hint is the one command that converts them.

    The names are a stranger's: they are data inside one quoted argument, never words of the shell.

    Args:
        where: A directory, or a repository on the Hub.
        pickles: Their names.
        before: The part of the command that makes a copy of `where` the working directory, quoted.
    """
    several = [name for name in pickles if name.startswith("pytorch_model-")]
    chosen = several or [name for name in pickles if name.endswith("pytorch_model.bin")][:1] or list(pickles[:1])
    target = "open_clip_model.safetensors" if chosen[0].startswith("open_clip") else "model.safetensors"
    code = (
        f"import torch, safetensors.torch as s; s.save_file({{k: v.contiguous().clone() for f in {json.dumps(chosen)} "
        f'for k, v in torch.load(f, map_location="cpu", weights_only=True).items()}}, "{target}")'
    )
    return EncoderError(
        f"`{where}` holds only pickles ({', '.join(pickles)}), which can run any code when read, so they are not.",
        hint=f"{before}python -c {shlex.quote(code)}",
    )
