"""The table of layouts, and what is no layout."""

import subprocess
import sys
from pathlib import Path

import pytest

from lookalike.core.errors import EncoderError
from lookalike.published.layouts import WEIGHTS, read_published


def test_a_directory_in_no_known_layout(tmp_path: Path):
    with pytest.raises(EncoderError, match="in no layout that is known") as caught:
        read_published(tmp_path)
    assert all(name in caught.value.hint for name in WEIGHTS)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(EncoderError, match=r"in no layout .*: its `config\.json` has model_type 'bert'"):
        read_published(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(EncoderError, match="not valid JSON"):
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
    command = caught.value.hint.replace("python -c", f"{sys.executable} -c")
    subprocess.run(command, shell=True, check=True)
    got = load_file(tmp_path / made)
    assert {name: tensor.tolist() for name, tensor in got.items()} == {n: t.tolist() for n, t in wanted.items()}
