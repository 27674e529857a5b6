"""Which model and which index the commands take: named, noted, found again after a move, downloaded, refused."""

import json
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from lookalike.commands import main, models
from lookalike.core.files import read_json, write_json
from lookalike.data.collection import Collection
from lookalike.published.presets import ALIASES, PRESETS

NAME = ALIASES["laptop"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A cache of its own."""
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def laptop(published, home):
    """The Hub has a small model where the default one is published."""
    published.repository = PRESETS[NAME].repository
    return published


@pytest.fixture
def photos(shop, tmp_path, monkeypatch):
    """A folder `photos` of images, in the current folder; no index."""
    shutil.copytree(shop.images, tmp_path / "here" / "photos")
    monkeypatch.chdir(tmp_path / "here")
    return Path("photos")


def said(capsys, *argv, code=0):
    capsys.readouterr()
    assert main([*map(str, argv)]) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured


def model_in(index):
    return read_json(Path(index) / "card.json")["model"]


@pytest.mark.allow_hosts("127.0.0.1,localhost")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_with_nothing_configured_a_folder_is_indexed_searched_and_refreshed(photos, laptop, home, capsys):
    err = said(capsys, "index", "photos").err
    assert f"`{PRESETS[NAME].repository}` at cccccccc:" in err
    assert "MB, licence apache-2.0" in err
    assert err.index("licence apache-2.0") < err.index(f"`laptop` is kept in `{home / 'models' / NAME}`")
    assert "12 images, 12 newly embedded" in err
    assert model_in("photos.lookalike")["name"] == NAME
    query = photos / "domain0" / "label0" / "0.png"
    (answer,) = json.loads(said(capsys, "search", query, "-k", "12", "--json").out)
    assert len(answer["matches"]) == 11  # all but itself
    asked = len(laptop.asked)
    shutil.copy(query, photos / "domain0" / "label0" / "copy.png")
    assert "13 images, 1 newly embedded" in said(capsys, "index").err
    assert len(laptop.asked) == asked


@pytest.mark.allow_hosts("127.0.0.1,localhost")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_an_index_whose_published_model_is_not_here_gets_it(photos, laptop, home, capsys):
    said(capsys, "index", "photos")
    shutil.rmtree(home)
    said(capsys, "search", photos / "domain0/label0/0.png")
    assert (home / "models" / NAME / "model.safetensors").exists()


@pytest.mark.allow_hosts("127.0.0.1,localhost")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_repository_of_the_hub_by_name(photos, laptop, home, capsys):
    laptop.repository = "org/name"
    said(capsys, "index", "photos", "--model", "org/name")
    assert model_in("photos.lookalike")["path"] == str(home / "models" / "org--name")
    assert model_in("photos.lookalike")["name"] == "org/name"


@pytest.mark.allow_hosts("127.0.0.1,localhost")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_every_verb_takes_a_model_by_its_short_name(photos, laptop, home, tmp_path, capsys):
    """Downloaded by the first verb, and by no other."""
    said(capsys, "prepare", "photos", "--out", "coll", "--test", "0.5")
    said(capsys, "embed", "coll", "--model", "laptop")
    asked = len(laptop.asked)
    said(capsys, "evaluate", "coll", "--model", "laptop")
    said(capsys, "train", "pca", "--data", "coll", "--model", "laptop", "--out", "run", "--dimension", "2")
    said(capsys, "export", "--model", "laptop", "--to", "safetensors", "--out", "exported", "--min-cosine", "0.5")
    said(capsys, "blend", "--model", "laptop", "laptop", "--shares", "1", "1", "--out", "blended")
    # Before the other arguments too.
    said(capsys, "evaluate", "laptop", "coll")
    said(capsys, "export", "laptop", "--to", "safetensors", "--out", "again", "--min-cosine", "0.5")
    said(capsys, "blend", "laptop", "laptop", "--shares", "1", "1", "--out", "once more")
    assert read_json(Path("run/config.json"))["model"] == str(home / "models" / NAME)
    assert read_json(Path("blended/card.json"))["blend"][0]["model"] == str(home / "models" / NAME)
    assert len(laptop.asked) == asked


@pytest.mark.allow_hosts("127.0.0.1,localhost")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize(("answer", "code"), [("\n", 0), ("y\n", 0), ("n\n", 2), ("", 2)])
def test_at_a_terminal_a_download_is_asked_for(photos, laptop, home, monkeypatch, capsys, answer, code):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stdin, "readline", lambda: answer, raising=False)
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda _: True)
    capsys.readouterr()
    assert main(["index", "photos"]) == code
    err = capsys.readouterr().err
    assert "download it? [Y/n]" in err
    assert ("No model was downloaded" in err) == (code == 2)
    assert laptop.served == [] if code else laptop.served
    assert Path("photos.lookalike").exists() == (code == 0)


def test_without_a_network_one_sentence_says_what_to_give(photos, home, monkeypatch, capsys):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    err = said(capsys, "index", "photos", code=2).err
    assert "there is no connection to the Hub" in err
    assert "; or `--model DIR` takes a model directory on this disk" in err
    assert not Path("photos.lookalike").exists()


def test_without_a_home_one_sentence_says_what_to_give(photos, shop, monkeypatch, capsys):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("LOOKALIKE_HOME", raising=False)

    def nowhere():
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", nowhere)
    err = said(capsys, "index", "photos", code=2).err
    assert "There is no place to keep models in" in err
    assert "hint: --model DIR, or LOOKALIKE_HOME=DIR" in err
    said(capsys, "index", "photos", "--model", shop.model)
    said(capsys, "search", photos / "domain0/label0/0.png")
    card = read_json("photos.lookalike/card.json")
    write_json("photos.lookalike/card.json", card | {"model": card["model"] | {"path": "/gone", "near": "gone"}})
    assert "no longer there" in said(capsys, "search", photos / "domain0/label0/0.png", code=2).err


def test_the_order_is_option_then_variable_then_card(shop, tmp_path, write_tiny_model, monkeypatch):
    first, second = (str(write_tiny_model(tmp_path / name, seed)) for name, seed in (("a", 1), ("b", 2)))
    assert models.model_of("", shop.collection) == str(shop.model)
    monkeypatch.setenv("LOOKALIKE_MODEL", first)
    assert models.model_of("", shop.collection) == first
    assert models.model_of(second, shop.collection) == second


@pytest.mark.parametrize("place", ["moved/model", "moved/else", "cache"])
def test_a_model_that_moved_with_its_index_is_found_by_its_fingerprint(shop, home, tmp_path, capsys, place):
    """At the same way from the index, beside it under another name, and in the cache."""
    (tmp_path / "first").mkdir()
    (tmp_path / "moved").mkdir()
    index = tmp_path / "first" / "photos.lookalike"
    shutil.copytree(shop.model, tmp_path / "first" / "model")
    said(capsys, "index", shop.images, "--model", tmp_path / "first" / "model", "--out", index)
    index.rename(tmp_path / "moved" / "photos.lookalike")
    target = home / "models" / "any" if place == "cache" else tmp_path / place
    target.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "first" / "model").rename(target)
    query = shop.images / "domain0/label0/0.png"
    assert "label0" in said(capsys, "search", query, "-i", tmp_path / "moved" / "photos.lookalike").out
    card = read_json(target / "card.json")
    write_json(target / "card.json", {**card, "fingerprint": "0" * 64})  # another model there is not taken
    err = said(capsys, "search", query, "-i", tmp_path / "moved" / "photos.lookalike", code=2).err
    assert "no longer there, nor beside the index" in err
    assert "hint: `--model MODEL` says where it is now" in err


@pytest.mark.parametrize("name", ["nothing", "lapptop", "no/such/dir", "/no/dir"])
def test_a_model_that_is_nowhere(photos, home, capsys, name):
    err = said(capsys, "index", "photos", "--model", name, code=2).err
    assert f"There is no model `{name}`" in err
    assert not Path("photos.lookalike").exists()


def test_a_missing_directory_beside_others_is_not_looked_for_on_the_hub(photos, capsys):
    err = said(capsys, "index", "photos", "--model", "photos/model", code=2).err
    assert "There is no model directory `photos/model`" in err


def test_which_index_is_searched(shop, tmp_path, monkeypatch, capsys):
    query, folder = shop.images / "domain0/label0/0.png", tmp_path / "folder"
    (folder / "photos").mkdir(parents=True)
    (folder / "photos" / "a.png").touch()
    monkeypatch.chdir(folder)
    assert "hint: `lookalike index FOLDER` makes one" in said(capsys, "search", query, code=2).err
    monkeypatch.setenv("LOOKALIKE_INDEX", str(shop.collection))
    assert "label0" in said(capsys, "search", query).out
    monkeypatch.delenv("LOOKALIKE_INDEX")
    shutil.copytree(shop.collection, "one.lookalike")
    assert "label0" in said(capsys, "search", query).out
    shutil.copytree(shop.collection, "two words")
    err = said(capsys, "search", query, code=2).err
    assert "`one.lookalike`, `two words`" in err
    assert "hint: -i one.lookalike" in err
    assert "hint: lookalike index photos" in said(capsys, "search", query, "-i", "photos", code=2).err
    shutil.move("one.lookalike", "photos.lookalike")
    assert "hint: -i photos.lookalike" in said(capsys, "search", query, "-i", "photos", code=2).err
    err = said(capsys, "search", query, "-i", "nothing", code=2).err
    assert "There is nothing at `nothing`, not an index." in err
    err = said(capsys, "search", "two words", query, "-i", "x", code=2).err
    assert f"hint: lookalike search {shlex.quote(str(query))} -i 'two words'" in err
    assert "hint: lookalike search IMAGE -i 'two words'" in said(capsys, "search", "two words", code=2).err


def test_a_collection_without_embeddings_is_told_the_next_command(photos, capsys):
    said(capsys, "prepare", "photos", "--out", "coll")
    query = photos / "domain0/label0/0.png"
    for more in ([], ["-i", "coll"]):
        assert "lookalike index coll" in said(capsys, "search", query, *more, code=2).err.split("hint: ")[1]


def test_two_indexes_are_not_guessed_between(shop, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert "There is no index in this folder" in said(capsys, "index", code=2).err
    for name in ("a", "b"):
        shutil.copytree(shop.collection, name)
    err = said(capsys, "index", code=2).err
    assert "There are 2 indexes here: `a`, `b`." in err
    assert "hint: lookalike index a" in err


def test_the_index_lies_beside_its_source(photos, shop, capsys, monkeypatch):
    model = str(shop.model)
    said(capsys, "index", "photos/", "--model", model)
    assert Collection.open("photos.lookalike").card["sources"][0]["path"] == str(photos.absolute())
    table = Path("list.v1.csv")
    table.write_text("path\nphotos/domain0/label0/0.png\n")
    said(capsys, "index", table, "--model", model)
    assert len(Collection.open("list.v1.lookalike")) == 1
    monkeypatch.chdir("photos")
    assert "12 images, 0 newly" in said(capsys, "index", ".").err
    monkeypatch.chdir("..")
    err = said(capsys, "index", "photos", table, "--model", model, code=2).err
    assert "hint: lookalike index photos list.v1.csv --out all.lookalike" in err
    said(capsys, "index", "photos", table, "--model", model, "--out", "all.lookalike")
    assert len(Collection.open("all.lookalike")) == 13


def test_a_folder_that_is_read_only_is_said_before_a_model_is_sought(photos, home, monkeypatch, capsys):
    monkeypatch.setattr("os.access", lambda *_: False)
    err = said(capsys, "index", "photos", code=2).err
    assert "hint: lookalike index photos --out ~/photos.lookalike" in err
