"""What a user reads of the public names: each example runs, help fits a screen, and a strict user's types are whole."""

import doctest
import importlib.resources
import inspect
import pydoc
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import lookalike as la
from lookalike.commands import main

NEEDED = {
    "Embedder": "sklearn",
    "clusters": "sklearn",
    "map": "pacmap",
    "TorchDataset": "torch",
    "load_text": "tokenizers",
    "TextEmbedder": "tokenizers",
}
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture
def here(shop, tmp_path, monkeypatch, write_tiny_model, write_text_model):
    """The folder that the examples speak of: photos and their index, a collection, models, two images."""
    home = tmp_path / "home"
    shutil.copytree(shop.images, home / "photos")
    shutil.copytree(shop.model, home / "model")
    write_tiny_model(home / "other", 1)
    write_text_model(home / "clip")
    monkeypatch.chdir(home)
    for name, image in (("kettle", "domain0/label0/0.png"), ("cup", "domain1/label2/0.png")):
        shutil.copy(home / "photos" / image, f"{name}.jpg")  # known by its content
    for argv in (
        ["prepare", "photos", "--out", "photos.coll", "--test", "0.5"],
        ["index", "photos", "--model", "model"],
    ):
        assert main(argv) == 0
    shutil.copytree("model", "published")
    shutil.copytree("photos/domain0", "sets/toys")
    return home


@pytest.mark.parametrize("name", sorted(la._PLACES))
def test_the_example_of_every_public_name_runs(name, here, capfd):
    if name in NEEDED:
        pytest.importorskip(NEEDED[name], reason=f"reference library not installed: {NEEDED[name]}")
    thing = getattr(la, name)
    words = {"la": la, "np": np, "Path": Path} | ({"torch": sys.modules["torch"]} if name == "TorchDataset" else {})
    example = doctest.DocTestParser().get_doctest(inspect.getdoc(thing), words, name, None, 0)
    assert example.examples, f"la.{name} has no example"
    told = []
    doctest.DocTestRunner(optionflags=FLAGS).run(example, out=told.append)
    assert not told, "".join(told)


def test_help_fits_a_screen_and_names_everything():
    own = pydoc.plain(pydoc.render_doc(la)).partition("PACKAGE CONTENTS")[0]
    assert len(own.splitlines()) <= 40
    assert max(map(len, own.splitlines())) <= 124
    assert not [name for name in la._PLACES if name not in own]


USER = """
    from pathlib import Path

    import numpy as np

    import lookalike as la

    photos = la.prepare("photos", "photos.coll", test=0.3)
    index = la.index(["photos", Path("more")], out="all.lookalike", model="model")
    found = la.search(["a.jpg", b"...", np.zeros((4, 4, 3), np.uint8)], index, k=3)
    matches = index.query("a.jpg", k=2)
    opened = la.Index.open("all.lookalike")
    encoder = la.load("model")
    vectors = encoder.embed(["a.jpg", Path("b.jpg")])
    some, failed = encoder.embed(["a.jpg"], on_error="skip")
    stored = la.embed(photos, encoder)
    words = la.load_text("clip", encoder).embed(["a kettle"])
    trained = la.train("head", data=photos, model="model", out="run", dimension=32)
    pulled = la.pull("laptop", "model")
    report = la.evaluate(encoder, photos)
    difference = report - la.evaluate(stored, "photos.coll", "all")
    judged = la.judge("model", Path("sets"), kinds=["toys"])
    compared = la.compare("model", encoder, data=photos, names=["one", "other"])
    facts = la.export("model", "onnx", "out")
    pruned = la.prune(index, dry_run=True)
    alike = la.duplicates(index, html=Path("alike.html"))
    odd = la.outliers(photos, most=10)
    groups = la.clusters(index, least=3)
    places = la.map("all.lookalike")
    parts = la.split(photos, test=0.2)
    scores, rows = la.knn(vectors, stored, k=3)
    try:
        first = found.rows(0)[0]["path"]
    except la.Error as error:
        print(error.message, error.hint)
"""
TYPES = {
    "photos": "Collection",
    "index": "Index",
    "found": "Matches",
    "matches": "Matches",
    "opened": "Index",
    "encoder": "Embedder",
    "vectors": "ndarray",
    "some": "ndarray",
    "failed": "dict[int, lookalike.core.errors.LookalikeError]",
    "stored": "ndarray",
    "words": "ndarray",
    "trained": "Embedder | None",
    "pulled": "Embedder",
    "report": "Report",
    "difference": "Difference",
    "judged": "Report",
    "compared": "Comparison",
    "facts": "dict[str, Any]",
    "pruned": "Pruned",
    "alike": "Duplicates",
    "odd": "Outliers",
    "groups": "Clusters",
    "places": "Map",
    "parts": "Split",
    "scores": "ndarray",
    "rows": "ndarray",
}


def test_a_strict_user_sees_whole_types(tmp_path):
    pytest.importorskip("mypy", reason="reference library not installed: mypy")
    script = tmp_path / "user.py"
    asked = "".join(f"reveal_type({name})\n" for name in TYPES)
    script.write_text(textwrap.dedent(USER) + asked)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "user.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "error:" not in done.stdout, done.stdout
    assert done.returncode == 0, done.stdout + done.stderr
    told = [line.partition("Revealed type is ")[2] for line in done.stdout.splitlines() if "Revealed type" in line]
    assert len(told) == len(TYPES)
    for (name, wanted), found in zip(TYPES.items(), told, strict=True):
        assert wanted in found.replace("lookalike.vectors.runtime.", "").replace('"', ""), (name, found)
        assert not found.strip('"').startswith("Any"), name


def test_types_are_in_the_package():
    assert (importlib.resources.files("lookalike") / "py.typed").is_file()
