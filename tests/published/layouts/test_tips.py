"""TIPS v2 as transformers saves it and as it was first published: every block, gradients, what would be noticed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lookalike.core.errors import EncoderError
from lookalike.imaging.preprocess import Preprocess
from lookalike.published.layout import export_tensors
from lookalike.published.layouts import WEIGHTS, read_published

pytestmark = pytest.mark.reference("torch", "transformers")

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "mlp_ratio": 2, "patch_size": 8}
PROCESSOR = {"image_processor_type": "Tipsv2ImageProcessor", "resample": 2, "rescale_factor": 1 / 255}
PROCESSOR |= {"do_normalize": False, "do_resize": True, "do_rescale": True, "do_convert_rgb": True}


def saved(parity: Any, path: Path, image: int = 40, size: int = 40, text: bool = False, **options: Any) -> Any:
    """A small model in `path`; its image tower."""
    from transformers import Tipsv2Config, Tipsv2Model, Tipsv2VisionConfig, Tipsv2VisionModel

    vision = SMALL | {"image_size": image} | options
    processor = PROCESSOR | {"size": {"height": size, "width": size}}
    if not text:
        return parity.save(Tipsv2VisionModel(Tipsv2VisionConfig(**vision)), path, processor)
    words = {
        "hidden_size": vision["hidden_size"],
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = Tipsv2Config(vision_config=vision, text_config=words | {"vocab_size": 50})
    return parity.save(Tipsv2Model(config), path, processor).vision_model


@pytest.mark.parametrize(
    ("text", "options"),
    [(False, {}), (True, {"num_register_tokens": 2}), (False, {"use_swiglu_ffn": True, "qkv_bias": False})],
)
def test_every_block_equals_transformers(parity: Any, tmp_path: Path, text: bool, options: dict[str, Any]):
    model = saved(parity, tmp_path, text=text, **options)
    layout, config, tensors = read_published(tmp_path)
    assert (layout, config.pooling) == ("tips", "class")
    assert config.preprocess == Preprocess(40, "squash", 40, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    parity.check(config, tensors, parity.blocks(model), half=not options)


@pytest.mark.parametrize("size", [24, 56])
def test_positions_are_interpolated_to_the_size_of_the_processor(parity: Any, tmp_path: Path, size: int):
    model = saved(parity, tmp_path, size=size)
    _, config, tensors = read_published(tmp_path)
    assert config.tower.tokens == (size // 8) ** 2 + 2
    parity.check(config, tensors, parity.blocks(model), half=False)


def test_what_is_written_is_read_by_transformers(parity: Any, tmp_path: Path):
    """The names are those of the first files, which transformers reads as well as its own."""
    import torch
    from transformers import Tipsv2Model

    model = saved(parity, tmp_path, text=True)
    _, config, tensors = read_published(tmp_path)
    ours, theirs = export_tensors(WEIGHTS["tips"], config, tensors), load_file(tmp_path / "model.safetensors")
    named = {n.replace("mlp.c_fc", "mlp.fc1").replace("mlp.c_proj", "mlp.fc2"): t for n, t in theirs.items()}
    assert ours.keys() == {name for name in named if name.startswith("vision_encoder.")}
    assert all(np.array_equal(ours[name], named[name]) for name in ours if "mask_token" not in name)
    text = {name: tensor for name, tensor in theirs.items() if not name.startswith("vision_encoder.")}
    save_file(text | ours, tmp_path / "model.safetensors")
    again, pixels = Tipsv2Model.from_pretrained(tmp_path).vision_model.eval(), parity.pixels(config)
    with torch.no_grad():
        assert torch.equal(again(pixels).pooler_output, model(pixels).pooler_output)


def test_the_first_published_config(parity: Any, tmp_path: Path):
    """It came with its own code, and calls sizes by name; heads have 64 numbers."""
    model = saved(parity, tmp_path, text=True, hidden_size=128, num_attention_heads=2, mlp_ratio=4)
    first = {"model_type": "tipsv2", "architectures": ["TIPSv2Model"], "patch_size": 8, "img_size": 40}
    first |= {"init_values": 1.0, "num_register_tokens": 1, "vision_fn": "vit_base", "embed_dim": 128}
    (tmp_path / "config.json").write_text(json.dumps(first | {"ffn_layer": "mlp"}))
    _, config, tensors = read_published(tmp_path)
    parity.check(config, tensors, parity.blocks(model), half=False)


def test_gradients_and_what_the_check_would_notice(parity: Any, tmp_path: Path):
    model = saved(parity, tmp_path)
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
    changes = {"GELU": {"activation": "quick_gelu"}, "eps": {"eps": 1e-4}, "no second class token": {"registers": 0}}
    exchanged = {
        "tower.class_token": tensors["tower.registers"][0],
        "tower.registers": tensors["tower.class_token"][None],
    }
    parity.check_mutations(config, tensors, parity.blocks(model), changes, {"class tokens exchanged": exchanged})


def test_another_activation_is_refused(parity: Any, tmp_path: Path):
    saved(parity, tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(described | {"hidden_act": "relu"}))
    with pytest.raises(EncoderError, match="hidden_act='relu'"):
        read_published(tmp_path)
