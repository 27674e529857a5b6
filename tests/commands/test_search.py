"""`lookalike search`, from argv to stdout."""

import datetime
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path
from shlex import quote

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest

from lookalike.commands import main
from lookalike.data.collection import SCHEMA, Collection
from lookalike.retrieval.index import Index
from lookalike.vectors import runtime


@pytest.fixture
def search(shop, capsys):
    def run(*arguments, code=0):
        assert main(["search", *map(str, arguments), "-i", str(shop.collection)]) == code
        return capsys.readouterr()

    return run


def picture(shop, label, number):
    return shop.images / f"domain{label // 2}" / f"label{label}" / f"{number}.png"


def test_table(shop, search):
    out = search(picture(shop, 0, 0), picture(shop, 3, 1), "-k", "2", "--with-self").out
    blocks = out.split("\n\n")
    assert len(blocks) == 2
    for block, label, number in zip(blocks, (0, 3), (0, 1), strict=True):
        lines = block.strip().split("\n")
        assert lines[0] == str(picture(shop, label, number))
        assert lines[1].split() == ["score", "label", "domain", "id", "path"]
        first = lines[3].split(maxsplit=4)
        assert first[4] == str(picture(shop, label, number))
        assert first[1:3] == [f"label{label}", f"domain{label // 2}"]
        assert float(first[0]) == pytest.approx(1, abs=1e-3)  # itself, as the collection keeps it
        assert len(lines) == 5


def test_json_is_one_document_equal_to_what_the_vectors_say(shop, search, tmp_path):
    collection = Collection.open(shop.collection)
    ids, vectors = collection.vectors(collection.card["model"]["column"])
    labels = collection.table(["label"])["label"].to_pylist()
    places = [5, 6]
    queries = [tmp_path / f"{place}.jpg" for place in places]  # as the collection keeps them
    for query, image in zip(queries, collection.take(ids[places], ["image"])["image"].to_pylist(), strict=True):
        query.write_bytes(image)
    document = json.loads(search(*queries, "-k", "12", "--json").out)
    assert [entry["query"] for entry in document] == list(map(str, queries))
    for entry, place in zip(document, places, strict=True):
        cosines = vectors @ vectors[place]
        order = np.argsort(-cosines, kind="stable")
        assert list(entry["matches"][0]) == ["id", "score", "path", "source", "label", "domain"]
        assert [m["id"] for m in entry["matches"]] == ids[order].tolist()
        assert [m["score"] for m in entry["matches"]] == pytest.approx(cosines[order], abs=1e-5)
        assert [m["label"] for m in entry["matches"]] == [labels[i] for i in order]


def test_where_is_applied_before_the_search(shop, search):
    document = json.loads(search(picture(shop, 0, 0), "-k", "6", "--json", "--where", "domain = 'domain1'").out)
    assert [m["domain"] for m in document[0]["matches"]] == ["domain1"] * 6
    assert "no match" in search(picture(shop, 0, 0), "--where", "domain = 'nowhere'").out


@pytest.mark.parametrize("suffix", ["png", "html"])
def test_sheet(shop, search, tmp_path, suffix):
    sheet = tmp_path / f"sheet.{suffix}"
    found = search(picture(shop, 0, 0), "-k", "3", "--sheet", sheet)
    assert found.out == ""
    assert f"wrote `{sheet}`" in found.err
    if suffix == "png":
        assert PIL.Image.open(io.BytesIO(sheet.read_bytes())).size[0] > 800
    else:
        assert sheet.read_text().count("data:image/jpeg") == 4
    assert json.loads(search(picture(shop, 0, 0), "--json", "--sheet", sheet).out)


def test_a_query_whose_name_is_not_utf8(shop, search, tmp_path):
    query = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    shutil.copy(picture(shop, 0, 0), query)
    shown = f"{tmp_path}/\\xff.png"
    assert search(query).out.startswith(shown + "\n")
    assert json.loads(search(query, "--json").out)[0]["query"] == shown
    search(query, "--sheet", tmp_path / "sheet.html")
    assert "\\xff.png" in (tmp_path / "sheet.html").read_text(encoding="utf-8")


def test_another_model_needs_its_own_column(shop, search, tmp_path, write_tiny_model, capsys):
    other = write_tiny_model(tmp_path / "other", 1)
    error = search(picture(shop, 0, 0), "--model", other, code=2).err
    assert "has no column `embedding_" in error
    assert "vectors of other encoders" in error
    assert f"hint: lookalike index {quote(str(shop.collection))} --model {quote(str(other))}" in error
    assert main(["embed", str(shop.collection), "--model", str(other)]) == 0
    capsys.readouterr()
    assert json.loads(search(picture(shop, 0, 0), "--model", other, "--json").out)


