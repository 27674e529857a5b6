"""The text towers that lie beside published image towers, in the layouts of transformers and of OpenCLIP.

`TEXTS` is the table: CLIPModel and CLIPTextModelWithProjection, SiglipModel and Siglip2Model, OpenCLIP's CLIP and its
CustomTextCLIP, whose names begin with `text.`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.encoders.config import EncoderConfig, Shapes, Tensors, check_tensors, features_fingerprint_of
from lookalike.encoders.text_side import TextSide, meets
from lookalike.published.layouts.rows import linear, norm
from lookalike.published.table import MATRIX, Key, Published, described_by, gather, part, scatter, understood
from lookalike.published.tokenizers import Clean, NoTextError, read_tokenizer, tokenizer_class
from lookalike.towers.programs.declare import shapes_of
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

# What a config leaves out has these values (CLIPTextConfig and SiglipTextConfig of transformers).
_CLIP = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
_SIGLIP = _CLIP | {
    "vocab_size": 32000,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "max_position_embeddings": 64,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
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


def _part(described: dict[str, Any]) -> dict[str, Any]:
    """What a config says of the text tower: a part of it, or all of it where there is no other."""
    return described["text_config"] or {} if "text_config" in described else described


def _transformers_config(path: Path, data: dict[str, Any], **more: Any) -> TextConfig:
    if data["hidden_act"] not in _ACTIVATIONS:
        raise NoTextError(f"The text tower of `{path}` has activation {data['hidden_act']!r}, which is not supported.")
    return TextConfig(
        vocabulary=int(data["vocab_size"]),
        context=int(data["max_position_embeddings"]),
        width=int(data["hidden_size"]),
        layers=int(data["num_hidden_layers"]),
        heads=int(data["num_attention_heads"]),
        hidden=int(data["intermediate_size"]),
        activation=_ACTIVATIONS[data["hidden_act"]],  # type: ignore[arg-type]
        eps=float(data["layer_norm_eps"]),
        **more,
    )


def _read_clip(path: Path, described: dict[str, Any], shapes: Shapes) -> TextConfig:
    data = _CLIP | _part(described)
    end, head = data["eos_token_id"], shapes.get("text_projection.weight")
    if not isinstance(end, int):
        raise NoTextError(f"The text tower of `{path}` has the end mark {end!r}; expected one number.")
    read: dict[str, Any] = {"read": "highest"} if end == _WRONG_END else {"read": "end", "end": end}
    return _transformers_config(path, data, causal=True, head=head[0] if head else None, **read)


def _read_siglip(path: Path, described: dict[str, Any], shapes: Shapes) -> TextConfig:
    """Every token looks at all, padding too: the published tokenizers give no attention mask."""
    data, head = _SIGLIP | _part(described), shapes.get("head.weight")
    return _transformers_config(
        path, data, causal=False, read="last", head=head[0] if head else None, head_bias=head is not None
    )


def _siglip_clean(path: Path, _: dict[str, Any]) -> Clean:
    """SigLIP 2 has Gemma's tokenizer and was trained on lower case; SigLIP on lower case without punctuation."""
    return "lower" if tokenizer_class(path) in ("GemmaTokenizer", "Siglip2Tokenizer") else "canonical"


# --------------------------------------------------------------------------------------------- OpenCLIP

# What `text_cfg` leaves out has these values (CLIPTextCfg of OpenCLIP).
_OPEN_CLIP = {
    "context_length": 77,
    "vocab_size": 49408,
    "width": 512,
    "heads": 8,
    "layers": 12,
    "mlp_ratio": 4.0,
    "pool_type": "argmax",
}
# These do not change what is computed, or are read below; any other key must be empty or as given here.
_HARMLESS = {"hf_tokenizer_name", "tokenizer_kwargs", "no_causal_mask", "proj_bias", "proj_type", "pad_id", "eos_id"}
_HARMLESS |= {"act_kwargs", "norm_kwargs", "output_tokens", "final_ln_after_pool", "bos_id"}
_USUAL = {"text_arch": "clip", "hf_model_pretrained": True, "hf_proj_type": "mlp", "hf_pooler_type": "mean_pooler"}
_READS = {"argmax": "highest", "eos": "end", "last": "last"}
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
    data = {**_OPEN_CLIP, **model.get("text_cfg", {})}
    _refuse(path, data)
    biased, head = "text_projection.weight" in shapes, shapes.get("text_projection")
    tanh = (data.get("act_kwargs") or {}).get("approximate") == "tanh"
    return TextConfig(
        vocabulary=int(data["vocab_size"]),
        context=int(data["context_length"]),
        width=int(data["width"]),
        layers=int(data["layers"]),
        heads=int(data["heads"]),
        hidden=int(int(data["width"]) * data["mlp_ratio"]),
        activation="quick_gelu" if model.get("quick_gelu") else "gelu_tanh" if tanh else "gelu",
        causal=not data.get("no_causal_mask"),
        read=_READS[data["pool_type"]],  # type: ignore[arg-type]
        end=data.get("eos_id") if data["pool_type"] == "eos" else None,
        eps=float((data.get("norm_kwargs") or {}).get("eps", 1e-5)),
        head=shapes["text_projection.weight"][0] if biased else head[1] if head else None,
        head_bias=biased,
    )


def _refuse(path: Path, data: dict[str, Any]) -> None:
    """NoTextError if the tower is another one than ours."""
    known = _OPEN_CLIP.keys() | _HARMLESS
    foreign = [key for key, value in data.items() if value and key not in known and value != _USUAL.get(key)]
    foreign += ["pool_type"] if data["pool_type"] not in _READS else []
    foreign += ["norm_kwargs"] if set(data.get("norm_kwargs") or {}) - {"eps"} else []
    foreign += ["act_kwargs"] if (data.get("act_kwargs") or {}) not in ({}, {"approximate": "tanh"}) else []
    if foreign:
        raise NoTextError(
            f"The text tower of `{path}` is not CLIP's: {', '.join(f'{k}={data[k]!r}' for k in sorted(foreign))}."
        )


def _open_clip_clean(path: Path, described: dict[str, Any]) -> Clean:
    """By `tokenizer_kwargs`; else lower case for CLIP's own tokenizer, and nothing for another one."""
    text = described["model_cfg"].get("text_cfg", {})
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
        files=("open_clip_config.json", "open_clip_model.safetensors"),
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
