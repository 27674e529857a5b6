"""EfficientNet in timm's layout: fixtures in its key names, against a slow forward in plain torch."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lookalike.core.errors import EncoderError
from lookalike.published.layout import export_tensors
from lookalike.published.layouts import WEIGHTS, read_published, timm
from lookalike.towers import EfficientNetConfig
from lookalike.towers import inverted as towers

# (type, blocks, kernel, stride, expansion, channels, squeeze): every type of block that the two versions have.
SMALL = {
    "tf_efficientnetv2_s": [
        ("cn", 2, 3, 1, 1, 8, 0.0),
        ("er", 2, 3, 2, 4, 16, 0.0),
        ("ir", 1, 3, 2, 4, 24, 0.25),
        ("ir", 1, 3, 1, 6, 24, 0.25),
    ],
    "efficientnet_b0": [("ds", 2, 3, 1, 1, 8, 0.25), ("ir", 2, 5, 2, 6, 16, 0.25), ("ir", 1, 3, 2, 6, 24, 0.25)],
}
STEM, FEATURES = 8, 40


def small(name: str) -> EfficientNetConfig:
    """Our config of the same blocks."""
    kinds = {"cn": "plain", "er": "fused", "ds": "depthwise", "ir": "depthwise"}
    rows: Any = [(kinds[kind], *rest) for kind, *rest in SMALL[name]]
    return EfficientNetConfig(tuple(towers.Stage(*row) for row in rows), STEM, FEATURES)


def timm_shapes(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes as timm's modules have them."""

    def conv(key: str, inputs: int, outputs: int, kernel: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{key}.weight", (outputs, inputs, kernel, kernel)

    def norm(key: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from ((f"{key}.{part}", (width,)) for part in ("weight", "bias", "running_mean", "running_var"))
        yield f"{key}.num_batches_tracked", ()

    yield from conv("conv_stem", 3, STEM, 3)
    yield from norm("bn1", STEM)
    inputs = STEM
    for i, (kind, repeats, k, _, expansion, outputs, squeeze) in enumerate(SMALL[name]):
        for j in range(repeats):
            block, inside = f"blocks.{i}.{j}", inputs * expansion
            rows = {
                "cn": [("conv", inputs, outputs, k)],
                "er": [("conv_exp", inputs, inside, k), ("conv_pwl", inside, outputs, 1)],
                "ds": [("conv_dw", 1, inputs, k), ("conv_pw", inputs, outputs, 1)],
                "ir": [("conv_pw", inputs, inside, 1), ("conv_dw", 1, inside, k), ("conv_pwl", inside, outputs, 1)],
            }[kind]
            for number, (key, *sizes) in enumerate(rows, start=1):
                yield from conv(f"{block}.{key}", *sizes)
                yield from norm(f"{block}.bn{number}", sizes[1])
            if squeeze:
                narrow = round(inputs * squeeze)
                yield from conv(f"{block}.se.conv_reduce", inside, narrow, 1)
                yield from conv(f"{block}.se.conv_expand", narrow, inside, 1)
                yield f"{block}.se.conv_reduce.bias", (narrow,)
                yield f"{block}.se.conv_expand.bias", (inside,)
            inputs = outputs
    yield from conv("conv_head", inputs, FEATURES, 1)
    yield from norm("bn2", FEATURES)
    yield "classifier.weight", (3, FEATURES)
    yield "classifier.bias", (3,)


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two architectures, small."""
    patched = {"v2_s": small("tf_efficientnetv2_s"), "b0": small("efficientnet_b0")}
    for name, tower in timm.efficientnets(patched).items():
        monkeypatch.setitem(timm.EFFICIENTNET_TOWERS, name, tower)


def saved(path: Path, name: str, size: int) -> dict[str, np.ndarray]:
    """A model directory as timm's `save_for_hf` writes it, with random weights and statistics."""
    rng = np.random.default_rng(0)
    tensors = {}
    for key, shape in timm_shapes(name):
        value = rng.normal(size=shape) * (2 / math.prod(shape[1:]) if len(shape) == 4 else 0.04) ** 0.5
        if key.endswith("running_var"):
            value = 0.02 + rng.uniform(size=shape)
        elif ".bn" in f".{key}" and key.endswith("weight"):
            value = value + 0.7
        tensors[key] = np.asarray(value, np.int64 if key.endswith("tracked") else np.float32)
    save_file(tensors, path / "model.safetensors")
    described = {"input_size": [3, size, size], "interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center"}
    described |= {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    described = {"architecture": name, "num_classes": 3, "num_features": FEATURES, "pretrained_cfg": described}
    (path / "config.json").write_text(json.dumps(described))
    return tensors


def forward(name: str, tensors: dict[str, Any]) -> Any:
    """The whole by hand: `Blocks` for the comparison."""
    import torch
    from torch.nn import functional

    google = name.startswith("tf_")

    def conv(x: Any, key: str, stride: int = 1, bias: bool = False) -> Any:
        weight = tensors[f"{key}.weight"]
        kernel, groups = weight.shape[-1], x.shape[1] if weight.shape[1] == 1 < x.shape[1] else 1
        if google:  # TensorFlow's SAME: ceil(length / stride) places, the odd zero behind
            sides = []
            for length in (x.shape[3], x.shape[2]):
                spare = max((math.ceil(length / stride) - 1) * stride + kernel - length, 0)
                sides += [spare // 2, spare - spare // 2]
            x = functional.pad(x, sides)
        else:
            x = functional.pad(x, [kernel // 2] * 4)
        return functional.conv2d(x, weight, tensors[f"{key}.bias"] if bias else None, stride, groups=groups)

    def norm(x: Any, key: str, active: bool = True) -> Any:
        weight, bias, mean, variance = (
            tensors[f"{key}.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
        )
        x = (x - mean) / (variance + (1e-3 if google else 1e-5)) ** 0.5 * weight + bias
        return x * torch.sigmoid(x) if active else x

    def squeezed(x: Any, key: str) -> Any:
        if f"{key}.se.conv_reduce.weight" not in tensors:
            return x
        y = conv(x.mean((2, 3), keepdim=True), f"{key}.se.conv_reduce", bias=True)
        return x * torch.sigmoid(conv(y * torch.sigmoid(y), f"{key}.se.conv_expand", bias=True))

    def block(x: Any, key: str, kind: str, stride: int) -> Any:
        if kind == "cn":
            return norm(conv(x, f"{key}.conv", stride), f"{key}.bn1")
        if kind == "er":
            y = norm(conv(x, f"{key}.conv_exp", stride), f"{key}.bn1")
            return norm(conv(squeezed(y, key), f"{key}.conv_pwl"), f"{key}.bn2", active=False)
        if kind == "ds":
            y = norm(conv(x, f"{key}.conv_dw", stride), f"{key}.bn1")
            return norm(conv(squeezed(y, key), f"{key}.conv_pw"), f"{key}.bn2", active=False)
        y = norm(conv(x, f"{key}.conv_pw"), f"{key}.bn1")
        y = norm(conv(y, f"{key}.conv_dw", stride), f"{key}.bn2")
        return norm(conv(squeezed(y, key), f"{key}.conv_pwl"), f"{key}.bn3", active=False)

    def run(pixels: Any) -> tuple[list[Any], Any]:
        x = norm(conv(pixels, "conv_stem", 2), "bn1")
        maps = [x]
        for i, (kind, repeats, _, stride, *_) in enumerate(SMALL[name]):
            for j in range(repeats):
                y = block(x, f"blocks.{i}.{j}", kind, stride if j == 0 else 1)
                x = x + y if x.shape == y.shape else y
                maps.append(x)
        maps.append(norm(conv(x, "conv_head"), "bn2"))
        return [m.permute(0, 2, 3, 1) for m in maps], maps[-1].mean((2, 3))

    return run


def torch_tensors(tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    import torch

    return {name: torch.from_numpy(t).requires_grad_(t.dtype == np.float32) for name, t in tensors.items()}


def without_gradients(run: Any) -> Any:
    return lambda pixels: ([m.detach() for m in run(pixels)[0]], run(pixels)[1].detach())


@pytest.mark.reference("torch")
@pytest.mark.parametrize(("name", "size"), [("tf_efficientnetv2_s", 44), ("efficientnet_b0", 45)])
@pytest.mark.usefixtures("tables")
def test_every_block_equals_a_forward_by_hand(map_parity: Any, tmp_path: Path, name: str, size: int):
    theirs = saved(tmp_path, name, size)
    layout, config, tensors = read_published(tmp_path)
    assert (layout, config.preprocess.size, config.preprocess.resize) == ("timm_efficientnet", size, int(size / 0.875))
    run = without_gradients(forward(name, torch_tensors(theirs)))
    map_parity.check(config, tensors, run, half=name.startswith("tf_"))
    changes: dict[str, dict[str, Any]]
    if name.startswith("tf_"):
        changes = {"no input added": {"first_residual": False}, "symmetric padding": {"padding": "symmetric"}}
    else:
        changes = {"a wrong eps": {"eps": 1e-3}}
    map_parity.check_mutations(config, tensors, run, changes)

    exported = export_tensors(WEIGHTS[layout], config, tensors)
    wanted = {n: t for n, t in theirs.items() if "classifier" not in n and "tracked" not in n}
    assert exported.keys() == wanted.keys()
    assert all(np.array_equal(exported[n], t) for n, t in wanted.items())


@pytest.mark.reference("torch")
@pytest.mark.usefixtures("tables")
def test_slopes_equal_a_forward_by_hand(map_parity: Any, tmp_path: Path):
    name = "tf_efficientnetv2_s"
    theirs = torch_tensors(saved(tmp_path, name, 32))
    _, config, tensors = read_published(tmp_path)
    kernel = lambda a: a.transpose(2, 3, 1, 0)
    named = {
        "blocks.0.expand.conv.weight": (theirs["blocks.0.0.conv.weight"], kernel),
        "blocks.2.project.norm.weight": (theirs["blocks.1.0.bn2.weight"], lambda a: a),
        "blocks.4.squeeze.expand.bias": (theirs["blocks.2.0.se.conv_expand.bias"], lambda a: a),
    }
    map_parity.check_slopes(config, tensors, forward(name, theirs), named)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": "efficientnet_lite0"}, "efficientnet_lite0"),
        ({"architecture": "tf_efficientnetv2_xl"}, "tf_efficientnetv2_xl"),
        ({"global_pool": "max"}, "not the plain"),
        ({"model_args": {"in_chans": 1}}, "not the plain"),
    ],
)
@pytest.mark.usefixtures("tables")
def test_what_is_another_tower_is_refused(tmp_path: Path, change: dict[str, Any], words: str):
    saved(tmp_path, "efficientnet_b0", 32)
    described = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(described | change))
    with pytest.raises(EncoderError, match=words):
        read_published(tmp_path)


@pytest.mark.usefixtures("tables")
def test_what_timm_writes_of_every_model_changes_nothing(tmp_path: Path):
    saved(tmp_path, "efficientnet_b0", 32)
    before = read_published(tmp_path)[1]
    described = json.loads((tmp_path / "config.json").read_text())
    described["model_args"] = {"in_chans": 3, "num_classes": 7, "global_pool": "avg", "drop_rate": 0.1}
    (tmp_path / "config.json").write_text(json.dumps(described))
    assert read_published(tmp_path)[1] == before


def test_every_name_leads_to_its_tower_and_back():
    names = [f"{start}efficientnet_b{n}" for start in ("", "tf_") for n in range(8)]
    names += [f"{start}efficientnetv2_{n}" for start in ("", "tf_") for n in "sml"]
    assert timm.EFFICIENTNET_TOWERS.keys() == set(names)
    assert len(set(timm.EFFICIENTNET_TOWERS.values())) == len(names)
    for name, tower in timm.EFFICIENTNET_TOWERS.items():
        assert (tower.padding, tower.eps) == (("same", 1e-3) if name.startswith("tf_") else ("symmetric", 1e-5))


@pytest.mark.reference("torch", "timm")
@pytest.mark.parametrize(
    "name", ["tf_efficientnet_b0", "efficientnet_b1", "tf_efficientnetv2_s", "tf_efficientnetv2_m"]
)
def test_every_block_equals_timm(map_parity: Any, save_drawn: Any, tmp_path: Path, name: str):
    import timm

    model = timm.create_model(name, num_classes=0).eval()
    save_drawn(model, tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    described["pretrained_cfg"] |= {"input_size": [3, 75, 75]}
    (tmp_path / "config.json").write_text(json.dumps(described))
    _, config, tensors = read_published(tmp_path)

    def run(pixels: Any) -> tuple[list[Any], Any]:
        maps = [model.bn1(model.conv_stem(pixels))]
        for block in (block for stage in model.blocks for block in stage):
            maps.append(block(maps[-1]))
        maps.append(model.bn2(model.conv_head(maps[-1])))
        return [m.permute(0, 2, 3, 1) for m in maps], model(pixels)

    map_parity.check(config, tensors, run, half=False)
    exported = export_tensors(WEIGHTS["timm_efficientnet"], config, tensors)
    wanted = {n for n in load_file(tmp_path / "model.safetensors") if "tracked" not in n}
    assert exported.keys() == wanted
