"""Texts to vectors: against a slow transcription, through projections, in both runtimes, and what is refused."""

import dataclasses
import shutil
import subprocess
import sys
from math import erf
from pathlib import Path

import numpy as np
import pytest

from lookalike.core.errors import EncoderError, UsageError
from lookalike.encoders.directory import read_model, read_text
from lookalike.encoders.tokenizer import Tokenizer
from lookalike.vectors import engines
from lookalike.vectors.runtime import load
from lookalike.vectors.text import load_text

TEXTS = ["a red kettle", "", "DON'T boil", "🫖 café " * 20]


def slow(model: Path, text: str) -> np.ndarray:
    """The features of one text, as the papers write them, in float64 and one head at a time."""
    side = read_text(model)
    assert side is not None
    config, tensors = side.config, {name: t.astype(np.float64) for name, t in side.tensors.items()}

    def norm(x: np.ndarray, name: str, layer: int | None = None) -> np.ndarray:
        weight, bias = (tensors[f"{name}.{part}"] for part in ("weight", "bias"))
        weight, bias = (weight, bias) if layer is None else (weight[layer], bias[layer])
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + config.eps) * weight + bias

    def linear(x: np.ndarray, name: str, layer: int) -> np.ndarray:
        return x @ tensors[f"blocks.{name}.weight"][layer] + tensors[f"blocks.{name}.bias"][layer]

    ids = Tokenizer(side.tokenizer, config, "here")(text)
    x = tensors["token"][ids] + tensors["position"][: len(ids)]
    for layer in range(config.layers):
        q, k, v = np.split(linear(norm(x, "blocks.norm1", layer), "attention.qkv", layer), 3, axis=1)
        heads, size = [], config.width // config.heads
        for h in range(config.heads):
            mine = slice(h * size, (h + 1) * size)
            scores = q[:, mine] @ k[:, mine].T / np.sqrt(size)
            if config.causal:
                scores[np.triu_indices(len(ids), 1)] = -np.inf
            shares = np.exp(scores - scores.max(1, keepdims=True))
            heads.append(shares / shares.sum(1, keepdims=True) @ v[:, mine])
        x = x + linear(np.concatenate(heads, axis=1), "attention.out", layer)
        y = linear(norm(x, "blocks.norm2", layer), "mlp.up", layer)
        x = x + linear(y * 0.5 * (1 + np.vectorize(erf)(y / np.sqrt(2))), "mlp.down", layer)
    place = int(ids.argmax()) if config.read == "highest" else len(ids) - 1
    return norm(x[place], "norm_post") @ tensors["head.weight"]


@pytest.mark.parametrize("causal", [True, False])
def test_features_are_those_of_the_papers(tmp_path, write_text_model, causal):
    model = write_text_model(tmp_path / "m", causal=causal)
    found = load_text(model).features(TEXTS)
    assert found.dtype == np.float32
    for text, row in zip(TEXTS, found, strict=True):
        expected = slow(model, text)
        assert np.abs(row - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("mirror", [False, True])
def test_texts_go_through_the_projection_of_images(tmp_path, write_text_model, mirror):
    model = write_text_model(tmp_path / "m", dim=5, mirror=mirror)
    embedder = load_text(model)
    _, tensors = read_model(model)
    features = embedder.features(TEXTS).astype(np.float64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    expected = features @ tensors["projection.weight"] + tensors["projection.bias"]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert embedder.dimension == 5
    np.testing.assert_allclose(embedder.embed(TEXTS), expected, atol=1e-6)
    assert embedder.embed([]).shape == (0, 5)


def test_a_text_does_not_depend_on_its_neighbours(tmp_path, write_text_model):
    embedder = load_text(write_text_model(tmp_path / "m"))
    many = embedder.embed(TEXTS * 3)
    for i, text in enumerate(TEXTS):
        assert np.array_equal(many[i], embedder.embed([text])[0])


def test_jax_gives_the_same(tmp_path, write_text_model):
    model = write_text_model(tmp_path / "m")
    inside, outside = load_text(model, load(model, "jax")), load_text(model)
    assert inside._engine.name == "jax"
    np.testing.assert_allclose(inside.embed(TEXTS), outside.embed(TEXTS), atol=1e-5)


def test_the_graph_is_kept(tmp_path, write_text_model, monkeypatch):
    model = write_text_model(tmp_path / "m")
    assert engines.find(Path(model) / "text") is None
    first = load_text(model).embed(TEXTS)
    assert engines.find(Path(model) / "text") is not None
    monkeypatch.setattr("lookalike.encoders.directory.read_safetensors", lambda _: pytest.fail("read again"))
    assert np.array_equal(load_text(model).embed(TEXTS), first)


def test_a_cache_that_refuses_does_no_harm(tmp_path, write_text_model, monkeypatch):
    model = write_text_model(tmp_path / "m")
    first = load_text(model).embed(TEXTS)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert np.array_equal(load_text(model).embed(TEXTS), first)


def test_what_is_no_text_is_named(tmp_path, write_text_model):
    """In a process of its own: here annotations are checked, and refuse it first."""
    code = "import sys, lookalike\nlookalike.load_text(sys.argv[1]).embed(['a red kettle', 3])"
    model = write_text_model(tmp_path / "m")
    done = subprocess.run([sys.executable, "-c", code, str(model)], capture_output=True, text=True, check=False)
    assert "UsageError: `embed` takes texts, and was given 3 among them." in done.stderr


def test_what_is_refused(tmp_path, write_text_model):
    model = write_text_model(tmp_path / "m")
    with pytest.raises(UsageError, match="several texts"):
        load_text(model).embed("one")
    with pytest.raises(EncoderError, match="no text side"):
        load_text(write_text_model(tmp_path / "without", text=False))
    with pytest.raises(EncoderError, match="no model directory"):
        load_text(tmp_path / "nothing")
    other = write_text_model(tmp_path / "other", seed=5)
    shutil.rmtree(other / "text")
    shutil.copytree(model / "text", other / "text")
    with pytest.raises(EncoderError, match="belongs to other image features"):
        load_text(other)


def test_a_tokenizer_of_another_tower_is_refused(tmp_path, write_text_model):
    model, longer = write_text_model(tmp_path / "m"), write_text_model(tmp_path / "longer", context=20)
    shutil.copy(longer / "text" / "tokenizer.json", model / "text" / "tokenizer.json")
    with pytest.raises(EncoderError, match="cuts texts to 20 tokens"):
        load_text(model)
    side = read_text(longer, tensors=False)
    smaller = Tokenizer(side.tokenizer, dataclasses.replace(side.config, vocabulary=9), "here")
    with pytest.raises(EncoderError, match="knows 9 tokens"):
        smaller("a")
    for content in ("{}", "no JSON"):
        with pytest.raises(EncoderError, match="no tokenizer that"):
            Tokenizer(content, side.config, "here")
