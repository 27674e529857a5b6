"""`lookalike evaluate` beyond the means: other metrics, lists, distractors, ties, pages, the score to trust, memory."""

import json
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import lookalike as la
from lookalike.commands import main
from lookalike.core.files import read_json, write_json
from lookalike.data.collection import Collection
from lookalike.data.made import write_made
from lookalike.evaluation import ceiling


@pytest.fixture
def evaluate(capsys):
    def run(*arguments, code=0):
        assert main(["evaluate", *map(str, arguments)]) == code
        return capsys.readouterr()

    return run


@pytest.fixture
def vectors(shop, tmp_path):
    """Vectors of the shop's rows, better for labels than not, as a file."""
    labels = Collection.open(shop.collection).table(["label"])["label"].to_pylist()
    rng = np.random.default_rng(1)
    made = np.eye(4)[[int(label[-1]) for label in labels]] + rng.normal(0, 0.5, (12, 4))
    np.save(tmp_path / "z.npy", made)
    return tmp_path / "z.npy", made


def document(found):
    return json.loads(found.out)


def test_metrics_by_name(shop, evaluate, vectors):
    names = ["mp@5", "p@5", "recall@10", "map@r", "r-precision", "map@1000"]
    told = document(
        evaluate("--embeddings", vectors[0], shop.collection, "--split", "all", "--json", "-", "--metrics", *names)
    )
    for part in (told["metrics"], told["half_width"], told["metrics_by_query"]):
        assert list(part) == names
    assert set(names) < set(told["definition"])
    assert told["metrics"]["p@5"] < told["metrics"]["mp@5"]  # two relevant images each
    assert told["metrics"]["r-precision"] == told["metrics"]["mp@5"]  # of n_q = 2 they are one
    usual = document(evaluate("--embeddings", vectors[0], shop.collection, "--split", "all", "--json", "-"))
    assert list(usual["metrics"]) == ["mp@5", "recall@1", "map@100"]
    assert usual["metrics"]["mp@5"] == told["metrics"]["mp@5"]


def test_parquet_is_the_same_as_npy(shop, evaluate, vectors, tmp_path):
    file, made = vectors
    ids = Collection.open(shop.collection).table(["id"])["id"].to_numpy()
    order = np.random.default_rng(3).permutation(12)
    pq.write_table(pa.table({"id": ids[order], "embedding": made[order].tolist()}), tmp_path / "z.parquet")
    want = evaluate("--embeddings", file, shop.collection, "--split", "all", "--json", "-").out
    assert (
        evaluate("--embeddings", tmp_path / "z.parquet", shop.collection, "--split", "all", "--json", "-").out == want
    )
    pq.write_table(pa.table({"id": ids[:11], "embedding": made[:11].tolist()}), tmp_path / "less.parquet")
    error = evaluate("--embeddings", tmp_path / "less.parquet", shop.collection, "--split", "all", code=2).err
    assert f"id {ids[11]} is missing" in error


@pytest.mark.parametrize("scale", [1e300, 1e-300, 3.7])
def test_lengths_do_not_matter(shop, evaluate, vectors, tmp_path, scale):
    file, made = vectors
    lengths = np.linspace(0.5, 2, 12)[:, None]
    np.save(tmp_path / "far.npy", made / np.abs(made).max() * lengths * scale)
    want = document(evaluate("--embeddings", file, shop.collection, "--split", "all", "--json", "-"))
    assert (
        document(evaluate("--embeddings", tmp_path / "far.npy", shop.collection, "--split", "all", "--json", "-"))
        == want
    )


def test_equal_vectors_are_ties(shop, evaluate, tmp_path):
    np.save(tmp_path / "same.npy", np.tile([0.3, -0.2, 0.9], (12, 1)))
    arguments = ("--embeddings", tmp_path / "same.npy", shop.collection, "--split", "all")
    assert document(evaluate(*arguments, "--json", "-"))["n_ties"] == 12
    assert "12 queries (100.0%)" in evaluate(*arguments).out
    np.save(tmp_path / "apart.npy", np.random.default_rng(0).normal(size=(12, 3)))
    arguments = ("--embeddings", tmp_path / "apart.npy", shop.collection, "--split", "all")
    assert document(evaluate(*arguments, "--json", "-"))["n_ties"] == 0
    assert "tie" not in evaluate(*arguments).out


