"""The table of layouts, the presets, and the download, which is watched and never made."""

from pathlib import Path
from typing import Any

import pytest

from likeness.core.errors import EncoderError
from likeness.models.weights import WEIGHTS, read_published
from likeness.models.weights.hub import download
from likeness.models.weights.presets import PRESETS


def test_a_directory_in_no_known_layout(tmp_path: Path):
    with pytest.raises(EncoderError, match="in no layout that is known") as caught:
        read_published(tmp_path)
    assert all(name in caught.value.message for name in WEIGHTS)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(EncoderError, match="in no layout that is known"):
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


def test_presets_are_names_on_the_hub():
    assert all(preset.repository.count("/") == 1 and preset.license for preset in PRESETS.values())
    assert len({preset.repository for preset in PRESETS.values()}) == len(PRESETS)


def watched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: list[str]) -> list[list[str]]:
    """Replace the download by one that makes those files of `there` that match; returns what is asked for."""
    import huggingface_hub

    asked: list[list[str]] = []

    def snapshot(repository: str, allow_patterns: list[str], **_: Any) -> str:
        asked.append(allow_patterns)
        for name in there:
            if any(Path(name).match(pattern) for pattern in allow_patterns):
                (tmp_path / name).touch()
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return asked


def test_only_safetensors_and_json_are_fetched_and_one_layout_is_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    there = ["config.json", "model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", "modeling_x.py"]
    asked = watched(monkeypatch, tmp_path, there)
    assert download("org/name") == tmp_path
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert all(pattern.endswith((".json", ".safetensors")) for patterns in asked for pattern in patterns)


def test_open_clips_file_is_the_second_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    watched(
        monkeypatch, tmp_path, ["open_clip_config.json", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    )
    download("org/name")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["open_clip_config.json", "open_clip_model.safetensors"]


def test_no_connection_is_a_sentence_with_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fails(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("no cached snapshot, and outgoing traffic is disabled")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with pytest.raises(EncoderError, match="there is no connection to the Hub") as caught:
        download("org/name")
    assert "`config.json` and `model.safetensors` of `org/name`" in caught.value.message
    assert "hf download org/name" in caught.value.hint


def test_a_name_that_can_not_be(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(EncoderError, match="no name of a model on the Hub"):
        download("org/na--me..")
