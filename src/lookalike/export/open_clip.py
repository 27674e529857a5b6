"""OpenCLIP's own layout: `open_clip_config.json` and `open_clip_model.safetensors`, for CLIP towers.

A CLIP of that library always has a text tower: the encoder's own with its tokenizer, or, where it has none, one that is
as small as can be and says nothing.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, Tensors, features_fingerprint_of, read_safetensors
from lookalike.encoders.text_side import TextSide
from lookalike.export import open_clip_text
from lookalike.export.parts import Export, Target, Written
from lookalike.export.published import (
    PROJECTION,
    embedding_lines,
    folded,
    kind,
    opening_lines,
    pixel_lines,
    ratio,
    read_back,
    write_layout,
    write_projection,
    write_tensors,
)
from lookalike.published.processors import from_open_clip
from lookalike.towers import ViTConfig

_TEXT = {"context_length": 4, "vocab_size": 4, "width": 8, "heads": 1, "layers": 1}


def write(export: Export, directory: Path) -> Written:
    """The two files and, where the projection can't go into the head, `projection.safetensors`."""
    inside = folded(export.config, export.tensors)
    config, tensors = _with_head(*(inside or (export.config, dict(export.tensors))))
    tower, described = config.tower, _described(config)
    if not isinstance(tower, ViTConfig) or described is None:
        raise EncoderError(
            f"OpenCLIP's own layout has no place for this {kind(config)}.", hint="`--to onnx` takes every encoder"
        )
    side = None
    if export.text is not None:
        _refuse_other(export.text, export)
        side = open_clip_text.behind(export.text, export.tensors["projection.weight"] if inside else None)
        words = open_clip_text.described(side.config, tower.activation == "quick_gelu")
        described["model_cfg"] |= {"text_cfg": words, "custom_text": True}
    projected = write_projection(config, tensors, directory)
    read, found = write_layout("open_clip", described, config, tensors, directory)
    file = directory / "open_clip_model.safetensors"
    texts = _text_tower(tower.head or 0) if side is None else open_clip_text.tensors_of(side)
    write_tensors(file, read_safetensors(file) | texts)
    if side is not None:
        open_clip_text.write_tokenizer(side, directory)
        open_clip_text.check(side, directory)
    exact = from_open_clip(directory, described, tower.size) == config.preprocess
    back = read_back(config, read, found, directory)
    code, keeps = _code(config, exact, projected, side is not None), _keeps(export, projected, exact)
    return Written(code, keeps, read_back=back)


def _refuse_other(text: TextSide, export: Export) -> None:
    """EncoderError if the text side was not trained to meet these image features."""
    if text.image != features_fingerprint_of(export.config, export.tensors):
        raise EncoderError(
            "The model's text side belongs to other image features than its image side gives.",
            hint="pull or train the model again",
        )


def _described(config: EncoderConfig) -> dict[str, Any] | None:
    """`open_clip_config.json`; None if it has no words for this tower."""
    tower, preprocess = config.tower, config.preprocess
    plain = isinstance(tower, ViTConfig) and tower.activation in ("gelu", "quick_gelu") and not tower.patch_bias
    if not isinstance(tower, ViTConfig) or not plain or tower.registers or tower.rope != "none" or tower.head_bias:
        return None
    if tower.layer_scale or tower.pool_heads or tower.positions != "all" or tower.qkv_bias != "all":
        return None
    vision: dict[str, Any] = {
        "image_size": tower.size,
        "patch_size": tower.patch,
        "width": tower.width,
        "layers": tower.layers,
        "head_width": tower.width // tower.heads,
        "mlp_ratio": ratio(tower.hidden, tower.width),
        "norm_kwargs": {"eps": tower.eps},
    }
    vision |= {} if tower.norm_pre else {"no_ln_pre": True}
    vision |= {"pool_type": "avg"} if config.pooling == "mean" else {}
    vision |= {"final_ln_after_pool": True} if tower.norm_pooled else {}
    return {
        "model_cfg": {
            "embed_dim": tower.head,
            "quick_gelu": tower.activation == "quick_gelu",
            "vision_cfg": vision,
            "text_cfg": _TEXT,
        },
        "preprocess_cfg": {
            "size": preprocess.size,
            "mode": "RGB",
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "interpolation": "bilinear" if preprocess.interpolation == "bilinear" else "bicubic",
            "resize_mode": {"crop": "shortest", "pad": "longest", "squash": "squash"}[preprocess.mode],
            "fill_color": preprocess.fill[0],
        },
    }


def _with_head(config: EncoderConfig, tensors: Tensors) -> tuple[EncoderConfig, Tensors]:
    """The layout always has a head: one that changes nothing, where there is none."""
    tower = config.tower
    if not isinstance(tower, ViTConfig) or tower.head is not None:
        return config, tensors
    identity = np.eye(tower.width, dtype=np.float32)
    return replace(config, tower=replace(tower, head=tower.width)), tensors | {"tower.head.weight": identity}


def _text_tower(dimension: int) -> Tensors:
    """Zeros in the shapes of the smallest text tower, of which nothing is asked."""
    width, one = _TEXT["width"], "transformer.resblocks.0"
    shapes: dict[str, tuple[int, ...]] = {
        "token_embedding.weight": (_TEXT["vocab_size"], width),
        "positional_embedding": (_TEXT["context_length"], width),
        "text_projection": (width, dimension),
        "logit_scale": (),
        f"{one}.attn.in_proj_weight": (3 * width, width),
        f"{one}.attn.in_proj_bias": (3 * width,),
        f"{one}.attn.out_proj.weight": (width, width),
        f"{one}.mlp.c_fc.weight": (4 * width, width),
        f"{one}.mlp.c_fc.bias": (4 * width,),
        f"{one}.mlp.c_proj.weight": (width, 4 * width),
    }
    vectors = ("attn.out_proj.bias", "mlp.c_proj.bias", "ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias")
    shapes |= {f"{one}.{name}": (width,) for name in vectors} | {f"ln_final.{p}": (width,) for p in ("weight", "bias")}
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


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
