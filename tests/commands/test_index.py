"""`lookalike index`: from a folder to a searchable collection, and again."""

import shutil
from pathlib import Path

import pytest

from lookalike.commands import main
from lookalike.core.files import read_json, write_json
from lookalike.data.collection import Collection
from lookalike.vectors.runtime import Embedder


@pytest.fixture
def embedded(monkeypatch):
    """How many images went through the tower."""
    counts = []
    features = Embedder.features

    def count(self, images):
        counts.append(len(images))
        return features(self, images)

    monkeypatch.setattr(Embedder, "features", count)
    return counts


def test_again_embeds_only_what_is_new(shop, tmp_path, embedded, capsys):
    pictures = tmp_path / "images"
    shutil.copytree(shop.images, pictures)
    arguments = ["index", str(pictures), "--model", str(shop.model), "--out", str(tmp_path / "new.coll")]
    assert main(arguments) == 0
    assert sum(embedded) == 12
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "12 images, 12 newly embedded" in captured.err
    shutil.copy(pictures / "domain0/label0/0.png", pictures / "domain0/label0/copy.png")
    (pictures / "domain1/label3/2.png").unlink()
    embedded.clear()
    assert main(arguments) == 0
    assert sum(embedded) == 1
    assert "12 images, 1 newly embedded" in capsys.readouterr().err
    embedded.clear()
    assert main(arguments) == 0
    assert embedded == []
    collection = Collection.open(tmp_path / "new.coll")
    model = collection.card["model"]
    assert model["path"] == str(shop.model)
    assert model["column"] == f"embedding_{model['fingerprint'][:8]}_float32"
    assert len(collection.vectors(model["column"])[0]) == 12


def test_a_collection_is_made_searchable_in_place(shop, embedded, tmp_path, write_tiny_model):
    other = write_tiny_model(tmp_path / "other", 1)
    before = Collection.open(shop.collection).card["model"]
    assert main(["index", str(shop.collection), "--model", str(other), "--out", f"{shop.collection}/"]) == 0
    assert sum(embedded) == 12
    after = Collection.open(shop.collection)
    assert after.card["model"]["path"] == str(other)
    assert after.card["model"]["column"] != before["column"]
    assert before["column"] in after.columns


def test_a_collection_is_made_searchable_elsewhere_and_again(shop, embedded, tmp_path, write_tiny_model):
    other, out = write_tiny_model(tmp_path / "other", 2), tmp_path / "copy.coll"
    before = Collection.open(shop.collection)
    arguments = ["index", str(shop.collection), "--model", str(other), "--out", str(out)]
    assert main(arguments) == 0
    assert sum(embedded) == 12
    assert Collection.open(shop.collection).version == before.version
    copy = Collection.open(out)
    assert copy.table(["id", "image", "label"]).equals(before.table(["id", "image", "label"]))
    assert copy.card["model"]["path"] == str(other)
    embedded.clear()
    assert main(arguments) == 0
    assert embedded == []


def test_the_path_of_the_encoder_is_kept_whole(shop, monkeypatch):
    monkeypatch.chdir(shop.model.parent)
    assert main(["index", str(shop.collection), "--model", "model", "--out", str(shop.collection)]) == 0
    assert Collection.open(shop.collection).card["model"]["path"] == str(shop.model)


def test_refuses(shop, tmp_path, capsys):
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "thesis.txt").touch()
    for source, model, out, words in [
        (shop.images, tmp_path / "nothing", tmp_path / "copy", "nothing"),
        (shop.images, shop.model, tmp_path / "else", "something else"),
        (tmp_path / "nowhere", shop.model, tmp_path / "copy", "nowhere"),
    ]:
        assert main(["index", str(source), "--model", str(model), "--out", str(out)]) == 2
        assert words in capsys.readouterr().err
        assert not (Path(tmp_path) / "copy").exists()
    assert [file.name for file in (tmp_path / "else").iterdir()] == ["thesis.txt"]


def test_images_are_kept_at_the_size_that_the_model_reads(shop, tmp_path, monkeypatch, capsys):
    model = tmp_path / "large"
    shutil.copytree(shop.model, model)
    config = read_json(model / "config.json")
    write_json(model / "config.json", {**config, "preprocess": {**config["preprocess"], "resize": 300}})
    for out, size in ((tmp_path / "new.coll", 300), (shop.collection, None)):
        source = shop.images if size else shop.collection
        assert main(["index", str(source), "--model", str(model), "--out", str(out)]) == 0
        words = capsys.readouterr().err
        if size:
            assert Collection.open(out).card["options"]["size"] == size
            assert "enlarged" not in words
        else:
            assert "stores images at 256 px" in words
            assert "--size 300" in words
    assert main(["index", str(shop.collection), "--model", str(model), "--out", str(shop.collection)]) == 0
    assert "--size 300" not in capsys.readouterr().err  # nothing was embedded
