"""The encoder as a value and as a directory: complete and checked, or a sentence that names what is wrong."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lookalike.core.errors import EncoderError, StorageError
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, Tensors, tensor_shapes
from lookalike.encoders.directory import features_fingerprint_of, fingerprint_of, read_model, write_model
from lookalike.imaging.preprocess import Preprocess
from lookalike.towers import (
    ConvNetConfig,
    ConvNeXtConfig,
    EfficientNetConfig,
    MobileNetV2Config,
    SwinConfig,
    Tower,
    ViTConfig,
)
from lookalike.towers.inverted import Stage

VIT = ViTConfig(size=16, patch=8, width=12, layers=2, heads=3, hidden=20, activation="quick_gelu", head=10)
TOWERS: list[tuple[Tower, str]] = [
    (VIT, "class"),
    (dataclasses.replace(VIT, patch_bias=True, norm_pre=False, head=None), "mean"),
    (dataclasses.replace(VIT, class_token=False, positions="patches", pool_heads=2, stride=4), "attention"),
    (MobileNetV2Config(multiplier=0.35), "gem"),
    (ConvNetConfig(widths=(8, 16), depths=(1, 0)), "mean"),
    (EfficientNetConfig((Stage("depthwise", 2, 3, 2, 4, 8, 0.25),), stem=8, features=24, symmetric=(0,)), "gem"),
    (ConvNeXtConfig(widths=(8, 16), depths=(1, 2), layer_scale=False), "mean"),
    (SwinConfig(2, 8, depths=(2, 1), heads=(2, 2), windows=(2, 2), shifts=(1, 0), trained_windows=(3, 3)), "mean"),
]


def encoder(tower: Tower, pooling: Any, **more: Any) -> EncoderConfig:
    prepare = Preprocess(16, "crop", 18, "bicubic", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    return EncoderConfig(tower, pooling, prepare, ProjectionConfig("linear", tower.features, 6), **more)


def random_tensors(config: EncoderConfig) -> Tensors:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in tensor_shapes(config).items()}


@pytest.mark.parametrize(("tower", "pooling"), TOWERS)
def test_what_is_written_is_read_back(tmp_path: Path, tower: Tower, pooling: str):
    config = encoder(tower, pooling, mirror=True)
    tensors = random_tensors(config)
    write_model(tmp_path / "m", config, tensors, {"name": "A model", "license": "mit", "source": "here"})
    again, read = read_model(tmp_path / "m")
    assert again == config
    assert read.keys() == tensors.keys()
    assert all(np.array_equal(read[name], tensors[name]) for name in tensors)
    card = json.loads((tmp_path / "m" / "card.json").read_text())
    assert card == {
        "name": "A model",
        "license": "mit",
        "source": "here",
        "fingerprint": fingerprint_of(config, tensors),
    }
    readme = (tmp_path / "m" / "README.md").read_text()
    assert readme.startswith("---\nlibrary_name: lookalike\n")
    assert all(words in readme for words in ("license: mit", "# A model", "| source | here |", card["fingerprint"]))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "m").iterdir()} == {0o644}


def test_fingerprints_follow_weights_and_config_and_nothing_else():
    config = encoder(VIT, "class")
    tensors = random_tensors(config)
    whole, made = fingerprint_of(config, tensors), features_fingerprint_of(config, tensors)
    assert len(whole) == len(made) == 64
    assert whole == fingerprint_of(config, dict(reversed(tensors.items())))

    other = {**tensors, "projection.bias": tensors["projection.bias"] + 1}
    assert fingerprint_of(config, other) != whole
    assert features_fingerprint_of(config, other) == made
    mirrored = dataclasses.replace(config, mirror=True)
    assert fingerprint_of(mirrored, tensors) != whole
    assert features_fingerprint_of(mirrored, tensors) == made

    nudged = tensors["tower.class_token"].copy()
    nudged[0] = np.nextafter(nudged[0], np.float32(9))
    assert features_fingerprint_of(config, {**tensors, "tower.class_token": nudged}) != made
    gelu = dataclasses.replace(config, tower=dataclasses.replace(VIT, activation="gelu"))
    assert features_fingerprint_of(gelu, tensors) != made
    wider = dataclasses.replace(config, preprocess=dataclasses.replace(config.preprocess, resize=20))
    assert features_fingerprint_of(wider, tensors) != made
    # A change here makes every stored vector of every user foreign to its model: only on purpose.
    zeros = {name: np.zeros(shape, np.float32) for name, shape in tensor_shapes(config).items()}
    assert (fingerprint_of(config, zeros)[:8], features_fingerprint_of(config, zeros)[:8]) == ("0c70041d", "14388ef4")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    config = encoder(VIT, "class")
    write_model(tmp_path / "m", config, random_tensors(config), {})
    return tmp_path / "m"


def refused(path: Path) -> EncoderError:
    with pytest.raises(EncoderError) as caught:
        read_model(path)
    return caught.value


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("tower.norm_post.bias", None, "`tower.norm_post.bias` is missing"),
        ("tower.extra", np.zeros(3, np.float32), "`tower.extra` is unknown"),
        ("tower.position", np.zeros((4, 12), np.float32), "`tower.position` has shape [4, 12], expected [5, 12]"),
        ("tower.class_token", np.zeros(12, np.float16), "`tower.class_token` is float16, expected float32"),
        ("tower.class_token", np.full(12, np.nan, np.float32), "`tower.class_token` holds values that are not finite"),
        ("projection.bias", np.full(6, np.inf, np.float32), "`projection.bias` holds values that are not finite"),
    ],
)
def test_a_wrong_tensor_is_named(model: Path, name: str, change: np.ndarray | None, words: str):
    tensors = {**load_file(model / "model.safetensors"), name: change}
    save_file({n: t for n, t in tensors.items() if t is not None}, model / "model.safetensors")
    error = refused(model)
    assert words in error.message
    assert "lookalike pull" in error.hint


def test_many_wrong_tensors_are_counted(model: Path):
    save_file({}, model / "model.safetensors")
    assert "and 14 more" in refused(model).message


def test_directories_that_are_no_model(model: Path, tmp_path: Path):
    assert "no model directory" in refused(tmp_path / "nothing").message
    (model / "model.safetensors").write_bytes(b"not tensors")
    assert "is damaged" in refused(model).message
    (model / "model.safetensors").unlink()
    assert "has no safetensors" in refused(model).message
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04")
    error = refused(model)
    assert "holds only pickles (pytorch_model.bin)" in error.message
    assert "safetensors" in error.hint
    (model / "config.json").unlink()
    assert "only pickles" in refused(model).message
    (model / "pytorch_model.bin").unlink()
    assert "has no `config.json`" in refused(model).message


def test_a_run_in_the_place_of_its_model_is_told(model: Path, tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text('{"type": "HeadConfig"}')
    (run / "metrics.jsonl").touch()
    model.rename(run / "model")
    error = refused(run)
    assert "is a run" in error.message
    assert error.hint == f"its encoder is `{run / 'model'}`"


def test_tensors_that_may_not_be_read(model: Path, monkeypatch: pytest.MonkeyPatch):
    def closed(*_: object):  # what the library says of a file that is there and may not be read
        raise FileNotFoundError("No such file or directory: model.safetensors")

    monkeypatch.setattr("safetensors.safe_open", closed)
    assert "model.safetensors` can't be opened" in refused(model).message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"),
        ("[1]", "another layout"),
        ('{"model_type": "clip"}', "another layout"),
        ('{"type": "EncoderConfig", "format": 9}', "another format than 1"),
        ('{"type": "EncoderConfig", "format": 1}', "lacks `tower`"),
    ],
)
def test_configs_that_are_not_ours(model: Path, text: str, words: str):
    (model / "config.json").write_text(text)
    assert words in refused(model).message


def test_a_config_with_an_unknown_field(model: Path):
    data = json.loads((model / "config.json").read_text())
    data["tower"]["depth"] = 3
    (model / "config.json").write_text(json.dumps(data))
    assert "`tower` has no field `depth`" in refused(model).message


def test_nothing_is_overwritten_and_nothing_half_written(model: Path, tmp_path: Path):
    config = encoder(VIT, "class")
    with pytest.raises(StorageError, match="is an encoder"):
        write_model(model, config, random_tensors(config), {})
    incomplete = random_tensors(config)
    del incomplete["tower.position"]
    with pytest.raises(EncoderError, match=r"`tower\.position` is missing"):
        write_model(tmp_path / "new", config, incomplete, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import safetensors.numpy

    def full(*_: Any) -> None:
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    config = encoder(VIT, "class")
    with pytest.raises(StorageError, match="the disk is full"):
        write_model(tmp_path / "m", config, random_tensors(config), {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: encoder(MobileNetV2Config(), "class"), "does not go with the tower (MobileNetV2)"),
        (lambda: encoder(VIT, "gem"), "does not go with the tower (ViT)"),
        (lambda: encoder(dataclasses.replace(VIT, size=24), "class"), "16 px can't enter a tower for 24 px"),
        (lambda: dataclasses.replace(VIT, size=4), "cut into patches of 8"),
        (lambda: dataclasses.replace(VIT, heads=5), "split among 5 heads"),
        (lambda: ProjectionConfig("identity", 10, 6), "turn 10 numbers into 6"),
        (lambda: dataclasses.replace(encoder(VIT, "class"), projection=ProjectionConfig("linear", 9, 6)), "takes 9"),
        (lambda: ConvNetConfig(widths=(8, 20), depths=(0, 0)), "8 groups"),
        (lambda: ConvNetConfig(widths=(8,), depths=(0, 0)), "a width and a depth"),
        (lambda: ConvNeXtConfig(widths=(8,), depths=(1, 1)), "a width and a depth"),
        (lambda: ConvNeXtConfig(widths=(8,), depths=(1,), kernel=4), "an odd side, not 4"),
        (lambda: EfficientNetConfig((), stem=8, features=8), "needs stages"),
        (lambda: EfficientNetConfig((Stage("plain", 1, 2, 1, 1, 8),), stem=8, features=8), "kernels of an odd side"),
    ],
)
def test_configs_that_can_not_be(make: Any, words: str):
    with pytest.raises(EncoderError) as caught:
        make()
    assert words in caught.value.message


def test_reading_a_model_imports_no_jax(model: Path):
    code = (
        "import sys\n"
        "from lookalike.encoders.directory import read_model\nfrom lookalike.published.layouts import WEIGHTS\n"
        f"read_model({str(model)!r}); assert not {{'jax', 'torch'}} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
