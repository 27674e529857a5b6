"""Encoders brought to another input, layer or pooling, against torch's interpolation and transformers' own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, Tensors, check_tensors, tensor_shapes
from lookalike.encoders.fit import adapt, resampled
from lookalike.imaging.preprocess import Preprocess
from lookalike.published.layouts import read_published
from lookalike.towers import MobileNetV2Config, ViTConfig

SMALL = {"hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 3, "num_attention_heads": 4}
SMALL |= {"image_size": 40, "patch_size": 8}
MEAN = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.4, 0.5], "resample": 3}


@pytest.mark.reference("torch")
@pytest.mark.parametrize("kind", ["bicubic", "bicubic_antialias", "bilinear", "bilinear_antialias"])
@pytest.mark.parametrize(("old", "new"), [(37, 16), (16, 37), (7, 8), (16, 24), (14, 1), (1, 3), (5, 5)])
def test_resampling_equals_torch(kind: Any, old: int, new: int):
    import torch

    grid = np.random.default_rng(0).normal(size=(old, old, 6)).astype(np.float32)
    mode, antialias = kind.split("_")[0], kind.endswith("antialias")
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(grid.transpose(2, 0, 1)[None].copy()), (new, new), mode=mode, antialias=antialias
    )
    found = resampled(grid, new, kind)
    np.testing.assert_allclose(found, expected[0].numpy().transpose(1, 2, 0), rtol=0, atol=1e-5)


def clip(parity: Any, path: Path) -> Any:
    from transformers.models.clip.configuration_clip import CLIPVisionConfig
    from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection

    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**SMALL, projection_dim=20, hidden_act="gelu"))
    sizes = {"size": {"shortest_edge": 44}, "crop_size": {"height": 40, "width": 40}, "do_center_crop": True}
    return parity.save(model, path, {"image_processor_type": "CLIPImageProcessor"} | sizes | MEAN)


def siglip(parity: Any, path: Path) -> Any:
    from transformers.models.siglip.configuration_siglip import SiglipVisionConfig
    from transformers.models.siglip.modeling_siglip import SiglipVisionModel

    model = SiglipVisionModel(SiglipVisionConfig(**SMALL))
    size = {"size": {"height": 40, "width": 40}}
    return parity.save(model, path, {"image_processor_type": "SiglipImageProcessor"} | size | MEAN)


@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize("size", [24, 56, 61])
def test_another_size_is_what_transformers_interpolates(parity: Any, tmp_path: Path, size: int):
    """CLIP and SigLIP; DINOv2, whose reference interpolates always, is in test_dinov2.py. 61 px: an odd remainder."""
    for name, make in (("clip", clip), ("siglip", siglip)):
        model = make(parity, tmp_path / name)

        def run(pixels: Any, model: Any = model) -> tuple[list[Any], Any]:
            out = model(pixels, interpolate_pos_encoding=True, output_hidden_states=True)
            return list(out.hidden_states), out["image_embeds" if "image_embeds" in out else "pooler_output"]

        config, tensors = adapt(*read_published(tmp_path / name)[1:], size=size)
        assert config.preprocess.resize == (round(44 * size / 40) if name == "clip" else size)
        check_tensors(tensor_shapes(config), tensors, "adapted")
        parity.check(config, tensors, run, half=False)


@pytest.mark.reference("torch", "transformers")
def test_overlapping_patches_are_a_convolution_with_that_stride(parity: Any, tmp_path: Path):
    """The same model of transformers, its kernel moved by 5 px, its positions interpolated to the new grid."""
    import torch

    model = clip(parity, tmp_path)
    config, tensors = adapt(*read_published(tmp_path)[1:], size=43, stride=5)
    vision, grid = model.vision_model.embeddings, 8
    assert config.tower.tokens == 1 + grid**2  # type: ignore[union-attr]
    vision.patch_embedding.stride = (5, 5)
    old = vision.position_embedding.weight.data
    new = torch.nn.functional.interpolate(old[1:].T.reshape(1, 32, 5, 5), (grid, grid), mode="bicubic")
    vision.position_embedding = torch.nn.Embedding(1 + grid**2, 32)
    vision.position_embedding.weight.data = torch.cat([old[:1], new.reshape(32, -1).T])
    vision.position_ids, vision.image_size = torch.arange(1 + grid**2)[None], 43

    def run(pixels: Any) -> tuple[list[Any], Any]:
        out = model(pixels, output_hidden_states=True)
        return list(out.hidden_states), out.image_embeds

    parity.check(config, tensors, run, half=False)


@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize(("layer", "pooling"), [(2, "class"), (-2, "mean"), (-3, None)])
def test_an_earlier_layer_another_pooling_no_projection(parity: Any, tmp_path: Path, layer: int, pooling: Any):
    model = clip(parity, tmp_path)
    _, config, tensors = read_published(tmp_path)
    made, kept = adapt(config, tensors, layer=layer, pooling=pooling, projected=False)
    blocks = layer if layer > 0 else 4 + layer
    assert (made.tower.features, made.projection.dimension, len(kept["tower.blocks.norm1.weight"])) == (32, 32, blocks)

    def run(pixels: Any) -> tuple[list[Any], Any]:
        states = model.vision_model(pixels, output_hidden_states=True).hidden_states[: blocks + 1]
        last = model.vision_model.post_layernorm(states[-1])
        return list(states), last[:, 1:].mean(1) if pooling == "mean" else last[:, 0]

    parity.check(made, kept, run, half=False)
    assert config.tower.layers == 3  # type: ignore[union-attr]
    assert "tower.head.weight" in tensors  # what went in stays as it was


def parts(tower: Any, pooling: Any, kind: Any = "identity", **prepare: Any) -> tuple[EncoderConfig, Tensors]:
    preprocess = Preprocess(32, "squash", 32, "bicubic", (0.5,) * 3, (0.5,) * 3)
    projection = ProjectionConfig(kind, tower.features, tower.features)
    config = EncoderConfig(tower, pooling, replace(preprocess, **prepare), projection)
    rng = np.random.default_rng(0)
    return config, {name: rng.normal(size=shape).astype(np.float32) for name, shape in tensor_shapes(config).items()}


VIT = ViTConfig(32, 8, 12, 3, 3, 20, "gelu", class_token=False, positions="patches", pool_heads=2)
ROPE = replace(VIT, positions="none", rope="centred")


def test_an_attention_pooling_that_is_not_asked_for_goes():
    config, tensors = adapt(*parts(VIT, "attention"), pooling="mean", size=32)
    assert config.tower == replace(VIT, pool_heads=None)
    check_tensors(tensor_shapes(config), tensors, "adapted")
    assert adapt(*parts(VIT, "mean"), pooling="attention")[0].tower == VIT


def test_without_learned_positions_no_tensor_changes():
    before, tensors = parts(ROPE, "mean")
    config, same = adapt(before, tensors, size=48, stride=4)
    assert (config.tower.tokens, config.preprocess.size) == (121, 48)  # type: ignore[union-attr]
    assert all(same[name] is tensors[name] for name in tensors)
    check_tensors(tensor_shapes(config), same, "adapted")


def test_a_convolutional_tower_takes_another_size_and_pooling():
    tower = MobileNetV2Config(multiplier=0.35)
    config, _ = adapt(*parts(tower, "mean", mode="crop", resize=36), size=48, pooling="gem")
    assert (config.preprocess.size, config.preprocess.resize, config.pooling) == (48, 54, "gem")
    for change in ({"stride": 4}, {"layer": 1}, {"projected": False}):
        with pytest.raises(EncoderError, match="a ViT's to choose; this tower is of another kind"):
            adapt(*parts(tower, "mean"), **change)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layer": 0}, "no layer 0 in a tower of 3"),
        ({"layer": 4}, "no layer 4"),
        ({"layer": -4}, "no layer -4"),
        ({"pooling": "class"}, "'class' does not go with"),
        ({"pooling": "gem"}, "'gem' does not go with"),
        ({"projected": True}, "no projection behind its pooling"),
        ({"stride": 9}, "9 px apart"),
        ({"size": 4}, "of 4 px"),
    ],
)
def test_what_can_not_be(change: dict[str, Any], says: str):
    with pytest.raises(EncoderError, match=says):
        adapt(*parts(VIT, "mean"), **change)


def test_a_trained_projection_keeps_its_features():
    config, tensors = parts(VIT, "mean", kind="linear")
    made, _ = adapt(config, tensors, size=40)
    assert made.projection == config.projection
    for change in ({"layer": 1}, {"pooling": "attention"}, {"projected": False}):
        with pytest.raises(EncoderError, match="was learned from the features"):
            adapt(config, tensors, **change)
