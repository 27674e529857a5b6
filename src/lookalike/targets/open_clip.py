"""OpenCLIP's own layout, for CLIP towers: the image side, and the text side with its tokenizer.

Where an encoder has no text side, one that is as small as can be, and says nothing, stands for it.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.core.files import write_json
from lookalike.encoders.config import Tensors, TextSide
from lookalike.encoders.directory import features_fingerprint_of, read_safetensors
from lookalike.encoders.tokenizer import parsed
from lookalike.published.layout import write_tensors
from lookalike.published.layouts.text import TEXTS, describe_open_clip, export_text, read_published_text, silence
from lookalike.published.processors import from_open_clip
from lookalike.targets.lines import embedding_lines
from lookalike.targets.parts import Export, Target, Written, refused
from lookalike.targets.published import PROJECTION, hold, put

_WITHOUT_TEXT = "`--to transformers` leaves the text side out"


def write(export: Export, directory: Path) -> Written:
    """The layout's two files, `projection.safetensors` where it can't go into the head, and the tokenizer's files."""
    held = hold("open_clip", "OpenCLIP's own layout has no place for", export.config, export.tensors, folds=True)
    layout, described, config, _ = held
    inside = config.projection != export.config.projection
    keeps, texts, side = "The image tower in OpenCLIP's own layout; ", silence(config.tower.features), None
    if export.text:
        side, texts = _text(export, export.text, inside, described["model_cfg"])
        keeps += "the text tower too: `embed_text(text)` gives a text's vector. `logit_scale` has the library's first "
        keeps += "value, for an encoder has none."
    else:
        keeps += "its text tower stands for none, and holds zeros."
    if inside:
        keeps += f" The projection is inside `visual.proj`{' and `text.text_projection`' if side else ''}."
    exact = from_open_clip(directory, described, config.preprocess.size) == config.preprocess
    load = "model, transform = open_clip.create_model_from_pretrained('local-dir:.')"
    pixels, run = "transform(opened(path))[None]", "model.encode_image({})"
    written = put(export, held, directory, exact, keeps, "open_clip", load, pixels, run)
    file = directory / layout.files[1]
    write_tensors(file, read_safetensors(file) | texts)
    if side is None:
        return written
    _write_tokenizer(side, directory)
    found = read_published_text(directory)
    if (
        found is None
        or (found[0], found[2]) != (side.config, side.tokenizer)
        or any(not np.array_equal(found[1][name], side.tensors[name]) for name in found[1])
    ):
        raise refused(
            "OpenCLIP's own layout has no place for this text side: another one would come back.", _WITHOUT_TEXT
        )
    code = (
        "\ntokenizer = open_clip.get_tokenizer('local-dir:.')\n\n@torch.no_grad()\ndef embed_text(text):\n"
        "    features = model.encode_text(tokenizer([text]))\n"
    )
    projection = PROJECTION if (directory / PROJECTION).exists() else None
    return replace(written, code=written.code + code + embedding_lines(config, projection))


def _text(export: Export, side: TextSide, inside: bool, model: dict[str, Any]) -> tuple[TextSide, Tensors]:
    """The text side with a head that ends where the image's does, described in `model`; its tensors in the layout."""
    config, tensors = side.config, dict(side.tensors)
    if side.image != features_fingerprint_of(export.config, export.tensors):
        raise EncoderError(
            "The model's text side belongs to other image features than its image side gives.",
            hint="pull or train the model again",
        )
    if model["quick_gelu"] != (config.activation == "quick_gelu"):  # one word of the layout says it of both
        raise refused(
            "OpenCLIP's own layout has no place for an image tower and a text tower of which one has the quick GELU.",
            _WITHOUT_TEXT,
        )
    if config.head is None:  # one that changes nothing, for the layout always has it
        config = replace(config, head=config.width)
        tensors["head.weight"] = np.eye(config.width, dtype=np.float32)
    if inside:
        matrix = export.tensors["projection.weight"].astype(np.float64)
        config = replace(config, head=matrix.shape[1])
        for name in {"head.weight", "head.bias"} & tensors.keys():
            tensors[name] = (tensors[name].astype(np.float64) @ matrix).astype(np.float32)
    model |= {"text_cfg": describe_open_clip(config), "custom_text": True}
    scale = {"logit_scale": np.array(np.log(1 / 0.07), np.float32)}  # at first (Radford et al., 2021, section 2.5)
    whole = replace(side, config=config, tensors=tensors)
    return whole, export_text(TEXTS["open_clip"], config, tensors) | scale


def _write_tokenizer(side: TextSide, directory: Path) -> None:
    """`tokenizer.json`, and the marks that the library asks for beside it."""
    tokenizer = parsed(side.tokenizer, "text/tokenizer.json")
    padding, config = tokenizer.padding, side.config
    if padding and padding["direction"] != "right":
        raise refused("OpenCLIP fills texts up at the right alone, and this text side at the left.", _WITHOUT_TEXT)
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


TARGET = Target(
    write,
    "open_clip",
    reads=("open_clip", "torch", "torchvision"),
    packages={"open_clip": "open_clip_torch"},
    text=True,
)
