"""OpenCLIP's layout: files in its key names, and its forward pass written out slowly in torch."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lookalike.core.errors import EncoderError
from lookalike.encoders.encoder import Encoder
from lookalike.imaging.preprocess import Preprocess
from lookalike.published.layout import export_tensors
from lookalike.published.layouts import WEIGHTS, read_published
from lookalike.towers import ViTConfig

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
VISION = {"image_size": 40, "layers": 3, "width": 48, "head_width": 12, "patch_size": 8, "mlp_ratio": 2.5}


def saved(path: Path, vision: dict[str, Any] | None = None, prepare: Any = None, **model: Any) -> dict[str, np.ndarray]:
    """A small OpenCLIP directory with random weights, text tower included; its tensors."""
    vision = VISION | (vision or {})
    rng = np.random.default_rng(11)
    width, hidden = vision["width"], int(vision["width"] * vision["mlp_ratio"])

    def normal(*shape: int, scale: float | None = None) -> np.ndarray:
        return (rng.normal(size=shape) * (shape[-1] ** -0.5 if scale is None else scale)).astype(np.float32)

    tensors = {
        "logit_scale": np.array(4.6, np.float32),
        "positional_embedding": normal(8, 16),
        "text_projection": normal(16, 20),
        "token_embedding.weight": normal(50, 16),
        "ln_final.weight": normal(16),
        "ln_final.bias": normal(16),
        "transformer.resblocks.0.attn.in_proj_weight": normal(48, 16),
        "visual.class_embedding": normal(width, scale=0.02),
        "visual.positional_embedding": normal(
            (vision["image_size"] // vision["patch_size"]) ** 2 + 1, width, scale=0.02
        ),
        "visual.conv1.weight": normal(width, 3, vision["patch_size"], vision["patch_size"], scale=0.01),
        "visual.proj": normal(width, 20),
    }
    for name in ("ln_pre", "ln_post", *(f"transformer.resblocks.{i}.ln_{j}" for i in range(3) for j in (1, 2))):
        if name != "ln_pre" or not vision.get("no_ln_pre"):
            tensors[f"visual.{name}.weight"] = 1 + normal(width, scale=0.2)
            tensors[f"visual.{name}.bias"] = normal(width, scale=0.2)
    for i in range(3):
        block = f"visual.transformer.resblocks.{i}"
        for name, out, into in (
            ("mlp.c_fc", hidden, width),
            ("mlp.c_proj", width, hidden),
            ("attn.out_proj", width, width),
        ):
            tensors[f"{block}.{name}.weight"], tensors[f"{block}.{name}.bias"] = (
                normal(out, into),
                normal(out, scale=0.2),
            )
        tensors[f"{block}.attn.in_proj_weight"] = normal(3 * width, width)
        tensors[f"{block}.attn.in_proj_bias"] = normal(3 * width, scale=0.2)
    save_file(tensors, path / "open_clip_model.safetensors")
    described = {"model_cfg": {"embed_dim": 20, "vision_cfg": vision, "text_cfg": {}, **model}}
    described["preprocess_cfg"] = {"mean": MEAN, "std": STD} if prepare is None else prepare
    (path / "open_clip_config.json").write_text(json.dumps(described))
    return tensors


def slow_forward(
    tensors: dict[str, np.ndarray], images: np.ndarray, quick: bool, average: bool, late: bool = False
) -> np.ndarray:
    """OpenCLIP's VisionTransformer.forward, one image, one head and one operation at a time."""
    import torch

    t = {name.removeprefix("visual."): torch.from_numpy(a).double() for name, a in tensors.items()}
    norm = lambda x, name: torch.nn.functional.layer_norm(x, x.shape[-1:], t[f"{name}.weight"], t[f"{name}.bias"], 1e-5)
    rows = []
    for image in images:
        pixels = torch.from_numpy(((image / 255 - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1).copy())
        patches = torch.nn.functional.conv2d(pixels[None], t["conv1.weight"], stride=8)[0].flatten(1).T
        x = torch.cat([t["class_embedding"][None], patches]) + t["positional_embedding"]
        x = norm(x, "ln_pre") if "ln_pre.weight" in t else x
        for i in range(3):
            block = f"transformer.resblocks.{i}"
            q, k, v = (
                norm(x, f"{block}.ln_1") @ t[f"{block}.attn.in_proj_weight"].T + t[f"{block}.attn.in_proj_bias"]
            ).chunk(3, -1)
            heads = []
            for start in range(0, 48, 12):
                at = slice(start, start + 12)
                heads.append(torch.softmax(q[:, at] @ k[:, at].T / 12**0.5, -1) @ v[:, at])
            x = x + torch.cat(heads, -1) @ t[f"{block}.attn.out_proj.weight"].T + t[f"{block}.attn.out_proj.bias"]
            y = norm(x, f"{block}.ln_2") @ t[f"{block}.mlp.c_fc.weight"].T + t[f"{block}.mlp.c_fc.bias"]
            y = y * torch.sigmoid(1.702 * y) if quick else torch.nn.functional.gelu(y)
            x = x + y @ t[f"{block}.mlp.c_proj.weight"].T + t[f"{block}.mlp.c_proj.bias"]
        x = x if late else norm(x, "ln_post")
        pooled = x[1:].mean(0) if average else x[0]
        rows.append(((norm(pooled, "ln_post") if late else pooled) @ t["proj"]).numpy())
    return np.stack(rows)


@pytest.mark.reference("torch")
@pytest.mark.parametrize(
    ("vision", "model"),
    [
        ({}, {}),
        ({}, {"quick_gelu": True}),
        ({"pool_type": "avg", "no_ln_pre": True, "patch_dropout": 0.5}, {}),
        ({"pool_type": "avg", "no_ln_pre": True, "final_ln_after_pool": True}, {}),  # CLIPA
    ],
)
def test_features_equal_the_slow_forward(tmp_path: Path, vision: dict[str, Any], model: dict[str, Any]):
    tensors = saved(tmp_path, vision, **model)
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    theirs = slow_forward(
        tensors, images, quick=bool(model), average=bool(vision), late="final_ln_after_pool" in vision
    )
    layout, config, ours = read_published(tmp_path)
    assert layout == "open_clip"
    features = jax.jit(Encoder.features)

    def difference(**change: Any) -> float:
        other = dataclasses.replace(config, tower=dataclasses.replace(config.tower, **change))
        found = np.asarray(features(Encoder.from_parts(other, ours), jnp.asarray(images)))
        return float(np.abs(found - theirs).max() / np.abs(theirs).max())

    assert difference() <= 1e-5
    if vision:
        assert difference(norm_pooled="final_ln_after_pool" not in vision) > 1e-4
    else:
        assert difference(activation="gelu" if model else "quick_gelu") > 1e-4
        assert difference(eps=1e-6) > 1e-4


@pytest.mark.parametrize(
    ("vision", "heads", "hidden"),
    [
        ({"layers": 32, "width": 1280, "head_width": 80, "patch_size": 14}, 16, 5120),  # H/14
        ({"layers": 40, "width": 1408, "head_width": 88, "mlp_ratio": 4.3637, "patch_size": 14}, 16, 6144),  # g/14
        ({"layers": 48, "width": 1664, "head_width": 104, "mlp_ratio": 4.9231, "patch_size": 14}, 16, 8192),  # bigG/14
        ({"layers": 12, "width": 896, "patch_size": 16, "image_size": 240}, 14, 3584),  # B/16 plus
    ],
)
def test_large_towers_have_the_published_shapes(tmp_path: Path, vision: dict[str, Any], heads: int, hidden: int):
    described = {"model_cfg": {"embed_dim": 1024, "vision_cfg": vision}, "preprocess_cfg": {"mean": MEAN, "std": STD}}
    tower, _ = WEIGHTS["open_clip"].read(tmp_path, described, {"proj": (vision["width"], 1024)})
    assert isinstance(tower, ViTConfig)
    assert (tower.heads, tower.hidden, tower.layers) == (heads, hidden, vision["layers"])


def test_export_gives_back_every_tensor_to_the_bit(tmp_path: Path):
    saved(tmp_path)
    _, config, tensors = read_published(tmp_path)
    theirs = {n: t for n, t in load_file(tmp_path / "open_clip_model.safetensors").items() if n.startswith("visual.")}
    ours = export_tensors(WEIGHTS["open_clip"], config, tensors)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_preprocessing_is_read(tmp_path: Path):
    saved(tmp_path)
    _, config, _ = read_published(tmp_path)
    shared: dict[str, Any] = {"mean": tuple(MEAN), "std": tuple(STD), "rounding": "even"}
    assert config.preprocess == Preprocess(40, "crop", 40, "bicubic", **shared)
    other = {
        "mean": MEAN,
        "std": STD,
        "interpolation": "bilinear",
        "resize_mode": "longest",
        "fill_color": 7,
        "size": [40, 40],
    }
    saved(tmp_path, prepare=other)
    _, config, _ = read_published(tmp_path)
    assert config.preprocess == Preprocess(40, "pad", 40, "bilinear", **shared, fill=(7, 7, 7))
    saved(tmp_path, prepare={"mean": MEAN, "std": STD, "resize_mode": "squash"})
    assert read_published(tmp_path)[1].preprocess.mode == "squash"


@pytest.mark.parametrize(
    ("vision", "prepare", "words"),
    [
        ({}, {}, "does not say how images are prepared"),
        ({}, {"mean": MEAN, "std": STD, "interpolation": "nearest"}, "not supported"),
        ({}, {"mean": MEAN, "std": STD, "size": [40, 48]}, "expected a square"),
        ({}, {"mean": MEAN[:2], "std": STD}, "three numbers"),
        ({"timm_model_name": "convnext_base"}, None, "timm_model_name='convnext_base'"),
        ({"ls_init_value": 0.1}, None, "ls_init_value"),
        ({"norm_kwargs": {"elementwise_affine": False}}, None, "norm_kwargs"),
        ({"pool_type": "none"}, None, "pool_type"),
    ],
)
def test_what_is_not_ours_is_refused(tmp_path: Path, vision: dict[str, Any], prepare: Any, words: str):
    saved(tmp_path, vision, prepare)
    with pytest.raises(EncoderError) as caught:
        read_published(tmp_path)
    assert words in caught.value.message
