"""The text side of an encoder in OpenCLIP's layout: its part of the config, its tensors and its tokenizer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.core.files import write_json
from lookalike.encoders.config import Tensors, TextSide
from lookalike.encoders.tokenizer import parsed
from lookalike.published.layouts.text import TEXTS, describe_open_clip, export_text, read_published_text
from lookalike.towers.text import TextConfig

_LAYOUT = TEXTS["open_clip"]


def behind(side: TextSide, matrix: np.ndarray | None) -> TextSide:
    """The text side with a head that ends where the image's does.

    Args:
        side: As the model has it.
        matrix: The projection [F D] that went into the image's head; None: none did.
    """
    config, tensors = side.config, dict(side.tensors)
    if config.head is None:  # one that changes nothing, for the layout always has it
        config = replace(config, head=config.width)
        tensors["head.weight"] = np.eye(config.width, dtype=np.float32)
    if matrix is not None:
        config = replace(config, head=matrix.shape[1])
        for name in ("head.weight", "head.bias") if config.head_bias else ("head.weight",):
            tensors[name] = (tensors[name].astype(np.float64) @ matrix.astype(np.float64)).astype(np.float32)
    return replace(side, config=config, tensors=tensors)


def described(config: TextConfig, quick: bool) -> dict[str, Any]:
    """`text_cfg`.

    Args:
        config: The text tower, with a head.
        quick: Whether the image tower has the quick GELU, which one word of the layout says of both.

    Raises:
        EncoderError: The activations of both towers can't be said.
    """
    if quick != (config.activation == "quick_gelu"):
        raise EncoderError(
            "OpenCLIP's own layout has no place for an image tower and a text tower of which one has the quick GELU.",
            hint="`--to transformers` leaves the text side out",
        )
    return describe_open_clip(config)


def tensors_of(side: TextSide) -> Tensors:
    """The tensors under the layout's names. A scale of logits is not part of an encoder: its first value stands there.

    Radford et al. (2021), section 2.5: log(1 / 0.07).
    """
    named = export_text(_LAYOUT, side.config, side.tensors)
    return named | {"logit_scale": np.array(np.log(1 / 0.07), np.float32)}


def write_tokenizer(side: TextSide, directory: Path) -> None:
    """`tokenizer.json`, and the marks that the library asks for beside it.

    Raises:
        EncoderError: Texts are filled up at the left; the library does so at the right alone.
    """
    tokenizer = parsed(side.tokenizer, "text/tokenizer.json")
    padding, config = tokenizer.padding, side.config
    if padding and padding["direction"] != "right":
        raise EncoderError(
            "OpenCLIP fills texts up at the right alone, and this text side at the left.",
            hint="`--to transformers` leaves the text side out",
        )
    # Where the tower reads the mark of the end, that is the highest of the marks, unless it is told.
    end = config.end if config.read == "end" else max(tokenizer.encode("").ids, default=0)
    mark = tokenizer.id_to_token(end)
    marks = {"pad_token": padding["pad_token"] if padding else mark}
    marks |= {} if config.read == "last" else {"eos_token": mark}
    (directory / "tokenizer.json").write_text(side.tokenizer, encoding="utf-8")
    write_json(
        directory / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": config.context, **marks},
    )


def check(side: TextSide, directory: Path) -> None:
    """EncoderError unless the importer of the layout reads this text side from `directory`, to the bit."""
    found = read_published_text(directory)
    same = found is not None and found[0] == side.config and found[2] == side.tokenizer
    if found is None or not same or any(not np.array_equal(found[1][name], side.tensors[name]) for name in found[1]):
        raise EncoderError(
            "OpenCLIP's own layout has no place for this text side: another one would come back.",
            hint="`--to transformers` leaves the text side out",
        )
