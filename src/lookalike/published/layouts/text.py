"""The text towers that lie beside published image towers, in the layouts of transformers and of OpenCLIP.

`TEXTS` is the table: CLIPModel and CLIPTextModelWithProjection, SiglipModel and Siglip2Model, OpenCLIP's CLIP and its
CustomTextCLIP, whose names begin with `text.`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, Tensors, TextSide, check_tensors, meets
from lookalike.encoders.directory import features_fingerprint_of
from lookalike.published.fields import Field, read_fields, write_fields
from lookalike.published.layouts.open_clip import FILES, eps_of
from lookalike.published.processors import ratio
from lookalike.published.stored import Published, described_by, part, understood
from lookalike.published.table import MATRIX, Key, gather, linear, norm, scatter
from lookalike.published.tokenizers import GEMMA, Clean, NoTextError, read_tokenizer, tokenizer_class
from lookalike.towers.programs.declare import Shapes, shapes_of
from lookalike.towers.text import TextConfig

_QKV = ("q_proj", "k_proj", "v_proj")
_ACTIVATIONS = {"gelu": "gelu", "quick_gelu": "quick_gelu", "gelu_pytorch_tanh": "gelu_tanh"}


@dataclass(frozen=True)
class TextLayout:
    """A published form of a text tower."""

    files: tuple[str, str]
    """Names of the config and of the tensors."""
    matches: Callable[[dict[str, Any]], bool]
    """Whether a config of that name is of this layout."""
    prefixes: tuple[str, ...]
    """What may stand before the names of the table; export writes the first."""
    anchor: str
    """A name of the table that every file with a text tower has."""
    ignored: tuple[str, ...]
    """Patterns of tensors that are known and belong to no text tower."""
    keys: Callable[[TextConfig], tuple[Key, ...]]
    """The table for a tower."""
    read: Callable[[Path, dict[str, Any], Shapes], TextConfig]
    """Our config from the directory, its config and the shapes of its tensors (prefix removed)."""
    clean: Callable[[Path, dict[str, Any]], Clean]
    """What the checkpoint does to a text before its tokenizer."""
    side: str | None = None
    """Where short texts are filled up, where the layout says so."""


def read_text_of(
    path: Path, published: EncoderConfig, config: EncoderConfig, tensors: Mapping[str, np.ndarray]
) -> TextSide | None:
    """The text side of the published directory `path`; None if it has none.

    Args:
        path: The directory.
        published: Its image side, as it is published.
        config: What has been made of that, for which the text side is wanted.
        tensors: Those of `config`.

    Raises:
        NoTextError: There is one that can't be taken along: no tokenizer, another architecture, or features that are
            not in the space of the image features.
        EncoderError: A tensor is missing, left over or of a wrong shape; the message names them.
        UsageError: The `tokenizers` library is not installed.
    """
    found = read_published_text(path)
    if found is None:
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

    Raises: as `read_text_of`.
    """
    for layout in TEXTS.values():
        file = path / layout.files[0]
        there = any((path / name).exists() for name in (layout.files[1], f"{layout.files[1]}.index.json"))
        if there and file.exists() and layout.matches(described := described_by(file)):
            return _import(layout, path, described)
    return None


def export_text(layout: TextLayout, config: TextConfig, tensors: Mapping[str, np.ndarray]) -> Tensors:
    """The text tower's tensors under the names of `layout`: what `read_published_text` would turn back into ours."""
    return scatter(layout.keys(config), tensors, layout.prefixes[0])


def _import(layout: TextLayout, path: Path, described: dict[str, Any]) -> tuple[TextConfig, Tensors, str] | None:
    with Published(path, layout.files[1]) as published:
        prefix = next((p for p in layout.prefixes if p + layout.anchor in published.shapes), None)
        if prefix is None:
            return None
        theirs = {name.removeprefix(prefix): shape for name, shape in published.shapes.items()}
        with understood(path, layout.files[0]):
            config = layout.read(path, described, theirs)
            tokenizer = read_tokenizer(path, config, layout.clean(path, described), layout.side)
            keys, shapes = layout.keys(config), shapes_of(config)
        tensors = gather(published, keys, shapes, prefix, layout.ignored)
    check_tensors(shapes_of(config), tensors, str(path))
    return config, tensors, tokenizer


