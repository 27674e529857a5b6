"""Vision transformers in timm's layout: CLIP, SigLIP, DINOv2 and 3, Perception Encoder, TIPS v2, EVA-02, plain ones.

`config.json` names an architecture, and `model.safetensors` holds the state of timm's `VisionTransformer`, or of its
`Eva` for towers with rotary positions, which names a few tensors differently.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, Tensors
from lookalike.published.layout import Found, Layout, Parts
from lookalike.published.layouts.timm import FILES, HARMLESS, described_as
from lookalike.published.layouts.timm_families import PLAIN, VITS, family_of, learned_with_quick_gelu
from lookalike.published.processors import from_timm, ratio, square
from lookalike.published.table import MATRIX, PATCH, SAME, TOKEN, TOKENS, Form, Key, linear, norm
from lookalike.towers import ViTConfig
from lookalike.towers.programs.declare import Shapes

_BLOCK = "blocks.{}"

POOLINGS = {"token": "class", "avg": "mean", "map": "attention"}
"""timm's words for how tokens become features, and ours."""

# Arguments with which a model was made that say what the shapes say as well, or nothing about its features.
_HARMLESS = {"embed_dim", "depth", "mlp_ratio", "patch_size", "class_token", "reg_tokens", "num_reg_tokens", "img_size"}
_HARMLESS |= {"fc_norm", "use_fc_norm", "in_chans", "proj_drop_rate", "attn_drop_rate", "pos_drop_rate"}
_HARMLESS |= {"patch_drop_rate", "init_values", "attn_pool_mlp_ratio", "dynamic_img_size", "dynamic_img_pad"}
_HARMLESS |= {"global_pool", *HARMLESS}
_PAIRED = ("counted", "scaled")
_READ = {"num_heads", "attn_pool_num_heads", "act_layer", "ref_feat_shape"}


def keys(config: ViTConfig, head: str = "head") -> tuple[Key, ...]:
    """The table of a trunk.

    Args:
        config: The tower.
        head: Name of the projection.
    """
    eva = config.rope != "none"
    weights, vectors, inside, out = _pairs(config) if config.rope in _PAIRED else (MATRIX, SAME, SAME, MATRIX)
    qkv: tuple[str, ...] = ("qkv.weight",)
    bias = {"all": ("qkv.bias",), "query_value": ("q_bias", "v_bias"), "none": ()}[config.qkv_bias]
    if config.norm_mlp:  # of EVA-02, base and large
        qkv, bias = tuple(f"{part}_proj.weight" for part in "qkv"), tuple(f"{part}_proj.bias" for part in "qv")
    apart = config.activation == "swiglu" and (config.rope == "centred" or config.norm_mlp)
    up = ("mlp.fc1_g", "mlp.fc1_x") if apart else ("mlp.fc1",)
    scale = "gamma_{}" if eva else "ls{}.gamma"
    return (
        Key("patch.weight", ("patch_embed.proj.weight",), PATCH),
        *((Key("patch.bias", ("patch_embed.proj.bias",)),) if config.patch_bias else ()),
        *((Key("class_token", ("cls_token",), TOKEN),) if config.class_token else ()),
        *((Key("registers", ("reg_token",), TOKENS),) if config.registers else ()),
        *((Key("position", ("pos_embed",), TOKENS),) if config.positions != "none" else ()),
        *(norm("norm_pre", "norm_pre") if config.norm_pre else ()),
        *norm("blocks.norm1", f"{_BLOCK}.norm1"),
        Key("blocks.attention.qkv.weight", tuple(f"{_BLOCK}.attn.{part}" for part in qkv), weights),
        *((Key("blocks.attention.qkv.bias", tuple(f"{_BLOCK}.attn.{b}" for b in bias), vectors),) if bias else ()),
        *(_norm_inside(inside) if config.norm_attention else ()),
        *linear("blocks.attention.out", f"{_BLOCK}.attn.proj", form=out),
        *((Key("blocks.scale1", (f"{_BLOCK}.{scale.format(1)}",)),) if config.layer_scale else ()),
        *norm("blocks.norm2", f"{_BLOCK}.norm2"),
        *linear("blocks.mlp.up", *(f"{_BLOCK}.{name}" for name in up)),
        *(norm("blocks.mlp.norm", f"{_BLOCK}.mlp.norm") if config.norm_mlp else ()),
        *linear("blocks.mlp.down", f"{_BLOCK}.mlp.fc2"),
        *((Key("blocks.scale2", (f"{_BLOCK}.{scale.format(2)}",)),) if config.layer_scale else ()),
        *norm("norm_post", "fc_norm" if config.norm_pooled else "norm"),
        *(_pool() if config.pool_heads else ()),
        *((Key("head.weight", (f"{head}.weight",), MATRIX),) if config.head else ()),
        *((Key("head.bias", (f"{head}.bias",)),) if config.head_bias else ()),
    )


