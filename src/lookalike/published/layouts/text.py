"""The text towers that lie beside published image towers, in the layouts of transformers and of OpenCLIP.

`TEXTS` is the table: CLIPModel and CLIPTextModelWithProjection, SiglipModel and Siglip2Model, OpenCLIP's CLIP and its
CustomTextCLIP, whose names begin with `text.`.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, Tensors, TextSide, check_tensors, meets
from lookalike.encoders.directory import features_fingerprint_of
from lookalike.published.layout import Found, TowerFiles
from lookalike.published.layouts.open_clip import BLOCKS, FILES, HEAD, TEXT_CFG, sizes
from lookalike.published.layouts.vit import CLIP_BLOCKS, usual
from lookalike.published.stored import Published, part, understood
from lookalike.published.table import BARE, Field, read_fields, scatter, write_fields
from lookalike.published.tokenizers import GEMMA, Clean, NoTextError, read_tokenizer, tokenizer_class
from lookalike.towers.ops import shapes_of
from lookalike.towers.text import TextConfig


@dataclass(frozen=True, kw_only=True)
class TextLayout(TowerFiles):
    """A published form of a text tower."""

    read: Callable[[Path, dict[str, Any], Found], TextConfig]
    """Our config from the directory, its config and the shapes of its tensors."""
    clean: Callable[[Path, dict[str, Any]], Clean] = lambda _path, _described: "none"
    """What the checkpoint does to a text before its tokenizer."""
    side: str | None = None
    """Where short texts are filled up, where the layout says so."""


def read_text_of(
    path: Path, published: EncoderConfig, config: EncoderConfig, tensors: Mapping[str, np.ndarray]
) -> TextSide | None:
    """The text side of the directory `path`, for `config` with `tensors`, made of its image side `published`.

    None if it has none; NoTextError if its features are not in the space of the image's; else as below.
    """
    if (found := read_published_text(path)) is None:
        return None
    text, weights, tokenizer = found
    if text.features != config.tower.features or not meets(published, config):
        raise NoTextError(
            f"The texts of `{path}` were trained to meet the {text.features} numbers of its projected features, and "
            f"these are {config.tower.features} others."
        )
    return TextSide(text, weights, tokenizer, features_fingerprint_of(config, tensors))


def read_published_text(path: Path) -> tuple[TextConfig, Tensors, str] | None:
    """Config, tensors and the content of `tokenizer.json` of the text tower in `path`; None if there is none.

    NoTextError: it can't be taken along (no tokenizer, another architecture). EncoderError names tensors that are
    missing, left over or of a wrong shape. UsageError: the `tokenizers` library is not installed.
    """
    found = ((layout, layout.described(path)) for layout in TEXTS.values() if layout.stored(os.listdir(path)))
    layout, described = next((pair for pair in found if pair[1] is not None), (None, None))
    if layout is None or described is None:
        return None
    published = Published(path, layout.files[1])
    if (place := layout.place(published)) is None:
        return None
    with understood(path, layout.files[0]):
        config = layout.read(path, described, place[1])
        tokenizer = read_tokenizer(path, config, layout.clean(path, described), layout.side)
        shapes = shapes_of(config)
    tensors = layout.tensors(published, config, place[0])
    check_tensors(shapes, tensors, str(path))
    return config, tensors, tokenizer


def export_text(layout: TextLayout, config: TextConfig, tensors: Mapping[str, np.ndarray]) -> Tensors:
    """The text tower's tensors under the names of `layout`: what `read_published_text` would turn back into ours."""
    return scatter(layout.keys(config), tensors, layout.prefixes[0])


def _tower(fields: Sequence[Field], data: Mapping[str, Any], path: Path, **more: Any) -> TextConfig:
    """The tower of a config; NoTextError if it is another one than ours."""
    try:
        return TextConfig(**read_fields(fields, data, path), **more)
    except EncoderError as error:
        raise NoTextError(f"The text tower of `{path}` is not supported. {error.message}") from error


# ------------------------------------------------------------------------------------------ transformers

_CLIP = usual(vocabulary=49408, context=77, width=512, layers=12, heads=8, hidden=2048, activation="quick_gelu")
_CLIP += usual(eps=1e-5)
_SIGLIP = usual(vocabulary=32000, context=64, width=768, layers=12, heads=12, hidden=3072)
_SIGLIP += usual(activation="gelu_pytorch_tanh", eps=1e-6)
_NAMES = {"token": "embeddings.token_embedding.weight", "position": "embeddings.position_embedding.weight"}
_NAMES |= {**CLIP_BLOCKS, "norm_post": "final_layer_norm"}
_FACTS: dict[str, Any] = {
    "prefixes": ("text_model.", ""),
    "anchor": "embeddings.token_embedding.weight",
    "ignored": ("vision_model.*", "visual_projection.weight", "logit_scale", "logit_bias", "*embeddings.position_ids"),
    "forms": BARE,
}
_WRONG_END = 2
"""An `eos_token_id` that CLIP's first published configs have by mistake; with it the highest id is meant."""


def _read_clip(path: Path, described: dict[str, Any], shapes: Found) -> TextConfig:
    data = part(described, "text_config") or described
    end, head = data.get("eos_token_id", 49407), shapes.get("text_projection.weight")
    if not isinstance(end, int):
        raise NoTextError(f"The text tower of `{path}` has the end mark {end!r}; expected one number.")
    read: dict[str, Any] = {"read": "highest"} if end == _WRONG_END else {"read": "end", "end": end}
    return _tower(_CLIP, data, path, causal=True, head=head[0] if head else None, **read)


