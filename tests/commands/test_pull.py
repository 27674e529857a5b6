"""`lookalike pull`: directories in published layouts and our own; everything else is one sentence and exit code 2."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lookalike.commands import main
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, Tensors, tensor_shapes
from lookalike.encoders.directory import read_model, write_model
from lookalike.imaging.preprocess import Preprocess
from lookalike.published.layout import export_tensors
from lookalike.published.layouts import WEIGHTS
from lookalike.towers import MobileNetV2Config, ViTConfig

TOWER = MobileNetV2Config(multiplier=0.35, same_padding=True)
PROCESSOR = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}, "resample": 2}
PROCESSOR |= {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


@pytest.fixture(scope="module")
def encoder() -> tuple[EncoderConfig, Tensors]:
    prepare = Preprocess(32, "crop", 36, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    config = EncoderConfig(TOWER, "mean", prepare, ProjectionConfig("identity", 1280, 1280))
    rng = np.random.default_rng(0)
    return config, {n: rng.normal(size=s).astype(np.float32) for n, s in tensor_shapes(config).items()}


@pytest.fixture
def published(tmp_path: Path, encoder: tuple[EncoderConfig, Tensors]) -> Path:
    """The encoder as transformers would publish it."""
    from safetensors.numpy import save_file

    path = tmp_path / "published"
    path.mkdir()
    save_file(export_tensors(WEIGHTS["mobilenet_v2"], *encoder), path / "model.safetensors")
    config = {"model_type": "mobilenet_v2", "depth_multiplier": 0.35, "tf_padding": True}
    (path / "config.json").write_text(json.dumps(config))
    (path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return path


def test_a_published_directory_becomes_a_model_directory(
    published: Path, tmp_path: Path, encoder: tuple[EncoderConfig, Tensors], capsys: pytest.CaptureFixture[str]
):
    assert main(["pull", str(published), "--out", str(tmp_path / "m")]) == 0
    config, tensors = read_model(tmp_path / "m")
    assert config == encoder[0]
    assert all(np.array_equal(tensors[name], encoder[1][name]) for name in tensors)
    card = json.loads((tmp_path / "m" / "card.json").read_text())
    assert (card["name"], card["layout"]) == ("published", "mobilenet_v2")
    said = capsys.readouterr()
    assert said.out == ""
    assert "1280 features" in said.err


def test_a_model_directory_of_ours_is_checked_and_copied(tmp_path: Path, encoder: tuple[EncoderConfig, Tensors]):
    write_model(tmp_path / "a", *encoder, {"name": "Mine", "license": "mit"})
    assert main(["pull", str(tmp_path / "a"), "--out", str(tmp_path / "b")]) == 0
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    card = json.loads((tmp_path / "b" / "card.json").read_text())
    assert card["license"] == "mit"
    assert card["fingerprint"] == json.loads((tmp_path / "a" / "card.json").read_text())["fingerprint"]


CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A small CLIP tower as transformers would publish it, with the statistics of ImageNet."""
    from safetensors.numpy import save_file

    path = tmp_path / "clip"
    path.mkdir()
    tower = ViTConfig(size=32, patch=16, width=32, layers=1, heads=2, hidden=64, activation="quick_gelu", head=16)
    prepare = Preprocess(32, "crop", 32, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    config = EncoderConfig(tower, "class", prepare, ProjectionConfig("identity", 16, 16))
    rng = np.random.default_rng(0)
    tensors = {n: rng.normal(size=s).astype(np.float32) for n, s in tensor_shapes(config).items()}
    save_file(export_tensors(WEIGHTS["clip"], config, tensors), path / "model.safetensors")
    vision = {"image_size": 32, "patch_size": 16, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "hidden_act": "quick_gelu", "projection_dim": 16}
    described = {"model_type": "clip", "projection_dim": 16, "vision_config": vision}
    (path / "config.json").write_text(json.dumps(described))
    write_statistics(path, IMAGENET_MEAN, IMAGENET_STD)
    return path


def write_statistics(path: Path, mean: list[float], std: list[float]) -> None:
    data = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "resample": 3}
    (path / "preprocessor_config.json").write_text(json.dumps(data | {"image_mean": mean, "image_std": std}))