def test_one_row_too_many(shop, evaluate, vectors, tmp_path):
    np.save(tmp_path / "more.npy", np.vstack([vectors[1], vectors[1][:1]]))
    found = evaluate("--embeddings", tmp_path / "more.npy", shop.collection, "--split", "all", code=2)
    assert "There are 12 rows, and the vectors have the shape [13, 4]" in found.err


def test_a_number_that_is_not_finite_is_refused_in_rows_that_take_no_part_too(shop, evaluate, vectors, tmp_path):
    made = vectors[1].copy()
    made[7, 2] = np.nan
    np.save(tmp_path / "nan.npy", made)
    for more in ((), ("--where", "id < 6")):
        found = evaluate("--embeddings", tmp_path / "nan.npy", shop.collection, "--split", "all", *more, code=2)
        assert "Row 7 of" in found.err
        assert "is not finite" in found.err


def test_numbers_in_the_other_order_of_bytes(shop, evaluate, vectors, tmp_path):
    np.save(tmp_path / "big.npy", vectors[1].astype(">f4"))
    told = [
        document(evaluate("--embeddings", file, shop.collection, "--split", "all", "--json", "-"))["metrics"]
        for file in (vectors[0], tmp_path / "big.npy")
    ]
    assert told[0] == pytest.approx(told[1])


def test_rows_that_take_part(shop, evaluate, vectors):
    """The same as of a table without the other rows."""
    file, made = vectors
    rows = Collection.open(shop.collection).table(["id", "label", "domain"])
    condition = "label != 'domain0/label0' AND label != 'label0'"
    kept = np.array([not name.endswith("label0") for name in rows["label"].to_pylist()])
    assert kept.sum() == 9
    expected = la.evaluate(made[kept], rows.filter(pa.array(kept)), "all")
    told = document(
        evaluate("--embeddings", file, shop.collection, "--split", "all", "--where", condition, "--json", "-")
    )
    assert told["metrics"] == pytest.approx(dict(expected.metrics))
    assert told["n_queries"] == expected.n_queries == 9
    assert told["definition"]["where"] == f"rows that meet {condition}"
    assert la.evaluate(file, shop.collection, "all", where=condition).metrics == expected.metrics
    both = la.compare(file, made[:, :2], data=shop.collection, split="all", where=condition)
    assert [report.n_queries for report in both.reports.values()] == [9, 9]
    found = evaluate("--embeddings", file, shop.collection, "--split", "all", "--where", "id > 99", code=2)
    assert "No row of split `all` is among those that take part." in found.err
    found = evaluate("--embeddings", file, shop.collection, "--split", "all", "--where", "colour = 1", code=2)
    assert "The condition `colour = 1` can't be understood" in found.err


def test_where_wrong_matches_come_from(shop, evaluate, vectors):
    """Against a loop over queries."""
    file, made = vectors
    told = document(evaluate("--embeddings", file, shop.collection, "--split", "all", "--json", "-"))
    rows = Collection.open(shop.collection).table(["label", "domain"]).to_pylist()
    unit = made / np.linalg.norm(made, axis=1, keepdims=True)
    want: dict = {}
    for q, row in enumerate(rows):
        best = max((g for g in range(12) if g != q), key=lambda g: unit[q] @ unit[g])
        if (rows[best]["label"], rows[best]["domain"]) != (row["label"], row["domain"]):
            line = want.setdefault(row["domain"], {})
            line[rows[best]["domain"]] = line.get(rows[best]["domain"], 0) + 1
    assert want
    assert told["confusion"] == want


