"""Swin transformers in timm's layout: a fixture, and a slow forward that reads it and is written apart from ours."""

import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, Tensors
from lookalike.encoders.encoder import Encoder
from lookalike.published.layout import export_tensors
from lookalike.published.layouts import WEIGHTS, read_published
from lookalike.towers import SwinConfig

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]


def pictures(size: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (2, size, size, 3), dtype=np.uint8)


def features(config: EncoderConfig, tensors: Tensors, images: np.ndarray) -> np.ndarray:
    encoder = Encoder.from_parts(config, tensors)
    run = jax.jit(lambda e, x: e.features(x))
    return np.asarray(run(encoder, jnp.asarray(images)))


def drawn(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    value = rng.normal(size=shape) * (shape[-1] ** -0.5 if len(shape) > 1 else 0.2)
    if "norm" in name and name.endswith("weight"):
        value += 1
    if "relative_position_bias_table" in name:
        value = rng.normal(size=shape)
    if "logit_scale" in name:
        value = 2.3 + 0.7 * rng.normal(size=shape)
    return value.astype(np.float32)


def timm_saved(path: Path, name: str, size: int, windows: tuple[int, ...], **told: Any) -> Tensors:
    """Random tensors as timm lays them out, in `path` with the config that it writes. Windows: version 1 alone."""
    rng = np.random.default_rng(11)
    width, depths, heads = 16, (3, 2), (2, 4)
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.weight": (width, 3, 4, 4),
        "patch_embed.proj.bias": (width,),
    }
    norms = {"patch_embed.norm": width, "norm": 2 * width}
    matrices = {}
    for i, depth in enumerate(depths):
        f = width * 2**i
        if i:
            norms[f"layers.{i}.downsample.norm"] = f if name.startswith("swinv2") else 2 * f
            shapes[f"layers.{i}.downsample.reduction.weight"] = (f, 2 * f)
        for block in (f"layers.{i}.blocks.{j}" for j in range(depth)):
            norms |= {f"{block}.norm1": f, f"{block}.norm2": f}
            matrices |= {f"{block}.attn.proj": (f, f), f"{block}.mlp.fc1": (3 * f, f), f"{block}.mlp.fc2": (f, 3 * f)}
            shapes[f"{block}.attn.qkv.weight"] = (3 * f, f)
            if name.startswith("swinv2"):
                shapes |= {f"{block}.attn.q_bias": (f,), f"{block}.attn.v_bias": (f,)}
                shapes |= {f"{block}.attn.logit_scale": (heads[i], 1, 1)}
                shapes |= {f"{block}.attn.cpb_mlp.2.weight": (heads[i], 512)}
                matrices[f"{block}.attn.cpb_mlp.0"] = (512, 2)
            else:
                shapes[f"{block}.attn.qkv.bias"] = (3 * f,)
                shapes[f"{block}.attn.relative_position_bias_table"] = ((2 * windows[i] - 1) ** 2, heads[i])
    for owner, shape in matrices.items():
        shapes |= {f"{owner}.weight": shape, f"{owner}.bias": shape[:1]}
    shapes |= {f"{owner}.{part}": (f,) for owner, f in norms.items() for part in ("weight", "bias")}
    tensors = {n: drawn(n, shape, rng) for n, shape in shapes.items()}
    save_file(tensors | {"head.fc.weight": np.zeros((5, 2 * width), np.float32)}, path / "model.safetensors")
    cfg = {"input_size": [3, size, size], "interpolation": "bicubic", "crop_pct": 1.0, "mean": MEAN, "std": STD}
    described = {"architecture": name, "num_features": 2 * width, "pretrained_cfg": cfg}
    (path / "config.json").write_text(json.dumps(described | ({"model_args": told} if told else {})))
    return tensors


