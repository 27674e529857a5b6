"""ResNet and MobileNetV4 in timm's layout: names and shapes as timm has them, features against timm itself."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, ProjectionConfig
from lookalike.imaging.preprocess import Preprocess
from lookalike.published.layout import described_in, export_tensors, write_layout
from lookalike.published.layouts import WEIGHTS, read_published
from lookalike.published.layouts.timm import MOBILENETS as TOWERS
from lookalike.towers import Tower
from lookalike.towers.ops import shapes_of
from lookalike.towers.plans import RESNETS

PREPROCESS = Preprocess(64, "squash", 64, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

# Some tensors of timm 1.0.31, and how many numbers all of them have but classifiers and counters.
FACTS: dict[str, tuple[str, Tower, int, dict[str, tuple[int, ...]]]] = {
    "mobilenetv4_conv_small": (
        *("timm_mobilenet_v4", TOWERS["mobilenetv4_conv_small"], 2_518_112),
        {"blocks.1.1.conv.weight": (64, 96, 1, 1), "blocks.2.5.dw_start.conv.weight": (96, 1, 3, 3)},
    ),
    "mobilenetv4_conv_medium": (
        *("timm_mobilenet_v4", TOWERS["mobilenetv4_conv_medium"], 8_502_416),
        {"blocks.0.0.conv_pwl.weight": (48, 128, 1, 1), "blocks.3.10.dw_start.bn.running_var": (256,)},
    ),
    "resnet50": (
        *("timm_resnet", RESNETS["50"], 23_561_152),
        {"layer1.0.downsample.0.weight": (256, 64, 1, 1), "layer4.2.bn3.running_mean": (2048,)},
    ),
}


@pytest.mark.parametrize("name", FACTS)
def test_it_is_written_under_timms_names_and_read_again(tmp_path: Path, name: str):
    layout, tower, count, some = FACTS[name]
    config = EncoderConfig(tower, "mean", PREPROCESS, ProjectionConfig("identity", tower.features, tower.features))
    rng = np.random.default_rng(0)
    tensors = {f"tower.{n}": rng.random(shape, np.float32) for n, shape in shapes_of(tower).items()}
    described = described_in(WEIGHTS[layout], config)
    assert described is not None
    assert described["architecture"] == name
    write_layout(WEIGHTS[layout], described, config, tensors, tmp_path)
    assert read_published(tmp_path)[0] == layout
    theirs = {n: t for n, t in load_file(tmp_path / "model.safetensors").items() if not n.endswith("tracked")}
    assert sum(tensor.size for tensor in theirs.values()) == count
    assert {n: theirs[n].shape for n in some} == some


def test_a_mobilenet_with_attention_is_refused(tmp_path: Path):
    tower = TOWERS["mobilenetv4_conv_small"]
    config = EncoderConfig(tower, "mean", PREPROCESS, ProjectionConfig("identity", tower.features, tower.features))
    tensors = {f"tower.{n}": np.zeros(shape, np.float32) for n, shape in shapes_of(tower).items()}
    described: Any = described_in(WEIGHTS["timm_mobilenet_v4"], config)
    write_layout(WEIGHTS["timm_mobilenet_v4"], described, config, tensors, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(described | {"architecture": "mobilenetv4_hybrid_medium"}))
    with pytest.raises(EncoderError, match="mobilenetv4_hybrid_medium"):
        read_published(tmp_path)


@pytest.mark.reference("torch", "timm")
@pytest.mark.parametrize("name", [*TOWERS, "resnet18", "resnet50"])
def test_features_equal_timm(save_drawn: Any, tmp_path: Path, name: str):
    import timm
    import torch

    from lookalike.targets.onnx import run

    made_for = {"input_size": (3, 64, 64), "crop_pct": 1.0, "crop_mode": "squash"}
    model = timm.create_model(name, num_classes=0, pretrained_cfg_overlay=made_for).eval()
    save_drawn(model, tmp_path)
    layout, config, tensors = read_published(tmp_path)
    assert (config.pooling, config.preprocess.size) == ("mean", 64)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    pixels = ((images / 255 - config.preprocess.mean) / config.preprocess.std).astype(np.float32)
    with torch.no_grad():
        expected = torch.nn.functional.normalize(model(torch.from_numpy(pixels).permute(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(run(config, tensors, list(images)), expected, atol=1e-5)
    theirs = load_file(tmp_path / "model.safetensors")
    exported = export_tensors(WEIGHTS[layout], config, tensors)
    assert exported.keys() == {n for n in theirs if "tracked" not in n}
    assert all(np.array_equal(tensor, theirs[n]) for n, tensor in exported.items())
