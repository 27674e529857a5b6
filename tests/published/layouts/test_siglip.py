"""SigLIP's towers as transformers saves them: every block, gradients, and what the comparison would notice."""

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

SMALL = {"hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 4}
PROCESSOR = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 44, "width": 44}, "resample": 3}
PROCESSOR |= {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.4, 0.5], "rescale_factor": 1 / 255}
TEXT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 90}


def saved(parity: Any, path: Path, whole: bool = False, processor: bool = True, **options: Any) -> Any:
    """44 px in patches of 8: four pixels at the right and at the bottom are not seen, as in SO400M/14-384."""
    import transformers.models.siglip.modeling_siglip as siglip
    from transformers.models.siglip.configuration_siglip import SiglipConfig, SiglipVisionConfig

    config: Any = SiglipVisionConfig(**(SMALL | {"image_size": 44, "patch_size": 8} | options))
    if whole:
        config = SiglipConfig(vision_config=config.to_dict(), text_config=TEXT)
    model = (siglip.SiglipModel if whole else siglip.SiglipVisionModel)(config)
    return parity.save(model, path, PROCESSOR if processor else None)


@pytest.mark.parametrize("whole", [False, True])
def test_every_block_equals_transformers_and_export_gives_back_every_tensor(parity: Any, tmp_path: Path, whole: bool):
    model = saved(parity, tmp_path, whole)
    layout, config, tensors = read_published(tmp_path)
    assert (layout, config.pooling, config.tower.features) == ("siglip", "attention", 32)
    assert config.preprocess == Preprocess(44, "squash", 44, "bicubic", (0.5,) * 3, (0.5, 0.4, 0.5))
    parity.check(config, tensors, parity.blocks(model), half=not whole)
    if not whole:
        parity.check_images(tmp_path, config, tensors, parity.blocks(model))
    theirs = {name: t for name, t in load_file(tmp_path / "model.safetensors").items() if "text" not in name}
    ours = {name.removeprefix("" if whole else "vision_model."): t for name, t in export(config, tensors).items()}
    assert ours.keys() == theirs.keys() - {"logit_scale", "logit_bias"}
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def export(config: Any, tensors: Any) -> dict[str, np.ndarray]:
    return export_tensors(WEIGHTS["siglip"], config, tensors)


def test_gradients_and_what_the_check_would_notice(parity: Any, tmp_path: Path):
    model = saved(parity, tmp_path)
    _, config, tensors = read_published(tmp_path)
    kernel = model.embeddings.patch_embedding.weight
    named = {
        "position": (model.embeddings.position_embedding.weight, lambda g: g),
        "pool.attention.qkv.weight": (model.head.attention.in_proj_weight, lambda g: g.T),
        "patch.weight": (kernel, lambda g: g.transpose(2, 3, 1, 0).reshape(-1, 32)),
    }
    parity.check_slopes(config, tensors, parity.blocks(model), named)
    changes = {
        "GELU": {"activation": "gelu"},
        "eps": {"eps": 1e-4},
        "heads": {"heads": 2},
        "heads of the pooling": {"pool_heads": 2},
    }
    name = "tower.pool.attention.qkv.weight"
    mutated = {"v, q, k of the pooling": {name: np.roll(tensors[name], 32, axis=1)}}
    parity.check_mutations(config, tensors, parity.blocks(model), changes, mutated)


def test_without_a_head_the_patches_are_averaged(parity: Any, tmp_path: Path):
    model = saved(parity, tmp_path, vision_use_head=False)
    _, config, tensors = read_published(tmp_path)
    assert config.pooling == "mean"

    def run(pixels: Any) -> tuple[list[Any], Any]:
        out = model(pixels, output_hidden_states=True)
        return list(out.hidden_states), out.last_hidden_state.mean(dim=1)

    parity.check(config, tensors, run, half=False)


def test_naflex_for_squares(parity: Any, tmp_path: Path):
    import torch
    from transformers.models.siglip2.configuration_siglip2 import Siglip2VisionConfig
    from transformers.models.siglip2.modeling_siglip2 import Siglip2VisionModel

    model = Siglip2VisionModel(Siglip2VisionConfig(**SMALL, patch_size=8, num_patches=25))
    processor = {"image_processor_type": "Siglip2ImageProcessor", "resample": 2, "patch_size": 8}
    processor |= {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "max_num_patches": 25}
    parity.save(model, tmp_path, processor)
    layout, config, tensors = read_published(tmp_path)
    assert layout == "siglip2"
    assert config.preprocess == Preprocess(40, "squash", 40, "bilinear", (0.5,) * 3, (0.5,) * 3)

    def run(pixels: Any) -> tuple[list[Any], Any]:
        cut = pixels.reshape(len(pixels), 3, 5, 8, 5, 8).permute(0, 2, 4, 3, 5, 1).reshape(len(pixels), 25, -1)
        shapes, mask = torch.tensor([[5, 5]] * len(pixels)), torch.ones((len(pixels), 25), dtype=torch.int64)
        out = model(cut, pixel_attention_mask=mask, spatial_shapes=shapes, output_hidden_states=True)
        return list(out.hidden_states), out.pooler_output

    parity.check(config, tensors, run, half=False)
    theirs = load_file(tmp_path / "model.safetensors")
    ours = export_tensors(WEIGHTS["siglip2"], config, tensors)
    assert {f"vision_model.{name}" for name in theirs} == ours.keys()
    assert all(np.array_equal(ours[f"vision_model.{name}"], theirs[name]) for name in theirs)
    for change in ({"resample": 4}, {"do_rescale": False}, {"rescale_factor": 1.0}):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor | change))
        with pytest.raises(EncoderError, match=r"expected 0, 1, 2 or 3|does not rescale|expected 1/255"):
            read_published(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": 3}))
    with pytest.raises(EncoderError, match="lacks `resample`, `image_mean`, `image_std`"):
        read_published(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(EncoderError, match="how images must be prepared is not known"):
        read_published(tmp_path)


def test_what_is_not_supported_is_refused(parity: Any, tmp_path: Path):
    saved(parity, tmp_path, processor=False)
    with pytest.raises(EncoderError, match="preprocessor_config"):
        read_published(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(described | {"hidden_act": "relu"}))
    with pytest.raises(EncoderError, match="hidden_act='relu'"):
        read_published(tmp_path)