def test_an_encoder_that_was_replaced_is_noticed(shop, search, tmp_path, write_tiny_model):
    collection = Collection.open(shop.collection)
    replaced = write_tiny_model(tmp_path / "replaced", 2)
    collection.update_card({"model": collection.card["model"] | {"path": str(replaced)}})
    error = search(picture(shop, 0, 0), code=2).err
    assert "indexed by another encoder" in error
    assert f"hint: lookalike index {quote(str(shop.collection))} --model {quote(str(replaced))}" in error
    shutil.rmtree(replaced)
    error = search(picture(shop, 0, 0), code=2).err
    assert "no longer there" in error
    assert "--model MODEL" in error


def test_a_collection_that_was_never_indexed(shop, search):
    card = json.loads((shop.collection / "card.json").read_text())
    del card["model"]
    (shop.collection / "card.json").write_text(json.dumps(card))
    assert "does not say which encoder" in search(picture(shop, 0, 0), code=2).err
    assert "1.0000" in search(picture(shop, 0, 0), "--model", shop.model, "--with-self").out


def test_what_the_user_can_mend_is_a_sentence(shop, search, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 no image")
    (tmp_path / "empty.jpg").touch()
    for arguments, words in [
        ([tmp_path / "bad.jpg"], "bad.jpg"),
        ([tmp_path / "empty.jpg"], "0 bytes"),
        ([tmp_path / "missing.jpg"], "does not exist"),
        ([tmp_path], "is a directory"),
        ([], "IMAGE"),
        ([picture(shop, 0, 0), "-k", "0"], "at least 1"),
        ([picture(shop, 0, 0), "--sheet", "sheet.pdf"], "neither"),
        ([picture(shop, 0, 0), "--where", "price < 3"], "price"),
        ([picture(shop, 0, 0), "--wher", "x"], "--where"),
    ]:
        found = search(*arguments, code=2)
        assert found.out == ""
        assert found.err.startswith("error: ")
        assert words in found.err, (arguments, found.err)
        assert "Traceback" not in found.err
    assert main(["search", str(picture(shop, 0, 0)), "-i", str(tmp_path / "nothing")]) == 2


def test_imports_no_jax(shop):
    script = f"""
        import sys
        from lookalike.commands import main
        assert main(["search", {str(picture(shop, 0, 0))!r}, "-i", {str(shop.collection)!r}]) == 0
        assert "jax" not in sys.modules, "jax was imported"
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_rows_that_have_no_vector_yet_are_left_out_and_counted(shop, search):
    collection = Collection.open(shop.collection)
    row = collection.table(SCHEMA.names).slice(0, 1)
    collection.append(row.set_column(0, "id", pa.array([collection.next_id])))
    said = search(picture(shop, 0, 0), "-k", "100000000000", "--with-self")
    assert "1 of 13 images have no vector yet" in said.err
    assert len(said.out.strip().split("\n")) == 3 + 12


def test_json_is_json_whatever_the_source_said(shop, search):
    collection = Collection.open(shop.collection)
    extra = {
        "price": pa.array([float("nan"), float("inf"), 2.5] * 4),
        "raw": pa.array([b"\xff\x00"] * 12, pa.binary()),
        "box": pa.array([[0.0, float("-inf")]] * 12, pa.list_(pa.float32(), 2)),
        "when": pa.array([datetime.datetime(2026, 1, 2)] * 12),
        "tags": pa.array([{"a": [1, None]}] * 12),
    }
    collection.add_columns(pa.schema([pa.field(name, values.type) for name, values in extra.items()]))
    collection.update(pa.table({"id": collection.table(["id"])["id"], **extra}))

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    out = search(picture(shop, 0, 0), "-k", "12", "--json", "--with-self").out
    (answer,) = json.loads(out, parse_constant=refuse)
    by_id = sorted(answer["matches"], key=lambda match: match["id"])
    assert [match["price"] for match in by_id] == [None, None, 2.5] * 4
    assert by_id[0]["raw"] == "/wA="
    assert by_id[0]["box"] == [0.0, None]
    assert by_id[0]["when"].startswith("2026-01-02")
    assert by_id[0]["tags"] == {"a": [1, None]}


@pytest.mark.parametrize("precision", [None, "int8", "bfloat16"])
def test_the_query_is_embedded_as_the_rows_were(shop, search, monkeypatch, precision):
    """A column without a precision is from before that was noted; it is searched as it always was."""
    collection = Collection.open(shop.collection)
    noted = collection.card["model"]
    ids, vectors = collection.vectors(noted["column"])
    column = "_".join(["embedding", noted["fingerprint"][:8], *([] if precision is None else [precision])])
    collection.write_vectors(column, ids, vectors, {"fingerprint": noted["fingerprint"]})
    collection.update_card({"model": noted | {"column": column}})
    loaded = []
    load = runtime.load
    monkeypatch.setattr(
        runtime, "load", lambda *rest, **named: loaded.append(named["precision"]) or load(*rest, **named)
    )
    opened = []
    index_open = Index.open
    monkeypatch.setattr(Index, "open", lambda path, name: opened.append(name) or index_open(path, name))
    for arguments in ([], ["--model", shop.model]):
        assert "label0" in search(picture(shop, 0, 0), *arguments).out
    assert set(loaded) == {precision}
    assert opened == [column] * 2


def found_by(search, *arguments):
    return [[match["path"] for match in answer["matches"]] for answer in json.loads(search(*arguments, "--json").out)]


def test_a_query_that_is_in_the_index_does_not_find_itself(shop, search, tmp_path):
    first, other = picture(shop, 0, 0), picture(shop, 1, 1)
    everywhere = shutil.copy(first, tmp_path / "elsewhere.png")  # the bytes count, not the name
    outside = tmp_path / "outside.jpg"
    PIL.Image.open(first).save(outside, "JPEG")
    one, same, two, none = found_by(search, first, everywhere, other, outside, "-k", "100")
    assert len(one) == len(two) == 11
    assert str(first) not in one
    assert same == one
    assert str(other) not in two
    assert len(none) == 12
    assert [len(paths) for paths in found_by(search, first, outside, "-k", "100", "--with-self")] == [12, 12]
    assert found_by(search, first, "--where", "domain = 'nowhere'") == [[]]
    assert "no match" in search(first, "--where", "domain = 'domain0' AND label = 'label0' AND id = 0").out


def test_every_match_has_the_path_of_its_file(shop, search):
    (paths,) = found_by(search, picture(shop, 0, 0), "-k", "100", "--with-self")
    assert set(paths) == {str(path) for path in shop.images.rglob("*.png")}


def test_paths_are_lines_or_end_with_zero_bytes(shop, search):
    query = picture(shop, 0, 0)
    (paths,) = found_by(search, query, "-k", "3")
    assert search(query, "-k", "3", "--paths").out == "".join(f"{path}\n" for path in paths)
    for arguments in (["-0"], ["--null"], ["--paths", "-0"]):
        assert search(query, "-k", "3", *arguments).out == "".join(f"{path}\0" for path in paths)
    assert "both write to stdout" in search(query, "--paths", "--json", code=2).err


def test_a_line_end_in_a_name_needs_zero_bytes(shop, search, tmp_path, capsys):
    (tmp_path / "odd").mkdir()
    shutil.copy(picture(shop, 2, 0), tmp_path / "odd" / "a\nb.png")
    assert main(["index", str(tmp_path / "odd"), "--model", str(shop.model)]) == 0
    capsys.readouterr()
    arguments = ["search", str(picture(shop, 0, 0)), "-i", str(tmp_path / "odd.lookalike")]
    assert main([*arguments, "--paths"]) == 2
    refused = capsys.readouterr()
    assert refused.out == ""
    assert "a\\nb.png` has a line end in its name.\n\nhint: `-0`" in refused.err
    assert main([*arguments, "-0"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/odd/a\nb.png\0"
    assert main([*arguments, "--sheet", str(tmp_path / "sheet.html")]) == 0
    page = (tmp_path / "sheet.html").read_text()
    assert ">odd/a\\nb.png</a>" in page
    assert "odd/a%0Ab.png" in page


def test_an_index_that_does_not_know_its_paths_says_what_to_do(shop, search, capsys):
    collection = Collection.open(shop.collection)
    ids = collection.table(["id"])["id"]
    collection.update(pa.table({"id": ids, "place": pa.nulls(len(ids), pa.binary())}))
    refused = search(picture(shop, 0, 0), "--paths", code=2)
    assert f"hint: lookalike index {quote(str(shop.collection))}" in refused.err
    assert found_by(search, picture(shop, 0, 0), "-k", "1") == [[None]]
    assert "images/domain" in search(picture(shop, 0, 0), "-k", "1").out
    assert main(["index", str(shop.collection)]) == 0
    capsys.readouterr()
    assert search(picture(shop, 0, 0), "--paths", "-k", "1").out.startswith(str(shop.images))


@pytest.fixture
def viewer(tmp_path, monkeypatch):
    """A stand-in of the system's viewer, first on PATH, that notes what it is given; exit code by a file."""
    folder, seen = tmp_path / "bin", tmp_path / "seen"
    folder.mkdir()
    for name in ("xdg-open", "open"):
        (folder / name).write_text(
            f'#!/bin/sh\nprintf "%s\\0" "$@" >> {quote(str(seen))}\nexit $(cat {quote(str(tmp_path))}/code || echo 0)\n'
        )
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return seen


def test_open_shows_the_matches_in_the_viewer(shop, search, viewer, tmp_path, monkeypatch):
    query = picture(shop, 0, 0)
    (paths,) = found_by(search, query, "-k", "3")
    assert "score" in search(query, "-k", "3", "--open").out
    assert viewer.read_text().split("\0")[:-1] == paths
    (tmp_path / "code").write_text("3")
    refused = search(query, "-k", "3", "--open", code=2).err
    assert f"can't open `{paths[0]}` (exit code 3)" in refused
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert "--sheet matches.html" in search(query, "--open", code=2).err


def test_open_passes_over_what_is_no_file(shop, search, viewer, tmp_path, capsys):
    archive = tmp_path / "some.tar"
    with tarfile.open(archive, "w") as opened:
        opened.add(picture(shop, 0, 1), "x.png")
    assert main(["index", str(archive), "--model", str(shop.model)]) == 0
    capsys.readouterr()
    assert main(["search", str(picture(shop, 0, 0)), "-i", str(tmp_path / "some.lookalike"), "--open"]) == 0
    captured = capsys.readouterr()
    assert f"{archive}!x.png" in captured.out
    assert "are not opened: 1" in captured.err
    assert not viewer.exists()


def test_low_scores_are_left_out(shop, search):
    (answer,) = json.loads(search(picture(shop, 0, 0), "-k", "100", "--json").out)
    scores = [match["score"] for match in answer["matches"]]
    bar = scores[4]
    (some,) = json.loads(search(picture(shop, 0, 0), "-k", "100", "--json", "--min-score", repr(bar)).out)
    assert some["matches"] == [match for match in answer["matches"] if match["score"] >= bar]
    assert 5 <= len(some["matches"]) < 11
    assert "no match" in search(picture(shop, 0, 0), "--min-score", "1").out or scores[0] >= 1
    assert "expected a cosine" in search(picture(shop, 0, 0), "--min-score", "2", code=2).err


def test_several_images_are_one_query(shop, search, tmp_path):
    collection = Collection.open(shop.collection)
    ids, vectors = collection.vectors(collection.card["model"]["column"])
    stored = collection.take(ids[[0, 4, 8]], ["image"])["image"].to_pylist()
    queries = [tmp_path / f"{number}.jpg" for number in range(3)]
    for query, image in zip(queries, stored, strict=True):
        query.write_bytes(image)  # as the collection keeps them, so that their vectors are the rows'
    a, b, c = vectors[[0, 4, 8]].astype(float)

    def answer(*arguments):
        (found,) = json.loads(search(*arguments, "--json", "-k", "12").out)
        return found["query"], {match["id"]: match["score"] for match in found["matches"]}

    def expected(query):  # of each id: two scores are nearly the same
        cosines = vectors @ (query / np.linalg.norm(query))
        return pytest.approx(dict(zip(ids.tolist(), cosines.tolist(), strict=True)), abs=1e-4)

    one, two, three = map(str, queries)
    assert answer(one, two, "--together") == (f"{one} + {two}", expected(a + b))
    assert answer(one, "--unlike", three) == (f"{one} - {three}", expected(a - (a @ c) * c))
    mean = (a + b) / np.linalg.norm(a + b)
    turned = expected(mean - (mean @ c) * c)
    assert answer(one, two, "--together", "--unlike", three) == (f"{one} + {two} - {three}", turned)
    both = json.loads(search(one, two, "--unlike", three, "--json").out)
    assert [entry["query"] for entry in both] == [f"{one} - {three}", f"{two} - {three}"]
    assert "Nothing is left" in search(one, "--unlike", one, code=2).err
    assert "does not exist" in search(one, "--unlike", "nothing.jpg", code=2).err
    for suffix in ("png", "html"):
        search(one, two, "--together", "--unlike", three, "--sheet", tmp_path / f"sheet.{suffix}")
    assert "0.jpg + 1.jpg - 2.jpg" in (tmp_path / "sheet.html").read_text()


def test_queries_with_one_file_name_are_told_apart_in_a_sheet(shop, search, tmp_path):
    search(picture(shop, 0, 0), picture(shop, 1, 0), "--sheet", tmp_path / "sheet.html", "-k", "1")
    page = (tmp_path / "sheet.html").read_text()
    assert ">label0/0.png</h2>" in page
    assert ">label1/0.png</h2>" in page
    match = json.loads(search(picture(shop, 0, 0), "-k", "1", "--json").out)[0]["matches"][0]
    assert f'<a href="{Path(match["path"]).as_uri()}">' in page
