"""timm's names: what is written under each has the names and shapes that timm makes, and computes the same there.

The tables are the states that timm 1.0.29 makes of the names at these sizes.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig
from lookalike.imaging.preprocess import Preprocess
from lookalike.published.layouts.timm import CONVNEXTS
from lookalike.published.layouts.timm_vit import VITS
from lookalike.published.processors import ratio
from lookalike.targets import published
from lookalike.targets.parts import Export
from lookalike.towers import SwinConfig, Tower, ViTConfig
from lookalike.towers.inverted import EFFICIENTNETS

PLAIN: dict[str, tuple[int, ...]] = {
    "cls_token": (1, 1, 16),
    "pos_embed": (1, 5, 16),
    "patch_embed.proj.weight": (16, 3, 8, 8),
    "patch_embed.proj.bias": (16,),
    "blocks.0.norm1.weight": (16,),
    "blocks.0.norm1.bias": (16,),
    "blocks.0.attn.qkv.weight": (48, 16),
    "blocks.0.attn.qkv.bias": (48,),
    "blocks.0.attn.proj.weight": (16, 16),
    "blocks.0.attn.proj.bias": (16,),
    "blocks.0.norm2.weight": (16,),
    "blocks.0.norm2.bias": (16,),
    "blocks.0.mlp.fc1.weight": (40, 16),
    "blocks.0.mlp.fc1.bias": (40,),
    "blocks.0.mlp.fc2.weight": (16, 40),
    "blocks.0.mlp.fc2.bias": (16,),
    "norm.weight": (16,),
    "norm.bias": (16,),
}
PATCHES = {"pos_embed": (1, 4, 16)}
PRE = {"norm_pre.weight": (16,), "norm_pre.bias": (16,)}
SCALES = {"blocks.0.ls1.gamma": (16,), "blocks.0.ls2.gamma": (16,)}
REGISTERS = {"reg_token": (1, 4, 16)}
PACKED = {"blocks.0.mlp.fc1.weight": (80, 16), "blocks.0.mlp.fc1.bias": (80,)}
DINO3 = REGISTERS | {"blocks.0.gamma_1": (16,), "blocks.0.gamma_2": (16,)}
BIASES = {"blocks.0.attn.q_bias": (16,), "blocks.0.attn.v_bias": (16,)}
GATE = {
    f"blocks.0.mlp.fc1_{part}.{kind}": shape for part in "gx" for kind, shape in (("weight", (40, 16)), ("bias", (40,)))
}
APART = {f"blocks.0.attn.{part}_proj.weight": (16, 16) for part in "qkv"} | {
    f"blocks.0.attn.{part}_proj.bias": (16,) for part in "qv"
}
MLP_NORM = {"blocks.0.mlp.norm.weight": (40,), "blocks.0.mlp.norm.bias": (40,)}
ATTENTION_NORM = {"blocks.0.attn.norm.weight": (16,), "blocks.0.attn.norm.bias": (16,)}
NO_CLASS, NO_BIAS, NO_QKV = {"cls_token"}, {"patch_embed.proj.bias"}, {"pos_embed", "blocks.0.attn.qkv.bias"}
NO_FC1 = {"blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc1.bias"}
NO_JOINT = NO_FC1 | {"blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.bias"}

STATES: dict[str, tuple[dict[str, tuple[int, ...]], set[str]]] = {
    "vit_base_patch16_224": ({}, set()),
    "vit_base_patch16_clip_224": (PRE, NO_BIAS),
    "vit_base_patch16_clip_quickgelu_224": (PRE, NO_BIAS),
    "vit_base_patch16_siglip_224": (PATCHES, NO_CLASS),
    "vit_so400m_patch16_siglip_256": (PATCHES, NO_CLASS),
    "vit_base_patch14_dinov2": (SCALES, set()),
    "vit_giant_patch14_dinov2": (SCALES | PACKED, set()),
    "vit_base_patch14_reg4_dinov2": (SCALES | REGISTERS | PATCHES, set()),
    "vit_giant_patch14_reg4_dinov2": (SCALES | REGISTERS | PATCHES | PACKED, set()),
    "vit_base_patch16_dinov3": (DINO3, NO_QKV),
    "vit_base_patch16_dinov3_qkvb": (DINO3 | BIASES, NO_QKV),
    "vit_small_plus_patch16_dinov3": (DINO3 | GATE, NO_QKV | NO_FC1),
    "vit_small_plus_patch16_dinov3_qkvb": (DINO3 | BIASES | GATE, NO_QKV | NO_FC1),
    "eva02_small_patch14_224": (BIASES | PACKED, {"blocks.0.attn.qkv.bias"}),
    "eva02_base_patch14_224": (APART | GATE | MLP_NORM, NO_JOINT),
    "eva02_base_patch16_clip_224": (APART | GATE | MLP_NORM | ATTENTION_NORM, NO_JOINT),
    "vit_pe_core_base_patch16_224": (PRE, NO_BIAS),
    "vit_pe_core_gigantic_patch14_448": (PRE | PATCHES, NO_CLASS | NO_BIAS),
}
"""Name -> what stands there beside `PLAIN` or with another shape, and what does not."""

SIZES: dict[str, Any] = {"size": 32, "patch": 8, "width": 64, "layers": 2, "heads": 2, "hidden": 128}
SQUARE = Preprocess(32, "squash", 32, "bicubic", (0.48, 0.45, 0.40), (0.27, 0.26, 0.28))
EPS = {"siglip": 1e-6, "dinov2": 1e-6, "eva02": 1e-6, "vit_base_patch16_224": 1e-6}


def vit(name: str, **sizes: Any) -> ViTConfig:
    """The tower that `VITS` tells of, with these sizes."""
    facts = dict(VITS[name])
    registers = 4 if facts.pop("registers") or facts["rope"] == "centred" else 0
    eps = next((eps for part, eps in EPS.items() if part in name), 1e-5)
    theta = 1e4 if facts["rope"] in ("counted", "scaled") else 100.0
    grid = 16 if facts["rope"] == "scaled" else 0
    return ViTConfig(**sizes, **facts, registers=registers, eps=eps, rope_theta=theta, rope_grid=grid)


def write(tower: Tower, pooling: str, made: Any, directory: Path) -> EncoderConfig:
    """The files of an encoder with this tower; its config as it is read back."""
    directory.mkdir()
    written = published.write_timm(Export(made.config, made.tensors, {}), directory)
    assert written.read_back is not None
    return written.read_back[0]


@pytest.mark.parametrize("name", sorted(VITS))
def test_names_and_shapes_are_those_of_timm(tmp_path: Path, case, name: str):
    tower = vit(name, size=16, patch=8, width=16, layers=1, heads=4, hidden=40)
    preprocess = Preprocess(16, "squash", 16, "bicubic", (0.5,) * 3, (0.5,) * 3)
    pooling = "class" if tower.class_token else "mean"
    write(tower, pooling, case(tower, pooling, preprocess, None, by_graph=True), tmp_path / "out")
    added, left_out = STATES[name]
    expected = {key: shape for key, shape in PLAIN.items() if key not in left_out} | added
    assert {key: array.shape for key, array in load_file(tmp_path / "out" / "model.safetensors").items()} == expected
    assert f'"architecture": "{name}"' in (tmp_path / "out" / "config.json").read_text()


@pytest.mark.parametrize("width", [49, 196, 768, 1152])
def test_a_ratio_gives_the_width_inside_back(width: int):
    """timm and OpenCLIP take `int(width * ratio)`, which falls short for some quotients."""
    assert [int(width * ratio(inside, width)) for inside in range(1, 6 * width)] == list(range(1, 6 * width))
    assert ratio(4 * width, width) == 4


DINO = {"patch_bias": True, "layer_scale": True, "norm_pre": False, "activation": "gelu", "eps": 1e-6}
SIGLIP = {"eps": 1e-6, "patch_bias": True, "class_token": False, "positions": "patches", "norm_pre": False}
COUNTED = {"activation": "gelu", "rope": "counted", "rope_theta": 1e4}
LATE = SwinConfig(1, 16, (2, 2, 2), (2, 2, 2), (4, 4, 4), (2, 2, 2))
"""Its last map has two tokens a side."""

MORE: dict[str, tuple[Tower, str]] = {
    "CLIP, mean": (ViTConfig(**SIZES, activation="gelu"), "mean"),
    "CLIP, norm behind the mean": (ViTConfig(**SIZES, activation="gelu", norm_pooled=True), "mean"),
    "CLIP, odd MLP": (ViTConfig(**SIZES | {"hidden": 211}, activation="gelu", head=20), "class"),
    "SigLIP": (ViTConfig(**SIZES, **SIGLIP, activation="gelu_tanh", pool_heads=2), "attention"),
    "registers, class position": (ViTConfig(**SIZES, **DINO, registers=3), "class"),
    "registers, mean": (ViTConfig(**SIZES, **DINO, registers=1, positions="patches"), "mean"),
    "PE": (ViTConfig(**SIZES, **COUNTED, pool_heads=4, pool_hidden=100, head=20), "attention"),
    "Swin": (SwinConfig(1, 16, (2, 2), (2, 2), (4, 4), (2, 2)), "mean"),
    "Swin, late map": (LATE, "mean"),
    "Swin 2": (SwinConfig(2, 16, (2, 2), (2, 2), (4, 4), (2, 0)), "mean"),
    "EfficientNet": (EFFICIENTNETS["b0"], "mean"),
    "ConvNeXt": (CONVNEXTS["convnext_atto"], "mean"),
}


@pytest.mark.reference("timm", "torch", "torchvision")
@pytest.mark.parametrize("name", sorted(VITS) + sorted(MORE))
def test_timm_loads_it_and_computes_the_same(tmp_path: Path, case, name: str):
    import timm
    import torch

    from lookalike.targets.parity import drawn_images

    tower, pooling = MORE[name] if name in MORE else (vit(name, **SIZES), "mean")
    made = case(tower, pooling, SQUARE, None)
    write(tower, pooling, made, tmp_path / "out")
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()  # strict
    pixels = np.stack([(SQUARE(image) / 255 - SQUARE.mean) / SQUARE.std for image in drawn_images()]).astype(np.float32)
    pixels = torch.tensor(pixels).permute(0, 3, 1, 2)
    with torch.no_grad():
        found = torch.nn.functional.normalize(model(pixels)).numpy()
    np.testing.assert_allclose(found, made.expected, atol=1e-5)
    # And it can be tuned for classes: the head gives way.
    tuned = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True, num_classes=3)
    assert tuned(pixels[:2]).shape == (2, 3)


@pytest.mark.parametrize("name", ["registers, class position", "Swin, late map"])
def test_what_is_written_otherwise_computes_the_same(tmp_path: Path, case, name: str):
    from lookalike.targets.onnx import run
    from lookalike.targets.parity import drawn_images

    tower, pooling = MORE[name]
    made = case(tower, pooling, SQUARE, None, by_graph=True)
    written = published.write_timm(Export(made.config, made.tensors, {}), tmp_path)
    assert written.read_back is not None
    config, tensors = written.read_back
    assert config.tower != tower
    np.testing.assert_allclose(run(config, tensors, drawn_images()), made.expected, atol=1e-5)


def test_what_timm_asks_for_beside_the_tensors(tmp_path: Path, case):
    """timm moves the norm behind a mean unless told, and takes a Swin without a head for an older file."""
    for name in ("CLIP, mean", "CLIP, norm behind the mean", "Swin"):
        write(*MORE[name], case(*MORE[name], SQUARE, None, by_graph=True), tmp_path / name)
    described = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("CLIP, mean", "Swin")]
    assert described[0]["model_args"]["fc_norm"] is False
    assert "norm.weight" in load_file(tmp_path / "CLIP, mean" / "model.safetensors")
    assert "fc_norm.weight" in load_file(tmp_path / "CLIP, norm behind the mean" / "model.safetensors")
    tensors = load_file(tmp_path / "Swin" / "model.safetensors")
    assert described[1]["num_classes"] == 32
    np.testing.assert_array_equal(tensors["head.fc.weight"], np.eye(32))
    assert not tensors["head.fc.bias"].any()


REFUSED: dict[str, tuple[Tower, str]] = {
    "pooling with other heads": (ViTConfig(**SIZES, **SIGLIP, activation="gelu", pool_heads=4), "attention"),
    "pooling that is not used": (ViTConfig(**SIZES, **SIGLIP, activation="gelu", pool_heads=2), "mean"),
    "another eps": (ViTConfig(**SIZES, **DINO | {"layer_scale": False, "eps": 1e-12}), "class"),
    "a gate that timm would widen": (
        ViTConfig(
            **SIZES | {"hidden": 171},
            **DINO | {"activation": "swiglu", "eps": 1e-5},
            registers=4,
            positions="none",
            rope="centred",
            qkv_bias="none",
        ),
        "class",
    ),
    "a gate in the Perception Encoder": (ViTConfig(**SIZES, **COUNTED | {"activation": "swiglu"}), "class"),
    "overlapping patches": (ViTConfig(**SIZES, activation="gelu", stride=4), "class"),
    "windows of two sizes": (SwinConfig(1, 16, (2, 2), (2, 2), (4, 2), (2, 1)), "mean"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_timm_would_make_otherwise_is_refused(tmp_path: Path, case, name: str):
    tower, pooling = REFUSED[name]
    made = case(tower, pooling, SQUARE, None, by_graph=True)
    with pytest.raises(EncoderError, match="No architecture of timm holds this"):
        published.write_timm(Export(made.config, made.tensors, {}), tmp_path)
    assert list(tmp_path.iterdir()) == []
