"""`lookalike index`: from a folder to a searchable collection, and again."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

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


def test_a_model_that_got_worse_is_said_to_be(shop, tmp_path, capsys):
    shutil.copytree(shop.model, tmp_path / "model")
    shutil.copytree(shop.images, tmp_path / "images")
    told = {"which": "worse", "words": "Worse than the untouched tower: on classes never seen, 0.4."}
    for verdict, worse in ((told, True), (told | {"which": "better"}, False)):
        card = read_json(tmp_path / "model/card.json")
        write_json(tmp_path / "model/card.json", card | {"verdict": verdict})
        assert main(["index", str(tmp_path / "images"), "--model", str(tmp_path / "model")]) == 0
        said = capsys.readouterr().err
        found = f"`{tmp_path / 'model'}`: worse than the untouched tower: on classes never seen, 0.4." in said
        assert found is worse


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
    Image.new("RGB", (48, 40), (200, 30, 60)).save(pictures / "domain1/label3/new.png")
    embedded.clear()
    assert main(arguments) == 0
    assert sum(embedded) == 1  # the copy has the vector of what it is a copy of
    told = capsys.readouterr().err
    assert "13 images: 2 added, 1 gone; 1 is the same picture as an earlier one" in told
    assert "13 images, 2 newly embedded" in told
    embedded.clear()
    assert main(arguments) == 0
    assert embedded == []
    collection = Collection.open(tmp_path / "new.coll")
    model = collection.card["model"]
    assert model["path"] == str(shop.model)
    assert model["column"] == f"embedding_{model['fingerprint'][:8]}_float32"
    assert len(collection.vectors(model["column"])[0]) == 13


def test_a_collection_is_made_searchable_in_place(shop, embedded, tmp_path, write_tiny_model):
    other = write_tiny_model(tmp_path / "other", 1)
    before = Collection.open(shop.collection).card["model"]
    card = shop.collection / "card.json"
    write_json(card, {name: value for name, value in read_json(card).items() if name != "indexed"})  # as `prepare` does
    assert main(["index", f"{shop.collection}/", "--model", str(other)]) == 0
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
    assert main(["index", str(shop.collection), "--model", "model"]) == 0
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


def test_a_refresh_needs_no_options(shop, tmp_path, embedded, monkeypatch, capsys):
    """The card knows sources, what is left out of each, the share of the test, and the model."""
    shutil.copytree(shop.images, tmp_path / "one")
    shutil.copytree(shop.images / "domain0", tmp_path / "two")
    index = tmp_path / "all.lookalike"
    sources = [str(tmp_path / name) for name in ("one", "two")]
    first = ["index", *sources, "--model", str(shop.model), "--out", str(index), "--test", "0.5"]
    assert main([*first, "--exclude", "label3", "0.png"]) == 0
    assert len(Collection.open(index)) == 3 * 2 + 2 * 2
    splits = Collection.open(index).table(["split"])["split"].to_pylist()
    assert set(splits) == {"train", "test"}
    shutil.rmtree(shop.collection)
    monkeypatch.chdir(tmp_path)
    for again in (first, ["index", *sources, "--out", str(index)], ["index", str(index)], ["index"]):
        Image.new("RGB", (48, 40), (20 * len(again), 90, 9)).save(tmp_path / f"two/label0/new{len(again)}.png")
        embedded.clear()
        assert main(again) == 0
        assert sum(embedded) == 1
    shutil.rmtree(tmp_path / "one")  # as a disk that is not there
    capsys.readouterr()
    assert main(["index", str(index)]) == 0
    err = capsys.readouterr().err
    assert f"`{tmp_path / 'one'}` is not there now; its images stay as they are." in err
    assert "14 images, 0 newly embedded" in err
    assert main(["index", str(index), "--exclude", "nothing"]) == 0
    assert len(Collection.open(index)) == 6 + 10  # of what is there, all


def test_a_collection_of_prepare_is_not_prepared_again(shop, tmp_path, capsys):
    source, coll = tmp_path / "photos", tmp_path / "coll"
    shutil.copytree(shop.images, source)
    assert main(["prepare", str(source), "--out", str(coll), "--limit", "5"]) == 0
    for _ in range(2):
        assert main(["index", str(coll), "--model", str(shop.model)]) == 0
        assert len(Collection.open(coll)) == 5
    capsys.readouterr()
    assert main(["index", str(coll), "--test", "0.5"]) == 2
    assert "are for sources" in capsys.readouterr().err
