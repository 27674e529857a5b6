"""CLIP towers as transformers saves them: every block of ours against every block of theirs, on random weights."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, Tensors, below
from lookalike.encoders.encoder import Encoder
from lookalike.published.layout import export_tensors
from lookalike.published.layouts import WEIGHTS, read_published
from lookalike.towers.programs.jax import seen

pytestmark = pytest.mark.reference("torch", "transformers")

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
SMALL = {"hidden_size": 48, "intermediate_size": 80, "projection_dim": 20, "num_hidden_layers": 3}
SMALL |= {"num_attention_heads": 4, "image_size": 40, "patch_size": 8}


def saved(path: Path, kind: str = "CLIPVisionModelWithProjection", dtype: str = "float32", **options: Any) -> Any:
    """A small transformers model with random weights, in `path` as transformers writes it."""
    import torch
    import transformers.models.clip.modeling_clip as clip
    from transformers.models.clip.configuration_clip import CLIPConfig, CLIPVisionConfig

    config: Any = CLIPVisionConfig(**(SMALL | options))
    if kind == "CLIPModel":
        text = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
        text |= {"vocab_size": 50_000, "max_position_embeddings": 8}
        config = CLIPConfig(vision_config=config.to_dict(), text_config=text, projection_dim=20)
    model = getattr(clip, kind)(config).eval()
    generator = torch.Generator().manual_seed(7)
    for name, tensor in model.named_parameters():
        # Tokens enter with a small variance, so that eps counts; blocks are wide awake, so that the GELU counts.
        scale = 0.02 if "embeddings" in name else tensor.shape[-1] ** -0.5 if tensor.ndim > 1 else 0.2
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        tensor.data = centre + scale * torch.randn(tensor.shape, generator=generator)
    model.to(getattr(torch, dtype)).save_pretrained(path)
    processor = {"size": {"shortest_edge": 40}, "crop_size": {"height": 40, "width": 40}, "resample": 3}
    processor |= {"image_processor_type": "CLIPImageProcessor", "image_mean": MEAN, "image_std": STD}
    processor |= {"do_center_crop": True}
    if size := options.get("image_size"):
        processor |= {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
    (path / "preprocessor_config.json").write_text(json.dumps(processor))
    return model.float()


def pictures(size: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (3, size, size, 3), dtype=np.uint8)


def reference_blocks(model: Any, images: np.ndarray) -> list[np.ndarray]:
    """Tokens before the first block and behind each, then the features: [B P F] ..., [B F]."""
    import torch

    pixels = ((images / 255 - np.array(MEAN)) / np.array(STD)).astype(np.float32).transpose(0, 3, 1, 2)
    with torch.no_grad():
        vision = getattr(model, "vision_model", model)
        out = vision(torch.from_numpy(pixels), output_hidden_states=True)
        head = getattr(model, "visual_projection", lambda x: x)
        return [h.numpy() for h in out.hidden_states] + [head(out.pooler_output).numpy()]


def our_blocks(config: EncoderConfig, tensors: Tensors, images: np.ndarray) -> list[np.ndarray]:
    def run(encoder: Encoder, images: jax.Array) -> list[jax.Array]:
        shown = jax.vmap(lambda image: seen(config.tower, config.pooling, below("tower", encoder.tensors), image))
        return [*shown(encoder.normalise(images)), encoder.features(images)]

    return [np.asarray(b) for b in jax.jit(run)(Encoder.from_parts(config, tensors), jax.numpy.asarray(images))]


def worst(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """Largest difference of any block, as a share of that block's largest value."""
    assert [a.shape for a in ours] == [a.shape for a in theirs]
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("CLIPVisionModelWithProjection", {"hidden_act": "quick_gelu"}),
        ("CLIPVisionModelWithProjection", {"hidden_act": "gelu", "layer_norm_eps": 1e-6}),
        ("CLIPVisionModel", {"hidden_act": "gelu"}),
        ("CLIPModel", {"hidden_act": "quick_gelu"}),
        ("CLIPVisionModelWithProjection", {"image_size": 56, "patch_size": 14, "num_attention_heads": 2}),
        ("CLIPVisionModel", {"hidden_size": 30, "num_attention_heads": 3, "num_hidden_layers": 1, "patch_size": 20}),
    ],
)
def test_every_block_equals_transformers(tmp_path: Path, kind: str, options: dict[str, Any]):
    model = saved(tmp_path, kind, **options)
    images = pictures(options.get("image_size", 40))
    layout, config, tensors = read_published(tmp_path)
    assert layout == "clip"
    assert worst(our_blocks(config, tensors, images), reference_blocks(model, images)) <= 1e-5


def test_the_check_would_notice_a_wrong_tower(tmp_path: Path):
    model = saved(tmp_path)
    images, (_, config, tensors) = pictures(40), read_published(tmp_path)
    theirs = reference_blocks(model, images)
    without = {name: t for name, t in tensors.items() if "norm_pre" not in name}
    exchanged = dict(tensors)
    exchanged["tower.blocks.attention.qkv.weight"] = np.roll(tensors["tower.blocks.attention.qkv.weight"], 48, axis=2)
    wrong = {
        "GELU": ({"activation": "gelu"}, tensors),
        "eps": ({"eps": 1e-6}, tensors),
        "heads": ({"heads": 2}, tensors),
        "no pre-norm": ({"norm_pre": False}, without),
        "v, q, k": ({}, exchanged),
    }
    for name, (change, mutated) in wrong.items():
        other = dataclasses.replace(config, tower=dataclasses.replace(config.tower, **change))
        assert worst(our_blocks(other, mutated, images), theirs) > 1e-4, name
    slip = dataclasses.replace(config.preprocess, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))  # ImageNet's
    assert worst(our_blocks(dataclasses.replace(config, preprocess=slip), tensors, images), theirs) > 1e-3


