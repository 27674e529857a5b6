"""`lookalike embed` from the command line: words, data, exit codes."""

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from lookalike.commands import main
from lookalike.data.collection import Collection
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, tensor_shapes
from lookalike.encoders.directory import write_model
from lookalike.imaging.preprocess import Preprocess
from lookalike.towers import ConvNetConfig


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """A model directory and a collection made by `prepare`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tower = ConvNetConfig(widths=(8,), depths=(0,), groups=4)
    preprocess = Preprocess(16, "squash", 16, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    config = EncoderConfig(tower, "mean", preprocess, ProjectionConfig("linear", 8, 3))
    rng = np.random.default_rng(0)
    write_model(
        tmp_path / "model",
        config,
        {n: rng.normal(size=s).astype(np.float32) for n, s in tensor_shapes(config).items()},
        {},
    )
    for i in range(6):
        buffer = io.BytesIO()
        PIL.Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(buffer, "PNG")
        place = tmp_path / "images" / "ab"[i % 2] / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(buffer.getvalue())
    assert main(["prepare", str(tmp_path / "images"), "--out", str(tmp_path / "coll")]) == 0
    return str(tmp_path / "model"), str(tmp_path / "coll")


def test_prints_the_column_and_fills_it(places: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    model, coll = places
    assert main(["embed", coll, "--model", model]) == 0
    said = capsys.readouterr()
    column = said.out.strip()
    assert said.out == f"{column}\n"
    assert "6/6 images" in said.err
    ids, vectors = Collection.open(places[1]).vectors(column)
    assert vectors.shape == (6, 3)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert main(["embed", coll, "--model", model, "--runtime", "onnx", "--batch", "2"]) == 0
    again = capsys.readouterr()
    assert (again.out, again.err) == (f"{column}\n", "")  # nothing was left to do
    assert len(ids) == 6


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["embed", "{coll}", "--model", "{model}/absent"], "There is no model directory"),
        (["embed", "{coll}", "--model", "{coll}"], "not a model directory"),
        (["embed", "{model}", "--model", "{model}"], "not a collection"),
        (["embed", "{coll}", "--model", "{model}", "--batch", "0"], "expected 1 or more"),
        (["embed", "{coll}", "--model", "{model}", "--runtime", "onyx"], "onnx"),
    ],
)
def test_what_can_be_mended_is_said(
    places: tuple[str, str], capsys: pytest.CaptureFixture[str], argv: list[str], words: str
) -> None:
    assert main([part.format(model=places[0], coll=places[1]) for part in argv]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert "Traceback" not in said.err
