"""`lookalike outliers`: planted errors on drawn images and on real ones; what can't be judged is said."""

import json
import shutil

import numpy as np
import PIL.Image
import pytest

import lookalike as la
from lookalike.commands import main
from lookalike.core.files import read_card
from lookalike.data.collection import Collection
from lookalike.retrieval.index import Index


@pytest.fixture
def wrong(shop_once, tmp_path):
    """A collection of six labels of six drawn images, two of them in another label's folder; their names."""
    names = set()
    for label in range(6):
        for number in range(6):
            shown = (label + 2) % 6 if (label, number) in ((1, 3), (4, 0)) else label
            folder = tmp_path / "images" / f"l{label}"
            folder.mkdir(parents=True, exist_ok=True)
            quarters(shown, number).save(folder / f"{number}.png")
            names |= {f"images/l{label}/{number}.png"} if shown != label else set()
    arguments = ["index", str(tmp_path / "images"), "--model", str(shop_once.model), "--out", str(tmp_path / "c")]
    assert main(arguments) == 0
    return tmp_path / "c", names


def quarters(label: int, number: int) -> PIL.Image.Image:
    """Four colored quarters that belong to the label, and some noise that belongs to the image."""
    colors = np.random.default_rng(label).integers(30, 225, (2, 2, 3))
    noise = np.random.default_rng((label, number)).integers(-25, 25, (40, 48, 3))
    return PIL.Image.fromarray((colors.repeat(20, 0).repeat(24, 1) + noise).astype(np.uint8))