def _read_siglip(path: Path, described: dict[str, Any], shapes: Found) -> TextConfig:
    """Every token looks at all, padding too: the published tokenizers give no attention mask."""
    data, head = part(described, "text_config") or described, shapes.get("head.weight")
    heads: dict[str, Any] = {"head": head[0], "head_bias": True} if head else {}
    return _tower(_SIGLIP, data, path, causal=False, read="last", **heads)


# --------------------------------------------------------------------------------------------- OpenCLIP

_OPEN_CLIP = (  # the defaults are those of CLIPTextCfg
    *sizes(512),
    Field("vocabulary", "vocab_size", 49408),
    Field("context", "context_length", 77),
    Field("heads", "heads", 8),
    Field("causal", "no_causal_mask", False, {False: True, True: False}),
    Field("read", "pool_type", "argmax", {"argmax": "highest", "eos": "end", "last": "last"}),
    Field("end", "eos_id", None, back=lambda data: data["eos_id"] if data["pool_type"] == "end" else None),
)
# These do not change what is computed, or are read below; any other key must be empty or as given here.
_HARMLESS = {"hf_tokenizer_name", "tokenizer_kwargs", "proj_bias", "proj_type", "pad_id", "act_kwargs", "output_tokens"}
_HARMLESS |= {"final_ln_after_pool", "bos_id", *(field.theirs for field in _OPEN_CLIP)}
_USUAL = {"text_arch": "clip", "hf_model_pretrained": True, "hf_proj_type": "mlp", "hf_pooler_type": "mean_pooler"}
_TANH = {"approximate": "tanh"}
_CLEANS: dict[str, Clean] = {"lower": "lower", "canonicalize": "words", "whitespace": "none"}
_OPEN_CLIP_NAMES = {"token": "token_embedding.weight", "position": "positional_embedding"}
_OPEN_CLIP_NAMES |= {**BLOCKS, "norm_post": "ln_final"}


def _read_open_clip(path: Path, described: dict[str, Any], shapes: Found) -> TextConfig:
    model = described["model_cfg"]
    data = part(model, "text_cfg")
    foreign = [key for key, value in data.items() if value and key not in _HARMLESS and value != _USUAL.get(key)]
    foreign += ["act_kwargs"] if (data.get("act_kwargs") or {}) not in ({}, _TANH) else []
    if foreign:
        words = ", ".join(f"{key}={data[key]!r}" for key in sorted(foreign))
        raise NoTextError(f"The text tower of `{path}` is not CLIP's: {words}.")
    biased, head = "text_projection.weight" in shapes, shapes.get("text_projection")
    return _tower(
        _OPEN_CLIP,
        data,
        path,
        activation="quick_gelu" if model.get("quick_gelu") else "gelu_tanh" if data.get("act_kwargs") else "gelu",
        head=shapes["text_projection.weight"][0] if biased else head[1] if head else None,
        head_bias=biased,
    )


def describe_open_clip(config: TextConfig) -> dict[str, Any]:
    """The way back: `text_cfg` of a tower with a head. The quick GELU is said of the whole model, and not here."""
    return {
        **(write_fields(_OPEN_CLIP, config) or {}),
        "proj_bias": config.head_bias,
        "hf_tokenizer_name": "tokenizer.json",  # any name makes it take the file in this directory
        **({"act_kwargs": _TANH} if config.activation == "gelu_tanh" else {}),
    }


def silence(dimension: int) -> Tensors:
    """Zeros for the smallest text tower, of which nothing is asked."""
    config = _tower(_OPEN_CLIP, TEXT_CFG, Path(), activation="gelu", head=dimension)
    zeros = {name: np.zeros(shape, np.float32) for name, shape in shapes_of(config).items()}
    return scatter(TEXTS["open_clip"].keys(config), zeros, "") | {"logit_scale": np.zeros((), np.float32)}


def _open_clip_clean(path: Path, described: dict[str, Any]) -> Clean:
    """By `tokenizer_kwargs`; else lower case for CLIP's own tokenizer, and nothing for another one."""
    text = part(described["model_cfg"], "text_cfg")
    usual = "whitespace" if text.get("hf_tokenizer_name") else "lower"
    clean = (text.get("tokenizer_kwargs") or {}).get("clean", usual)
    if clean not in _CLEANS:
        raise NoTextError(f"The texts of `{path}` are cleaned by {clean!r}; expected one of {', '.join(_CLEANS)}.")
    return _CLEANS[clean]


TEXTS: dict[str, TextLayout] = {
    "clip": TextLayout(
        matches=lambda described: described.get("model_type") in ("clip", "clip_text_model"),
        names=_NAMES | {"head.weight": "/text_projection.weight"},
        read=_read_clip,
        **_FACTS,
    ),
    "siglip": TextLayout(
        matches=lambda d: d.get("model_type") in ("siglip", "siglip2", "siglip_text_model", "siglip2_text_model"),
        names=_NAMES | {"head": "head"},
        read=_read_siglip,
        # SigLIP 2 has Gemma's tokenizer and was trained on lower case; SigLIP on lower case without punctuation.
        clean=lambda path, _: "lower" if tokenizer_class(path) in GEMMA else "canonical",
        **_FACTS,
    ),
    "open_clip": TextLayout(
        files=FILES,
        matches=lambda described: "text_cfg" in part(described, "model_cfg"),
        prefixes=("text.", ""),
        anchor="token_embedding.weight",
        ignored=("visual.*", "logit_scale", "logit_bias", "attn_mask", "text.attn_mask"),
        names=lambda config: _OPEN_CLIP_NAMES | {"head" if config.head_bias else "head.weight": "text_projection"},
        forms=lambda config: BARE if config.head_bias else HEAD,
        read=_read_open_clip,
        clean=_open_clip_clean,
        side="right",
    ),
}
"""In the order in which a directory is tried."""
