"""`lookalike judge`, from argv to the report."""

import json
import re

import numpy as np
import PIL.Image
import pytest

from lookalike.commands import main
from lookalike.data.collection import Collection
from lookalike.data.sources.judged import KINDS


@pytest.fixture
def judge(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments, code=0):
        assert main(["judge", *map(str, arguments)]) == code
        return capsys.readouterr()

    return run


@pytest.fixture
def places(tmp_path):
    """Two kinds of one's own: three things of four images, and two of three."""
    for kind, things, images in (("toys", 3, 4), ("memes", 2, 3)):
        for thing in range(things):
            folder = tmp_path / "sets" / kind / str(thing)
            folder.mkdir(parents=True)
            for i in range(images):
                pixels = np.random.default_rng([len(kind), thing, i]).integers(0, 255, (12, 16, 3), np.uint8)
                PIL.Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "sets"


def test_judges_what_is_there(judge, places, tmp_path, write_tiny_model):
    model = write_tiny_model(tmp_path / "model", 0)
    told = judge(model, "--from", places, "--json", "scores.json")
    document = json.loads((tmp_path / "scores.json").read_text())
    assert {name: part["n_queries"] for name, part in document["per_domain"].items()} == {"toys": 9, "memes": 4}
    assert told.out.splitlines()[-1] == document["judge"]
    assert re.fullmatch(r"judge-[0-9a-f]{8}-[0-9a-f]{8}", document["judge"])
    assert "not judged: apparel, packaged, landmarks" in told.err
    # Each thing has one image in the index, so that mP@5 is the share of queries whose nearest image shows it.
    collection = Collection.open(tmp_path / "judge.lookalike")
    rows = collection.table(["label", "domain", "is_query"]).to_pylist()
    vectors = collection.vectors(f"embedding_{document['model'][:8]}_float32")[1]
    index = [i for i, row in enumerate(rows) if not row["is_query"]]
    assert len(index) == 5
    right = {"toys": [], "memes": []}
    for i, row in enumerate(rows):
        if row["is_query"]:
            nearest = rows[index[int(np.argmax(vectors[index] @ vectors[i]))]]
            right[row["domain"]].append((nearest["domain"], nearest["label"]) == (row["domain"], row["label"]))
    assert document["metrics"]["mp@5"] == pytest.approx(np.mean([np.mean(values) for values in right.values()]))
    again = judge(model, "--from", places, "--json", "-")
    assert json.loads(again.out)["judge"] == document["judge"]


def test_other_kinds_need_another_collection(judge, places, tmp_path, write_tiny_model):
    model = write_tiny_model(tmp_path / "model", 0)
    judge(model, "--from", places)
    error = judge(model, "--from", places, "--kinds", "toys", code=2).err
    assert "holds images of memes too" in error
    assert "not judged: apparel" in judge(model, "--from", places, "--kinds", "toys", "--out", "toys.lookalike").err


def test_the_list_names_every_kind(judge):
    out = judge("--list").out
    assert [line.split()[0] for line in out.splitlines()[2:13]] == list(KINDS)
    assert "abo-listings.tar" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "A model and the folder of the data sets are needed"),
        (["model", "--from", "nowhere"], "nothing that can be judged"),
        (["model", "--from", "sets", "--kinds", "toyss"], "Did you mean `toys`"),
    ],
)
def test_bad_input(judge, places, tmp_path, write_tiny_model, arguments, words):
    write_tiny_model(tmp_path / "model", 0)
    assert words in judge(*arguments, code=2).err
    assert not (tmp_path / "judge.lookalike").exists()