def test_what_is_planted_comes_first(wrong, capsys, tmp_path):
    coll, names = wrong
    assert main(["outliers", str(coll), "--json", "-", "--html", str(tmp_path / "p.html")]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [list(row)[:3] for row in rows] == [["id", "label", "score"]] * 36
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    opened = Collection.open(coll)
    source = dict(zip(*(opened.table(["id", "source"])[name].to_pylist() for name in ("id", "source")), strict=True))
    assert {source[row["id"]] for row in rows[:2]} == names
    assert {row["suggested"] for row in rows[:2]} == {"l3", "l0"}
    assert rows[0]["score"] > 0.5
    stored = opened.table(["id", "outlier"]).to_pylist()
    assert {row["id"]: row["score"] for row in rows} == pytest.approx({r["id"]: r["outlier"] for r in stored})
    kept = opened.table(["source"], "outlier < 0.5 OR outlier IS NULL")["source"].to_pylist()
    assert names.isdisjoint(kept)
    page = (tmp_path / "p.html").read_text()
    assert "fits better, cosine" in page
    assert 'class="one"' not in page
    assert main(["outliers", str(coll), "--html", ""]) == 2  # an unset variable of a shell
    assert "is a directory, and a file would be written there" in capsys.readouterr().err
    found = la.outliers(coll)
    assert found.to_json() == rows
    assert repr(found).endswith("among 36 images)")
    assert len(la.outliers(coll, most=3)) == 3
    # what a verb made is no column of the source, which search would tell
    index = Index.open(coll, read_card(coll)["model"]["column"])
    vectors = opened.vectors(read_card(coll)["model"]["column"])[1]
    assert "outlier" not in index.query(vectors[:1], 1).rows(0)[0]
    assert len(index.query(vectors[:1], 40, where="outlier < 0.5").rows(0)) == len(kept)


def test_a_prepare_keeps_the_scores_and_leaves_new_images_open(wrong, tmp_path):
    coll, _ = wrong
    before = la.outliers(coll)
    quarters(0, 77).save(tmp_path / "images" / "l0" / "new.png")
    assert main(["prepare", str(tmp_path / "images"), "--out", str(coll)]) == 0
    opened = Collection.open(coll)
    assert len(opened.table(["id"], "outlier IS NULL")) == 1
    assert len(opened.table(["id"], "outlier IS NOT NULL")) == before.judged
    assert la.outliers(coll).judged == 37  # the new image is embedded on the way


def test_what_cannot_be_judged_is_told(shop, tmp_path, capsys):
    for number in range(3):
        quarters(number, 0).save(tmp_path / f"{number}.png")
    (tmp_path / "list.csv").write_text("path\n" + "".join(f"{number}.png\n" for number in range(3)))
    assert main(["prepare", str(tmp_path / "list.csv"), "--out", str(tmp_path / "bare")]) == 0
    assert main(["outliers", str(tmp_path / "bare")]) == 2
    assert "has a label" in (told := capsys.readouterr().err)
    assert "hint: `lookalike clusters" in told
    (tmp_path / "list.csv").write_text("path,label\n0.png,a\n1.png,b\n2.png,b\n")
    assert main(["prepare", str(tmp_path / "list.csv"), "--out", str(tmp_path / "c")]) == 0
    capsys.readouterr()
    assert main(["outliers", str(tmp_path / "c")]) == 2
    assert "has no vectors" in (told := capsys.readouterr().err)
    assert "lookalike index" in told
    assert main(["outliers", str(tmp_path / "c"), "--model", str(shop.model)]) == 0
    assert "1 images are the only ones of their labels" in capsys.readouterr().err
    assert Collection.open(tmp_path / "c").table(["outlier"])["outlier"].null_count == 1


def test_equal_vectors_and_a_column_of_the_source_are_refused(shop, tmp_path, capsys):
    column = read_card(shop.collection)["model"]["column"]
    opened = Collection.open(shop.collection)
    ids, vectors = opened.vectors(column)
    with opened.locked("test"):
        opened.write_vectors(column, ids, np.repeat(vectors[:1], len(vectors), axis=0), {})
    assert main(["outliers", str(shop.collection)]) == 2
    assert "are equal: they tell no image from another" in capsys.readouterr().err
    quarters(0, 0).save(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("path,label,outlier\na.png,x,3\n")
    assert main(["prepare", str(tmp_path / "t.csv"), "--out", str(tmp_path / "t")]) == 0
    assert main(["outliers", str(tmp_path / "t"), "--model", str(shop.model)]) == 2
    assert "has a column `outlier` of its own source" in capsys.readouterr().err


@pytest.mark.data
def test_planted_errors_on_real_images(data_path, tmp_path, capsys):
    """500 real images, of which every twentieth gets the label of another one: most of the first are these."""
    lines = (data_path / "caltech_objects.csv").read_text().splitlines()
    names = lines[0].split(",")
    at = names.index("label")
    rows = [line.split(",") for line in lines[1:501]]
    labels = sorted({row[at] for row in rows})
    rng, planted = np.random.default_rng(0), set()
    for place in range(0, len(rows), 20):
        others = [label for label in labels if label != rows[place][at]]
        rows[place][at] = others[rng.integers(len(others))]
        planted.add(place)
    (tmp_path / "caltech_objects.csv").write_text("\n".join(map(",".join, [names, *rows])))
    shutil.copy(data_path / "caltech_objects.tar", tmp_path)
    tiny = data_path / "backbones" / "vit_tiny_patch16_224_in21k_in1k"
    assert main(["pull", str(tiny), "--out", str(tmp_path / "vt")]) == 0
    arguments = ["prepare", str(tmp_path / "caltech_objects.csv"), "--out", str(tmp_path / "c")]
    assert main(arguments) == 0
    found = la.outliers(tmp_path / "c", model=tmp_path / "vt")
    order = {id: place for place, id in enumerate(Collection.open(tmp_path / "c").table(["id"])["id"].to_pylist())}
    first = [order[row.id] for row in found.rows[: len(planted)]]
    assert len(planted & set(first)) / len(planted) >= 0.8


@pytest.mark.usefixtures("wrong")
def test_of_two_encoders_one_is_named(write_tiny_model, tmp_path, capsys):
    """A collection that nobody indexed, in which two encoders have left vectors."""
    plain, model = str(tmp_path / "plain"), write_tiny_model(tmp_path / "other", 1)
    assert main(["prepare", str(tmp_path / "images"), "--out", plain]) == 0
    for each in (model, write_tiny_model(tmp_path / "third", 2)):
        assert main(["embed", plain, "--model", str(each)]) == 0
    capsys.readouterr()
    assert main(["outliers", plain]) == 2
    assert "has vectors of 2 encoders" in capsys.readouterr().err
    assert main(["outliers", plain, "--model", str(model)]) == 0
