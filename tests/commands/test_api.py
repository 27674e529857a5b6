"""Python says what the command line says: the same options, defaults, results and errors."""

import inspect
import json
import math
import shutil
from dataclasses import MISSING, fields
from importlib.util import find_spec

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest

import lookalike as la
from lookalike import api
from lookalike.commands import export as export_verb
from lookalike.commands import main
from lookalike.commands import prepare as prepare_verb
from lookalike.commands import pull as pull_verb
from lookalike.core.errors import UsageError
from lookalike.evaluation.differences import Comparison
from lookalike.evaluation.intervals import NORMAL
from lookalike.evaluation.protocols import evaluate as measure
from lookalike.retrieval import index as retrieval
from lookalike.retrieval.index import ExactIndex

ELSEWHERE = {"list", "list_", "all", "check", "given"}  # which only print, or say `model` in another way


@pytest.mark.parametrize(
    ("function", "verb"), [("prepare", prepare_verb), ("pull", pull_verb), ("export", export_verb)]
)
def test_functions_have_the_options_and_defaults_of_the_verb(function, verb):
    found = inspect.signature(getattr(api, function)).parameters
    assert {*found} == {each.name for each in fields(verb.Config)} - ELSEWHERE
    for each in fields(verb.Config):
        if each.name not in ELSEWHERE and found[each.name].kind is inspect.Parameter.KEYWORD_ONLY:
            assert found[each.name].default == each.default, each.name
            assert each.default is not MISSING


def test_every_public_name_is_there_and_told():
    assert sorted(la.__all__) == sorted({*la._PLACES, "__version__"})
    for name in la._PLACES:
        thing = getattr(la, name)
        assert inspect.getdoc(thing), name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = la.nothing


