"""`lookalike split`: written once, kept by prepare, given to new images, looked at for leaks."""

import json

import numpy as np
import PIL.Image
import pytest

import lookalike as la
from lookalike.commands import main
from lookalike.core.files import read_card
from lookalike.data.collection import Collection


def splits(coll):
    rows = Collection.open(coll).table(["source", "split"]).to_pylist()
    return {row["source"]: row["split"] for row in rows}


def picture(seed, path):
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(small).resize((64, 48), PIL.Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def photos(tmp_path):
    for label in range(10):
        for number in range(3):
            picture(10 * label + number, tmp_path / "photos" / f"l{label}" / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def coll(photos, tmp_path):
    assert main(["prepare", str(photos), "--out", str(tmp_path / "c")]) == 0
    return tmp_path / "c"


def test_a_split_is_written_once_and_prepare_keeps_to_it(photos, coll, tmp_path, capsys):
    assert main(["split", str(coll), "--test", "0.3", "--val", "0.2"]) == 0
    before = splits(coll)
    assert {*before.values()} == {"train", "val", "test"}
    assert len({(name.split("/")[1], side) for name, side in before.items()}) == 10  # a label is on one side
    card = read_card(coll)
    assert card["counts"]["photos"] == {side: [*before.values()].count(side) for side in ("test", "train", "val")}
    # nothing new: nothing changes; images edited, moved and new: they follow their labels
    assert main(["prepare", str(photos), "--out", str(coll)]) == 0
    assert splits(coll) == before
    picture(999, photos / "l0" / "0.png")  # another image under the same name
    picture(1000, photos / "l1" / "new.png")
    picture(1001, photos / "fresh" / "new.png")
    assert main(["prepare", str(photos), "--out", str(coll)]) == 0
    after = splits(coll)
    assert {name: after[name] for name in before} == before
    assert after["photos/l1/new.png"] == before["photos/l1/1.png"]
    assert after["photos/fresh/new.png"] in ("train", "val", "test")
    capsys.readouterr()
    assert main(["split", str(coll), "--check"]) == 0
    assert main(["split", str(coll), "--test", "0.3", "--val", "0.2"]) == 0
    assert "newly split: 0 images" in capsys.readouterr().err
    assert splits(coll) == after


def test_another_split_needs_to_be_told(coll, capsys):
    found = la.split(coll, test=0.3)
    assert repr(found).startswith("Split(test ")
    before = splits(coll)
    capsys.readouterr()
    assert main(["split", str(coll), "--test", "0.5"]) == 2
    told = capsys.readouterr().err
    assert "30 of 30 images" in told
    assert "--replace" in told
    assert splits(coll) == before
    assert main(["split", str(coll), "--test", "0.5", "--replace", "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["shared"] == {"class": 0, "group": 0, "duplicates": 0}
    assert all(splits(coll)[name] == "test" for name, side in before.items() if side == "test")
    assert read_card(coll)["split"] == {"test": 0.5, "val": 0.0, "by": "class", "seed": 0}


def test_roles_that_a_source_left_out_are_given(photos, tmp_path, capsys):
    lines = ["path,label,split,is_query,is_gallery,group"]
    for label in range(10):
        for number in range(3):
            side = "train" if label < 6 else "test"
            role = "false,false" if side == "train" else "true,false" if number == 0 else "false,true"
            lines.append(f"photos/l{label}/{number}.png,l{label},{side},{role},{'pair' if label in (1, 8) else ''}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    coll = tmp_path / "c"
    prepare = ["prepare", str(tmp_path / "list.csv"), "--out", str(coll)]
    assert main(prepare) == 0
    assert main(["split", str(coll), "--check"]) == 1
    assert "group 1" in capsys.readouterr().err
    assert main(["split", str(coll), "--replace", "--seed", "3", "--test", "0.4"]) == 0
    opened = Collection.open(coll)
    rows = opened.table(["label", "is_query", "is_gallery", "split"]).to_pylist()
    for row in rows:
        assert row["is_query"] or row["is_gallery"]
        assert (row["is_query"] and row["is_gallery"]) == (row["label"] < "l6")
    assert len({row["split"] for row in rows if row["label"] in ("l1", "l8")}) == 1
    assert main(prepare) == 0
    assert Collection.open(coll).table(["label", "is_query", "is_gallery", "split"]).to_pylist() == rows


def test_duplicates_stay_together_whatever_their_labels(photos, tmp_path, capsys):
    for label in range(8):  # in each label an image of the next
        picture(10 * (label + 1), photos / f"l{label}" / "copy.png")
    coll = tmp_path / "c"
    assert main(["prepare", str(photos), "--out", str(coll)]) == 0
    found = la.split(coll, by="duplicates", test=0.4, seed=1)
    assert found.shared == {"group": 0, "duplicates": 0}
    opened = Collection.open(coll)
    sides = {row["id"]: row["split"] for row in opened.table(["id", "split"]).to_pylist()}
    marks = opened.table(["id", "duplicate_of"], "duplicate_of IS NOT NULL").to_pylist()
    assert len(marks) == 8
    assert all(sides[row["id"]] == sides[row["duplicate_of"]] for row in marks)
    assert {*sides.values()} == {"train", "test"}
    by_class = la.split(coll, replace=True)
    assert by_class.largest >= 9 * 3  # a chain of labels
    capsys.readouterr()


def test_what_cannot_be_split_is_told(tmp_path, coll, capsys):
    picture(0, tmp_path / "bare.png")
    (tmp_path / "bare.csv").write_text("path\nbare.png\n")
    assert main(["prepare", str(tmp_path / "bare.csv"), "--out", str(tmp_path / "bare")]) == 0
    for arguments, words in (
        ([str(tmp_path / "bare")], "has a label"),
        ([str(coll), "--by", "group"], "has a group"),
        ([str(coll), "--test", "0"], "expected more than 0 and less than 1"),
        ([str(coll), "--test", "0.7", "--val", "0.3"], "expected more than 0 and less than 1"),
        ([str(coll), "--test", "1.5"], "expected 0 to 1"),
        ([str(tmp_path / "none")], "not a collection"),
    ):
        assert main(["split", *arguments]) == 2
        err = capsys.readouterr().err
        assert words in err
        assert "hint:" in err
    assert set(splits(coll).values()) == {None}
    assert main(["split", str(tmp_path / "bare"), "--by", "duplicates"]) == 0
    assert set(splits(tmp_path / "bare").values()) == {"train"}
    assert "no image became split `test`" in capsys.readouterr().err
