"""ConvNeXt in timm's layout: fixtures in its key names, against a slow forward in plain torch."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from lookalike.core.errors import EncoderError
from lookalike.published.layout import export_tensors
from lookalike.published.layouts import WEIGHTS, read_published, timm
from lookalike.towers import ConvNeXtConfig

# Widths and depths: one whose matrices are matrices, one whose are kernels of one tap.
SMALL = {"convnext_tiny": ((16, 24), (1, 2)), "convnext_atto": ((8, 16), (1, 2))}


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two architectures, small."""
    for name, sizes in SMALL.items():
        monkeypatch.setitem(timm.CONVNEXTS, name, ConvNeXtConfig(*sizes))


def timm_shapes(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes as timm's modules have them."""
    widths, depths = SMALL[name]
    tap = (1, 1) if name == "convnext_atto" else ()

    def both(key: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{key}.weight", shape
        yield f"{key}.bias", shape[:1]

    yield from both("stem.0", widths[0], 3, 4, 4)
    yield from both("stem.1", widths[0])
    for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        if i:
            yield from both(f"stages.{i}.downsample.0", widths[i - 1])
            yield from both(f"stages.{i}.downsample.1", width, widths[i - 1], 2, 2)
        for j in range(depth):
            block = f"stages.{i}.blocks.{j}"
            yield f"{block}.gamma", (width,)
            yield from both(f"{block}.conv_dw", width, 1, 7, 7)
            yield from both(f"{block}.norm", width)
            yield from both(f"{block}.mlp.fc1", 4 * width, width, *tap)
            yield from both(f"{block}.mlp.fc2", width, 4 * width, *tap)
    yield from both("head.norm", widths[-1])
    yield from both("head.fc", 5, widths[-1])


def saved(path: Path, name: str, size: int) -> dict[str, np.ndarray]:
    """A model directory as timm's `save_for_hf` writes it, with random weights."""
    rng = np.random.default_rng(0)
    tensors = {}
    for key, shape in timm_shapes(name):
        value = rng.normal(size=shape) * (1.5 / math.prod(shape[1:]) ** 0.5 if len(shape) > 1 else 0.2)
        value = value + 0.7 * (len(shape) == 1 and key.endswith(("weight", "gamma")))
        tensors[key] = (value * (0.01 if key.startswith("stem.0") else 1)).astype(np.float32)
    save_file(tensors, path / "model.safetensors")
    described = {"input_size": [3, size, size], "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "squash"}
    described |= {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    described = {"architecture": name, "num_classes": 5, "pretrained_cfg": described}
    (path / "config.json").write_text(json.dumps(described))
    return tensors


def forward(name: str, tensors: dict[str, Any]) -> Any:
    """The whole by hand: `Blocks` for the comparison."""
    import torch
    from torch.nn import functional

    def norm(x: Any, key: str) -> Any:  # over the channels of [B C ...]
        x = x - x.mean(1, keepdim=True)
        x = x / (x.square().mean(1, keepdim=True) + 1e-6) ** 0.5
        weight, bias = (tensors[f"{key}.{part}"].reshape(1, -1, *[1] * (x.ndim - 2)) for part in ("weight", "bias"))
        return x * weight + bias

    def conv(x: Any, key: str, **options: Any) -> Any:
        return functional.conv2d(x, tensors[f"{key}.weight"], tensors[f"{key}.bias"], **options)

    def dense(x: Any, key: str) -> Any:
        matrix = tensors[f"{key}.weight"].flatten(1)
        return torch.einsum("bchw,oc->bohw", x, matrix) + tensors[f"{key}.bias"][:, None, None]

    def run(pixels: Any) -> tuple[list[Any], Any]:
        x, maps = pixels, []
        for i, depth in enumerate(SMALL[name][1]):
            if i:
                x = conv(norm(x, f"stages.{i}.downsample.0"), f"stages.{i}.downsample.1", stride=2)
            else:
                x = norm(conv(x, "stem.0", stride=4), "stem.1")
            for j in range(depth):
                block = f"stages.{i}.blocks.{j}"
                y = norm(conv(x, f"{block}.conv_dw", padding=3, groups=x.shape[1]), f"{block}.norm")
                y = dense(y, f"{block}.mlp.fc1")
                y = dense(y * 0.5 * (1 + torch.erf(y / 2**0.5)), f"{block}.mlp.fc2")
                x = x + tensors[f"{block}.gamma"][:, None, None] * y
            maps.append(x.permute(0, 2, 3, 1))
        return maps, norm(x.mean((2, 3)), "head.norm")

    return run


@pytest.mark.reference("torch")
@pytest.mark.parametrize(("name", "size"), [("convnext_tiny", 45), ("convnext_atto", 40)])
@pytest.mark.usefixtures("tables")
def test_every_stage_equals_a_forward_by_hand(map_parity: Any, tmp_path: Path, name: str, size: int):
    import torch

    theirs = saved(tmp_path, name, size)
    layout, config, tensors = read_published(tmp_path)
    assert (layout, config.preprocess.mode, config.preprocess.size) == ("timm_convnext", "squash", size)
    run = forward(name, {key: torch.from_numpy(tensor) for key, tensor in theirs.items()})
    map_parity.check(config, tensors, run, half=False)
    if name == "convnext_tiny":
        map_parity.check_mutations(config, tensors, run, {"no layer scale": {"layer_scale": False}})

    exported = export_tensors(WEIGHTS[layout], config, tensors)
    assert exported.keys() == {key for key in theirs if "head.fc" not in key}
    assert all(np.array_equal(tensor, theirs[key]) for key, tensor in exported.items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": "convnextv2_tiny"}, "convnextv2_tiny"),
        ({"architecture": "convnext_tiny_hnf"}, "convnext_tiny_hnf"),
        ({"global_pool": "avgmax"}, "not the plain"),
        ({"model_args": {"depths": [1]}}, "not the plain"),
    ],
)
@pytest.mark.usefixtures("tables")
def test_what_is_another_tower_is_refused(tmp_path: Path, change: dict[str, Any], words: str):
    saved(tmp_path, "convnext_tiny", 32)
    described = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(described | change))
    with pytest.raises(EncoderError, match=words):
        read_published(tmp_path)


def test_every_tower_has_one_name():
    assert len(set(timm.CONVNEXTS.values())) == len(timm.CONVNEXTS)
