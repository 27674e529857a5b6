"""`lookalike duplicates`: what is planted is found, what is said not to be the same stays apart, marks fit groups."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import lookalike as la
from lookalike.commands import main
from lookalike.core.files import read_card
from lookalike.core.shapes import l2_normalize
from lookalike.data.collection import Collection
from lookalike.vectors import copies


def scene(seed: int) -> PIL.Image.Image:
    """Smooth patches, as of a photograph."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return PIL.Image.fromarray(small).resize((320, 240), PIL.Image.Resampling.BICUBIC)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve scenes of three labels, and copies: the same file, the same pixels, at another size and quality."""
    folder = tmp_path / "photos"
    for number in range(12):
        (folder / f"l{number % 3}").mkdir(parents=True, exist_ok=True)
        scene(number).save(folder / f"l{number % 3}" / f"{number:02}.png")
    shutil.copy(folder / "l0" / "00.png", folder / "l1" / "copy.png")
    scene(1).save(folder / "l1" / "pixels.bmp")
    scene(1).resize((200, 150)).save(folder / "l2" / "small.jpg", quality=60)
    return folder


def groups_in(path: Path, collection: Path) -> list[list[str]]:
    document = json.loads(path.read_text())
    names = {row["id"]: row["source"] for row in Collection.open(collection).table(["id", "source"]).to_pylist()}
    assert all(group == sorted(group) for group in document["groups"])
    return [[Path(names[id]).name for id in group] for group in document["groups"]]


@pytest.fixture
def coll(photos: Path, tmp_path: Path) -> Path:
    assert main(["prepare", str(photos), "--out", str(tmp_path / "c")]) == 0
    return tmp_path / "c"


def find(coll: Path, *more: str) -> list[list[str]]:
    out = coll.parent / "found.json"
    assert main(["duplicates", str(coll), "--json", str(out), *more]) == 0
    return groups_in(out, coll)


def marked(coll: Path) -> dict[str, str]:
    rows = Collection.open(coll).table(["id", "source", "duplicate_of"]).to_pylist()
    names = {row["id"]: Path(row["source"]).name for row in rows}
    return {names[r["id"]]: names[r["duplicate_of"]] for r in rows if r["duplicate_of"] is not None}