def test_queries_and_gallery_from_files(shop, evaluate, vectors, tmp_path):
    collection = Collection.open(shop.collection)
    rows = collection.table(["id", "source", "label"]).to_pylist()
    (tmp_path / "queries.txt").write_text("id\n" + "".join(f"{row['id']}\n" for row in rows[::3]))
    (tmp_path / "gallery.txt").write_text("".join(f"{row['source']}\n" for i, row in enumerate(rows) if i % 3))
    arguments = ["--embeddings", vectors[0], shop.collection, "--split", "all"]
    lists = ["--queries", tmp_path / "queries.txt", "--gallery", tmp_path / "gallery.txt"]
    told = document(evaluate(*arguments, *lists, "--json", "-"))
    assert told["n_queries"] == 4
    assert "8 gallery images" in told["definition"]["index"]
    table = pa.table(
        {
            "id": [row["id"] for row in rows],
            "label": [row["label"] for row in rows],
            "domain": collection.table(["domain"])["domain"].to_pylist(),
            "is_query": [i % 3 == 0 for i in range(12)],
            "is_gallery": [i % 3 != 0 for i in range(12)],
        }
    )
    assert told["metrics"] == la.evaluate(vectors[1], table, "all").metrics
    (tmp_path / "wrong.txt").write_text(f"{rows[0]['id']}\nnothing/1.png\n")
    error = evaluate(*arguments, "--queries", tmp_path / "wrong.txt", code=2).err
    assert "Line 2 of" in error
    assert "`nothing/1.png`" in error
    (tmp_path / "empty.txt").write_text("\n")
    assert "lists no row" in evaluate(*arguments, "--gallery", tmp_path / "empty.txt", code=2).err
    assert "can't be read" in evaluate(*arguments, "--gallery", tmp_path / "absent.txt", code=2).err
    ids = np.array([row["id"] for row in rows])
    split = table.append_column("split", pa.array(["test"] * 6 + ["train"] * 6))
    from lookalike.evaluation.protocols import evaluate as measure

    with pytest.raises(la.Error, match=f"id {ids[6]} is listed as a query, and is not in split `test`"):
        measure(vectors[1], split, queries=ids[:7])
    with pytest.raises(la.Error, match="no row with the id 999"):
        measure(vectors[1], split, gallery=np.array([999]))


def test_distractors_lie_in_the_gallery(shop, evaluate, tmp_path, capsys):
    """Images of another collection: copies of files are left out, others come before relevant ones."""
    folder = tmp_path / "other" / "x"
    folder.mkdir(parents=True)
    shutil.copy(next(shop.images.rglob("*.png")), folder / "copy.png")
    for number, file in enumerate(sorted(shop.images.rglob("0.png"))):
        pixels = np.asarray(Image.open(file)).astype(int) + 1
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    la.prepare(tmp_path / "other", tmp_path / "other.coll")
    before = la.evaluate(shop.model, shop.collection, "all")
    capsys.readouterr()
    options = ["--split", "all", "--distractors", tmp_path / "other.coll", "--json", "-"]
    found = evaluate(shop.model, shop.collection, *options)
    told = document(found)
    assert "1 images of" in found.err
    assert "16 gallery images, 4 of them distractors" in told["definition"]["index"]
    assert told["metrics"]["map@100"] < before.metrics["map@100"]
    assert sum(line.get("distractors", 0) for line in told["confusion"].values()) >= 4
    apart = document(evaluate(shop.model, shop.collection, *options, "--protocol", "separate"))
    assert apart["metrics"]["map@100"] < 1
    np.save(tmp_path / "z.npy", np.ones((12, 3)))
    error = evaluate("--embeddings", tmp_path / "z.npy", shop.collection, *options, code=2).err
    assert "Distractors are embedded by a model" in error
    assert "give one of both" in evaluate(shop.model, shop.collection, *options, "--curve", code=2).err


def test_what_is_named_as_learned_from_must_be_there(shop, evaluate):
    error = evaluate(shop.model, shop.collection, "--split", "all", "--trained-on", "nothing.coll", code=2).err
    assert "There is nothing at `nothing.coll`, not a collection." in error


