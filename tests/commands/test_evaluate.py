"""`lookalike evaluate`, from argv to the report."""

import json
from typing import get_args, get_type_hints

import numpy as np
import pytest

from lookalike.commands import main
from lookalike.commands.evaluate import Config
from lookalike.data.collection import Collection
from lookalike.evaluation.protocols import PROTOCOLS
from lookalike.evaluation.protocols import evaluate as measure


@pytest.fixture
def evaluate(capsys):
    def run(*arguments, code=0):
        assert main(["evaluate", *map(str, arguments)]) == code
        return capsys.readouterr()

    return run


def test_measures_the_stored_embeddings(shop, evaluate, tmp_path):
    found = evaluate(shop.model, shop.collection, "--split", "all", "--json", tmp_path / "scores.json")
    document = json.loads((tmp_path / "scores.json").read_text())
    collection = Collection.open(shop.collection)
    model = collection.card["model"]
    report = measure(collection.vectors(model["column"])[1], collection, split="all", model=model["fingerprint"])
    assert document == report.to_json()
    assert document["model"] == model["fingerprint"]
    assert document["collection"] == collection.fingerprint
    assert found.out == report.table() + "\n"
    assert document["n_queries"] == 12
    assert list(document["per_domain"]) == ["domain0", "domain1"]


def test_the_model_is_named_as_in_all_verbs_or_is_that_of_the_index(shop, evaluate):
    asked = (shop.collection, "--split", "all", "--json", "-")
    found = [evaluate(*words, *asked).out for words in ([shop.model], ["--model", shop.model], [])]
    assert found[0] == found[1] == found[2]


def test_separate(shop, evaluate):
    merged, separate = (
        json.loads(evaluate(shop.model, shop.collection, "--split", "all", "--protocol", p, "--json", "-").out)
        for p in ("merged", "separate")
    )
    assert separate["protocol"] == "separate"
    assert separate["metrics"]["map@100"] >= merged["metrics"]["map@100"]  # fewer images that are in the way


def test_embeds_first_where_vectors_are_missing(shop, evaluate, tmp_path, write_tiny_model):
    other = write_tiny_model(tmp_path / "other", 1)
    document = json.loads(evaluate(other, shop.collection, "--split", "all", "--json", "-").out)
    assert f"embedding_{document['model'][:8]}_float32" in Collection.open(shop.collection).columns


def test_a_wrong_split_is_told_before_anything_is_embedded(shop, evaluate, tmp_path, write_tiny_model):
    before = Collection.open(shop.collection).columns
    error = evaluate(write_tiny_model(tmp_path / "other", 1), shop.collection, "--split", "tset", code=2).err
    assert "No row is in split `tset`" in error
    assert Collection.open(shop.collection).columns == before


def test_reads_a_collection_that_another_process_writes_to(shop, evaluate):
    with Collection.open(shop.collection).locked("prepare"):
        assert "mean over domains" in evaluate(shop.model, shop.collection, "--split", "all").out


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_vectors_made_by_anyone(shop, evaluate, tmp_path, kind):
    labels = Collection.open(shop.collection).table(["label"])["label"].to_pylist()
    vectors = np.eye(4)[[int(label[-1]) for label in labels]].astype(kind)
    np.save(tmp_path / "vectors.npy", vectors)
    document = json.loads(
        evaluate("--embeddings", tmp_path / "vectors.npy", shop.collection, "--split", "all", "--json", "-").out
    )
    assert document["metrics"] == {"mp@5": 1.0, "recall@1": 1.0, "map@100": 1.0}
    assert document["model"] is None


def test_refuses_bad_embeddings(shop, evaluate, tmp_path):
    good = np.random.default_rng(0).standard_normal((12, 5))
    bad = good.copy()
    bad[3, 2] = np.nan
    for name, array in [
        ("count", good[:11]),
        ("nan", bad),
        ("whole", np.ones((12, 5), np.int64)),
        ("flat", good.ravel()),
        ("none", good[:, :0]),
        ("pickle", np.array([{"a": 1}], object)),
    ]:
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "text.npy").write_text("1 2 3")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "count.npy").read_bytes()[:200])
    (tmp_path / "head.npy").write_bytes((tmp_path / "count.npy").read_bytes()[:20])
    for name, words in [
        ("count", "There are 12 rows, and the vectors have the shape [11, 5]"),
        ("nan", "nan.npy` holds a number that is not finite"),
        ("whole", "expected float16, float32 or float64"),
        ("flat", "holds float64 [60]"),
        ("none", "holds float64 [12, 0]"),
        ("pickle", "can't be read"),
        ("text", "not a .npy file"),
        ("cut", "can't be read"),
        ("head", "can't be read"),
        ("missing", "There is no file"),
    ]:
        found = evaluate("--embeddings", tmp_path / f"{name}.npy", shop.collection, "--split", "all", code=2)
        assert words in found.err, (name, found.err)
        assert found.out == ""


def test_refuses_what_does_not_fit_together(shop, evaluate, tmp_path):
    for arguments, words in [
        ([], "the arguments are 0"),
        (["--model", shop.model], "the arguments are 0"),
        (["--model", shop.model, shop.model, shop.collection], "Vectors come from one model"),
        (["--embeddings", "v.npy", shop.model, shop.collection], "not from both"),
        (["--embeddings", "v.npy", "--model", shop.model, shop.collection], "not from both"),
        ([shop.model, shop.collection], "No row is in split `test`; rows per split: no split 12"),
        ([shop.model, tmp_path / "nothing"], "nothing"),
        ([tmp_path / "nothing", shop.collection, "--split", "all"], "nothing"),
        ([shop.model, shop.collection, "--protocol", "both"], "merged"),
        ([shop.collection, shop.model], "not a collection"),
    ]:
        assert words in evaluate(*arguments, code=2).err


def test_every_protocol_can_be_asked_for():
    assert get_args(get_type_hints(Config)["protocol"]) == tuple(PROTOCOLS)
