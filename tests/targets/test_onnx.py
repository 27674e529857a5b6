"""ONNX and OpenVINO exports against the JAX encoder, through the lines of their READMEs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from lookalike.core.errors import EncoderError
from lookalike.encoders.directory import write_model
from lookalike.imaging.preprocess import Preprocess
from lookalike.targets import onnx as target
from lookalike.targets import parity
from lookalike.targets.parts import Export
from lookalike.targets.writing import write_export
from lookalike.towers import ConvNetConfig, ViTConfig

COLORS = ((0.48, 0.45, 0.40), (0.27, 0.26, 0.28))


@pytest.mark.parametrize("preprocess", [True, False])
def test_the_readme_gives_the_encoders_vectors(tmp_path: Path, clip, by_readme, preprocess: bool):
    out = tmp_path / "out"
    export = Export(clip.config, clip.tensors, {"name": "Small", "license": "mit"}, preprocess=preprocess)
    facts = write_export("onnx", export, clip.vectors, out)
    readme = (out / "README.md").read_text()
    np.testing.assert_allclose(by_readme(readme, out), clip.expected, atol=2e-4)
    assert facts["minimum_cosine"] > 0.99999
    assert f"{facts['minimum_cosine']:.6f}" in readme
    assert readme.startswith("---\nlibrary_name: onnx\npipeline_tag: image-feature-extraction\nlicense: mit\n---\n")
    card = json.loads((out / "card.json").read_text())
    assert card["export"] == facts
    assert (card["name"], facts["target"], facts["images"]) == ("Small", "onnx", 6)
    assert facts["bytes"] == (out / "model.onnx").stat().st_size
    onnx.checker.check_model(out / "model.onnx", full_check=True)


def test_any_batch_and_any_size(tmp_path: Path, clip):
    target.save(target.assemble(Export(clip.config, clip.tensors, {})), tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for size in (1, 3):
        images = np.random.default_rng(0).integers(0, 256, (size, 57, 40, 3), dtype=np.uint8)
        (vectors,) = session.run(["vectors"], {"images": images})
        assert vectors.shape == (size, 64)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("pooling", "preprocess", "options"),
    [
        (
            "class",
            Preprocess(32, "pad", 32, "bicubic", *COLORS, fill=(9, 99, 200)),
            {"mirror": True, "zooms": (0.8, 0.5)},
        ),
        ("mean", Preprocess(32, "squash", 36, "bilinear", *COLORS), {"dimension": None}),
        ("class", Preprocess(32, "crop", 36, "bicubic", *COLORS, antialias=False, rounding="even"), {}),
    ],
)
def test_mirror_modes_and_identity(tmp_path: Path, case, small, pooling, preprocess, options):
    made = case(ViTConfig(**small, activation="gelu"), pooling, preprocess, **options)
    facts = write_export("onnx", Export(made.config, made.tensors, {}), made.vectors, tmp_path / "out")
    assert facts["minimum_cosine"] > 0.99999


def test_eight_bits(tmp_path: Path, case, mobilenet, small):
    wide = ViTConfig(**(small | {"width": 256, "hidden": 512, "heads": 4}), activation="gelu")
    made = case(wide)
    whole = write_export("onnx", Export(made.config, made.tensors, {}), made.vectors, tmp_path / "whole")
    bits = write_export("onnx", Export(made.config, made.tensors, {}, int8=True), made.vectors, tmp_path / "bits")
    assert bits["bytes"] < 0.4 * whole["bytes"]
    assert 0.995 < bits["minimum_cosine"] < 1
    with pytest.raises(EncoderError, match="has no matrices that 8 bits would make smaller"):
        target.assemble(Export(mobilenet.config, mobilenet.tensors, {}, int8=True))


def test_weights_beyond_the_limit_of_a_file_lie_beside_it(tmp_path: Path, clip, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(target, "LARGEST", 10_000)
    facts = write_export("onnx", Export(clip.config, clip.tensors, {}), clip.vectors, tmp_path / "out")
    assert (tmp_path / "out" / "model.bin").stat().st_size > 9 * (tmp_path / "out" / "model.onnx").stat().st_size
    assert facts["minimum_cosine"] > 0.99999


def test_every_tower_goes(tmp_path: Path, case, mobilenet):
    prepare = Preprocess(32, "squash", 32, "bilinear", *COLORS)
    net = case(ConvNetConfig(widths=(8, 16), depths=(0, 1)), "gem", prepare)
    for name, made in {"net": net, "mobilenet": mobilenet}.items():
        facts = write_export("onnx", Export(made.config, made.tensors, {}), made.vectors, tmp_path / name)
        assert facts["minimum_cosine"] > 0.99999


@pytest.mark.reference("openvino")
@pytest.mark.parametrize("int8", [False, True])
def test_openvino_computes_the_same(tmp_path: Path, case, small, by_readme, int8: bool):
    made = case(ViTConfig(**(small | {"width": 256, "hidden": 512, "heads": 4}), activation="gelu"))
    out = tmp_path / "out"
    facts = write_export("openvino", Export(made.config, made.tensors, {}, int8=int8), made.vectors, out)
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "card.json", "model.bin", "model.xml"]
    assert facts["minimum_cosine"] > (0.995 if int8 else 0.99999)
    assert sys.modules["openvino_telemetry"] is None  # nothing was told to anybody
    assert parity.compare(by_readme((out / "README.md").read_text(), out), made.expected).minimum > 0.995


def test_nothing_is_reported_home(tmp_path: Path, clip):
    """Neither by the lines of a README that import ONNX Runtime, nor where our own importer reads files back."""
    write_model(tmp_path / "model", clip.config, clip.tensors, {})
    cache = tmp_path / "home" / ".cache"
    cache.mkdir(parents=True)
    homes = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(cache)}
    loud = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    code = "import sys; from lookalike.commands import main; sys.exit(main(sys.argv[1:]))"
    for kind in ("onnx", "safetensors"):
        command = ["export", "--model", str(tmp_path / "model"), "--to", kind, "--out", str(tmp_path / kind)]
        subprocess.run([sys.executable, "-c", code, *command], env=loud | homes, capture_output=True, check=True)
        assert {path.name for path in cache.iterdir()} <= {"lookalike"}, kind