def test_vectors_without_a_model_are_told_by_their_column():
    rows = pa.table({"id": range(8), "label": [*"aabbccdd"], "split": ["test"] * 8})
    report = la.evaluate(np.random.default_rng(0).normal(size=(8, 3)), rows)
    more = {"queries": 1, "metrics": None, "cosine": 0.9, "model": "", "column": "mine"}
    leakage = {"learned_from": ["c"], "same": 0, "near": 0, "metrics": None, "embedding": more}
    assert "1 more are nearly so by the embeddings of `mine` (" in replace(report, leakage=leakage).table()


def test_without_labels_nothing_is_measured():
    rows = pa.table({"id": range(4), "label": pa.nulls(4, pa.string()), "split": ["test"] * 4})
    with pytest.raises(la.Error, match="No query of split `test` has a label"):
        la.evaluate(np.eye(4), rows)


def test_a_domain_of_one_class_is_said(tmp_path):
    rows = pa.table({"id": range(8), "label": [*"aaabbccc"], "domain": ["x"] * 3 + ["y"] * 5, "split": ["test"] * 8})
    report = la.evaluate(np.random.default_rng(0).normal(size=(8, 3)), rows)
    assert report.one_class == ["x"]
    assert "one class alone: x; it measures nothing but whether the domain is told from others" in report.table()
    assert report.half_width["mp@5"] is None
    apart = la.evaluate(np.random.default_rng(0).normal(size=(8, 3)), rows, protocol="separate")
    assert apart.per_domain["x"]["mp@5"] == 1
    assert "it measures nothing: every match is right" in apart.table()


def test_draws_and_curves(shop, evaluate, vectors):
    arguments = ["--embeddings", vectors[0], shop.collection, "--split", "all", "--bootstrap", "200", "--curve"]
    told = document(evaluate(*arguments, "--json", "-"))
    assert told["bootstrap"]["draws"] == 200
    for what in ("classes", "queries"):
        low, high = told["bootstrap"][what]["mp@5"]
        assert 0 <= low <= told["metrics"]["mp@5"] <= high <= 1
    assert {point["stored"] for point in told["curve"]} == {"f32", "f16", "int8", "binary"}
    assert told["calibration"]["n_queries"] == 12
    words = evaluate(*arguments).out
    for part in ("drawing classes", "drawing queries", "binary", "95 % of the first matches"):
        assert part in words or "no score is so high" in words, part


# ------------------------------------------------------------------ the score to trust