def test_from_images_to_a_report(shop, tmp_path, capsys):
    photos = la.prepare(str(shop.images), tmp_path / "c", test=0.5)
    assert isinstance(photos, la.Collection)
    assert main(["prepare", str(shop.images), "--out", str(tmp_path / "d"), "--test", "0.5"]) == 0
    other = la.Collection.open(tmp_path / "d")
    columns = ["source", "label", "domain", "split", "pixels"]
    assert photos.table(columns).equals(other.table(columns))

    vectors = la.embed(photos, shop.model)
    assert vectors.shape == (len(photos), la.load(shop.model).dimension)
    encoder = la.load(shop.model)
    images = photos.table(["image"])["image"].to_pylist()
    np.testing.assert_allclose(la.embed(images, encoder), vectors, atol=1e-4)

    report = la.evaluate(shop.model, photos, split="all")
    capsys.readouterr()
    assert main(["evaluate", str(shop.model), str(tmp_path / "c"), "--split", "all", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == report.to_json()
    given = la.evaluate(vectors, tmp_path / "c", split="all")
    assert given.metrics == report.metrics
    rows = photos.table(["id", "label", "domain"])
    assert la.evaluate(vectors, rows, "all").metrics == report.metrics


def test_training_takes_the_flags_of_the_recipe(shop, tmp_path):
    encoder = la.train(
        "head",
        data=shop.collection,
        model=shop.model,
        out=tmp_path / "run",
        dimension=3,
        mirror=False,
        zooms=(),
        epochs=1,
        **{"loss.margin": 0.2, "projecting.batch_norm": True},
    )
    assert isinstance(encoder, la.Encoder)
    assert encoder.dimension == 3
    config = json.loads((tmp_path / "run/config.json").read_text())
    text = json.dumps(config)
    assert '"margin": 0.2' in text
    assert '"batch_norm": true' in text
    with pytest.raises(la.Error, match="--nothing"):
        la.train("head", data=shop.collection, model=shop.model, out=tmp_path / "r", nothing=1)
    with pytest.raises(la.Error, match="There is no recipe `hed`"):
        la.train("hed", data=shop.collection, out=tmp_path / "r")


def test_a_collection_that_was_written_to_meanwhile_is_taken_as_it_is(shop, write_tiny_model, tmp_path):
    """As in a notebook, where one cell opens it and another trains on it."""
    photos, other = la.Collection.open(shop.collection), write_tiny_model(tmp_path / "other", 1)
    la.index(shop.collection, model=write_tiny_model(tmp_path / "third", 2))
    assert la.evaluate(other, photos, split="all").n_queries == 12
    assert la.embed(photos, other).shape == (12, 6)
    assert la.prune(photos).rows == 0


def test_export_and_pull_give_back_what_they_made(shop, tmp_path):
    facts = la.export(shop.model, "onnx", tmp_path / "onnx")
    assert facts["minimum_cosine"] > 0.9999
    assert (tmp_path / "onnx").is_dir()
    copy = la.pull(str(shop.model), tmp_path / "copy")
    image = PIL.Image.new("RGB", (30, 20), (200, 30, 60))
    np.testing.assert_allclose(copy.embed(image), la.load(shop.model).embed(image), atol=1e-6)


def test_errors_are_those_of_the_command_line(tmp_path, capsys):
    with pytest.raises(la.Error) as caught:
        la.prepare(tmp_path / "absent", tmp_path / "c")
    assert main(["prepare", str(tmp_path / "absent"), "--out", str(tmp_path / "c")]) == 2
    assert f"error: {caught.value}" in capsys.readouterr().err
    with pytest.raises(la.Error, match="There is nothing to compare: 1"):
        la.compare("model", data="c")


# ------------------------------------------------------------------ reports beside each other


@pytest.fixture
def measured():
    rng = np.random.default_rng(5)
    label = np.repeat(np.arange(40), 6)
    rows = pa.table(
        {
            "id": np.arange(240),
            "label": [f"c{c}" for c in label],
            "domain": [f"d{c % 2}" for c in label],
        }
    )
    centers = rng.normal(size=(40, 16))

    def vectors(noise):
        return (centers[label] + noise * rng.normal(size=(240, 16))).astype(np.float32)

    return rows, vectors(0.6), vectors(0.9)


def test_reports_are_subtracted_query_by_query(measured):
    rows, good, bad = measured
    one, other = measure(good, rows, "all"), measure(bad, rows, "all")
    apart = one - other
    for name in one.metrics:
        assert apart.values[name] == pytest.approx(one.metrics[name] - other.metrics[name], abs=1e-12)
        assert apart.values[name] > 0
        for domain, values in apart.per_domain.items():
            expected = one.per_domain[domain][name] - other.per_domain[domain][name]
            assert values[name] == pytest.approx(expected, abs=1e-12)
    # Classes drawn with replacement, domain by domain: the interval, and how often the difference is not there.
    rng, classes = np.random.default_rng(0), one.per_query.label
    each = one.per_query.values["mp@5"] - other.per_query.values["mp@5"]
    drawn = []
    for _ in range(2000):
        means = []
        for domain in ("d0", "d1"):
            mine = np.unique(classes[one.per_query.domain == domain])
            means.append(np.concatenate([each[classes == c] for c in rng.choice(mine, len(mine))]).mean())
        drawn.append(np.mean(means))
    assert apart.half_width["mp@5"] == pytest.approx(NORMAL * np.std(drawn), rel=0.1)
    z = apart.values["mp@5"] / np.std(drawn)
    assert math.log(apart.p["mp@5"]) == pytest.approx(math.log(math.erfc(z / math.sqrt(2))), rel=0.25)
    same = one - one
    assert set(same.values.values()) == {0.0}
    assert set(same.p.values()) == {1.0}


def test_other_queries_are_refused(measured):
    rows, good, bad = measured
    one = measure(good, rows, "all")
    fewer = rows.set_column(1, "label", pa.array([None] * 6 + rows["label"].to_pylist()[6:]))
    for other in (measure(bad, fewer, "all"), measure(bad, rows, "all", "separate")):
        with pytest.raises(la.Error, match="of other queries"):
            _ = one - other


def test_results_are_shown_and_handed_on(measured):
    rows, good, bad = measured
    reports = {"a<b": measure(good, rows, "all"), "b": measure(bad, rows, "all")}
    both = Comparison(reports)
    assert repr(reports["b"]).startswith("Report(mp@5 0.")
    assert "\n" not in repr(both) + repr(reports["b"]) + repr(reports["b"] - reports["a<b"])
    assert "a&lt;b" in both._repr_html_()
    assert "<script" not in reports["b"]._repr_html_()
    told = both.to_json()
    assert [model["name"] for model in told["models"]] == ["a<b", "b"]
    pair = next(pair for pair in told["pairs"] if pair["metric"] == "mp@5")
    assert 0 < pair["low"] < pair["difference"] < pair["high"]
    assert (pair["a"], pair["b"]) == ("a<b", "b")
    table = reports["b"].to_arrow()
    assert table["domain"].to_pylist() == ["d0", "d1", None]
    assert table["mp@5"].to_pylist()[-1] == reports["b"].metrics["mp@5"]


# ------------------------------------------------------------------ from a folder to the first find


def test_index_and_search_as_on_the_command_line(shop, tmp_path, capsys, monkeypatch):
    home = tmp_path / "home"
    shutil.copytree(shop.images, home / "photos")
    monkeypatch.chdir(home)
    index = la.index("photos", model=shop.model)
    assert len(index) == 12
    assert (home / "photos.lookalike").is_dir()
    assert repr(index) == f"Index('photos.lookalike': 12 images, {la.load(shop.model).dimension} numbers each)"
    query = next((home / "photos").rglob("*.png"))
    capsys.readouterr()
    assert main(["search", str(query), "-k", "3", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    found = la.search(query, k=3)
    assert found.rows(0) == told["matches"]
    assert str(query.absolute()) not in [row["path"] for row in found.rows(0)]  # it does not find itself
    assert la.search(query, index, k=1, with_self=True).rows(0)[0]["path"] == str(query.absolute())
    # The same pixels from memory are no file of the index: they find it.
    pixels = PIL.Image.open(query)
    for image in (pixels, np.asarray(pixels)):
        several = la.search([image, query.read_bytes()], "photos.lookalike", k=3)
        assert several.rows(0)[0]["path"] == str(query.absolute())
        assert [row["id"] for row in several.rows(1)] == [row["id"] for row in found.rows(0)]
    with pytest.raises(la.Error, match="no IMAGE and no `--text`"):
        la.search([])


def test_matches_are_shown_and_handed_on(shop):
    index = la.Index.open(shop.collection)
    found = index.query(index.vectors[:2], 3)
    one = index.query(index.vectors[0], 3)
    np.testing.assert_array_equal(one.ids, found.ids[:1])
    assert repr(found) == f"Matches(2 queries, 6 matches in {str(shop.collection)!r})"
    table = found.to_arrow()
    if find_spec("pandas") is None:
        with pytest.raises(UsageError, match="needs pandas"):
            found.to_pandas()
    else:
        assert len(found.to_pandas()) == table.num_rows
    assert table["query"].to_pylist() == [0, 0, 0, 1, 1, 1]
    assert table["rank"].to_pylist() == [1, 2, 3, 1, 2, 3]
    assert table["path"].to_pylist()[:3] == [row["path"] for row in found.rows(0)]
    shown = found._repr_html_()
    assert shown.count("<img ") == 6
    assert "data:image/jpeg;base64," in shown
    with pytest.raises(la.Error, match="Queries are vectors, and this is a str") as caught:
        ExactIndex.open(shop.collection).query("kettle.jpg", 3)
    assert "lookalike.search" in caught.value.hint
    assert isinstance(index, retrieval.Index)


def test_an_index_takes_images(shop, write_tiny_model, tmp_path, monkeypatch):
    """As `search` does, and vectors as before."""
    index = la.Index.open(shop.collection)
    files = sorted(shop.images.rglob("*.png"))[:3]
    expected = la.search(files, shop.collection, k=4)
    for queries in (files, [str(file) for file in files], [file.read_bytes() for file in files], iter(files)):
        found = index.query(queries, 4)
        np.testing.assert_array_equal(found.ids, expected.ids)
        np.testing.assert_array_equal(found.scores, expected.scores)
    one = index.query(files[0])
    np.testing.assert_array_equal(one.ids, la.search(files[0], shop.collection).ids)
    assert index.query(files[0], 1, with_self=True).scores[0, 0] == pytest.approx(1, abs=1e-3)
    pixels = PIL.Image.open(files[0]).convert("RGB")
    for image in (pixels, np.asarray(pixels), np.asarray(pixels) / np.float32(255), np.asarray(pixels)[None]):
        itself = index.query(image, 3)  # pixels are no file of the index
        assert itself.rows(0)[0]["path"] == str(files[0])
    label = found.rows(0)[0]["label"]
    assert {row["label"] for row in index.query(files, 3, f"label = '{label}'").rows(2)} == {label}
    assert index.query(files[0], 12, exclude=index.ids[None, :11]).ids[0].tolist() == [index.ids[11]] + [-1] * 11
    with pytest.raises(la.Error, match=r"gone\.jpg` can't be read"):
        index.query(tmp_path / "gone.jpg")
    loads = []
    monkeypatch.setattr("lookalike.commands.search.encoder_of", lambda *_: loads.append(0))
    index.query(files[0])
    assert loads == []  # it was loaded once
    monkeypatch.undo()
    monkeypatch.setenv("LOOKALIKE_MODEL", str(write_tiny_model(tmp_path / "other", 3)))
    with pytest.raises(la.Error, match="not of the encoder that is searched with"):
        la.Index.open(shop.collection).query(files[0])


def test_a_model_by_its_name(shop, monkeypatch):
    monkeypatch.setenv("LOOKALIKE_MODEL", str(shop.model))
    assert la.load().fingerprint == la.load(shop.model).fingerprint
    with pytest.raises(la.Error, match="There is no model `latop`"):
        la.load("latop")
