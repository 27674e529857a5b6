"""Published layouts: transformers, sentence-transformers and safetensors, against those libraries and read back."""

from pathlib import Path

import numpy as np
import pytest

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig
from lookalike.imaging.preprocess import Preprocess
from lookalike.published.layouts import read_published
from lookalike.targets import writing
from lookalike.targets.parts import Export
from lookalike.targets.published import folded
from lookalike.targets.writing import write_export
from lookalike.towers import ConvNetConfig, ConvNeXtConfig, MobileNetV2Config, SwinConfig, ViTConfig
from lookalike.towers.inverted import EfficientNetConfig, Stage

COLORS = ((0.48, 0.45, 0.40), (0.27, 0.26, 0.28))
SQUASH = Preprocess(32, "squash", 32, "bicubic", *COLORS)
VIT = {"size": 32, "patch": 8, "width": 64, "layers": 2, "heads": 2, "hidden": 128}
SIGLIP = {"eps": 1e-6, "patch_bias": True, "class_token": False, "positions": "patches", "norm_pre": False}
DINO = {"patch_bias": True, "layer_scale": True, "norm_pre": False, "activation": "gelu"}
B0 = EfficientNetConfig(
    (Stage("depthwise", 1, 3, 1, 1, 16, 0.25), Stage("depthwise", 2, 5, 2, 6, 24, 0.25)),
    32,
    1280,
    padding="late",
    first_residual=False,
)

FAMILIES = {
    "clip": (ViTConfig(**VIT, activation="gelu"), "class", None),
    "siglip": (ViTConfig(**VIT, **SIGLIP, activation="gelu_tanh", pool_heads=2), "attention", SQUASH),
    "dinov2": (ViTConfig(**VIT, **DINO, eps=1e-6), "class", None),
    "dinov2 registers": (
        ViTConfig(**VIT, **DINO, eps=1e-6, registers=3, resampling="bicubic_antialias"),
        "mean",
        None,
    ),
    "dinov3": (
        ViTConfig(**VIT, **DINO, registers=3, positions="none", rope="centred", qkv_bias="query_value"),
        "class",
        None,
    ),
    "swin": (SwinConfig(1, 16, (2, 2), (2, 2), (4, 4), (2, 2)), "mean", SQUASH),
    "swinv2": (SwinConfig(2, 16, (2, 2), (2, 2), (8, 4), (0, 0)), "mean", SQUASH),
    "efficientnet": (B0, "mean", SQUASH),
    "convnext": (ConvNeXtConfig((16, 32), (1, 2)), "mean", SQUASH),
    "dinov3_convnext": (ConvNeXtConfig((16, 32), (1, 2), eps=1e-5, last_eps=1e-5), "mean", SQUASH),
    "mobilenet_v2": (MobileNetV2Config(multiplier=0.35, same_padding=True), "mean", SQUASH),
}


@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_transformers_computes_the_same(tmp_path: Path, case, family: str):
    """By the lines of the README, which the export itself runs; `test_a_projection...` runs them once more."""
    made, out = case(*FAMILIES[family]), tmp_path / "out"
    facts = write_export("transformers", Export(made.config, made.tensors, {}), made.vectors, out)
    assert facts["minimum_cosine"] > 0.99999
    assert facts["checked_with"].startswith("torch 2")


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_layout_comes_back_to_the_bit(tmp_path: Path, case, monkeypatch: pytest.MonkeyPatch, family: str):
    made = case(*FAMILIES[family], by_graph=True)
    monkeypatch.setattr(writing, "absent", lambda names: [name for name in names if name == "torch"])
    facts = write_export("transformers", Export(made.config, made.tensors, {}), made.vectors, tmp_path / "out")
    assert facts["checked_with"].endswith("without torch")
    assert facts["minimum_cosine"] > 0.99999
    name, config, tensors = read_published(tmp_path / "out")
    assert name == {"dinov2 registers": "dinov2", "dinov3": "dinov3_vit"}.get(family, family)
    assert (config.tower, config.preprocess) == (made.config.tower, made.config.preprocess)
    assert all(np.array_equal(tensors[n], made.tensors[n]) for n in tensors)
    assert (tmp_path / "out" / "projection.safetensors").exists()


