"""DINOv2's towers as transformers saves them: every block, gradients, and what the comparison would notice."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from lookalike.core.errors import EncoderError
from lookalike.imaging.preprocess import Preprocess
from lookalike.published.layout import export_tensors
from lookalike.published.layouts import WEIGHTS, read_published

pytestmark = pytest.mark.reference("torch", "transformers")

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "mlp_ratio": 2, "patch_size": 8}
PROCESSOR = {"image_processor_type": "BitImageProcessor", "resample": 3, "rescale_factor": 1 / 255}
PROCESSOR |= {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "do_center_crop": True}


def saved(parity: Any, path: Path, registers: int = 0, image: int = 40, crop: int = 40, **options: Any) -> Any:
    from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    options = SMALL | {"image_size": image} | options
    if registers:
        model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**options, num_register_tokens=registers))
    else:
        model = Dinov2Model(Dinov2Config(**options))
    sizes = {"size": {"shortest_edge": crop + 6}, "crop_size": {"height": crop, "width": crop}}
    return parity.save(model, path, PROCESSOR | sizes)


@pytest.mark.parametrize(
    ("registers", "options"),
    [(0, {}), (3, {}), (0, {"use_swiglu_ffn": True, "qkv_bias": False, "image_size": 45})],
)
def test_every_block_equals_transformers(parity: Any, tmp_path: Path, registers: int, options: dict[str, Any]):
    model = saved(parity, tmp_path, registers, **options)
    layout, config, tensors = read_published(tmp_path)
    assert (layout, config.pooling) == ("dinov2", "class")
    assert config.preprocess.resize == 46
    parity.check(config, tensors, parity.blocks(model), half=not options)
    if registers:
        parity.check_images(tmp_path, config, tensors, parity.blocks(model))
    theirs = load_file(tmp_path / "model.safetensors")
    ours = export_tensors(WEIGHTS["dinov2"], config, tensors)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours if "mask_token" not in name)
    assert ours["embeddings.mask_token"].shape == theirs["embeddings.mask_token"].shape


@pytest.mark.parametrize("registers", [0, 2])
def test_positions_are_interpolated_to_the_size_of_the_processor(parity: Any, tmp_path: Path, registers: int):
    """As published: positions for 518 px, images of 224; with registers the reference filters before it shrinks."""
    model = saved(parity, tmp_path, registers, image=72, crop=40)
    _, config, tensors = read_published(tmp_path)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert config.preprocess == Preprocess(40, "crop", 46, "bicubic", mean, std)
    assert tensors["tower.position"].shape == (26, 32)
    _, whole, stored = read_published(tmp_path, size=72)
    assert (whole.preprocess.size, whole.preprocess.resize) == (72, 83)
    expected = load_file(tmp_path / "model.safetensors")["embeddings.position_embeddings"][0]
    np.testing.assert_array_equal(stored["tower.position"], expected)
    parity.check(config, tensors, parity.blocks(model), half=False)


def test_gradients_and_what_the_check_would_notice(parity: Any, tmp_path: Path):
    model = saved(parity, tmp_path, registers=3)
    _, config, tensors = read_published(tmp_path)
    layers = model.encoder.layer

    def stacked(gradient: np.ndarray) -> np.ndarray:
        return np.stack([gradient, layers[1].layer_scale1.lambda1.grad.numpy()])

    named = {
        "registers": (model.embeddings.register_tokens, lambda g: g[0]),
        "position": (model.embeddings.position_embeddings, lambda g: g[0]),
        "blocks.scale1": (layers[0].layer_scale1.lambda1, stacked),
    }
    parity.check_slopes(config, tensors, parity.blocks(model), named)
    changes = {
        "GELU": {"activation": "quick_gelu"},
        "eps": {"eps": 1e-4},
        "heads": {"heads": 2},
        "no layer scale": {"layer_scale": False},
        "no registers": {"registers": 0},
    }
    name = "tower.position"
    moved = {"positions moved by one": {name: np.roll(tensors[name], 1, axis=0)}}
    parity.check_mutations(config, tensors, parity.blocks(model), changes, moved)


def test_another_activation_is_refused(parity: Any, tmp_path: Path):
    saved(parity, tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(described | {"hidden_act": "relu"}))
    with pytest.raises(EncoderError, match="hidden_act='relu'"):
        read_published(tmp_path)