def trunk(
    path: Path, architecture: str, arguments: Mapping[str, Any], size: int, shapes: Shapes, head: str | None
) -> ViTConfig:
    """The tower of a timm model.

    Args:
        path: Its directory, for messages.
        architecture: Its name, without a tag.
        arguments: With what it was made, beyond the name; `model_args` of its config.
        size: Side of its images, in pixels.
        shapes: Of its tensors.
        head: Name of the projection among `shapes`; None: there is none.
    """
    form = family_of(architecture)
    if form is None:
        raise EncoderError(f"The architecture `{architecture}` of `{path}` is not known.")
    if foreign := arguments.keys() - _HARMLESS - _READ:
        raise EncoderError(f"`{path}` was made with {', '.join(f'`{a}`' for a in sorted(foreign))}, not supported.")
    if (activation := arguments.get("act_layer", form.family.activation)) not in ("gelu", "gelu_tanh", "quick_gelu"):
        raise EncoderError(f"`{path}` has activation {activation!r}; expected gelu, gelu_tanh or quick_gelu.")
    width, _, _, patch = _shape(shapes, "patch_embed.proj.weight", 4, path)
    hidden = _shape(shapes, "blocks.0.mlp.fc2.weight", 2, path)[1]
    gated = "blocks.0.mlp.fc1_g.weight" in shapes or shapes.get("blocks.0.mlp.fc1.weight", (0,))[0] == 2 * hidden
    heads = int(arguments.get("num_heads") or form.heads(width))
    registers = shapes["reg_token"][1] if "reg_token" in shapes else 0
    positions = shapes["pos_embed"][1] if "pos_embed" in shapes else 0
    pools = "attn_pool.latent" in shapes
    config = ViTConfig(
        size=size,
        patch=patch,
        width=width,
        layers=_layers(shapes),
        heads=heads,
        hidden=hidden,
        activation="swiglu" if gated else activation,
        eps=form.family.eps,
        patch_bias="patch_embed.proj.bias" in shapes,
        class_token="cls_token" in shapes,
        registers=registers,
        positions="none" if not positions else "all" if positions == (size // patch) ** 2 + 1 else "patches",
        resampling=form.family.resampling,
        rope=form.family.rope,
        rope_theta=form.family.rope_theta,
        rope_grid=square(arguments.get("ref_feat_shape") or 16, path) if form.family.rope == "scaled" else 0,
        norm_attention="blocks.0.attn.norm.weight" in shapes,
        norm_mlp="blocks.0.mlp.norm.weight" in shapes,
        qkv_bias=_qkv_bias(shapes),
        layer_scale=bool({"blocks.0.ls1.gamma", "blocks.0.gamma_1"} & shapes.keys()),
        norm_pre="norm_pre.weight" in shapes,
        norm_pooled="fc_norm.weight" in shapes and "norm.weight" not in shapes,
        pool_heads=int(arguments.get("attn_pool_num_heads") or form.family.pool_heads or heads) if pools else None,
        pool_hidden=_shape(shapes, "attn_pool.mlp.fc2.weight", 2, path)[1] if pools else None,
        head=_shape(shapes, f"{head}.weight", 2, path)[0] if head else None,
        head_bias=head is not None and f"{head}.bias" in shapes,
    )
    if config.rope == "counted":
        _check_rope(path, config, arguments.get("ref_feat_shape") or form.grid, shapes)
    return config


def _read(path: Path, described: dict[str, Any], shapes: Found) -> tuple[ViTConfig, Any]:
    arguments = dict(described.get("model_args") or {})
    if learned_with_quick_gelu(described["architecture"], (described.get("pretrained_cfg") or {}).get("tag") or ""):
        arguments.setdefault("act_layer", "quick_gelu")
    pooling = arguments.get("global_pool") or described.get("global_pool")
    if pooling not in POOLINGS:
        raise EncoderError(f"The model in `{path}` has pooling {pooling!r}; expected one of {', '.join(POOLINGS)}.")
    size = square(arguments.get("img_size") or from_timm(path, described).size, path)
    head = "head" if _projects(described) and "head.weight" in shapes else None
    tower = trunk(path, described["architecture"], arguments, size, dict(shapes), head)
    return tower, POOLINGS[pooling]


def _projects(described: dict[str, Any]) -> bool:
    """Whether the head is the projection of a CLIP; else it is a classifier, and is left out.

    A head of another size than the published one was trained by somebody for classes, and tags tell a fine-tuning on
    ImageNet (`..._ft_in12k_in1k`).
    """
    form, published = family_of(described["architecture"]), described.get("pretrained_cfg") or {}
    tuned = re.search(r"in\d+k", str(published.get("tag") or ""))
    same = described.get("num_classes") == published.get("num_classes", described.get("num_classes"))
    return form is not None and form.family.projects and same and not tuned


def _pairs(config: ViTConfig) -> tuple[Form, Form, Form, Form]:
    """Forms for rotary positions as the Perception Encoder and EVA-02 have them.

    They turn neighbours (2i, 2i + 1) of a head, the first columns first; we turn i and i + half a head, rows first. The
    same is computed if queries and keys are rearranged, both in the same way. EVA-02 may have queries, keys and values
    apart; its values, and so what comes after them, are rearranged too.

    Returns:
        Of matrix and vector of queries, keys and values, of the norm behind them, and of the matrix behind that.
    """
    width, half, counted = config.width, config.width // config.heads // 2, config.rope == "counted"
    pair = np.roll(np.arange(half), half // 2 if counted else 0)  # ours in the order of theirs: rows, then columns
    head = np.concatenate([2 * pair, 2 * pair + 1])
    turned = (np.arange(config.heads)[:, None] * 2 * half + head).reshape(-1)

    def order(numbers: int) -> np.ndarray:
        parts, rest = divmod(numbers, width)
        if rest:
            return np.arange(numbers)  # a wrong shape, which is told later
        kept = np.arange(width)
        return np.concatenate([i * width + (kept if counted and i == 2 else turned) for i in range(parts)])

    vector = Form(lambda a: a[order(len(a))], lambda a: a[np.argsort(order(len(a)))], axes=1)
    return (
        Form(lambda a: a.T[:, order(len(a))], lambda a: a[:, np.argsort(order(a.shape[1]))].T, axes=2),
        vector,
        SAME if counted else vector,
        MATRIX if counted else Form(lambda a: a.T[order(a.shape[1])], lambda a: a[np.argsort(order(len(a)))].T, axes=2),
    )


def _norm_inside(form: Form) -> tuple[Key, ...]:
    return tuple(
        Key(f"blocks.attention.norm.{part}", (f"{_BLOCK}.attn.norm.{part}",), form) for part in ("weight", "bias")
    )


def _check_rope(path: Path, config: ViTConfig, made_for: Any, shapes: Shapes) -> None:
    """EncoderError if places are stretched, as timm does on another grid, or tensors can't be rearranged by heads."""
    sides = {made_for} if isinstance(made_for, int) else set(made_for or [config.grid])
    if sides != {config.grid}:
        raise EncoderError(
            f"The rotary positions of `{path}` were made for {max(sides)} patches a side and are stretched to "
            f"{config.grid}, which is not supported."
        )
    for layer in range(config.layers):
        for name, shape in (("weight", (3 * config.width, config.width)), ("bias", (3 * config.width,))):
            found = shapes.get(f"blocks.{layer}.attn.qkv.{name}", shape)
            if found != shape:
                raise EncoderError(
                    f"Tensor `blocks.{layer}.attn.qkv.{name}` of `{path}` has shape {list(found)}, "
                    f"expected {list(shape)}."
                )


def _pool() -> tuple[Key, ...]:
    parts = ("attn_pool.q", "attn_pool.kv")
    return (
        Key("pool.probe", ("attn_pool.latent",), TOKEN),
        Key("pool.attention.qkv.weight", tuple(f"{part}.weight" for part in parts), MATRIX, shares=(1, 2)),
        Key("pool.attention.qkv.bias", tuple(f"{part}.bias" for part in parts), shares=(1, 2)),
        *linear("pool.attention.out", "attn_pool.proj"),
        *norm("pool.norm", "attn_pool.norm"),
        *linear("pool.mlp.up", "attn_pool.mlp.fc1"),
        *linear("pool.mlp.down", "attn_pool.mlp.fc2"),
    )


def _qkv_bias(shapes: Shapes) -> Literal["all", "query_value", "none"]:
    if "blocks.0.attn.qkv.bias" in shapes:
        return "all"
    return "query_value" if {"blocks.0.attn.q_bias", "blocks.0.attn.q_proj.bias"} & shapes.keys() else "none"


def _layers(shapes: Shapes) -> int:
    """Blocks among the tensors."""
    return len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})


