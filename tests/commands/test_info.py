import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookalike.commands import main
from lookalike.core.config import to_json
from lookalike.core.files import write_json
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, tensor_shapes
from lookalike.encoders.directory import write_model
from lookalike.imaging.preprocess import Preprocess
from lookalike.towers import ConvNetConfig

CONFIG = EncoderConfig(
    tower=ConvNetConfig(widths=(8, 16), depths=(0, 1)),
    pooling="mean",
    preprocess=Preprocess(32, "squash", 32, "bilinear", (0.5,) * 3, (0.5,) * 3),
    projection=ProjectionConfig("linear", 16, 4),
)


def info(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, object], str]:
    """What `info --json` and `info` print."""
    assert main(["info", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert main(["info", str(path)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return facts, out


def encoder(path: Path) -> dict[str, np.ndarray]:
    tensors = {name: np.ones(shape, np.float32) for name, shape in tensor_shapes(CONFIG).items()}
    write_model(path, CONFIG, tensors, {"name": "small", "license": "Apache-2.0"})
    return tensors


def test_a_collection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("red/a", "red/b", "blue/a"):
        path = tmp_path / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 30), name.split("/")[0]).save(path)
    (tmp_path / "images" / "red" / "c.jpg").write_bytes(b"\xff\xd8 no image")
    assert main(["prepare", str(tmp_path / "images"), "--out", str(tmp_path / "c"), "--workers", "1"]) == 0
    capsys.readouterr()
    facts, text = info(tmp_path / "c", capsys)
    assert (facts["kind"], facts["rows"], facts["errors"]) == ("collection", 3, 1)
    assert sum(count["images"] for count in facts["counts"]) == 3
    assert sum(count["classes"] for count in facts["counts"]) == 2
    empty = {column["column"]: column["empty"] for column in facts["columns"]}
    assert (empty["label"], empty["group"], empty["image"]) == (0, 3, 0)
    assert facts["first_errors"][0]["source"].endswith("c.jpg")
    assert facts["bytes"] == sum(file.stat().st_size for file in (tmp_path / "c").rglob("*") if file.is_file())
    for word in ("rows", "collection", str(facts["fingerprint"]), "is_gallery", "c.jpg"):
        assert word in text


def test_an_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = encoder(tmp_path / "m")
    facts, text = info(tmp_path / "m", capsys)
    assert facts["parameters"] == sum(tensor.size for tensor in tensors.values())
    assert (facts["features"], facts["dimension"]) == (16, 4)
    assert facts["config"] == json.loads(json.dumps(to_json(CONFIG)))
    assert facts["fingerprint"] == json.loads((tmp_path / "m" / "card.json").read_text())["fingerprint"]
    assert "config.tower.type" in text
    assert "ConvNetConfig" in text
    assert ["config.mirror", "False"] in [line.split() for line in text.splitlines()]


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    (run / "checkpoints" / "40").mkdir(parents=True)
    write_json(run / "config.json", {"type": "HeadConfig", "loss": {"type": "ArcFace", "margin": 0.5}})
    (run / "metrics.jsonl").write_text('{"step": 0, "mp@5": 0.5}\n{"step": 40, "loss": 2.5}\n{"step": 60, "lo')
    facts, text = info(run, capsys)
    assert facts["last"] == {"step": 40, "mp@5": 0.5, "loss": 2.5}
    assert facts["checkpoints"] == ["40"]
    assert facts["model"] is None
    assert "config.loss.margin" in text
    encoder(run / "model")
    assert info(run, capsys)[0]["model"] == str(run / "model")
    (run / "metrics.jsonl").write_text("{nothing}\n")
    assert main(["info", str(run)]) == 2
    assert "metrics.jsonl` is damaged" in capsys.readouterr().err


def test_an_export_whose_layout_looks_like_an_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    write_json(tmp_path / "card.json", {"name": "shop", "export": {"target": "transformers", "bytes": 4}})
    facts, text = info(tmp_path, capsys)
    assert (facts["kind"], facts["bytes"]) == ("export", 4 + (tmp_path / "card.json").stat().st_size)
    assert ["card.export.target", "transformers"] in [line.split() for line in text.splitlines()]


@pytest.mark.parametrize(
    ("made", "words"),
    [(None, "There is nothing"), ("empty", "There is an empty directory"), ("x.txt", "There is something else")],
)
def test_nothing_of_ours(made: str | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p"
    if made:
        path.mkdir()
    if made == "x.txt":
        (path / made).touch()
    assert main(["info", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {words} at `{path}`; expected a collection, a model directory, a run or an ")