def test_statistics_of_imagenet_in_a_clip_tower_are_refused(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    said = refused([str(clip), "--out", str(tmp_path / "m")], capsys)
    assert "has the mean and std of ImageNet: most likely a slip" in said
    assert "--preprocessing published" in said
    assert not (tmp_path / "m").exists()
    assert main(["pull", str(clip), "--out", str(tmp_path / "m"), "--preprocessing", "published"]) == 0
    assert read_model(tmp_path / "m")[0].preprocess.mean == tuple(IMAGENET_MEAN)


def test_the_slip_can_be_asked_for(clip: Path, tmp_path: Path):
    """To reproduce the entry that had it."""
    write_statistics(clip, CLIP_MEAN, CLIP_STD)
    assert main(["pull", str(clip), "--out", str(tmp_path / "right")]) == 0
    assert read_model(tmp_path / "right")[0].preprocess.mean == tuple(CLIP_MEAN)
    assert main(["pull", str(clip), "--out", str(tmp_path / "slip"), "--preprocessing", "imagenet"]) == 0
    slip = read_model(tmp_path / "slip")[0].preprocess
    assert (slip.mean, slip.std) == (tuple(IMAGENET_MEAN), tuple(IMAGENET_STD))
    card = json.loads((tmp_path / "slip" / "card.json").read_text())
    assert card["preprocessing"].startswith("imagenet, as asked for; published were mean (0.48145466")
    assert main(["pull", str(clip), "--out", str(tmp_path / "seed"), "--preprocessing", "seed"]) == 0
    seed = read_model(tmp_path / "seed")[0].preprocess
    assert (seed.mode, seed.interpolation, seed.antialias, seed.mean) == ("squash", "bilinear", False, slip.mean)


def test_statistics_of_imagenet_are_right_where_towers_learned_from_it(published: Path, tmp_path: Path):
    change = PROCESSOR | {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
    (published / "preprocessor_config.json").write_text(json.dumps(change))
    assert main(["pull", str(published), "--out", str(tmp_path / "m")]) == 0


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["pull", *argv]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert "\n\nhint: " in said.err
    return said.err


@pytest.mark.parametrize(("argv", "all_of_them"), [(["--list"], False), (["--list", "--all"], True), (["--all"], True)])
def test_the_list_of_short_names(argv: list[str], all_of_them: bool, capsys: pytest.CaptureFixture[str]):
    assert main(["pull", *argv]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "siglip-so400m-14-384 (best)" in said.out
    assert "dinov3: forbids military use" in said.out
    assert ("mobilenet-v2" in said.out) == ("google/siglip-so400m-patch14-384" in said.out) == all_of_them
    assert ("pull --all lists all" in said.out) != all_of_them


def test_what_can_not_be_pulled(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = ["--out", str(tmp_path / "m")]
    assert "SOURCE is missing" in refused(out, capsys)
    assert "`--out MODEL` is missing" in refused([str(published)], capsys)
    assert "is a directory, which has no revisions" in refused([str(published), *out, "--revision", "v1"], capsys)
    assert "Did you mean `clip-vit-b-32`?" in refused(["clip-vit-b32", *out], capsys)
    assert "is a file" in refused([str(published / "config.json"), *out], capsys)
    assert "so no encoder is written there" in refused([str(published), "--out", str(published)], capsys)
    (published / "preprocessor_config.json").unlink()
    assert "never assumed" in refused([str(published), *out], capsys)
    (published / "model.safetensors").rename(published / "pytorch_model.bin")
    assert "holds only pickles" in refused([str(published), *out], capsys)
    assert not (tmp_path / "m").exists()


def test_another_input_layer_and_output(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Features before CLIP's projection, more pixels, overlapping patches, the mean."""
    write_statistics(clip, CLIP_MEAN, CLIP_STD)
    options = ["--size", "48", "--stride", "8", "--pooling", "mean", "--features", "pooled", "--layer", "-1"]
    assert main(["pull", str(clip), "--out", str(tmp_path / "m"), *options]) == 0
    config, tensors = read_model(tmp_path / "m")
    assert isinstance(config.tower, ViTConfig)
    assert (config.preprocess.size, config.tower.stride, config.pooling) == (48, 8, "mean")
    assert (config.tower.features, config.projection.dimension, config.tower.head) == (32, 32, None)
    assert tensors["tower.position"].shape == (1 + 5 * 5, 32)
    card = json.loads((tmp_path / "m" / "card.json").read_text())
    assert card["adapted"] == "size 48, stride 8, layer -1, pooling mean, features pooled"
    capsys.readouterr()
    assert "no layer 2" in refused([str(clip), "--out", str(tmp_path / "n"), "--layer", "2"], capsys)


def test_half_precision_is_read_where_nothing_else_knows_it(
    published: Path, tmp_path: Path, encoder: tuple[EncoderConfig, Tensors]
):
    """In a process of its own: NumPy learns bfloat16 from a library that JAX imports."""
    import ml_dtypes
    from safetensors.numpy import load_file, save_file

    tensors = load_file(published / "model.safetensors")
    save_file({n: t.astype(ml_dtypes.bfloat16) for n, t in tensors.items()}, published / "model.safetensors")
    code = "import sys\nfrom lookalike.commands import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "pull", str(published), "--out", str(tmp_path / "m")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, tensor in read_model(tmp_path / "m")[1].items():
        rounded = encoder[1][name].astype(ml_dtypes.bfloat16).astype(np.float32)
        np.testing.assert_array_equal(tensor, rounded, err_msg=name)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", {"vision_config": [3]}),
        ("config.json", {"vision_config": {"layer_norm_eps": "x"}}),
        ("config.json", {"vision_config": {"num_hidden_layers": "three"}}),
        ("config.json", {"vision_config": {"patch_size": [16, "a"]}}),
        ("preprocessor_config.json", {"size": "64"}),
        ("preprocessor_config.json", {"size": [64]}),
        ("preprocessor_config.json", {"image_mean": ["a", "b", "c"]}),
        ("preprocessor_config.json", {"image_mean": 0.5}),
        ("preprocessor_config.json", {"resample": "soft"}),
    ],
)
def test_values_of_any_kind_are_one_sentence(
    clip: Path, tmp_path: Path, file: str, change: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    write_statistics(clip, CLIP_MEAN, CLIP_STD)
    described = json.loads((clip / file).read_text())
    inner = described.get("vision_config")
    for key, value in change.items():
        described[key] = inner | value if isinstance(value, dict) else value
    (clip / file).write_text(json.dumps(described))
    said = refused([str(clip), "--out", str(tmp_path / "m")], capsys)
    assert "lookalike pull DIR" not in said  # which was just given


def test_more_layers_than_tensors(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_statistics(clip, CLIP_MEAN, CLIP_STD)
    described = json.loads((clip / "config.json").read_text())
    described["vision_config"]["num_hidden_layers"] = 10**9
    (clip / "config.json").write_text(json.dumps(described))
    assert "has 1,000,000,000 layers" in refused([str(clip), "--out", str(tmp_path / "m")], capsys)


@pytest.mark.parametrize("index", [{}, [], {"weight_map": {"a": "../other.safetensors"}}, {"weight_map": {"a": 3}}])
def test_an_index_that_names_no_files_beside_it(
    published: Path, tmp_path: Path, index: Any, capsys: pytest.CaptureFixture[str]
):
    (published / "model.safetensors").rename(tmp_path / "other.safetensors")
    (published / "model.safetensors.index.json").write_text(json.dumps(index))
    said = refused([str(published), "--out", str(tmp_path / "m")], capsys)
    assert "does not say which files beside it hold the tensors" in said


def test_sizes_that_leave_nothing_to_see(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = ["--out", str(tmp_path / "m")]
    assert "sees nothing below 32 px" in refused([str(published), "--size", "31", *out], capsys)
    for size in ("0", "-5", "100000"):
        assert f"`--size` is {size}; expected 1 to 4096." in refused([str(published), "--size", size, *out], capsys)
    said = refused([str(published), "--pooling", "foo", *out], capsys)
    assert "`--pooling` is 'foo'; expected one of 'attention', 'class', 'gem', 'mean'." in said


def test_the_licence_of_a_directory_is_kept(published: Path, tmp_path: Path):
    (published / "README.md").write_text("---\nlicense: other\nlicense_name: my-own\n---\n# A model\n")
    assert main(["pull", str(published), "--out", str(tmp_path / "m")]) == 0
    assert json.loads((tmp_path / "m" / "card.json").read_text())["license"] == "my-own"
    (published / "README.md").write_text("---\nlicense: [\n---\n# Broken\n")
    assert main(["pull", str(published), "--out", str(tmp_path / "n")]) == 0
    assert "license" not in json.loads((tmp_path / "n" / "card.json").read_text())


def test_an_export_is_read_and_what_stays_behind_is_said(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_statistics(clip, CLIP_MEAN, CLIP_STD)
    (clip / "card.json").write_text(json.dumps({"export": {"target": "transformers"}}))
    assert main(["pull", str(clip), "--out", str(tmp_path / "m")]) == 0
    assert "is an export: its tower was read, and not what the encoder had behind it" in capsys.readouterr().err
    (clip / "card.json").write_text("[1")  # somebody else's file of that name
    assert main(["pull", str(clip), "--out", str(tmp_path / "n")]) == 0