# ------------------------------------------------------------------------------------------ transformers


def _fields(
    vocabulary: int, context: int, width: int, heads: int, hidden: int, activation: str, eps: float
) -> tuple[Field, ...]:
    """The table of transformers' text towers; the values are those that a config leaves out."""
    return (
        Field("vocabulary", "vocab_size", vocabulary),
        Field("context", "max_position_embeddings", context),
        Field("width", "hidden_size", width),
        Field("layers", "num_hidden_layers", 12),
        Field("heads", "num_attention_heads", heads),
        Field("hidden", "intermediate_size", hidden),
        Field("activation", "hidden_act", activation, _ACTIVATIONS),
        Field("eps", "layer_norm_eps", eps),
    )


_CLIP = _fields(49408, 77, 512, 8, 2048, "quick_gelu", 1e-5)  # CLIPTextConfig
_SIGLIP = _fields(32000, 64, 768, 12, 3072, "gelu_pytorch_tanh", 1e-6)  # SiglipTextConfig
_WRONG_END = 2
"""An `eos_token_id` that CLIP's first published configs have by mistake; with it the highest id is meant."""


def _transformers_keys(head: tuple[Key, ...]) -> tuple[Key, ...]:
    block = "encoder.layers.{}"
    return (
        Key("token", ("embeddings.token_embedding.weight",)),
        Key("position", ("embeddings.position_embedding.weight",)),
        *norm("blocks.norm1", f"{block}.layer_norm1"),
        *linear("blocks.attention.qkv", *(f"{block}.self_attn.{part}" for part in _QKV)),
        *linear("blocks.attention.out", f"{block}.self_attn.out_proj"),
        *norm("blocks.norm2", f"{block}.layer_norm2"),
        *linear("blocks.mlp.up", f"{block}.mlp.fc1"),
        *linear("blocks.mlp.down", f"{block}.mlp.fc2"),
        *norm("norm_post", "final_layer_norm"),
        *head,
    )


def _clip_keys(config: TextConfig) -> tuple[Key, ...]:
    return _transformers_keys((Key("head.weight", ("/text_projection.weight",), MATRIX),) if config.head else ())


def _siglip_keys(config: TextConfig) -> tuple[Key, ...]:
    return _transformers_keys(linear("head", "head") if config.head else ())


def _tower(fields: Sequence[Field], data: Mapping[str, Any], path: Path, **more: Any) -> TextConfig:
    """The tower of a config; NoTextError if it is another one than ours."""
    try:
        return TextConfig(**read_fields(fields, data, path), **more)
    except EncoderError as error:
        raise NoTextError(f"The text tower of `{path}` is not supported. {error.message}") from error


def _read_clip(path: Path, described: dict[str, Any], shapes: Shapes) -> TextConfig:
    data = part(described, "text_config") or described
    end, head = data.get("eos_token_id", 49407), shapes.get("text_projection.weight")
    if not isinstance(end, int):
        raise NoTextError(f"The text tower of `{path}` has the end mark {end!r}; expected one number.")
    read: dict[str, Any] = {"read": "highest"} if end == _WRONG_END else {"read": "end", "end": end}
    return _tower(_CLIP, data, path, causal=True, head=head[0] if head else None, **read)


def _read_siglip(path: Path, described: dict[str, Any], shapes: Shapes) -> TextConfig:
    """Every token looks at all, padding too: the published tokenizers give no attention mask."""
    data, head = part(described, "text_config") or described, shapes.get("head.weight")
    return _tower(
        _SIGLIP, data, path, causal=False, read="last", head=head[0] if head else None, head_bias=head is not None
    )


def _siglip_clean(path: Path, _: dict[str, Any]) -> Clean:
    """SigLIP 2 has Gemma's tokenizer and was trained on lower case; SigLIP on lower case without punctuation."""
    return "lower" if tokenizer_class(path) in GEMMA else "canonical"


# --------------------------------------------------------------------------------------------- OpenCLIP

_READS = {"argmax": "highest", "eos": "end", "last": "last"}

