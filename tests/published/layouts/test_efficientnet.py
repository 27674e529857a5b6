"""EfficientNet as transformers saves it: every block, gradients, and what the comparison would notice."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lookalike.core.errors import EncoderError
from lookalike.published.layout import export_tensors
from lookalike.published.layouts import WEIGHTS, read_published
from lookalike.towers.inverted import EFFICIENTNETS

pytestmark = pytest.mark.reference("torch", "transformers")

# Three stages of the real kinds, from what a published config says; widths are multiples of 8.
SMALL: dict[str, Any] = {
    "width_coefficient": 0.5,
    "depth_coefficient": 0.6,
    "in_channels": [32, 16, 48],
    "out_channels": [16, 48, 80],
    "kernel_sizes": [3, 5, 3],
    "strides": [1, 2, 2],
    "num_block_repeats": [1, 2, 2],
    "expand_ratios": [1, 6, 4],
    "hidden_dim": 640,
}
PROCESSOR = {"image_processor_type": "EfficientNetImageProcessor", "resample": 0, "include_top": True}
PROCESSOR |= {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.47853944, 0.4732864, 0.47434163]}


def saved(path: Path, size: int, classifier: bool = False, **options: Any) -> Any:
    """A model with random weights and statistics, and its preprocessing, as transformers writes them."""
    import torch
    from transformers.models.efficientnet.configuration_efficientnet import EfficientNetConfig
    from transformers.models.efficientnet.modeling_efficientnet import (
        EfficientNetForImageClassification,
        EfficientNetModel,
    )

    kind = EfficientNetForImageClassification if classifier else EfficientNetModel
    model = kind(EfficientNetConfig(**SMALL | options)).eval()
    generator = torch.Generator().manual_seed(5)
    for name, tensor in model.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim == 4:
            tensor.copy_(noise * (2 / tensor[0].numel()) ** 0.5)
        elif name.endswith("running_var"):  # small ones too, so that eps counts
            tensor.copy_(0.02 + torch.rand(tensor.shape, generator=generator))
        elif tensor.ndim == 1:
            tensor.copy_((("norm" in name or "bn" in name) and name.endswith("weight")) * 0.7 + 0.2 * noise)
    model.save_pretrained(path)
    (path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR | {"size": {"height": size, "width": size}}))
    return model.efficientnet if classifier else model


def blocks(model: Any) -> Any:
    def run(pixels: Any) -> tuple[list[Any], Any]:
        out = model(pixels, output_hidden_states=True)
        maps = [*out.hidden_states, out.last_hidden_state]
        return [m.permute(0, 2, 3, 1) for m in maps], out.pooler_output

    return run


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (64, {}),
        (57, {"depthwise_padding": [1], "width_coefficient": 0.25, "hidden_dim": 320, "squeeze_expansion_ratio": 0.1}),
    ],
)
def test_every_block_equals_transformers(map_parity: Any, tmp_path: Path, size: int, options: dict[str, Any]):
    """57 px and an eighth of the width: odd maps, and a first block that could add its input and does not."""
    model = saved(tmp_path, size, **options)
    layout, config, tensors = read_published(tmp_path)
    assert (layout, config.pooling, config.preprocess.interpolation) == ("efficientnet", "mean", "nearest")
    np.testing.assert_allclose(config.preprocess.std, (0.229, 0.224, 0.225), rtol=1e-5)
    map_parity.check(config, tensors, blocks(model), half=not options)


def test_the_comparison_would_notice_another_tower(map_parity: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = saved(tmp_path, 64)
    _, config, tensors = read_published(tmp_path)
    changes = {
        "a wrong eps": {"eps": 1e-5},
        "symmetric padding": {"padding": "symmetric"},
    }
    open_gates = {name: np.full_like(t, 100) for name, t in tensors.items() if name.endswith("squeeze.expand.bias")}
    map_parity.check_mutations(config, tensors, blocks(model), changes, {"no squeeze": open_gates})
    theirs = map_parity.theirs(config, blocks(model))
    monkeypatch.setattr(type(config.tower), "activation", "relu")
    jax.clear_caches()  # what is compiled already would not see the change, and what is compiled now must not stay
    assert map_parity.worst(map_parity.ours(config, tensors), theirs) > 1e-4
    jax.clear_caches()


def test_slopes_equal_transformers(map_parity: Any, tmp_path: Path):
    model = saved(tmp_path, 32)
    _, config, tensors = read_published(tmp_path)
    block = model.encoder.blocks[1]
    named = {
        "stem.conv.weight": (model.embeddings.convolution.weight, lambda a: a.transpose(2, 3, 1, 0)),
        "blocks.1.depthwise.conv.weight": (
            block.depthwise_conv.depthwise_conv.weight,
            lambda a: a.transpose(2, 3, 1, 0),
        ),
        "blocks.1.squeeze.reduce.weight": (block.squeeze_excite.reduce.weight, lambda a: a[:, :, 0, 0].T),
        "last.norm.bias": (model.encoder.top_bn.bias, lambda a: a),
    }
    map_parity.check_slopes(config, tensors, blocks(model), named)


@pytest.mark.parametrize("classifier", [False, True])
def test_export_gives_back_every_tensor_to_the_bit(tmp_path: Path, classifier: bool):
    saved(tmp_path, 64, classifier)
    _, config, tensors = read_published(tmp_path)
    theirs = load_file(tmp_path / "model.safetensors")
    theirs = {n: t for n, t in theirs.items() if "classifier" not in n and "num_batches" not in n}
    ours = export_tensors(WEIGHTS["efficientnet"], config, tensors)
    if not classifier:
        ours = {name.removeprefix("efficientnet."): tensor for name, tensor in ours.items()}
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(("name", "width", "depth"), [("b0", 1.0, 1.0), ("b3", 1.2, 1.4), ("b7", 2.0, 3.1)])
def test_a_published_config_is_the_papers_tower(tmp_path: Path, name: str, width: float, depth: float):
    from transformers.models.efficientnet.configuration_efficientnet import EfficientNetConfig

    statistics = PROCESSOR | {"size": {"height": 64, "width": 64}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(statistics))
    wanted = replace(EFFICIENTNETS[name], padding="late", first_residual=False)
    described = EfficientNetConfig(width_coefficient=width, depth_coefficient=depth, hidden_dim=wanted.features)
    assert WEIGHTS["efficientnet"].read(tmp_path, described.to_dict(), {})[0] == wanted


def test_faults_are_named(tmp_path: Path):
    saved(tmp_path, 64)
    file, name = tmp_path / "model.safetensors", "encoder.blocks.1.squeeze_excite.reduce.weight"
    good = load_file(file)
    save_file({n: t for n, t in good.items() if n != name}, file)
    with pytest.raises(EncoderError, match=f"`{name}` is missing"):
        read_published(tmp_path)
    save_file(good, file)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, words in (
        ({"hidden_act": "relu"}, "hidden_act='relu'"),
        ({"pooling_type": "max"}, "pooling_type='max'"),
        ({"hidden_dim": 1280}, "hidden_dim=1280"),
        ({"strides": [1, 3, 2]}, "strides="),
        ({"strides": [1, 2]}, "different lengths"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(EncoderError, match=words):
            read_published(tmp_path)