def _shape(shapes: Shapes, name: str, axes: int, path: Path) -> tuple[int, ...]:
    if len(shapes.get(name, ())) != axes:
        found = f"has shape {list(shapes[name])}, not {axes} axes" if name in shapes else "is missing"
        raise EncoderError(f"Tensor `{name}` of `{path}` {found}.")
    return shapes[name]


def _restated(config: EncoderConfig, tensors: Tensors) -> Parts:
    """Timm's head always has a bias; and beside registers it has positions for patches alone, so that the class token's
    is added to the token itself.
    """
    tower = config.tower
    if not isinstance(tower, ViTConfig):
        return config, tensors
    if tower.registers and tower.positions == "all":
        token, position = tensors["tower.class_token"], tensors["tower.position"]
        tensors = {**tensors, "tower.class_token": token + position[0], "tower.position": position[1:]}
        tower = replace(tower, positions="patches")
    if tower.head is not None and not tower.head_bias:
        tensors = {**tensors, "tower.head.bias": np.zeros(tower.head, np.float32)}
        tower = replace(tower, head_bias=True)
    return replace(config, tower=tower), tensors


def _describe(config: EncoderConfig) -> dict[str, Any] | None:
    tower = config.tower
    name = _vit(tower, config.pooling) if isinstance(tower, ViTConfig) else None
    if name is None or not isinstance(tower, ViTConfig):
        return None
    return described_as(name, config, "head", _vit_sizes(tower, config.pooling), tower.head or 0)