@pytest.mark.reference("torch", "transformers")
def test_tensorflows_padding_is_told_for_the_encoders_own_size(tmp_path: Path, case):
    stages = (Stage("depthwise", 1, 3, 1, 1, 16, 0.25), Stage("depthwise", 2, 5, 2, 6, 24, 0.25))
    stages += (Stage("depthwise", 1, 3, 2, 6, 32, 0.25),)
    size = Preprocess(44, "squash", 44, "bicubic", *COLORS)  # maps of 22 and 11 pixels enter kernels with a stride
    made = case(EfficientNetConfig(stages, 32, 1280), "mean", size)
    facts = write_export("transformers", Export(made.config, made.tensors, {}), made.vectors, tmp_path / "out")
    assert facts["minimum_cosine"] > 0.99999
    _, config, _ = read_published(tmp_path / "out")
    assert isinstance(config.tower, EfficientNetConfig)
    assert (config.tower.padding, config.tower.symmetric) == ("late", (3,))


@pytest.mark.reference("torch", "transformers")
def test_a_projection_without_bias_goes_into_the_head(tmp_path: Path, case, small, by_readme):
    made = case(ViTConfig(**small, activation="quick_gelu", head=20), dimension=8, bias=False)
    inside = folded(made.config, made.tensors)
    assert inside is not None
    config, tensors = inside
    both = made.tensors["tower.head.weight"] @ made.tensors["projection.weight"]
    np.testing.assert_allclose(tensors["tower.head.weight"], both, atol=1e-5)
    assert isinstance(config, EncoderConfig)
    write_export("transformers", Export(made.config, made.tensors, {}), made.vectors, tmp_path / "out")
    assert not (tmp_path / "out" / "projection.safetensors").exists()
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "`visual_projection`" in readme
    np.testing.assert_allclose(by_readme(readme, tmp_path / "out"), made.expected, atol=1e-5)
    biased = case(ViTConfig(**small, activation="quick_gelu", head=20), dimension=8)
    assert folded(biased.config, biased.tensors) is None


@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(32, "crop", 37, "bicubic", *COLORS, rounding="even"),
        Preprocess(32, "pad", 32, "bicubic", *COLORS, fill=(9, 99, 200)),
    ],
)
def test_where_no_image_processor_fits_the_lines_prepare(tmp_path: Path, case, small, preprocess: Preprocess):
    made = case(ViTConfig(**small, activation="gelu"), "class", preprocess, mirror=True, zooms=(0.7,))
    facts = write_export("transformers", Export(made.config, made.tensors, {}), made.vectors, tmp_path / "out")
    assert facts["minimum_cosine"] > 0.99999
    assert "the lines do" in (tmp_path / "out" / "README.md").read_text()
    assert (tmp_path / "out" / "preprocessor_config.json").exists() == (preprocess.mode == "crop")