def slow_timm(t: Tensors, version: int, windows: tuple[int, ...], trained: tuple[int, ...], images: np.ndarray) -> Any:
    """Liu et al. (2021), section 3.2, and Liu et al. (2022), section 3, from timm's tensors, in float64.

    Neither windows nor masks are cut out: all tokens of a map ask all, and those are seen that lie in the same window
    of the moved grid and are true neighbours, whose offset is below the window's side.
    """
    t = {name: tensor.astype(np.float64) for name, tensor in t.items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        spread = np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return (x - x.mean(-1, keepdims=True)) / spread * t[f"{name}.weight"] + t[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ t[f"{name}.weight"].T + t.get(f"{name}.bias", 0)

    def bias(name: str, offset: np.ndarray, window: int, trained: int) -> np.ndarray:
        """[N N heads] for offsets [N N 2]."""
        if version == 1:
            at = (offset + window - 1).clip(0, 2 * window - 2)
            return t[f"{name}.relative_position_bias_table"][at[..., 0] * (2 * window - 1) + at[..., 1]]
        scaled = 8 * offset / (trained - 1)
        scaled = np.sign(scaled) * np.log2(1 + np.abs(scaled)) / np.log2(8)
        hidden = np.maximum(linear(scaled, f"{name}.cpb_mlp.0"), 0)
        return 16 / (1 + np.exp(-linear(hidden, f"{name}.cpb_mlp.2")))

    def attend(x: np.ndarray, name: str, window: int, trained: int, shift: int) -> np.ndarray:
        side = len(x)
        place = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1).reshape(-1, 2)
        offset, cell = place[:, None] - place[None], (place - shift) % side // window
        seen = (np.abs(offset) < window).all(-1) & (cell[:, None] == cell[None]).all(-1)
        x = x.reshape(side * side, -1)
        q, k, v = np.split(x @ t[f"{name}.qkv.weight"].T, 3, axis=1)
        if version == 1:
            q, k, v = np.split(linear(x, f"{name}.qkv"), 3, axis=1)
        else:
            q, v = q + t[f"{name}.q_bias"], v + t[f"{name}.v_bias"]
        added, parts = bias(name, offset, window, trained), []
        heads = added.shape[-1]
        for h, (a, b, c) in enumerate(zip(*(np.split(y, heads, axis=1) for y in (q, k, v)), strict=True)):
            if version == 1:
                scores = a @ b.T / np.sqrt(a.shape[1])
            else:
                cosine = a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)[None]
                scores = cosine * np.exp(min(t[f"{name}.logit_scale"][h, 0, 0], np.log(100)))
            shares = np.where(seen, np.exp(scores + added[..., h]), 0)
            parts.append(shares / shares.sum(1, keepdims=True) @ c)
        return linear(np.concatenate(parts, axis=1), f"{name}.proj").reshape(side, side, -1)

    def mlp(x: np.ndarray, name: str) -> np.ndarray:
        y = linear(x, f"{name}.fc1")
        return linear(y * 0.5 * (1 + np.vectorize(math.erf)(y / np.sqrt(2))), f"{name}.fc2")

    def tower(image: np.ndarray) -> np.ndarray:
        kernel, side = t["patch_embed.proj.weight"], len(image) // 4
        cut = image.reshape(side, 4, side, 4, 3)
        x = norm(np.einsum("aibjc,ocij->abo", cut, kernel) + t["patch_embed.proj.bias"], "patch_embed.norm")
        for i, window in enumerate(windows):
            if i:
                name = f"layers.{i}.downsample"
                x = np.concatenate([x[0::2, 0::2], x[1::2, 0::2], x[0::2, 1::2], x[1::2, 1::2]], axis=-1)
                x = norm(x, f"{name}.norm") if version == 1 else x
                x = linear(x, f"{name}.reduction")
                x = norm(x, f"{name}.norm") if version == 2 else x
            for j in range(3 - i):
                name, shift = f"layers.{i}.blocks.{j}", window // 2 if j % 2 and len(x) > window else 0
                sides = window, trained[i], shift
                if version == 1:
                    x = x + attend(norm(x, f"{name}.norm1"), f"{name}.attn", *sides)
                    x = x + mlp(norm(x, f"{name}.norm2"), f"{name}.mlp")
                else:
                    x = x + norm(attend(x, f"{name}.attn", *sides), f"{name}.norm1")
                    x = x + norm(mlp(x, f"{name}.mlp"), f"{name}.norm2")
        return norm(x, "norm").mean((0, 1))

    return np.stack([tower(image) for image in (images / 255 - MEAN) / STD])


@pytest.mark.parametrize(
    ("name", "windows", "trained", "told"),
    [
        ("swin_tiny_patch4_window4_32", (4, 4), (4, 4), {}),
        ("swin_s3_tiny_32", (4, 2), (4, 2), {"depths": [3, 2]}),
        ("swinv2_tiny_window4_32", (4, 4), (4, 4), {}),
        ("swinv2_tiny_window8to4_40to32", (4, 4), (8, 5), {}),  # on 40 px, maps of 10 and 5
        ("swinv2_tiny_window8_32", (4, 4), (4, 3), {"window_size": 4, "pretrained_window_sizes": [0, 3]}),
    ],
)
def test_timms_layout_equals_a_slow_forward(
    tmp_path: Path, name: str, windows: tuple[int, ...], trained: tuple[int, ...], told: dict[str, Any]
):
    theirs = timm_saved(tmp_path, name, 32, windows, **told)
    layout, config, tensors = read_published(tmp_path)
    assert layout == "timm_swin"
    images = pictures(32)
    wanted = slow_timm(theirs, 2 if "v2" in name else 1, windows, trained, images)
    assert np.abs(features(config, tensors, images) - wanted).max() <= 1e-5 * np.abs(wanted).max()
    back = export_tensors(WEIGHTS["timm_swin"], config, tensors)
    assert back.keys() - {"head.fc.weight", "head.fc.bias"} == theirs.keys()
    assert all(np.array_equal(back[n], theirs[n]) for n in theirs)


