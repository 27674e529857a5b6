"""Plain ViTs, DeiTs and ResNets of transformers on random weights, and a published ViT on its own."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from lookalike.core.errors import EncoderError
from lookalike.published.layout import described_in, export_tensors, write_layout
from lookalike.published.layouts import WEIGHTS, read_published

PROCESSOR = {"image_processor_type": "ViTImageProcessor", "resample": 2, "size": {"height": 32, "width": 32}}
PROCESSOR |= {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "rescale_factor": 1 / 255}
VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "patch_size": 8}


@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize("way", ["pooler", "bare", "classifier"])
def test_a_vit_equals_transformers_and_goes_back(parity: Any, tmp_path: Path, way: str):
    from transformers import ViTConfig, ViTForImageClassification, ViTModel

    config = ViTConfig(**VIT, image_size=32, qkv_bias=way != "bare")
    made = (
        ViTForImageClassification(config)
        if way == "classifier"
        else ViTModel(config, add_pooling_layer=way == "pooler")
    )
    model = parity.save(made, tmp_path, PROCESSOR)
    layout, ours, tensors = read_published(tmp_path)
    assert (layout, ours.pooling) == ("vit", "class")

    def run(pixels: Any) -> tuple[list[Any], Any]:
        out = getattr(model, "vit", model)(pixels, output_hidden_states=True)
        return list(out.hidden_states), out.last_hidden_state[:, 0]

    parity.check(ours, tensors, run, half=False)
    theirs = load_file(tmp_path / "model.safetensors")
    start = "vit." if way == "classifier" else ""
    for name, tensor in export_tensors(WEIGHTS["vit"], ours, tensors).items():
        np.testing.assert_array_equal(tensor, theirs[start + name])
    assert described_in(WEIGHTS["vit"], ours) is not None


@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize("way", ["DeiTModel", "DeiTForImageClassificationWithTeacher"])
def test_a_deit_with_its_distillation_token_equals_transformers_and_goes_back(parity: Any, tmp_path: Path, way: str):
    import torch
    import transformers

    config = transformers.DeiTConfig(**VIT, image_size=32)
    processor = PROCESSOR | {"image_processor_type": "DeiTImageProcessor", "do_center_crop": False}
    model = parity.save(getattr(transformers, way)(config), tmp_path, processor)
    layout, ours, tensors = read_published(tmp_path)
    assert (layout, ours.pooling) == ("deit", "class")

    def run(pixels: Any, model: Any = model) -> tuple[list[Any], Any]:
        out = getattr(model, "deit", model)(pixels, output_hidden_states=True, interpolate_pos_encoding=True)
        return list(out.hidden_states), out.last_hidden_state[:, 0]

    parity.check(ours, tensors, run, half=False)
    if way == "DeiTModel":
        _, larger, stretched = read_published(tmp_path, size=48)
        parity.check(larger, stretched, run, half=False)
        # Our registers have no position, so that theirs lies in the token; transformers gives the same of it.
        made, described = tmp_path / "made", described_in(WEIGHTS["deit"], ours)
        made.mkdir()
        (made / "preprocessor_config.json").write_text(json.dumps(processor))
        assert described is not None
        write_layout(WEIGHTS["deit"], described, ours, tensors, made)
        back = transformers.DeiTModel.from_pretrained(made, add_pooling_layer=False).eval()
        with torch.no_grad():
            expected, found = run(parity.pixels(ours))[1], run(parity.pixels(ours), back)[1]
        np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5)


@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_a_resnet_equals_transformers_and_goes_back(parity: Any, tmp_path: Path, kind: str):
    import torch
    from transformers import ResNetConfig, ResNetModel

    from lookalike.targets.onnx import run

    first = kind == "bottleneck"
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[16, 32], depths=[2, 2], layer_type=kind, downsample_in_bottleneck=first
    )
    made = ResNetModel(config)
    generator = torch.Generator().manual_seed(3)
    for name, buffer in made.named_buffers():
        if name.endswith("running_mean"):
            buffer.data = 0.1 * torch.randn(buffer.shape, generator=generator)
        elif name.endswith("running_var"):
            buffer.data = 0.5 + torch.rand(buffer.shape, generator=generator)
    model = parity.save(made, tmp_path, PROCESSOR)
    layout, ours, tensors = read_published(tmp_path)
    assert (layout, ours.pooling) == ("resnet", "mean")
    with torch.no_grad():
        expected = model(parity.pixels(ours)).pooler_output.flatten(1)
    found = run(ours, tensors, list(parity.images(ours)))
    np.testing.assert_allclose(found, torch.nn.functional.normalize(expected).numpy(), atol=1e-5)
    theirs = load_file(tmp_path / "model.safetensors")
    exported = export_tensors(WEIGHTS["resnet"], ours, tensors)
    assert exported.keys() == {name for name in theirs if not name.endswith("tracked")}
    assert all(np.array_equal(tensor, theirs[name]) for name, tensor in exported.items())
    assert described_in(WEIGHTS["resnet"], ours) is not None
    (tmp_path / "config.json").write_text(
        json.dumps(json.loads((tmp_path / "config.json").read_text()) | {"downsample_in_first_stage": True})
    )
    with pytest.raises(EncoderError, match="downsample_in_first_stage=True"):
        read_published(tmp_path)


@pytest.mark.data
@pytest.mark.reference("torch", "transformers")
def test_a_published_vit_gives_the_features_of_transformers():
    import torch
    from transformers import ViTModel

    from lookalike.targets.onnx import run

    path = Path(os.environ["LOOKALIKE_DATA"]) / "backbones" / "vit_tiny_patch16_224_in21k_in1k"
    layout, ours, tensors = read_published(path)
    assert (layout, ours.tower.features, ours.preprocess.size) == ("vit", 192, 224)
    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    model = ViTModel.from_pretrained(path, add_pooling_layer=False).eval()
    prepared = np.stack([ours.preprocess(image) for image in images])
    pixels = ((prepared / 255 - ours.preprocess.mean) / ours.preprocess.std).transpose(0, 3, 1, 2).astype(np.float32)
    with torch.no_grad():
        expected = torch.nn.functional.normalize(model(torch.tensor(pixels)).last_hidden_state[:, 0]).numpy()
    assert (run(ours, tensors, list(images)) * expected).sum(1).min() > 0.99999
