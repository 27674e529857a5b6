"""`text/` in a model directory: written whole, read whole, and refused otherwise."""

import dataclasses
import json

import numpy as np
import pytest

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import meets
from lookalike.encoders.directory import read_model, read_text, write_model
from lookalike.towers.text import TextConfig


def test_what_is_written_is_read(tmp_path, write_text_model):
    side = read_text(write_text_model(tmp_path / "m"))
    assert side is not None
    write_model(tmp_path / "again", *read_model(tmp_path / "m"), {}, side)
    again = read_text(tmp_path / "again")
    assert again is not None
    assert (again.config, again.tokenizer, again.image) == (side.config, side.tokenizer, side.image)
    assert all(np.array_equal(again.tensors[name], side.tensors[name]) for name in side.tensors)
    assert (tmp_path / "again" / "text" / "tokenizer.json").read_text() == side.tokenizer


def test_the_image_side_does_not_know_of_it(tmp_path, write_text_model):
    with_, without = write_text_model(tmp_path / "with"), write_text_model(tmp_path / "without", text=False)
    assert read_text(without) is None
    assert read_text(without, tensors=False) is None
    for name in ("config.json", "model.safetensors", "card.json"):
        assert (with_ / name).read_bytes() == (without / name).read_bytes()


def test_faults_are_named(tmp_path, write_text_model):
    model = write_text_model(tmp_path / "m")
    config, folder = json.loads((model / "text" / "config.json").read_text()), model / "text"
    side = read_text(model)
    assert side is not None
    with pytest.raises(EncoderError, match="belongs to other image features, so it is not written"):
        write_model(tmp_path / "x", *read_model(model), {}, dataclasses.replace(side, image="0" * 64))
    fewer = dataclasses.replace(side, tensors={k: v for k, v in side.tensors.items() if k != "position"})
    with pytest.raises(EncoderError, match="`position` is missing"):
        write_model(tmp_path / "x", *read_model(model), {}, fewer)
    assert not (tmp_path / "x").exists()
    for change, words in (
        ({"format": 2}, "another format"),
        ({"read": "odd"}, "expected one of"),
        ({"extra": 1}, "extra"),
    ):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(EncoderError, match=words):
            read_text(model)
    (folder / "config.json").write_text(json.dumps(config | {"layers": 3}))
    with pytest.raises(EncoderError, match="has shape"):
        read_text(model)
    (folder / "config.json").write_text("[")
    with pytest.raises(EncoderError, match="not valid JSON"):
        read_text(model)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").rename(folder / "away")
    with pytest.raises(EncoderError, match=r"can't be read: .*tokenizer\.json"):
        read_text(model)
    (folder / "away").rename(folder / "tokenizer.json")
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(EncoderError, match="is damaged"):
        read_text(model)


def test_which_features_meet_the_texts(tmp_path, write_text_model):
    config, _ = read_model(write_text_model(tmp_path / "m"))

    def other(size=32, **change):
        prepare = dataclasses.replace(config.preprocess, size=size, resize=size)
        tower = dataclasses.replace(config.tower, size=size, **change)
        return dataclasses.replace(config, tower=tower, preprocess=prepare)

    assert meets(config, other(size=64))
    assert meets(config, other(stride=8))
    assert meets(config, dataclasses.replace(config, mirror=True))
    assert not meets(config, other(layers=1))
    assert not meets(config, dataclasses.replace(config, pooling="mean"))


def test_a_config_that_can_not_be():
    sizes = {"vocabulary": 9, "context": 4, "layers": 1, "hidden": 8, "activation": "gelu", "causal": True}
    with pytest.raises(EncoderError, match="3 heads"):
        TextConfig(**sizes, width=8, heads=3, read="highest")
    with pytest.raises(EncoderError, match="reads from 'end'"):
        TextConfig(**sizes, width=8, heads=2, read="end")