def test_gradients_and_half_precision(parity: Any, tmp_path: Path):
    model = saved(tmp_path)
    _, config, tensors = read_published(tmp_path)

    def run(pixels: Any) -> tuple[list[Any], Any]:
        out = model(pixels, output_hidden_states=True)
        return list(out.hidden_states), out.image_embeds

    parity.check(config, tensors, run)
    parity.check_images(tmp_path, config, tensors, run)
    named = {
        "class_token": (model.vision_model.embeddings.class_embedding, lambda g: g),
        "norm_pre.weight": (model.vision_model.pre_layrnorm.weight, lambda g: g),
        "head.weight": (model.visual_projection.weight, lambda g: g.T),
    }
    parity.check_slopes(config, tensors, run, named)


@pytest.mark.parametrize("kind", ["CLIPVisionModelWithProjection", "CLIPVisionModel", "CLIPModel"])
def test_export_gives_back_every_tensor_to_the_bit(tmp_path: Path, kind: str):
    saved(tmp_path, kind)
    _, config, tensors = read_published(tmp_path)
    theirs = load_file(tmp_path / "model.safetensors")
    ours = export_tensors(WEIGHTS["clip"], config, tensors)
    if kind == "CLIPVisionModel":  # it writes its names bare; export writes the longer form, which it reads as well
        ours = {name.removeprefix("vision_model."): tensor for name, tensor in ours.items()}
    vision = {name: t for name, t in theirs.items() if not name.startswith("text") and name != "logit_scale"}
    assert ours.keys() == vision.keys()
    assert all(np.array_equal(ours[name], vision[name]) for name in vision)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_files_are_upcast_without_loss(tmp_path: Path, dtype: str):
    model = saved(tmp_path, dtype=dtype)
    _, config, tensors = read_published(tmp_path)
    assert {t.dtype for t in tensors.values()} == {np.dtype(np.float32)}
    assert worst(our_blocks(config, tensors, pictures(40)), reference_blocks(model, pictures(40))) <= 1e-5


def test_several_files_with_an_index(tmp_path: Path):
    saved(tmp_path)
    _, config, whole = read_published(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for file, members in parts.items():
        save_file({name: tensors[name] for name in members}, tmp_path / file)
    index = {"weight_map": {name: file for file, members in parts.items() for name in members}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model.safetensors").unlink()
    _, again, split = read_published(tmp_path)
    assert again == config
    assert all(np.array_equal(split[name], whole[name]) for name in whole)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(EncoderError, match="model-00002-of-00002"):
        read_published(tmp_path)


def test_what_older_versions_wrote_is_read_too(tmp_path: Path):
    saved(tmp_path)
    _, config, tensors = read_published(tmp_path)
    file, described = tmp_path / "model.safetensors", json.loads((tmp_path / "config.json").read_text())
    positions = {"vision_model.embeddings.position_ids": np.arange(26)[None]}
    save_file({**load_file(file), **positions}, file)
    (tmp_path / "config.json").write_text(json.dumps({**described, "image_size": [40, 40], "patch_size": [8, 8]}))
    _, again, same = read_published(tmp_path)
    assert again == config
    assert all(np.array_equal(same[name], tensors[name]) for name in tensors)


def test_faults_are_named(tmp_path: Path):
    saved(tmp_path)
    file, good = tmp_path / "model.safetensors", load_file(tmp_path / "model.safetensors")

    def refused(change: dict[str, np.ndarray | None]) -> str:
        save_file({n: t for n, t in {**good, **change}.items() if t is not None}, file)
        with pytest.raises(EncoderError) as caught:
            read_published(tmp_path)
        return caught.value.message

    bias = "vision_model.encoder.layers.1.mlp.fc1.bias"
    assert f"`{bias}` is missing" in refused({bias: None})
    assert "`vision_model.extra` is unknown" in refused({"vision_model.extra": np.zeros(2, np.float32)})
    assert "where layer 0 has" in refused({bias: np.zeros(3, np.float32)})
    assert "`tower.position` has shape [9, 48], expected [26, 48]" in refused(
        {"vision_model.embeddings.position_embedding.weight": np.zeros((9, 48), np.float32)}
    )
    assert "is I32; expected F32, F16 or BF16" in refused({bias: np.zeros(80, np.int32)})
    assert "2 axes" in refused({"visual_projection.weight": np.zeros(20, np.float32)})
    assert "not finite" in refused({"vision_model.embeddings.class_embedding": np.full(48, np.nan, np.float32)})
    assert "no tensor `vision_model.embeddings.class_embedding`" in refused(
        {"vision_model.embeddings.class_embedding": None}
    )
    file.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{broken")
    with pytest.raises(EncoderError, match=r"model\.safetensors` can't be read"):
        read_published(tmp_path)


def test_another_activation_is_refused(tmp_path: Path):
    saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    with pytest.raises(EncoderError, match="hidden_act='relu'"):
        read_published(tmp_path)
