from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Files, Prepared, picture, tarred, written

Prepare = Callable[[str, Path], Prepared]


def name_of(number: int) -> str:
    return f"{number:x}".rjust(2, "0") + "123456789abcde"


def path_of(name: str) -> str:
    return f"{name[0]}/{name[1]}/{name[2]}/{name}.jpg"


TRAIN, INDEX, TEST = ([name_of(16 * k + i) for i in range(5)] for k in (1, 2, 3))
LISTS: Files = {
    "metadata/train.csv": "id,url,landmark_id\n" + "".join(f"{name},http://a.example/x.jpg,7\n" for name in TRAIN),
    # runs of blanks, and a value longer than Python's csv takes by itself
    "metadata/train_clean.csv": f"landmark_id,images\r\n7,{TRAIN[0]} {TRAIN[1]}\r\n9,{TRAIN[2]}  "
    + " ".join("f" * 16 for _ in range(8000))
    + "\r\n",
    "metadata/index.csv": "id\n" + "".join(f"{name}\n" for name in INDEX),
    "metadata/index_image_to_landmark.csv": "id,landmark_id\n"
    + f"{INDEX[0]},7\n{INDEX[1]},7\n{INDEX[2]},8\n{INDEX[3]},8\n",
    "ground_truth/retrieval_solution_v2.1.csv": "id,images,Usage\n"
    + f"{TEST[0]},{INDEX[0]} {INDEX[1]},Public\n"
    + f"{TEST[1]},{INDEX[0]} {INDEX[2]} {INDEX[3]},Private\n"
    + f"{TEST[2]},None,Ignored\n{TEST[3]},None,Private\n{TEST[4]},{INDEX[2]},Ignored\n",
}
PICTURES = {
    split: {path_of(name): picture(100 * k + i) for i, name in enumerate(names)}
    for k, (split, names) in enumerate((("train", TRAIN), ("index", INDEX), ("test", TEST)))
}


@pytest.mark.parametrize("packed", ["tar", "tar with the split", "no"])
def test_training_index_and_queries(tmp_path: Path, prepared: Prepare, packed: str) -> None:
    files = dict(LISTS)
    for split, pictures in PICTURES.items():
        inside = f"{split}/" if packed == "tar with the split" else ""
        if packed == "no":
            files |= {f"{split}/{name}": data for name, data in pictures.items()}
            continue
        for number in (0, 1):
            part = {inside + name: data for i, (name, data) in enumerate(pictures.items()) if i % 2 == number}
            files[f"{split}/images_00{number}.tar"] = tarred(part)
    found = prepared("gldv2", written(tmp_path / "p", files))
    # The clean list alone: five images are in train.csv.
    assert found.labels("train") == {f"train/{path_of(TRAIN[i])}": label for i, label in ((0, "7"), (1, "7"), (2, "9"))}
    index = [found.rows[f"index/{path_of(name)}"] for name in INDEX]
    assert [row["label"] for row in index] == ["index/7", "index/7", "index/8", "index/8", None]
    assert {(row["split"], row["is_query"], row["is_gallery"]) for row in index} == {("test", False, True)}
    queries = [found.rows[f"test/{path_of(name)}"] for name in TEST[:2]]
    assert [row["label"] for row in queries] == ["index/7", "index/8"]
    assert {(row["split"], row["is_query"], row["is_gallery"]) for row in queries} == {("test", True, False)}
    assert [row["relevant"] for row in queries] == [" ".join(INDEX[:2]), f"{INDEX[0]} {INDEX[2]} {INDEX[3]}"]
    assert found.splits == {"train": 3, "test": 7}  # ignored queries, and those that find nothing, are not there
    assert found.collection.card["licences"] == {"cc-by-4.0": 3, "public domain": 7}
    assert found.facts["missing"] == {"train": 1}  # thousands of times one name


def test_the_whole_list_where_there_is_no_clean_one(tmp_path: Path, prepared: Prepare) -> None:
    files = {"metadata/train.csv": LISTS["metadata/train.csv"]}
    files |= {f"train/{name}": data for name, data in PICTURES["train"].items()}
    assert set(prepared("gldv2", written(tmp_path / "p", files)).labels().values()) == {"7"}