def test_the_scale_has_a_limit(tmp_path: Path):
    """Above 100 nothing changes; near it, rounding counts a hundred times, so both are ours."""
    theirs = timm_saved(tmp_path, "swinv2_tiny_window4_32", 32, (4, 4))
    found = []
    for scale in (math.log(100), 6.0, 4.0):
        changed = {n: np.full_like(t, scale) if "logit_scale" in n else t for n, t in theirs.items()}
        save_file(changed, tmp_path / "model.safetensors")
        _, config, tensors = read_published(tmp_path)
        found.append(features(config, tensors, pictures(32)))
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    assert np.abs(found[0] - found[2]).max() > 1e-2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": "swinv2_tiny"}, "does not say the size of its windows"),
        ({"model_args": {"always_partition": True}}, "made with `always_partition`, not supported"),
        ({"model_args": {"img_size": 64}}, "names two sizes: `img_size` 64, and images of 32 px"),
        ({"architecture": "swin_tiny_patch4_window4_32"}, "relative_position_bias_table` of .* is missing"),
        ({"architecture": "swinv2_tiny_window3_32"}, "has 8 x 8 tokens, no multiple of its windows of 3"),
        ({"architecture": "swinv2_cr_tiny_224"}, "is in no layout"),
    ],
)
def test_what_is_not_supported_is_refused(tmp_path: Path, change: dict[str, Any], words: str):
    timm_saved(tmp_path, "swinv2_tiny_window4_32", 32, (4, 4))
    described = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(described | change))
    with pytest.raises(EncoderError, match=words):
        read_published(tmp_path)


def test_damaged_tensors_are_named(tmp_path: Path):
    good = timm_saved(tmp_path, "swin_tiny_patch4_window4_32", 32, (4, 4))

    def refused(change: Tensors, without: str = "-") -> str:
        save_file({n: t for n, t in (good | change).items() if without not in n}, tmp_path / "model.safetensors")
        with pytest.raises(EncoderError) as caught:
            read_published(tmp_path)
        return caught.value.message

    assert "`layers.1.downsample.reduction.weight` is missing" in refused({}, "downsample.reduction")
    assert "`layers.0.blocks.0.mlp.fc1.weight` of " in refused({}, "layers.0.blocks")
    assert "no tensor `patch_embed.proj.weight`" in refused({}, "patch_embed.proj.weight")
    assert "not 4 axes" in refused({"patch_embed.proj.weight": np.zeros((16, 48), np.float32)})
    table = "layers.0.blocks.{}.attn.relative_position_bias_table"
    assert "not 2 axes" in refused({table.format(0): np.zeros(49, np.float32)})
    assert "where layer 0 has" in refused({table.format(1): np.zeros((25, 2), np.float32)})


@pytest.mark.reference("timm")
@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("swin_tiny_patch4_window7_224", 64, {"window_size": 4}),
        ("swin_s3_tiny_224", 64, {"window_size": (4, 4, 2, 2)}),
        ("swinv2_tiny_window8_256", 64, {}),
        ("swinv2_base_window12to16_192to256", 64, {"window_size": 8}),
    ],
)
def test_equals_timm(tmp_path: Path, name: str, size: int, options: dict[str, Any]):
    """Where timm is installed: its own model, saved by itself."""
    import timm
    import torch
    from timm.models import save_for_hf

    sizes = {"embed_dim": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 2, 4)}
    overlay = {"input_size": (3, size, size), "mean": MEAN, "std": STD}
    told = {**sizes, **options}
    model = timm.create_model(name, pretrained_cfg_overlay=overlay, num_classes=5, **told).eval()
    rng = np.random.default_rng(2)
    for key, parameter in model.named_parameters():
        parameter.data = torch.from_numpy(drawn(key, tuple(parameter.shape), rng))
    save_for_hf(model, tmp_path, model_args=told, safe_serialization=True)
    layout, config, tensors = read_published(tmp_path)
    assert layout == "timm_swin"
    assert isinstance(config.tower, SwinConfig)
    images = pictures(size)
    prepared = torch.from_numpy(((images / 255 - MEAN) / STD).astype(np.float32).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        wanted = model.forward_head(model.forward_features(prepared), pre_logits=True).numpy()
    assert np.abs(features(config, tensors, images) - wanted).max() <= 1e-5 * np.abs(wanted).max()
    theirs = {n: t for n, t in load_file(tmp_path / "model.safetensors").items() if not n.startswith("head.")}
    back = export_tensors(WEIGHTS[layout], config, tensors)
    assert back.keys() - {"head.fc.weight", "head.fc.bias"} == theirs.keys()
    assert all(np.array_equal(back[n], theirs[n]) for n in theirs)
