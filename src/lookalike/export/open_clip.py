"""OpenCLIP's own layout: `open_clip_config.json` and `open_clip_model.safetensors`, for CLIP towers.

A CLIP of that library always has a text tower: the encoder's own with its tokenizer, or, where it has none, one that is
as small as can be and says nothing.
"""

from dataclasses import replace
from pathlib import Path

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, TextSide
from lookalike.encoders.directory import features_fingerprint_of, read_safetensors
from lookalike.export import open_clip_text
from lookalike.export.parts import Export, Target, Written
from lookalike.export.published import (
    PROJECTION,
    embedding_lines,
    folded,
    kind,
    opening_lines,
    pixel_lines,
    read_back,
    write_projection,
)
from lookalike.published.layout import write_layout, write_tensors
from lookalike.published.layouts import holding
from lookalike.published.layouts.open_clip import silence
from lookalike.published.processors import from_open_clip


def write(export: Export, directory: Path) -> Written:
    """The two files and, where the projection can't go into the head, `projection.safetensors`."""
    inside = folded(export.config, export.tensors)
    held = holding("open_clip", *(inside or (export.config, dict(export.tensors))))
    if held is None:
        raise EncoderError(
            f"OpenCLIP's own layout has no place for this {kind(export.config)}.",
            hint="`--to onnx` takes every encoder",
        )
    layout, described, config, tensors = held
    if export.text is None:
        texts = silence(config.tower.features)
    else:
        _refuse_other(export.text, export)
        side = open_clip_text.behind(export.text, export.tensors["projection.weight"] if inside else None)
        words = open_clip_text.described(side.config, described["model_cfg"]["quick_gelu"])
        described["model_cfg"] |= {"text_cfg": words, "custom_text": True}
        texts = open_clip_text.tensors_of(side)
    projected = write_projection(config, tensors, directory)
    read, found = write_layout(layout, described, config, tensors, directory)
    file = directory / layout.files[1]
    write_tensors(file, read_safetensors(file) | texts)
    if export.text is not None:
        open_clip_text.write_tokenizer(side, directory)
        open_clip_text.check(side, directory)
    exact = from_open_clip(directory, described, config.preprocess.size) == config.preprocess
    back = read_back(config, read, found, directory)
    code, keeps = _code(config, exact, projected, export.text is not None), _keeps(export, projected, exact)
    return Written(code, keeps, read_back=back)


def _refuse_other(text: TextSide, export: Export) -> None:
    """EncoderError if the text side was not trained to meet these image features."""
    if text.image != features_fingerprint_of(export.config, export.tensors):
        raise EncoderError(
            "The model's text side belongs to other image features than its image side gives.",
            hint="pull or train the model again",
        )


def _code(config: EncoderConfig, exact: bool, projected: bool, texts: bool) -> str:
    """The README's lines."""
    lines = ["import open_clip", "import torch", "from PIL import Image, ImageOps"]
    lines += ["from safetensors.torch import load_file"] if projected else []
    lines += opening_lines(config, exact)
    lines += ["", "model, prepare = open_clip.create_model_from_pretrained('local-dir:.')"]
    lines += ["tokenizer = open_clip.get_tokenizer('local-dir:.')"] if texts else []
    lines += [f"projection = load_file('{PROJECTION}')"] if projected else []
    lines += ["", "@torch.no_grad()", "def embed(path):"]
    lines += ["    pixels = prepare(opened(path))[None]"] if exact else pixel_lines(config)
    lines += embedding_lines(config, "model.encode_image({})", projected)
    if texts:  # a text has no mirror image
        lines += ["", "@torch.no_grad()", "def embed_text(text):"]
        lines += embedding_lines(replace(config, mirror=False), "model.encode_text(tokenizer([text]))", projected)
    return "\n".join(lines) + "\n"


def _keeps(export: Export, projected: bool, exact: bool) -> str:
    if export.text is None:
        words = ["The image tower in OpenCLIP's own layout; its text tower stands for none, and holds zeros."]
    else:
        words = [
            "The image tower and the text tower in OpenCLIP's own layout; `embed_text(text)` gives a text's vector."
        ]
        words.append("`logit_scale` has the library's first value, for an encoder has none.")
    if projected:
        words.append(f"The projection is in `{PROJECTION}`.")
    elif export.config.projection.kind == "linear":
        heads = "`visual.proj`" if export.text is None else "`visual.proj` and in `text.text_projection`"
        words.append(f"The projection is inside {heads}.")
    words += [] if exact else ["OpenCLIP's transform can't prepare images as this encoder takes them; the lines do."]
    return " ".join(words)


TARGET = Target(
    write,
    "open_clip",
    reads=("open_clip", "torch", "torchvision"),
    packages={"open_clip": "open_clip_torch"},
    text=True,
)
