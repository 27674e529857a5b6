"""`lookalike clusters` and `lookalike map`: columns, JSON, pages, and what is missing."""

import base64
import io
import json
import re
import sys

import numpy as np
import PIL.Image
import pytest

import lookalike as la
from lookalike.commands import main
from lookalike.core.files import read_card
from lookalike.data.collection import Collection


@pytest.fixture
def stock(shop, tmp_path):
    """The shop's collection with vectors of three crowds and noise, in place of what its model gave."""
    rng = np.random.default_rng(0)
    column = read_card(shop.collection)["model"]["column"]
    opened = Collection.open(shop.collection)
    ids, vectors = opened.vectors(column)
    centers = np.eye(vectors.shape[1], dtype=np.float32)
    made = centers[np.arange(len(ids)) // 4] + 0.02 * rng.normal(size=vectors.shape).astype(np.float32)
    with opened.locked("test"):
        opened.write_vectors(column, ids, made, {})
    return shop


@pytest.mark.reference("sklearn")
def test_clusters_are_named_numbered_and_kept(stock, tmp_path, capsys):
    page = tmp_path / "page.html"
    arguments = ["clusters", str(stock.collection), "--least", "3"]
    assert main([*arguments, "--json", "-", "--html", str(page)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [len(cluster["ids"]) for cluster in document["clusters"]] == [4, 4, 4]
    assert document["noise"] == []
    opened = Collection.open(stock.collection)
    rows = {row["id"]: row for row in opened.table(["id", "label", "cluster"]).to_pylist()}
    for cluster in document["clusters"]:
        assert cluster["ids"] == sorted(cluster["ids"])
        assert {rows[id]["cluster"] for id in cluster["ids"]} == {cluster["cluster"]}
        assert cluster["medoid"] in cluster["ids"]
        labels = [rows[id]["label"] for id in cluster["ids"]]
        assert cluster["name"] in labels
        assert cluster["share"] == labels.count(cluster["name"]) / 4
        assert len(opened.table(["id"], f"cluster = {cluster['cluster']}")) == 4
    assert page.read_text().count("<figure") == 12
    found = la.clusters(stock.collection, least=3)
    assert repr(found) == "Clusters(3 clusters, 0 images in none)"
    assert found.to_json() == document
    capsys.readouterr()
    assert main([*arguments, "--sample", "9"]) == 0
    assert "HDBSCAN looks at 9 of 12 images" in capsys.readouterr().err


@pytest.mark.reference("sklearn")
def test_words_name_clusters_where_the_encoder_knows_them(shop, tmp_path, write_text_model, capsys):
    model = write_text_model(tmp_path / "words")
    (tmp_path / "words.txt").write_text("cat\ndog\n\nhouse\ncat\n")
    arguments = ["clusters", str(shop.collection), "--model", str(model), "--least", "2"]
    assert main([*arguments, "--words", str(tmp_path / "words.txt"), "--json", "-"]) == 0
    out, _ = capsys.readouterr()
    clusters = json.loads(out)["clusters"]
    assert clusters
    assert {cluster["name"] for cluster in clusters} <= {"cat", "dog", "house"}
    assert main(["clusters", str(shop.collection), "--words", str(tmp_path / "words.txt"), "--least", "2"]) == 2
    assert "text" in capsys.readouterr().err
    assert main([*arguments, "--words", str(tmp_path / "none.txt")]) == 2
    assert "There is no file" in capsys.readouterr().err


@pytest.mark.reference("sklearn")
def test_too_few_images_and_equal_vectors_are_told(shop, capsys):
    assert main(["clusters", str(shop.collection), "--least", "13"]) == 2
    assert "holds 12 images, and 13 make a cluster" in capsys.readouterr().err
    column = read_card(shop.collection)["model"]["column"]
    opened = Collection.open(shop.collection)
    ids, vectors = opened.vectors(column)
    with opened.locked("test"):
        opened.write_vectors(column, ids, np.repeat(vectors[:1], len(vectors), axis=0), {})
    for verb in ("clusters", "map"):
        assert main([verb, str(shop.collection)]) == 2
        assert "are equal" in capsys.readouterr().err


@pytest.mark.parametrize(("verb", "library"), [("clusters", "sklearn.cluster"), ("map", "pacmap")])
def test_a_library_that_is_missing_is_told(shop, monkeypatch, capsys, verb, library):
    monkeypatch.setitem(sys.modules, library, None)
    assert main([verb, str(shop.collection), *(["--least", "2"] if verb == "clusters" else [])]) == 2
    err = capsys.readouterr().err
    assert "which is not installed here" in err
    assert "hint: pip install 'lookalike[explore]'" in err


@pytest.mark.parametrize("verb", ["clusters", "map", "outliers"])
def test_a_collection_without_vectors_is_told(shop, tmp_path, capsys, verb):
    assert main(["prepare", str(shop.images), "--out", str(tmp_path / "c")]) == 0
    capsys.readouterr()
    assert main([verb, str(tmp_path / "c")]) == 2
    err = capsys.readouterr().err
    assert "has no vectors" in err
    assert "lookalike index" in err


@pytest.mark.reference("pacmap")
@pytest.mark.filterwarnings("default")
def test_the_map_holds_every_image_once(stock, tmp_path, capsys):
    page = tmp_path / "map.html"
    assert main(["map", str(stock.collection), "--html", str(page), "--json", "-"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert "random state" not in err
    opened = Collection.open(stock.collection)
    rows = opened.table(["id", "map_x", "map_y", "source", "domain"]).to_pylist()
    assert document["ids"] == [row["id"] for row in rows]
    assert document["x"] == pytest.approx([row["map_x"] for row in rows], abs=1e-5)
    assert max(map(abs, document["x"] + document["y"])) == pytest.approx(1, abs=1e-4)
    text = page.read_text()
    assert "http" not in text
    told = json.loads(re.search(r'id="told">(.*?)</script>', text)[1])
    assert sorted(told["ids"]) == document["ids"]
    assert sorted(told["names"]) == sorted(row["source"] for row in rows)
    assert text.count('id="atlas-') == 1
    picture = re.search(r'id="atlas-0">(.*?)</script>', text)[1]
    atlas = PIL.Image.open(io.BytesIO(base64.b64decode(picture)))
    assert atlas.size == (2048, 64)
    thumbnail = np.asarray(atlas.convert("RGB"))[:, :64].astype(int)
    image = opened.take(np.array(told["ids"][:1]), ["image"])["image"][0].as_py()
    small = PIL.Image.open(io.BytesIO(image)).convert("RGB").crop((4, 0, 44, 40)).resize((64, 64), 4)
    assert np.abs(thumbnail - np.asarray(small).astype(int)).mean() < 20
    assert np.asarray(atlas.convert("RGB"))[:, 12 * 64 + 8 :].max() <= 8  # nothing behind the last
    places = np.frombuffer(base64.b64decode(re.search(r'id="places">(.*?)</script>', text)[1]), "<f4").reshape(-1, 2)
    at = {id: place for place, id in enumerate(document["ids"])}
    assert places[:, 0].tolist() == pytest.approx([document["x"][at[id]] for id in told["ids"]], abs=1e-5)
    assert repr(la.map(stock.collection, html=page, color="label")) == "Map(12 images)"
    assert main(["map", str(stock.collection), "--html", str(page), "--color", "colour"]) == 2
    assert "no column `colour`" in capsys.readouterr().err
    for column in ("id", "source", "label"):  # which the page shows anyhow
        assert main(["map", str(stock.collection), "--html", str(page), "--color", column]) == 0
    assert main(["map", str(stock.collection), "--html", str(page), "--seed", str(2**32)]) == 2
    assert "`--seed` is 4294967296; expected 0 to 4,294,967,295." in capsys.readouterr().err


@pytest.mark.reference("pacmap")
@pytest.mark.filterwarnings("default")
def test_names_that_are_markup_stay_names(shop, tmp_path, capsys):
    folder = tmp_path / "odd" / "</script><b>x"
    folder.mkdir(parents=True)
    for number in range(6):
        PIL.Image.fromarray(np.random.default_rng(number).integers(0, 255, (20, 20, 3), np.uint8)).save(
            folder / f"<i>{number}&.png"
        )
    assert main(["prepare", str(tmp_path / "odd"), "--out", str(tmp_path / "c")]) == 0
    assert main(["map", str(tmp_path / "c"), "--model", str(shop.model), "--html", str(tmp_path / "m.html")]) == 0
    text = (tmp_path / "m.html").read_text()
    assert "<b>x" not in text
    assert "<i>0" not in text
    assert main(["duplicates", str(tmp_path / "c"), "--cosine", "-1", "--html", str(tmp_path / "d.html")]) == 0
    text = (tmp_path / "d.html").read_text()
    assert "<b>x" not in text
    assert "&lt;b&gt;x" in text
    capsys.readouterr()
