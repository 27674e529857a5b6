"""The script of docs/how-to/public-table.md on a small SOP: as its page says, broken off, and again."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image

from lookalike.encoders.config import EncoderConfig, ProjectionConfig, tensor_shapes
from lookalike.encoders.directory import write_model
from lookalike.imaging.preprocess import Preprocess
from lookalike.towers import ConvNetConfig

ROOT = Path(__file__).parents[2]


def picture(thing: int, number: int) -> bytes:
    quarters = np.random.default_rng(thing).integers(30, 225, (2, 2, 3))
    noise = np.random.default_rng((thing, number)).integers(-25, 25, (40, 48, 3))
    data = io.BytesIO()
    PIL.Image.fromarray((quarters.repeat(20, 0).repeat(24, 1) + noise).astype(np.uint8)).save(data, "JPEG")
    return data.getvalue()


def write_set(place: Path) -> None:
    """Twenty things to learn from and four others to be found, of four images each."""
    header = "image_id class_id super_class_id path"
    for name, things in (("Ebay_train.txt", range(1, 21)), ("Ebay_test.txt", range(21, 25))):
        lines = [f"{4 * t + i} {t} 1 chair_final/{t}_{i}.JPG" for t in things for i in range(4)]
        (place / "chair_final").mkdir(parents=True, exist_ok=True)
        (place / name).write_text("\n".join([header, *lines]) + "\n")
        for thing in things:
            for number in range(4):
                (place / f"chair_final/{thing}_{number}.JPG").write_bytes(picture(thing, number))


def write_encoder(path: Path, features: int, seed: int) -> Path:
    tower = ConvNetConfig(widths=(8, features), depths=(0, 1))
    preprocess = Preprocess(32, "squash", 32, "bilinear", (0.5,) * 3, (0.25,) * 3)
    config = EncoderConfig(tower, "mean", preprocess, ProjectionConfig("identity", features, features))
    rng = np.random.default_rng(seed)
    tensors = {
        name: (rng.standard_normal(shape) * (0.3 if len(shape) > 1 else 0.1)).astype(np.float32)
        for name, shape in tensor_shapes(config).items()
    }
    tensors |= {name: np.abs(value) + 1 for name, value in tensors.items() if "norm" in name and value.ndim == 1}
    write_model(path, config, tensors, {"name": path.name, "license": "Apache-2.0"})
    return path


def test_one_line_a_measurement_and_nothing_twice(tmp_path: Path, environment: dict[str, str]) -> None:
    write_set(tmp_path / "sets/sop")
    models = [write_encoder(tmp_path / "wide", 80, 0), write_encoder(tmp_path / "narrow", 16, 1)]
    words = ["--from", tmp_path / "sets", "--work", tmp_path / "work", "--models", *models, tmp_path / "none"]
    command = [sys.executable, ROOT / "benchmarks/public_table.py", *words]
    lines = tmp_path / "work/table.jsonl"

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, encoding="utf-8")

    ended = run()
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [(entry["set"], entry["model"], entry["numbers"], entry["dimension"]) for entry in told] == [
        ("sop", "wide", "all", 80),
        ("sop", "wide", "64", 64),
        ("sop", "narrow", "all", 16),
    ]
    assert {entry["n_queries"] for entry in told} == {16}
    assert "16 gallery images" in told[0]["index"]
    assert "There is no model" in ended.stderr  # a model that is not there is said, and the others are measured
    page = (tmp_path / "work/table.html").read_text()
    assert page.count("<tr>") == 4
    assert f"{told[0]['metrics']['mp@5']:.4f}" in page
    # Killed in the middle of a line: that one is made again, the others stay as they are.
    whole = lines.read_text().splitlines(keepends=True)
    lines.write_text("".join(whole[:2]) + whole[2][:20])
    run()
    again = lines.read_text().splitlines()
    assert again[:2] == [line.rstrip("\n") for line in whole[:2]]
    assert json.loads(again[-1])["metrics"] == told[2]["metrics"]
    before = lines.read_text()
    run()
    assert lines.read_text() == before