def test_what_a_layout_has_no_place_for(tmp_path: Path, case, small):
    net = case(ConvNetConfig(widths=(8, 16), depths=(0, 1)), "mean", SQUASH, by_graph=True)
    with pytest.raises(EncoderError, match="transformers has no class for this ConvNet"):
        write_export("transformers", Export(net.config, net.tensors, {}), net.vectors, tmp_path / "a")
    mirrored = case(ViTConfig(**small, activation="gelu"), "class", SQUASH, mirror=True, by_graph=True)
    with pytest.raises(EncoderError, match="for which sentence-transformers has no module"):
        write_export(
            "sentence-transformers", Export(mirrored.config, mirrored.tensors, {}), net.vectors, tmp_path / "b"
        )
    mean = case(ViTConfig(**small, activation="gelu"), "mean", SQUASH, by_graph=True)
    with pytest.raises(EncoderError, match="gives no features that are pooled by 'mean'"):
        write_export("transformers", Export(mean.config, mean.tensors, {}), mean.vectors, tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.reference("sentence_transformers", "torch", "transformers")
def test_sentence_transformers_computes_the_same(tmp_path: Path, clip, by_readme):
    write_export("sentence-transformers", Export(clip.config, clip.tensors, {}), clip.vectors, tmp_path / "out")
    found = by_readme((tmp_path / "out" / "README.md").read_text(), tmp_path / "out")
    np.testing.assert_allclose(found, clip.expected, atol=1e-5)


@pytest.mark.parametrize("family", ["clip", "siglip", "swin", "mobilenet_v2"])
def test_sentence_transformers_has_every_step(tmp_path: Path, case, monkeypatch: pytest.MonkeyPatch, family: str):
    """Read back by us: where the library is installed, the test above and `write_export` itself ask the library."""
    made = case(*FAMILIES[family], by_graph=True)
    monkeypatch.setattr(writing, "absent", list)
    facts = write_export("sentence-transformers", Export(made.config, made.tensors, {}), made.vectors, tmp_path / "o")
    assert facts["minimum_cosine"] > 0.99999
    assert {path.name for path in (tmp_path / "o").iterdir() if path.is_dir()} == {
        "1_Normalize",
        "2_Dense",
        "3_Normalize",
    }


def test_safetensors_are_those_of_the_layout(tmp_path: Path, case, clip):
    from safetensors.numpy import load_file

    write_export(
        "safetensors", Export(clip.config, clip.tensors, {"layout": "open_clip"}), clip.vectors, tmp_path / "a"
    )
    assert "visual.conv1.weight" in load_file(tmp_path / "a" / "model.safetensors")
    card = {"began_from": {"layout": "clip"}}
    write_export("safetensors", Export(clip.config, clip.tensors, card), clip.vectors, tmp_path / "b")
    assert "visual_projection.weight" in load_file(tmp_path / "b" / "model.safetensors")
    projection = load_file(tmp_path / "b" / "projection.safetensors")
    np.testing.assert_array_equal(projection["weight"], clip.tensors["projection.weight"])
    net = case(ConvNetConfig(widths=(8, 16), depths=(0, 1)), "mean", SQUASH, by_graph=True)
    write_export("safetensors", Export(net.config, net.tensors, {}), net.vectors, tmp_path / "c")
    assert "stages.0.down.conv.weight" in load_file(tmp_path / "c" / "model.safetensors")
    names: dict = {}
    code = (tmp_path / "c" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    exec(code.replace("'model", f"'{tmp_path}/c/model").replace("'proj", f"'{tmp_path}/c/proj"), names)
    assert names["projection"]["bias"].shape == (16,)


GAP = {**SIGLIP, "activation": "gelu_tanh"}
EVEN = Preprocess(32, "crop", 32, "bicubic", *COLORS, rounding="even")

FOREIGN = {
    "open_clip head": ("open_clip", ViTConfig(**VIT, activation="gelu", head=20), "class", EVEN, {}),
    "open_clip mean": (
        "open_clip",
        ViTConfig(**VIT, activation="quick_gelu", head=20),
        "mean",
        None,
        {"mirror": True, "zooms": (0.8, 0.5)},
    ),
    "open_clip odd": (
        "open_clip",
        ViTConfig(**VIT | {"width": 98, "hidden": 211}, activation="gelu"),
        "class",
        None,
        {},
    ),
    "open_clip folded": ("open_clip", ViTConfig(**VIT, activation="gelu"), "class", EVEN, {"bias": False}),
    "timm clip": ("timm", ViTConfig(**VIT, activation="quick_gelu", head=20), "class", EVEN, {}),
    "timm siglip": ("timm", FAMILIES["siglip"][0], "attention", SQUASH, {}),
    "timm siglip gap": ("timm", ViTConfig(**VIT, **GAP), "mean", SQUASH, {}),
    "timm dinov2": ("timm", FAMILIES["dinov2"][0], "class", EVEN, {}),
    "timm dinov3": ("timm", FAMILIES["dinov3"][0], "class", EVEN, {}),
    "timm swinv2": ("timm", FAMILIES["swinv2"][0], "mean", SQUASH, {}),
}


@pytest.mark.parametrize("name", sorted(FOREIGN))
def test_other_layouts_come_back_to_the_bit(tmp_path: Path, case, monkeypatch: pytest.MonkeyPatch, name: str):
    target, tower, pooling, preprocess, options = FOREIGN[name]
    made = case(tower, pooling, preprocess, **options, by_graph=True)
    monkeypatch.setattr(writing, "absent", lambda names: [name for name in names if name == "torchvision"])
    facts = write_export(target, Export(made.config, made.tensors, {}), made.vectors, tmp_path / "out")
    assert facts["minimum_cosine"] > 0.99999
    assert facts["checked_with"].endswith("without torchvision")
    layout, config, _ = read_published(tmp_path / "out")
    assert layout.startswith(target)
    assert config.pooling == pooling


@pytest.mark.reference("open_clip", "timm", "torch", "torchvision")
@pytest.mark.parametrize("name", sorted(FOREIGN))
def test_open_clip_and_timm_compute_the_same(tmp_path: Path, case, name: str):
    target, tower, pooling, preprocess, options = FOREIGN[name]
    made = case(tower, pooling, preprocess, **options)
    facts = write_export(target, Export(made.config, made.tensors, {}), made.vectors, tmp_path / "out")
    assert facts["minimum_cosine"] > 0.99999
    assert facts["checked_with"].startswith(target)


def test_what_open_clip_and_timm_have_no_place_for(tmp_path: Path, case, mobilenet):
    made = case(*FAMILIES["dinov2 registers"], by_graph=True)
    for target, encoder in (("open_clip", made), ("timm", mobilenet)):
        with pytest.raises(EncoderError, match=r"own layout has no place|No architecture of timm holds"):
            write_export(target, Export(encoder.config, encoder.tensors, {}), encoder.vectors, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
