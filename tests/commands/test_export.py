"""`lookalike export`: one way through the command, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lookalike.commands import main
from lookalike.targets import TARGETS
from lookalike.targets.model_card import model_card


def test_export_says_how_near_and_how_large(
    tmp_path: Path, write_tiny_model: Callable[..., Path], capsys: pytest.CaptureFixture[str]
):
    model, out = write_tiny_model(tmp_path / "model"), tmp_path / "out"
    assert main(["export", "--model", str(model), "--to", "onnx", "--out", str(out)]) == 0
    said = capsys.readouterr()
    facts = json.loads((out / "card.json").read_text())["export"]
    assert said.out == ""
    assert f"smallest cosine {facts['minimum_cosine']:.6f} over 6 images" in said.err
    assert "MB" in said.err
    assert facts["minimum_cosine"] > 0.99999
    assert "license: apache-2.0" in (out / "README.md").read_text()


def test_an_encoder_that_does_not_fit_is_refused_before_it_is_computed(
    tmp_path: Path, write_tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("lookalike.commands.export.vectors", lambda _: pytest.fail("computed"))
    model = write_tiny_model(tmp_path / "model")
    assert main(["export", "--model", str(model), "--to", "onnx", "--int8", "--out", str(tmp_path / "out")]) == 2


def test_a_text_side_goes_along(tmp_path: Path, write_text_model: Callable[..., Path]):
    model, out = write_text_model(tmp_path / "model"), tmp_path / "out"
    assert main(["export", "--model", str(model), "--to", "open_clip", "--out", str(out)]) == 0
    assert (out / "tokenizer.json").read_text() == (model / "text" / "tokenizer.json").read_text()
    assert "def embed_text(text):" in (out / "README.md").read_text()


FILE = """
from lookalike.targets import onnx
from lookalike.targets.parts import Target, Written


def write(export, directory):
    assert export.text is not None
    written = onnx.write(export, directory)
    return Written(written.code, "Made up.")


TARGET = Target(write, "made-up", needs=("onnx",), reads=("onnxruntime",), graph=True, text=True)
"""


def test_a_target_is_one_file_and_one_line(
    tmp_path: Path,
    write_text_model: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    (tmp_path / "made_up_target.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(TARGETS, "made_up", "made_up_target")
    model, out = write_text_model(tmp_path / "model"), tmp_path / "out"
    assert main(["export", "--model", str(model), "--to", "made_up", "--int8", "--out", str(out)]) == 2
    assert "`--int8` goes with the targets onnx, openvino; not with made_up." in capsys.readouterr().err
    assert main(["export", "--model", str(model), "--to", "made_ap", "--out", str(out)]) == 2
    assert "Did you mean `made_up`?" in capsys.readouterr().err
    assert main(["export", "--model", str(model), "--to", "made_up", "--no-preprocess", "--out", str(out)]) == 0
    readme = (out / "README.md").read_text()
    assert readme.startswith("---\nlibrary_name: made-up\n")
    assert "next to each other. Made up. `embed(path)` gives the vector of one image file.\n" in readme
    assert "Exported as made_up by lookalike " in readme
    assert "library_name: made-up\n" in model_card(json.loads((out / "card.json").read_text()), "a/b", "", "", {})


def test_what_is_refused(tmp_path: Path, write_tiny_model: Callable[..., Path], capsys: pytest.CaptureFixture[str]):
    model = write_tiny_model(tmp_path / "model")

    def refused(*argv: str) -> str:
        assert main(["export", "--model", *argv]) == 2
        return capsys.readouterr().err

    out = ["--out", str(tmp_path / "out")]
    assert "Did you mean `openvino`?" in refused(str(model), "--to", "openvin", *out)
    assert "`--int8` goes with the targets onnx, openvino" in refused(str(model), "--to", "safetensors", "--int8", *out)
    assert "so no export is written there" in refused(str(model), "--to", "onnx", "--out", str(model))
    assert "no matrices that 8 bits would make smaller" in refused(str(model), "--to", "onnx", "--int8", *out)
    assert "`--min-cosine` is 2.0; expected -1 to 1." in refused(str(model), "--to", "onnx", "--min-cosine", "2", *out)
    assert "There is no model directory" in refused(str(tmp_path / "none"), "--to", "onnx", *out)
    assert "`--min-cosine` is 'abc'; expected a FLOAT." in refused(
        str(model), "--min-cosine", "abc", "--to", "onnx", *out
    )
    assert not (tmp_path / "out").exists()
