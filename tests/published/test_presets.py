"""The table of published models: towers as large as their publishers', licences that are known, names that resolve."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lookalike.published import presets
from lookalike.published.layouts import WEIGHTS
from lookalike.published.presets import (
    ALIASES,
    CHOICES,
    LICENSES,
    PRESETS,
    choices,
    overview,
    preset_of,
    rows,
    shortlist,
)
from lookalike.towers import ViTConfig
from lookalike.towers.ops import operations, parameters


def test_names_repositories_and_licences():
    assert len({preset.repository for preset in PRESETS.values()}) == len(PRESETS)
    for name, preset in PRESETS.items():
        assert preset.repository.count("/") == 1, name
        assert preset.license in LICENSES, name
        assert preset.tower.only_size in (None, preset.size), name
        assert preset.pooling in preset.tower.poolings, name


def test_the_table_is_what_the_script_writes(tmp_path: Path):
    root = Path(__file__).resolve().parents[2]
    table = root / "src" / "lookalike" / "published" / "presets.json"
    subprocess.run([sys.executable, root / "scripts" / "presets", tmp_path / "presets.json"], check=True, timeout=120)
    assert (tmp_path / "presets.json").read_text(encoding="utf-8") == table.read_text(encoding="utf-8")


def test_defaults_are_permissive_and_have_a_text_side():
    assert set(ALIASES) == {"laptop", "gpu", "best"}
    for name in ALIASES.values():
        preset = PRESETS[name]
        assert (preset.license, LICENSES[preset.license]) == ("apache-2.0", ""), name
        assert name.startswith(("siglip", "pe-core", "clip", "openclip")), name
    models = [PRESETS[ALIASES[alias]] for alias in ("laptop", "gpu", "best")]
    costs = [operations(preset.tower, preset.size) for preset in models]
    assert costs == sorted(costs)


def test_an_alias_is_the_preset():
    assert preset_of("best") == (ALIASES["best"], PRESETS[ALIASES["best"]])
    assert preset_of("clip-vit-b-32") == ("clip-vit-b-32", PRESETS["clip-vit-b-32"])
    assert preset_of("vgg16") is None


def test_the_overview_has_a_line_for_each_and_says_what_licences_forbid():
    lines = overview().splitlines()
    assert [line.split()[0] for line in lines[2 : 2 + len(PRESETS)]] == list(PRESETS)
    assert "forbids military use" in overview()


def test_the_short_list_has_the_three_defaults_and_five_by_need():
    assert list(CHOICES)[:3] == list(ALIASES.values())
    assert len(CHOICES) == 8
    assert CHOICES.keys() <= PRESETS.keys()
    lines = shortlist().splitlines()
    assert [line.split()[0] for line in lines[2:10]] == list(CHOICES)
    assert lines[2].split()[1] == "(laptop)"
    assert not lines[10], "the table ends here"
    assert "dinov3: forbids military use" in lines[-1]
    assert "cc-by-4.0" not in shortlist(), "none of the few is under it"


def test_the_few_are_what_they_are_said_to_be():
    """Smallest, fastest, finest, best untrained: among all presets, by the figures of the table."""
    free = [name for name, preset in PRESETS.items() if not LICENSES[preset.license]]
    speeds = presets.images_per_second()
    assert min(free, key=lambda name: parameters(PRESETS[name].tower)) == "efficientnet-b0"
    assert max(free, key=lambda name: speeds.get(name, 0)) == "efficientnet-b0"
    assert "1024 patches" in CHOICES["siglip2-so400m-16-512"]
    vits = {name: preset.tower for name, preset in PRESETS.items() if isinstance(preset.tower, ViTConfig)}
    patches = {name: (tower.size // tower.patch) ** 2 for name, tower in vits.items()}
    assert patches["siglip2-so400m-16-512"] == max(patches.values()) == 1024
    ilias = {name: float(p.standing.split()[1].rstrip(":,")) for name, p in PRESETS.items() if "ILIAS" in p.standing}
    assert max(ilias, key=ilias.__getitem__) == "dinov3-l-16"
    assert max((n for n in ilias if n in free and n.startswith("dino")), key=ilias.__getitem__) == "dinov2-l-14"
    assert {PRESETS[name].license for name in CHOICES if name not in free} == {"dinov3"}


@pytest.mark.parametrize(
    ("name", "megabytes"),
    [
        ("dinov2-l-14", (1_217_586_395 - 4 * 1024 * (37**2 - 16**2)) / 1e6),  # its file, with positions for 518 px
        ("efficientnet-b0", 4 * (5.29 - 1.28)),  # millions of parameters of the cards, from here on
        ("siglip-so400m-14-384", 4 * 428.0),
        ("pe-core-l-14-336", 4 * 320.0),
        ("dinov3-l-16", 4 * 303.0),
    ],
)
def test_megabytes_are_those_of_the_published_weights(name: str, megabytes: float):
    headers, lines = choices()
    column = {line[0].split()[0]: line[headers.index("MB")] for line in lines}
    assert float(column[name].replace(",", "")) == pytest.approx(megabytes, rel=0.015)


def test_images_a_second_are_a_column_once_they_were_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(presets, "SPEEDS", tmp_path / "speeds.json")
    assert "images/s" not in rows()[0]
    assert {line[choices()[0].index("images/s")] for line in choices()[1]} == {""}
    (tmp_path / "speeds.json").write_text('{"mobilenet-v2": {"float32": 150.0, "auto": 187.0}}')
    headers, lines = rows()
    column = {line[0]: line[headers.index("images/s")] for line in lines}
    assert (column.pop("mobilenet-v2"), set(column.values())) == ("187", {""})


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        # model cards and readmes; OpenCLIP's model_profile.csv for the first three
        ("clip-vit-b-32", 87.85),
        ("openclip-vit-h-14", 632.08),
        ("openclip-vit-g-14", 1012.65),
        ("siglip-so400m-14-384", 428.0),
        ("pe-core-b-16-224", 93.0),
        ("pe-core-l-14-336", 320.0),
        ("dinov3-s-16", 21.6),
        ("dinov3-b-16", 86.0),
        ("dinov3-l-16", 303.0),
        ("dinov3-convnext-t", 28.0),
        ("swin2-b", 87.9 - 1.0),
        ("efficientnet-b0", 5.29 - 1.28),
        ("efficientnet-v2-s", 21.5 - 1.28),
        ("mobilenet-v2", 3.5 - 1.28),
        ("vit-b-16", 86.57 - 0.77),
        ("deit-t-16", 5.72 - 0.19),
        ("dino-b-16", 85.8),
        ("resnet-50", 25.56 - 2.05),
        ("resnet-50-a1", 25.56 - 2.05),
    ],
)
def test_parameters_are_the_published_ones(name: str, millions: float):
    assert parameters(PRESETS[name].tower) / 1e6 == pytest.approx(millions, rel=0.015)


def count(model: Any, without: tuple[str, ...] = ()) -> int:
    return sum(p.numel() for name, p in model.named_parameters() if not any(part in name for part in without))


@pytest.mark.reference("torch", "transformers")
def test_parameters_are_those_of_transformers():
    import torch
    import transformers as t

    base = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    with torch.device("meta"):  # shapes alone
        clip = t.CLIPVisionModelWithProjection(t.CLIPVisionConfig(**base, patch_size=32, projection_dim=512))
        siglip = t.SiglipVisionModel(t.SiglipVisionConfig(**base, patch_size=16, image_size=384))
        dinov2 = t.Dinov2WithRegistersModel(
            t.Dinov2WithRegistersConfig(**base, patch_size=14, image_size=224, num_register_tokens=4)
        )
        dinov3 = t.DINOv3ViTModel(t.DINOv3ViTConfig(**base, num_register_tokens=4))
        swin = t.SwinModel(t.SwinConfig(embed_dim=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32]))
        convnext = t.ConvNextModel(t.ConvNextConfig(hidden_sizes=[128, 256, 512, 1024], depths=[3, 3, 27, 3]))
        efficient = t.EfficientNetModel(t.EfficientNetConfig())  # B7
    assert parameters(PRESETS["clip-vit-b-32"].tower) == count(clip)
    # torch's multi-head attention has the probe in a shape of its own; the count is the same
    assert parameters(PRESETS["siglip-b-16-384"].tower) == count(siglip)
    assert parameters(PRESETS["dinov2-reg-b-14"].tower) == count(dinov2, ("mask_token",))
    assert parameters(PRESETS["dinov3-b-16"].tower) == count(dinov3, ("mask_token",))
    assert parameters(PRESETS["swin-b"].tower) == count(swin)
    assert parameters(PRESETS["convnext-b"].tower) == count(convnext)
    assert parameters(PRESETS["efficientnet-b7"].tower) == count(efficient)


BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
CROP = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}, "crop_size": 224}
PUBLISHED: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "clip-vit-b-32": ("clip", "CLIPVisionModelWithProjection", BASE | {"patch_size": 32}, CROP),
    "siglip-so400m-14-384": ("siglip", "SiglipVisionModel", SO400M | {"patch_size": 14, "image_size": 384}, {}),
    "siglip2-b-32-256": ("siglip", "SiglipVisionModel", BASE | {"patch_size": 32, "image_size": 256}, {}),
    "dinov2-b-14": ("dinov2", "Dinov2Model", BASE | {"patch_size": 14, "image_size": 224}, CROP),
    "dinov3-b-16": ("dinov3_vit", "DINOv3ViTModel", BASE | {"intermediate_size": 3072, "num_register_tokens": 4}, {}),
    "swin-t": ("swin", "SwinModel", {}, {}),
    "mobilenet-v2": ("mobilenet_v2", "MobileNetV2Model", {}, CROP),
    "vit-b-16": ("vit", "ViTModel", {}, {}),
    "deit-t-16": ("vit", "ViTModel", {"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 3}, {}),
    "dino-b-16": ("vit", "ViTModel", {"qkv_bias": True}, {}),
    "resnet-50": ("resnet", "ResNetModel", {}, CROP),
}


@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_tower_is_what_its_layout_reads(name: str, tmp_path: Path):
    """From the published config and the names and shapes of its tensors, without a single number."""
    import torch
    import transformers

    layout, kind, options, processor = PUBLISHED[name]
    model_class = getattr(transformers, kind)
    config = model_class.config_class(**options)
    with torch.device("meta"):
        names = {key: tuple(tensor.shape) for key, tensor in model_class(config).state_dict().items()}
    size = {"height": PRESETS[name].size, "width": PRESETS[name].size}
    square = {"image_processor_type": "ViTImageProcessor", "size": size}
    statistics = {"resample": 3, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps((processor or square) | statistics))
    described = json.loads(config.to_json_string(use_diff=False)) | {"model_type": config.model_type}
    assert WEIGHTS[layout].matches(described)
    prefix = next(prefix for prefix in WEIGHTS[layout].prefixes if prefix + WEIGHTS[layout].anchor in names)
    shapes = {key.removeprefix(prefix): shape for key, shape in names.items()}
    preset = PRESETS[name]
    assert WEIGHTS[layout].read(tmp_path, described, shapes) == (preset.tower, preset.pooling)
