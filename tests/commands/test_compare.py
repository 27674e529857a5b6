"""`lookalike compare`, from argv to the table, the document and the page."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lookalike as la
from lookalike.commands import main
from lookalike.data.collection import Collection


@pytest.fixture
def compare(capsys):
    def run(*arguments, code=0):
        assert main(["compare", *map(str, arguments)]) == code
        return capsys.readouterr()

    return run


@pytest.fixture
def files(shop, tmp_path):
    """Vectors that bring labels together, and some that do so less, as .npy and as Parquet."""
    rows = Collection.open(shop.collection).table(["id", "label"])
    rng = np.random.default_rng(0)
    good = np.eye(4)[[int(label[-1]) for label in rows["label"].to_pylist()]] + rng.normal(0, 0.2, (12, 4))
    np.save(tmp_path / "good.npy", good)
    noisy = good + rng.normal(0, 0.7, (12, 4))
    table = {"id": rows["id"].to_numpy()[::-1], "embedding": noisy[::-1].tolist()}
    pq.write_table(pa.table(table), tmp_path / "noisy.parquet")
    return tmp_path / "good.npy", tmp_path / "noisy.parquet"


def test_the_document_has_exactly_what_is_promised(shop, files, compare, tmp_path):
    good, noisy = files
    column = Collection.open(shop.collection).card["model"]["column"]
    names = [str(shop.model), column, str(good), str(noisy)]
    document = json.loads(compare(*names, "--data", shop.collection, "--split", "all", "--json", "-").out)
    assert list(document) == ["models", "pairs"]
    assert [model["name"] for model in document["models"]] == names
    assert all(list(model) == ["name", "dimension", "metrics"] for model in document["models"])
    assert [model["dimension"] for model in document["models"]] == [6, 6, 4, 4]
    metrics = {model["name"]: model["metrics"] for model in document["models"]}
    assert len(document["pairs"]) == 6 * 3
    for pair in document["pairs"]:
        assert list(pair) == ["a", "b", "metric", "difference", "low", "high", "p"]
        assert names.index(pair["a"]) < names.index(pair["b"])
        apart = metrics[pair["a"]][pair["metric"]] - metrics[pair["b"]][pair["metric"]]
        assert pair["difference"] == pytest.approx(apart, abs=1e-12)
        assert pair["low"] <= pair["difference"] <= pair["high"]
    same = next(pair for pair in document["pairs"] if pair["b"] == column)
    assert (same["difference"], same["p"]) == (0, 1)  # the model's own column
    api = la.compare(*names, data=shop.collection, split="all")
    assert api.to_json() == document


def test_an_empty_name_is_told(shop, files, compare):
    """As an unset variable of a shell gives it."""
    assert "is empty" in compare(files[0], "", "--data", shop.collection, code=2).err


def test_the_collection_may_come_last(shop, files, compare, tmp_path):
    found = compare(
        *files, shop.collection, "--split", "all", "--json", tmp_path / "c.json", "--metrics", "map@r", "p@2"
    )
    again = compare(*files, "--data", shop.collection, "--split", "all", "--metrics", "map@r", "p@2")
    assert found.out == again.out
    header, _, *lines = found.out.splitlines()
    assert header.split() == ["map@r", "p@2", "numbers", "bytes", "ms", "an", "image"]
    assert re.search(r" 4 +16$", lines[0])
    assert "±" in lines[2]
    assert ", p " in lines[2]
    document = json.loads((tmp_path / "c.json").read_text())
    assert set(document["models"][0]["metrics"]) == {"map@r", "p@2"}


def test_draws_instead_of_the_closed_form(shop, files, compare):
    options = ["--data", shop.collection, "--split", "all", "--bootstrap", "500"]
    document = json.loads(compare(*files, *options, "--json", "-").out)
    closed = json.loads(compare(*files, *options[:-2], "--json", "-").out)
    drawn, told = (next(p for p in each["pairs"] if p["metric"] == "map@100") for each in (document, closed))
    assert drawn["difference"] == told["difference"]
    assert drawn["p"] != told["p"]
    assert " to " in compare(*files, *options).out


def test_a_model_that_has_to_embed_tells_its_time(shop, compare, write_tiny_model, tmp_path):
    other = write_tiny_model(tmp_path / "other", 1)
    lines = compare(shop.model, other, "--data", shop.collection, "--split", "all").out.splitlines()
    assert re.search(r" 6 +24$", lines[2])  # embedded before
    assert re.search(r" 6 +24 +\d+\.\d$", lines[3])


def test_the_page_shows_what_changed(shop, files, compare, tmp_path):
    page = tmp_path / "changed.html"
    compare(*files, "--data", shop.collection, "--split", "all", "--html", page)
    text = page.read_text()
    assert "What got worse" in text
    assert "http" not in text
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text
    right, wrong = text.count('<figure class="right">'), text.count('<figure class="wrong">')
    assert right + wrong > 10
    assert (text.count(">✓ "), text.count(">✗ ")) == (right, wrong)


def test_what_is_refused(shop, files, compare, tmp_path):
    good, noisy = files
    for arguments, words in [
        ([good, noisy], "There is no collection to compare on"),
        ([good, "--data", shop.collection], "There is nothing to compare: 1"),
        ([good, good, "--data", shop.collection], "is given twice"),
        ([good, noisy, "--data", shop.collection, "--metrics", "mp"], "There is no metric `mp`"),
        ([good, tmp_path / "gone", "--data", shop.collection, "--split", "all"], "gone"),
        ([good, noisy, "--data", shop.collection], "No row is in split `test`"),
        ([], "There is no collection"),
    ]:
        assert words in compare(*arguments, code=2).err