def test_copies_are_grouped_without_vectors(coll, capsys):
    assert find(coll) == [["01.png", "pixels.bmp", "small.jpg"], ["00.png", "copy.png"]]
    out, err = capsys.readouterr()
    assert "has no vectors, so that looks alone are compared" in err
    assert "the same bytes" in out
    assert marked(coll) == {"pixels.bmp": "01.png", "small.jpg": "01.png", "copy.png": "00.png"}
    opened = Collection.open(coll)
    assert len(opened.table(["id"], "duplicate_of IS NULL")) == len(opened) - 3
    found = la.duplicates(coll)
    assert repr(found) == "Duplicates(2 groups, 5 images)"
    assert main(["duplicates", str(coll), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == found.to_json()
    assert found.why == ("nearly the same look", "the same bytes")


def test_what_is_not_the_same_never_comes_back(photos, coll, tmp_path, capsys):
    names = {Path(r["source"]).name: r["id"] for r in Collection.open(coll).table(["id", "source"]).to_pylist()}
    apart = find(coll, "--not-same", str(names["01.png"]), str(names["small.jpg"]))
    assert apart == [["00.png", "copy.png"], ["01.png", "pixels.bmp"]]
    # `small.jpg` still looks like `pixels.bmp`, which is in the group of `01.png`
    again = [set(group) for group in find(coll)]
    assert not any({"01.png", "small.jpg"} <= group for group in again)
    # a prepare that changes something marks anew, and keeps to it
    scene(50).save(photos / "l0" / "new.png")
    assert main(["prepare", str(photos), "--out", str(coll)]) == 0
    assert marked(coll).get("small.jpg") != "01.png"
    # and so does another collection, where the same files have other ids
    lines = tmp_path / "lines.txt"
    lines.write_text(f"# from the page\n{names['00.png']} {names['copy.png']}\n")
    assert not any("copy.png" in group for group in find(coll, "--not-same-from", str(lines)))
    (photos / "a").mkdir()
    scene(60).save(photos / "a" / "first.png")
    assert main(["prepare", str(photos), "--out", str(tmp_path / "d")]) == 0
    assert {"copy.png"} <= set(marked(tmp_path / "d"))
    other = find(tmp_path / "d", "--not-same-from", str(coll / "not-same.json"))
    assert not any({"01.png", "small.jpg"} <= set(group) or "copy.png" in group for group in other)
    assert "copy.png" not in marked(tmp_path / "d")
    capsys.readouterr()


def test_a_collection_that_follows_remembers_too(shop, tmp_path):
    ids = Collection.open(shop.collection).table(["id"])["id"].to_pylist()
    assert main(["duplicates", str(shop.collection), "--not-same", *map(str, ids[:3])]) == 0
    assert len(json.loads((shop.collection / "not-same.json").read_text())["not_same"]) == 3
    copy = tmp_path / "copy.coll"
    assert main(["index", str(shop.collection), "--out", str(copy), "--model", str(shop.model)]) == 0
    assert (copy / "not-same.json").read_bytes() == (shop.collection / "not-same.json").read_bytes()


def test_vectors_are_asked_where_they_are(shop, capsys):
    opened = Collection.open(shop.collection)
    everything = la.duplicates(shop.collection, cosine=-1.0)  # whatever is there is near
    assert everything.groups == (tuple(opened.table(["id"])["id"].to_pylist()),)
    assert set(everything.why) == {"nearly the same vector"}
    card = read_card(shop.collection)["duplicates"]
    assert card["embedding"]["column"] == opened.card["model"]["column"]
    assert card["embedding"]["cosine"] == -1
    assert la.duplicates(shop.collection, cosine=1.0).groups == ()
    capsys.readouterr()
    assert main(["duplicates", str(shop.collection)]) == 0
    err = capsys.readouterr().err
    told = re.search(r"cosine of ([0-9.]+) or more: 95 % of copies have that, half of them ([0-9.]+)\n", err)
    assert told is not None
    assert float(told[1]) <= float(told[2])
    assert read_card(shop.collection)["duplicates"]["embedding"]["cosine"] == pytest.approx(float(told[1]), abs=1e-4)


def with_vectors(coll: Path, vectors: np.ndarray) -> None:
    """A column of vectors that nobody says the encoder of."""
    made_by = {"fingerprint": "0"}
    opened = Collection.open(coll)
    ids = opened.table(["id"])["id"].to_numpy()
    with opened.locked("test"):
        opened.write_vectors("embedding_made", ids, l2_normalize(vectors).astype(np.float32), made_by)


def test_a_crowd_of_copies_is_one_group_and_marks_hold(tmp_path, capsys, monkeypatch):
    """Twenty cuts of one scene, more than an image has nearest, and other scenes with vectors as near."""
    folder = tmp_path / "photos" / "a"
    folder.mkdir(parents=True)
    for number in range(20):
        left, top = number % 5 * 6, number // 5 * 5
        scene(7).crop((left, top, 290 + left, 220 + top)).save(folder / f"cut{number:02}.png")
    for number in range(10):
        scene(100 + number).save(folder / f"other{number}.png")
    assert main(["prepare", str(tmp_path / "photos"), "--out", str(tmp_path / "c")]) == 0
    rng = np.random.default_rng(0)
    with_vectors(tmp_path / "c", np.eye(8)[0] + 0.01 * rng.normal(size=(30, 8)))
    monkeypatch.setattr(copies, "rarely_reached", lambda *_: 0.5)  # of so few images hardly a pair would be looked at
    cuts = [f"cut{number:02}.png" for number in range(20)]
    assert find(tmp_path / "c") == [cuts]
    assert "the nearest pairs are looked at, about as many as there are images" in capsys.readouterr().err
    rows = Collection.open(tmp_path / "c").table(["id", "source"]).to_pylist()
    names = {Path(row["source"]).name: str(row["id"]) for row in rows}
    apart = find(tmp_path / "c", "--not-same", names["cut03.png"], names["cut11.png"])
    assert not any({"cut03.png", "cut11.png"} <= set(group) for group in apart)
    assert len(apart[0]) == 19
    assert find(tmp_path / "c") == apart


def test_equal_vectors_and_vectors_that_are_none(shop, capsys):
    column = read_card(shop.collection)["model"]["column"]

    def write(change):
        opened = Collection.open(shop.collection)
        ids, vectors = opened.vectors(column)
        with opened.locked("test"):
            opened.write_vectors(column, ids, change(vectors), {})

    write(lambda vectors: np.repeat(vectors[:1], len(vectors), axis=0))
    assert main(["duplicates", str(shop.collection), "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["groups"] == []
    assert "are equal, and are not asked" in err
    write(lambda vectors: np.where(np.arange(len(vectors))[:, None] == 4, np.nan, vectors).astype(np.float32))
    assert main(["duplicates", str(shop.collection)]) == 2
    assert "1 of 12 vectors in column" in capsys.readouterr().err


def test_one_image_and_none(tmp_path, capsys):
    (tmp_path / "one" / "a").mkdir(parents=True)
    scene(0).save(tmp_path / "one" / "a" / "x.png")
    assert main(["prepare", str(tmp_path / "one"), "--out", str(tmp_path / "c")]) == 0
    assert find(tmp_path / "c") == []
    assert "no two images are alike" in capsys.readouterr().out
    (tmp_path / "one" / "a" / "x.png").unlink()
    scene(1).save(tmp_path / "one" / "y.png")
    assert main(["duplicates", str(tmp_path / "nothing")]) == 2
    assert "not a collection" in capsys.readouterr().err


def test_the_page_shows_and_marks(coll, tmp_path):
    page = tmp_path / "page.html"
    assert main(["duplicates", str(coll), "--html", str(page)]) == 0
    text = page.read_text()
    assert "http" not in re.sub(r"data:[^\"]*", "", text).replace("http://www.w3.org", "")
    assert text.count('class="one"') == 5
    assert text.count('class="all"') == 2
    assert "--not-same-from not-same.json" in text
    assert text.count("320 x 240 px") == 4
    links = re.findall(r"<a [^>]*>", text)
    assert links[0] == '<a class="skip" href="#save">'  # the first stop of the Tab key, past all the others
    assert '<button type="button" id="save">' in text
    files = [link for link in links if "file://" in link]
    assert len(files) == 10
    assert sum('tabindex="-1"' in link for link in files) == 5  # an image and its name are one stop
    shas = {row["sha256"].hex() for row in Collection.open(coll).table(["sha256"]).to_pylist()}
    found = re.findall(r'data-sha="([0-9a-f]{64})"', text)
    assert len(found) == 5
    assert set(found) <= shas


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("12 x", "Line 1 of"),
        ('{"not_same": [["a", "b"]]}', "does not hold pairs"),
        ('{"not_same": ', "is not valid JSON"),
        ("3", "One image alone"),
        ("3 999999", "no row with id 999999"),
    ],
)
def test_marks_that_are_none_are_refused(coll, tmp_path, capsys, content, words):
    (tmp_path / "marks").write_text(content)
    assert main(["duplicates", str(coll), "--not-same-from", str(tmp_path / "marks")]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert "hint:" in err
    assert not (coll / "not-same.json").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_collection_that_is_read_only_is_told(coll, capsys):
    coll.chmod(0o555)
    try:
        (coll / ".lock").unlink(missing_ok=True)
        assert main(["duplicates", str(coll)]) == 2
        assert "permission is denied" in capsys.readouterr().err
    finally:
        coll.chmod(0o755)


def test_a_collection_in_use_is_told(coll, capsys):
    with Collection.open(coll).locked("test"):
        assert main(["duplicates", str(coll)]) == 2
    assert "Another process is writing" in capsys.readouterr().err


def test_a_copy_of_what_was_learned_from_is_told_by_evaluate(tmp_path, capsys, write_tiny_model):
    """Only `duplicates` sees that one test image is a cut and mirrored training image; its groups say so."""
    rng = np.random.default_rng(0)
    lines = ["path,label,split"]
    for i in range(16):
        pixels = rng.integers(0, 255, (6, 8, 3), np.uint8)
        image = PIL.Image.fromarray(pixels).resize((160, 120), PIL.Image.Resampling.BICUBIC)
        if i == 0:
            image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT).crop((8, 6, 152, 114)).save(tmp_path / "copy.png")
            lines.append("copy.png,b0,test")
        image.save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{'a' if i < 8 else 'b'}{i % 4},{'train' if i < 8 else 'test'}")
    (tmp_path / "shop.csv").write_text("\n".join(lines))
    model = write_tiny_model(tmp_path / "model", 0)
    made = la.prepare(tmp_path / "shop.csv", tmp_path / "coll")
    assert la.evaluate(model, made).leakage["embedding"] is None
    found = la.duplicates(made, model=model)
    by_source = {row["source"].split("/")[-1]: row["id"] for row in made.table(["id", "source"]).to_pylist()}
    assert tuple(sorted((by_source["0.png"], by_source["copy.png"]))) in found.groups
    told = la.evaluate(model, made).leakage
    assert (told["same"], told["near"], told["embedding"]["queries"]) == (0, 0, 1)
    assert read_card(tmp_path / "coll")["duplicates"]["embedding"]["learned_too"] == {"test": 1}