def _vit(tower: ViTConfig, pooling: str) -> str | None:
    """A name that timm makes this tower of, given its sizes; None: there is none.

    eps, rotary frequencies and the number of heads in the pooling are left to the reading back.
    """
    asked = (tower.pool_heads is not None) == (pooling == "attention")
    if tower.rope == "none":
        # Its pooling has the blocks' heads and MLP, and does not ask what stands before the patches.
        same = (tower.pool_heads or tower.heads, tower.pool_hidden or tower.hidden) == (tower.heads, tower.hidden)
        asked = asked and same and not (tower.pool_heads and tower.prefix)
    if tower.rope == "centred":
        # It takes images of any size, but no piece of a patch; and widths inside a gate are rounded up.
        asked = asked and tower.size % tower.patch == 0 and (tower.activation != "swiglu" or tower.hidden % 8 == 0)
    if not asked:
        return None
    facts = {field: getattr(tower, field) for field in PLAIN} | {"registers": tower.registers > 0}
    if tower.rope == "centred":
        facts["registers"] = False  # there, any number
    return next((name for name, made in VITS.items() if made == facts), None)


def _vit_sizes(tower: ViTConfig, pooling: str) -> dict[str, Any]:
    rotary, gated = tower.rope != "none", tower.activation == "swiglu"
    sizes: dict[str, Any] = {
        "img_size": tower.size,
        "patch_size": tower.patch,
        "embed_dim": tower.width,
        "depth": tower.layers,
        "num_heads": tower.heads,
        # Both halves of a gate are counted where they lie in one matrix.
        "mlp_ratio": ratio(tower.hidden * (2 if gated and not rotary else 1), tower.width),
        "num_reg_tokens" if rotary else "reg_tokens": tower.registers,
        "use_fc_norm" if rotary else "fc_norm": tower.norm_pooled,
        "global_pool": next(theirs for theirs, ours in POOLINGS.items() if ours == pooling),
    }
    if tower.rope in _PAIRED:
        sizes["ref_feat_shape"] = [tower.rope_grid or tower.grid] * 2
    if tower.rope == "counted" and tower.pool_heads:
        inside = tower.pool_hidden or tower.hidden
        sizes |= {"attn_pool_num_heads": tower.pool_heads, "attn_pool_mlp_ratio": ratio(inside, tower.width)}
    return sizes


LAYOUT = Layout(
    "timm",
    FILES,
    lambda described: family_of(described.get("architecture")) is not None,
    anchor="patch_embed.proj.weight",
    keys=keys,
    read=_read,
    prepare=lambda path, described, _: from_timm(path, described),
    describe=_describe,
    restated=_restated,
    ignored=("head.weight", "head.bias", "rope.*"),
)
