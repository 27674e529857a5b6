"""The text side in OpenCLIP's layout: read back by our importer, and computed by the library itself."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import TextSide
from lookalike.encoders.directory import features_fingerprint_of, read_model, read_text, write_model
from lookalike.published.layouts import read_published
from lookalike.published.layouts.text import read_published_text
from lookalike.published.tokenizers import BEGIN
from lookalike.targets import open_clip as target
from lookalike.targets.parts import Export
from lookalike.vectors.text import load_text

TEXTS = ["a red cup", "CUP", "", "blue " * 40]
WAYS = {"alone": None, "inside": 0.0, "beside": 1.0}
"""No projection; one without a bias; one with."""


def given(model: Path) -> tuple[Export, TextSide]:
    side = read_text(model)
    assert side is not None
    return Export(*read_model(model), card={}, text=side), side


@pytest.fixture
def written(tmp_path: Path, write_text_model: Callable[..., Path]) -> Callable[..., tuple[Path, Path, str]]:
    """Writes a model and its export: the directories, and the README's lines."""

    def write(way: str, **options: bool) -> tuple[Path, Path, str]:
        model, out, scale = tmp_path / "model", tmp_path / "out", WAYS[way]
        write_text_model(tmp_path / "made", dim=None if scale is None else 5, **options)
        export, side = given(tmp_path / "made")
        tensors = dict(export.tensors)
        if scale is not None:
            tensors["projection.bias"] = tensors["projection.bias"] * np.float32(scale)
        write_model(model, export.config, tensors, {}, side)
        out.mkdir()
        return model, out, target.write(given(model)[0], out).code

    return write


@pytest.mark.parametrize(("way", "causal"), [("alone", True), ("alone", False), ("inside", True), ("beside", True)])
def test_both_sides_come_back(tmp_path: Path, written, way: str, causal: bool):
    model, out, code = written(way, causal=causal)
    _, config, tensors = read_published(out)
    found = read_published_text(out)
    assert found is not None
    text, weights, tokenizer = found
    _, side = given(model)
    assert (out / "projection.safetensors").exists() == (way == "beside")
    assert "def embed_text" in code
    assert tokenizer == side.tokenizer
    if way != "inside":
        assert text == side.config
        assert all(np.array_equal(weights[name], side.tensors[name]) for name in side.tensors)
        return
    # Images and texts have gone through the same projection.
    again, mark = tmp_path / "again", features_fingerprint_of(config, tensors)
    write_model(again, config, tensors, {}, TextSide(text, weights, tokenizer, mark))
    np.testing.assert_allclose(load_text(again).embed(TEXTS), load_text(model).embed(TEXTS), atol=1e-5)


def test_without_a_text_side_zeros_stand_there(tmp_path: Path, write_text_model):
    export = Export(*read_model(write_text_model(tmp_path / "m", text=False)), card={})
    (tmp_path / "out").mkdir()
    written = target.write(export, tmp_path / "out")
    assert "holds zeros" in written.keeps
    assert "embed_text" not in written.code
    assert not (tmp_path / "out" / "tokenizer.json").exists()


def test_text_sides_that_the_library_has_no_place_for(tmp_path: Path, write_text_model):
    export, side = given(write_text_model(tmp_path / "m", causal=False))
    left = json.loads(side.tokenizer)
    left["padding"]["direction"] = "Left"
    others = {
        "belongs to other image features": replace(side, image="0" * 64),
        "at the left": replace(side, tokenizer=json.dumps(left)),
        "one has the quick GELU|which one has": replace(side, config=replace(side.config, activation="quick_gelu")),
    }
    for number, (words, other) in enumerate(others.items()):
        out = tmp_path / str(number)
        out.mkdir()
        with pytest.raises(EncoderError, match=words):
            target.write(replace(export, text=other), out)


@pytest.mark.parametrize("read", ["highest", "end"])
def test_an_end_mark_is_told(tmp_path: Path, write_text_model, read: str):
    export, side = given(write_text_model(tmp_path / "m"))
    end = max(json.loads(side.tokenizer)["model"]["vocab"].values())
    config = replace(side.config, read=read, end=end if read == "end" else None)
    (tmp_path / "out").mkdir()
    target.write(replace(export, text=replace(side, config=config)), tmp_path / "out")
    described = json.loads((tmp_path / "out" / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]
    assert described.get("eos_id") == config.end
    marks = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert marks["eos_token"] == marks["pad_token"] != BEGIN


@pytest.mark.reference("open_clip", "torch", "torchvision", "transformers")
@pytest.mark.parametrize(("way", "causal"), [("alone", True), ("alone", False), ("inside", True), ("beside", True)])
def test_open_clip_computes_the_same_of_texts(written, monkeypatch, way: str, causal: bool):
    import torch
    from open_clip import factory

    model, out, code = written(way, causal=causal)
    monkeypatch.chdir(out)
    library = factory.create_model("local-dir:.")  # strict
    tokenizer = factory.get_tokenizer("local-dir:.")
    lines = code[code.index("@torch.no_grad()\ndef embed_text") :]
    names = {"torch": torch, "model": library.eval(), "tokenizer": tokenizer}
    if way == "beside":
        from safetensors.torch import load_file

        names["projection"] = load_file("projection.safetensors")
    exec(lines, names)
    found = np.stack([names["embed_text"](text) for text in TEXTS])
    np.testing.assert_allclose(found, load_text(model).embed(TEXTS), atol=1e-5)
