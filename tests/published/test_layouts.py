"""The table of layouts, and what is no layout."""

import contextlib
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lookalike.core.errors import EncoderError, LookalikeError, StorageError
from lookalike.published.layouts import WEIGHTS, read_published
from lookalike.published.layouts.text import read_published_text


def test_a_directory_in_no_known_layout(tmp_path: Path):
    with pytest.raises(EncoderError, match="in no layout that is known") as caught:
        read_published(tmp_path)
    assert all(name in caught.value.hint for name in WEIGHTS)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(EncoderError, match=r"in no layout .*: its `config\.json` has model_type 'bert'"):
        read_published(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(StorageError, match="not valid JSON"):
        read_published(tmp_path)


def test_pickles_alone_are_never_read(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(EncoderError, match="has no safetensors"):
        read_published(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/never'\ntR.")
    with pytest.raises(EncoderError, match=r"only pickles \(pytorch_model\.bin\)") as caught:
        read_published(tmp_path)
    assert "safetensors" in caught.value.hint


@pytest.mark.reference("torch")
@pytest.mark.parametrize(
    ("pickles", "made"),
    [
        (["open_clip_pytorch_model.bin"], "open_clip_model.safetensors"),
        (["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "x.bin"], "model.safetensors"),
    ],
)
def test_the_hint_is_a_command_that_converts_them(tmp_path: Path, pickles: list[str], made: str):
    """Run as it stands, on files that torch wrote."""
    import torch
    from safetensors.numpy import load_file

    wanted = {}
    for number, name in enumerate(pickles):
        tensors = {f"a{number}": torch.arange(6.0).reshape(2, 3).T, f"b{number}": torch.ones(4)[:2]}
        torch.save(tensors, tmp_path / name)
        wanted |= tensors if name != "x.bin" else {}
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(EncoderError) as caught:
        read_published(tmp_path)
    command = caught.value.hint.replace("python -c", f"{shlex.quote(sys.executable)} -c")
    subprocess.run(command, shell=True, check=True)
    got = load_file(tmp_path / made)
    assert {name: tensor.tolist() for name, tensor in got.items()} == {n: t.tolist() for n, t in wanted.items()}


def test_a_strangers_file_names_are_no_words_of_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The hint is there to be pasted."""
    where = tmp_path / "a $(touch A) 'b"
    where.mkdir()
    (where / "config.json").write_text('{"model_type": "clip"}')
    for name in ("pytorch_model-$(touch B).bin", "pytorch_model-`touch C`\"'; touch D; '.bin"):
        (where / name).write_bytes(b"x")
    with pytest.raises(EncoderError) as caught:
        read_published(where)
    monkeypatch.chdir(tmp_path)
    subprocess.run(["bash", "-c", caught.value.hint], stderr=subprocess.DEVNULL, check=False)
    made = {path.name for path in tmp_path.rglob("*")} - {path.name for path in where.iterdir()}
    assert made == {where.name}


OPEN_CLIP = ("open_clip_config.json", "open_clip_model.safetensors")
OURS = ("config.json", "model.safetensors")
ODD = {
    "null": (OPEN_CLIP, '{"model_cfg": null}'),
    "a number": (OPEN_CLIP, '{"model_cfg": 3}'),
    "a list": (OPEN_CLIP, '{"model_cfg": {"vision_cfg": [1]}}'),
    "a list of text": (OPEN_CLIP, '{"model_cfg": {"vision_cfg": {}, "text_cfg": [1]}}'),
    "a list as type": (OURS, '{"model_type": ["clip"]}'),
    "deep": (OURS, "[" * 200_000 + "]" * 200_000),
    "digits": (OURS, '{"model_type": "clip", "x": ' + "9" * 5000 + "}"),
    "infinite": (OURS, '{"model_type": "clip", "vision_config": {"hidden_size": Infinity}}'),
    "no text": (OURS, "\udcff"),
}


@pytest.mark.parametrize("kind", sorted(ODD))
def test_odd_json_is_a_sentence(tmp_path: Path, kind: str):
    from safetensors.numpy import save_file

    (config, tensors), text = ODD[kind]
    (tmp_path / config).write_bytes(text.encode("utf-8", "surrogateescape"))
    names = ("embeddings.class_embedding", "visual.class_embedding", "token_embedding.weight")
    save_file({name: np.zeros(2, np.float32) for name in names}, tmp_path / tensors)
    with pytest.raises(LookalikeError):
        read_published(tmp_path)
    with contextlib.suppress(LookalikeError):
        assert read_published_text(tmp_path) is None
