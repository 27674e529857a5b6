"""`likeness pull`: directories in published layouts and our own; everything else is one sentence and exit code 2."""

import json
from pathlib import Path

import numpy as np
import pytest

from likeness.commands import main
from likeness.models.config import (
    EncoderConfig,
    MobileNetV2Config,
    ProjectionConfig,
    Tensors,
    read_model,
    tensor_shapes,
    write_model,
)
from likeness.models.preprocess import Preprocess
from likeness.models.weights import WEIGHTS
from likeness.models.weights.table import export_tensors

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


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["pull", *argv]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert "\n\nhint: " in said.err
    return said.err


def test_what_can_not_be_pulled(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = ["--out", str(tmp_path / "m")]
    assert "Did you mean `clip-vit-b-32`?" in refused(["clip-vit-b32", *out], capsys)
    assert "is a file" in refused([str(published / "config.json"), *out], capsys)
    assert "so no encoder is written there" in refused([str(published), "--out", str(published)], capsys)
    (published / "preprocessor_config.json").unlink()
    assert "never assumed" in refused([str(published), *out], capsys)
    (published / "model.safetensors").rename(published / "pytorch_model.bin")
    assert "holds only pickles" in refused([str(published), *out], capsys)
    assert not (tmp_path / "m").exists()