# The defaults are those of CLIPTextCfg of OpenCLIP.
_OPEN_CLIP = (
    Field("vocabulary", "vocab_size", 49408),
    Field("context", "context_length", 77),
    Field("width", "width", 512),
    Field("layers", "layers", 12),
    Field("heads", "heads", 8),
    Field(
        *("hidden", "mlp_ratio", 4.0),
        back=lambda data: int(data["width"] * data["mlp_ratio"]),
        there=lambda tower: ratio(tower.hidden, tower.width),
    ),
    Field("eps", "norm_kwargs", None, back=eps_of, there=lambda tower: {"eps": tower.eps}),
    Field("causal", "no_causal_mask", False, {False: True, True: False}),
    Field("read", "pool_type", "argmax", _READS),
    Field("end", "eos_id", None, back=lambda data: data["eos_id"] if data["pool_type"] == "end" else None),
)
# These do not change what is computed, or are read below; any other key must be empty or as given here.
_HARMLESS = {"hf_tokenizer_name", "tokenizer_kwargs", "proj_bias", "proj_type", "pad_id", "act_kwargs", "output_tokens"}
_HARMLESS |= {"final_ln_after_pool", "bos_id", *(field.theirs for field in _OPEN_CLIP)}
_USUAL = {"text_arch": "clip", "hf_model_pretrained": True, "hf_proj_type": "mlp", "hf_pooler_type": "mean_pooler"}
_TANH = {"approximate": "tanh"}
_CLEANS: dict[str, Clean] = {"lower": "lower", "canonicalize": "words", "whitespace": "none"}


def _open_clip_keys(config: TextConfig) -> tuple[Key, ...]:
    block = "transformer.resblocks.{}"
    projection = (Key("head.weight", ("text_projection",)),)  # [in, out] already
    head = linear("head", "text_projection") if config.head_bias else projection if config.head else ()
    return (
        Key("token", ("token_embedding.weight",)),
        Key("position", ("positional_embedding",)),
        *norm("blocks.norm1", f"{block}.ln_1"),
        Key("blocks.attention.qkv.weight", (f"{block}.attn.in_proj_weight",), MATRIX),
        Key("blocks.attention.qkv.bias", (f"{block}.attn.in_proj_bias",)),
        *linear("blocks.attention.out", f"{block}.attn.out_proj"),
        *norm("blocks.norm2", f"{block}.ln_2"),
        *linear("blocks.mlp.up", f"{block}.mlp.c_fc"),
        *linear("blocks.mlp.down", f"{block}.mlp.c_proj"),
        *norm("norm_post", "ln_final"),
        *head,
    )


def _read_open_clip(path: Path, described: dict[str, Any], shapes: Shapes) -> TextConfig:
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
        files=("config.json", "model.safetensors"),
        matches=lambda described: described.get("model_type") in ("clip", "clip_text_model"),
        prefixes=("text_model.", ""),
        anchor="embeddings.token_embedding.weight",
        ignored=("vision_model.*", "visual_projection.weight", "logit_scale", "*embeddings.position_ids"),
        keys=_clip_keys,
        read=_read_clip,
        clean=lambda _path, _described: "none",
    ),
    "siglip": TextLayout(
        files=("config.json", "model.safetensors"),
        matches=lambda d: d.get("model_type") in ("siglip", "siglip2", "siglip_text_model", "siglip2_text_model"),
        prefixes=("text_model.", ""),
        anchor="embeddings.token_embedding.weight",
        ignored=("vision_model.*", "logit_scale", "logit_bias", "*embeddings.position_ids"),
        keys=_siglip_keys,
        read=_read_siglip,
        clean=_siglip_clean,
    ),
    "open_clip": TextLayout(
        files=FILES,
        matches=lambda described: "text_cfg" in part(described, "model_cfg"),
        prefixes=("text.", ""),
        anchor="token_embedding.weight",
        ignored=("visual.*", "logit_scale", "logit_bias", "attn_mask", "text.attn_mask"),
        keys=_open_clip_keys,
        read=_read_open_clip,
        clean=_open_clip_clean,
        side="right",
    ),
}
"""In the order in which a directory is tried."""