def test_the_score_to_trust_is_noted_and_search_says_so(shop, evaluate, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lookalike.evaluation.calibration.LEAST", 3)
    evaluate(shop.model, shop.collection, "--split", "all")
    card = Collection.open(shop.collection).card
    noted = card["calibration"][card["model"]["column"]]
    assert noted["precision"] == 0.95
    assert noted["split"] == "all"
    assert -1 <= noted["threshold"] <= 1
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    best = float(la.search(tmp_path / "noise.png", shop.collection).scores[0, 0])
    card["calibration"][card["model"]["column"]]["threshold"] = (1 + best) / 2
    Collection.open(shop.collection).update_card(card)
    capsys.readouterr()
    assert main(["search", str(tmp_path / "noise.png"), "-i", str(shop.collection), "--json"]) == 0
    found = capsys.readouterr()
    assert "nothing found for sure" in found.err
    assert json.loads(found.out)[0]["matches"]
    file = next(shop.images.rglob("*.png"))
    assert main(["search", str(file), "-i", str(shop.collection), "--with-self"]) == 0
    assert "nothing found" not in capsys.readouterr().err


def test_measuring_needs_no_right_to_write(shop, evaluate):
    before = Collection.open(shop.collection).card
    with Collection.open(shop.collection).locked("prepare"):
        found = evaluate(shop.model, shop.collection, "--split", "all")
    assert "its card does not get the score to trust" in found.err
    assert Collection.open(shop.collection).card == before
    evaluate(shop.model, shop.collection, "--split", "all", "--protocol", "separate")
    assert Collection.open(shop.collection).card == before  # a search searches everything


# ------------------------------------------------------------------ memory


def test_what_does_not_fit_is_refused_before_it_is_read(shop, evaluate, vectors, monkeypatch):
    small = ceiling.Ceiling(12, 12, 12, 1, 1).bytes
    monkeypatch.setattr(ceiling, "available_memory", lambda: small + 1)
    error = evaluate("--embeddings", vectors[0], shop.collection, "--split", "all", code=2).err
    told = r"Measuring 12 queries in 12 images{} needs up to 0\.\d GiB of memory, and 0\.\d GiB are free"
    assert re.search(told.format(" of 4 numbers"), error)
    monkeypatch.setattr(ceiling, "available_memory", lambda: 2**28)  # not even the labels fit
    error = evaluate("--embeddings", vectors[0], shop.collection, "--split", "all", code=2).err
    assert re.search(told.format(""), error)


def test_the_ceiling_grows_with_what_is_held():
    uned = ceiling.Ceiling(1_642_000, 242_000, 1_400_000, 64, 100)
    assert uned.bytes < 4 * 2**30
    ten = ceiling.Ceiling(10_000_000, 10_000_000, 10_000_000, 64, 100)
    assert 8 * 2**30 < ten.bytes < 11 * 2**30
    assert ceiling.Ceiling(10_000_000, 10_000, 10_000_000, 64, 100).bytes > ten.bytes  # a copy of the queries
    assert ceiling.depth_of([5, None], 300) == 300
    assert ceiling.depth_of([1], 300) == 6


# ------------------------------------------------------------------ pages


def page(path):
    text = path.read_text()
    assert "http" not in text
    assert "<script" not in text
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text
    labels = re.findall(r'role="region" aria-label="([^"]*)"', text)
    assert len(set(labels)) == len(labels)  # boxes that scroll are told apart
    return text


def test_the_page_of_the_worst(shop, evaluate, vectors, tmp_path):
    found = evaluate("--embeddings", vectors[0], shop.collection, "--split", "all", "--worst", tmp_path / "w.html")
    assert "wrote `" in found.err
    text = page(tmp_path / "w.html")
    assert "<h2>domain0</h2>" in text
    right, wrong = text.count('<figure class="right">'), text.count('<figure class="wrong">')
    assert wrong
    assert (text.count(">✓ "), text.count(">✗ ")) == (right, wrong)
    told = [float(value) for value in re.findall(r"mP@5 (\d\.\d\d)<", text.split("<h2>domain1")[0])]
    assert told == sorted(told)
    assert told[-1] < 1


def test_the_report_on_one_page(shop, evaluate, tmp_path):
    evaluate(shop.model, shop.collection, "--split", "all", "--html", tmp_path / "r.html", "--curve")
    text = page(tmp_path / "r.html")
    report = la.evaluate(shop.model, shop.collection, "all")
    assert f"{report.metrics['mp@5']:.3f} <small>mp@5" in text
    for words in (
        *("Domains", "How sure that is", "Against the untouched encoder", "Fewer and smaller numbers", "to be trusted"),
        *("The worst queries", "How it was made", "lookalike evaluate", report.model, report.collection),
    ):
        assert words in text, words


def test_the_report_has_the_untouched_encoder_and_the_map(shop, evaluate, write_tiny_model, tmp_path):
    """A model that was trained here stands beside the one it began with, which is known by its fingerprint."""
    made = write_tiny_model(tmp_path / "run" / "model", 1)
    card = read_json(made / "card.json")
    began = {"name": "tiny", "fingerprint": read_json(shop.model / "card.json")["fingerprint"]}
    write_json(made / "card.json", card | {"began_from": began})
    arguments = (made, shop.collection, "--split", "all", "--html", tmp_path / "r.html")
    evaluate(*arguments)
    assert "It began with tiny, which lies neither beside it nor beside the collection" in page(tmp_path / "r.html")
    shutil.copytree(shop.model, tmp_path / "begun")
    collection = Collection.open(shop.collection)
    places = np.random.default_rng(0).uniform(-1, 1, (12, 2)).astype(np.float32)
    with collection.locked("map"):
        columns = {name: pa.array(places[:, at]) for at, name in enumerate(("map_x", "map_y"))}
        write_made(collection, "map", collection.table(["id"])["id"].to_numpy(), columns)
    evaluate(*arguments)
    text = page(tmp_path / "r.html")
    values = [la.evaluate(each, shop.collection, "all").metrics["mp@5"] for each in (shop.model, made)]
    assert f'<th scope="row">untouched, 6 numbers</th><td>{values[0]:.4f}</td>' in text
    assert f'<th scope="row">this encoder, 6 numbers</th><td>{values[1]:.4f}</td>' in text
    dots = re.findall(r"M(\S+) (\S+?)h0", text)
    drawn = np.array(sorted((float(x), float(y)) for x, y in dots))
    np.testing.assert_allclose(drawn, sorted(map(tuple, 12 + 348 * (places.astype(float) + 1))), atol=0.06)
    assert "</i>domain0 6</span>" in text


def test_pages_and_words_do_not_go_together(shop, evaluate):
    found = evaluate(shop.model, shop.collection, "--split", "all", "--text", "{}", "--worst", "w.html", code=2)
    assert "`--worst` is for images as queries" in found.err
    assert not os.path.exists("w.html")  # noqa: PTH110


@pytest.mark.reference("faiss")
def test_an_approximate_search_says_what_it_misses(shop, evaluate, vectors, monkeypatch):
    monkeypatch.setattr("lookalike.retrieval.approximate.SMALL", 4)
    monkeypatch.setattr("lookalike.retrieval.approximate.PROBED", 1.0)  # all lists: nothing is missed
    arguments = ["--embeddings", vectors[0], shop.collection, "--split", "all", "--ann"]
    told = document(evaluate(*arguments, "--json", "-"))
    assert list(told["approximate"]) == ["how", "recall@10 of exact", "metrics"]
    assert told["approximate"]["recall@10 of exact"] == 1
    assert told["approximate"]["metrics"] == pytest.approx(told["metrics"])
    assert "100.00 % are found" in evaluate(*arguments).out


def test_classes_of_training_are_said(shop, evaluate, vectors, tmp_path):
    """A split that cuts classes, and one that does not."""
    lines = {"cut": ["path,label,split"], "whole": ["path,label,split"]}
    for label in range(4):
        for number in range(3):
            path = shop.images / f"domain{label // 2}" / f"label{label}" / f"{number}.png"
            lines["cut"].append(f"{path},{label},{'test' if number else 'train'}")
            lines["whole"].append(f"{path},{label},{'test' if label > 1 else 'train'}")
    for name, table in lines.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(table))
        assert main(["prepare", str(tmp_path / f"{name}.csv"), "--out", str(tmp_path / name)]) == 0
    words = "classes of split `test` have images in split `train` too"
    assert f"4 of 4 {words}" in evaluate("--embeddings", vectors[0], tmp_path / "cut").err
    assert words not in evaluate("--embeddings", vectors[0], tmp_path / "whole").err


def test_without_an_interval_it_is_said_why():
    rows = pa.table({"id": range(6), "label": list("aabbcc"), "domain": list("xxyyyy")})
    report = la.evaluate(np.eye(6, 3) + 0.1, rows, "all")
    assert set(report.half_width.values()) == {None}
    assert "\nno 95 % interval: a single class of queries in x" in report.table()


def test_on_devices_it_is_the_same(shop, evaluate, vectors):
    arguments = ["--embeddings", vectors[0], shop.collection, "--split", "all", "--json", "-"]
    usual, found = evaluate(*arguments), evaluate(*arguments, "--device", "cpu")
    assert "search on " in found.err
    assert document(found) == document(usual)
    assert la.evaluate(vectors[0], shop.collection, "all", device="cpu").metrics == document(usual)["metrics"]
