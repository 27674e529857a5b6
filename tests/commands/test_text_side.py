"""The text side through the commands: pull and train carry it along, search and evaluate use it, info shows it."""

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from lookalike.commands import main
from lookalike.data.collection import Collection
from lookalike.encoders.directory import features_fingerprint_of, read_model, read_text
from lookalike.published.layout import export_tensors
from lookalike.published.layouts import WEIGHTS
from lookalike.published.layouts.text import TEXTS, export_text
from lookalike.vectors.runtime import load
from lookalike.vectors.text import load_text

LABELS = ["red_kettle", "fox", "blue label"]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory, write_text_model):
    """Images of two domains, with class names; a model with a text side; what `index` makes of both."""
    base = tmp_path_factory.mktemp("shelf")
    rng = np.random.default_rng(0)
    for label in LABELS:
        for domain in ("one", "two"):
            folder = base / "images" / domain / label
            folder.mkdir(parents=True)
            for number in range(3):
                pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    write_text_model(base / "model", dim=6, mirror=True)
    arguments = ["index", str(base / "images"), "--model", str(base / "model"), "--out", str(base / "coll")]
    assert main(arguments) == 0
    return base


@pytest.fixture
def run(capsys):
    def run(*arguments, code=0):
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == code
        return capsys.readouterr()

    return run


def test_search_finds_what_the_vectors_say(shelf, run):
    document = json.loads(run("search", "-i", shelf / "coll", "--text", "a Red  kettle", "-k", "18", "--json").out)
    assert [entry["query"] for entry in document] == ["a Red  kettle"]
    collection = Collection.open(shelf / "coll")
    ids, vectors = collection.vectors(collection.card["model"]["column"])
    (asked,) = load_text(shelf / "model").embed(["a red kettle"])  # the tokenizer lowers and trims
    cosines = vectors @ asked
    assert [match["id"] for match in document[0]["matches"]] == ids[np.argsort(-cosines, kind="stable")].tolist()
    assert [match["score"] for match in document[0]["matches"]] == pytest.approx(sorted(cosines)[::-1], abs=1e-5)


def test_images_and_words_together(shelf, run, tmp_path):
    image = shelf / "images" / "one" / "fox" / "0.png"
    arguments = ("search", "-i", shelf / "coll", image, "--text", "fox", "-k", "2", "--where", "domain = 'one'")
    arguments += ("--with-self",)
    document = json.loads(run(*arguments, "--json").out)
    assert [entry["query"] for entry in document] == [str(image), "fox"]
    assert document[0]["matches"][0]["source"].endswith("one/fox/0.png")
    assert run(*arguments).out.split("\n\n")[1].startswith("fox\n")
    for suffix in ("png", "html"):
        run(*arguments, "--sheet", tmp_path / f"sheet.{suffix}")
    assert '<h2 title="fox">fox</h2>' in (tmp_path / "sheet.html").read_text()
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[0] > 500


def test_search_without_words_or_text_side_is_a_sentence(shelf, run, tmp_path, write_text_model):
    assert "holds no words" in run("search", "-i", shelf / "coll", "--text", "  ", code=2).err
    plain = write_text_model(tmp_path / "plain", dim=6, mirror=True, text=False)
    # The image side does not know of its texts: the same vectors, the same fingerprint.
    refused = run("search", "-i", shelf / "coll", "--text", "fox", "--model", plain, code=2)
    assert refused.out == ""
    assert f"`{plain}` has no text side" in refused.err
    assert "hint: CLIP, OpenCLIP and SigLIP have one" in refused.err


def test_search_with_words_imports_no_jax_nor_needs_the_library_for_images(shelf):
    script = f"""
        import sys
        from lookalike.commands import main
        assert main(["search", "-i", {str(shelf / "coll")!r}, "--text", "fox"]) == 0
        assert "jax" not in sys.modules, "jax was imported"
        del sys.modules["tokenizers"]
        sys.modules["tokenizers"] = None
        assert main(["search", "-i", {str(shelf / "coll")!r}, {str(shelf / "images/one/fox/0.png")!r}]) == 0
        assert main(["search", "-i", {str(shelf / "coll")!r}, "--text", "fox"]) == 2
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "hint: pip install 'lookalike[text]'" in done.stderr


def test_evaluate_with_class_names(shelf, run):
    """Every number again, from the vectors, class by class."""
    arguments = ("evaluate", shelf / "model", shelf / "coll", "--split", "all", "--text", "a photo of a {}")
    document = json.loads(run(*arguments, "--json", "-").out)
    assert document["n_queries"] == 6
    assert document["template"] == "a photo of a {}"
    collection, texts = Collection.open(shelf / "coll"), load_text(shelf / "model")
    rows = collection.table(["label", "domain"]).to_pylist()
    words = [f"a photo of a {label}" for label in ("red kettle", "fox", "blue label")]
    name = collection.card["model"]["column"]
    columns = sorted(c for c in collection.columns if c.startswith(("features_", "mirrored_")))
    features = sum(collection.vectors(column)[1] for column in columns) / 2
    for found, vectors, asked in (
        (document, collection.vectors(name)[1], texts.embed(words)),
        (document["unprojected"], features, texts.features(words)),
    ):
        cosines = asked @ vectors.T / np.linalg.norm(asked, axis=1)[:, None] / np.linalg.norm(vectors, axis=1)
        first = {domain: [] for domain in ("one", "two")}
        for label, row in zip(LABELS, cosines, strict=True):
            best = rows[int(np.argmax(row))]
            for domain, hits in first.items():
                hits.append(best == {"label": label, "domain": domain})
        for domain, hits in first.items():
            assert found["per_domain"][domain]["recall@1"] == pytest.approx(np.mean(hits))
    table = run(*arguments).out
    assert "through the projection to 6 numbers" in table
    assert "before it, 12 numbers" in table
    change = document["metrics"]["mp@5"] - document["unprojected"]["metrics"]["mp@5"]
    assert f"mean over domains: mp@5 {change:+.4f}" in table


def test_evaluate_says_what_is_wrong(shelf, run, tmp_path):
    arguments = ["evaluate", shelf / "model", shelf / "coll", "--split", "all", "--text"]
    assert "has no {}" in run(*arguments, "a photo", code=2).err
    np.save(tmp_path / "v.npy", np.ones((18, 3), np.float32))
    given = ("evaluate", "--embeddings", tmp_path / "v.npy", shelf / "coll", "--split", "all", "--text", "{}")
    assert "embedded by an encoder" in run(*given, code=2).err


def test_training_a_projection_keeps_the_text_side(shelf, run, tmp_path):
    shutil.copytree(shelf / "coll", tmp_path / "coll")
    where = ("--data", tmp_path / "coll", "--model", shelf / "model", "--out", tmp_path / "run")
    run("train", "pca", *where, "--dimension", "4")
    before, after = read_text(shelf / "model"), read_text(tmp_path / "run" / "model")
    assert before is not None
    assert after is not None
    assert (after.config, after.tokenizer, after.image) == (before.config, before.tokenizer, before.image)
    assert load_text(tmp_path / "run" / "model").embed(["fox"]).shape == (1, 4)
    facts = json.loads(run("info", tmp_path / "run" / "model", "--json").out)
    assert facts["text"]["context"] == 16
    assert facts["text"]["image"] == before.image
    assert "text.context" in run("info", shelf / "model").out
    assert "| text | up to 16 tokens |" in (shelf / "model" / "README.md").read_text()


def test_zooms_keep_it_too(shelf, run, tmp_path):
    """Their mean lies in the space of the features, so texts still meet it."""
    shutil.copytree(shelf / "coll", tmp_path / "coll")
    where = ("--data", tmp_path / "coll", "--model", shelf / "model", "--out", tmp_path / "run")
    run("train", "pca", *where, "--dimension", "4", "--mirror", "--zooms", "0.8")
    after, model = read_text(tmp_path / "run" / "model"), load(tmp_path / "run" / "model")
    assert after is not None
    assert after.image == model.features_fingerprint != read_text(shelf / "model").image
    found, before = load_text(tmp_path / "run" / "model"), load_text(shelf / "model")
    np.testing.assert_allclose(found.features(["fox"]), before.features(["fox"]), atol=1e-6)
    assert found.embed(["fox"]).shape == (1, 4)


def test_a_tower_that_was_trained_further_leaves_it_out(shelf, tmp_path, write_text_model, capsys):
    """As the end of a run does it; whether a tower was trained is told by its numbers."""
    from lookalike.encoders.encoder import Encoder
    from lookalike.training.config import TrainConfig
    from lookalike.training.loop import _text

    config = TrainConfig(data="c", model=str(shelf / "model"), out="o")
    assert _text(config, Encoder.load(shelf / "model")) is not None
    assert _text(config, Encoder.load(write_text_model(tmp_path / "tuned", seed=3, text=False))) is None
    assert "is left out: its texts don't belong to a tower that was trained further" in capsys.readouterr().err


def test_a_copy_of_ours_keeps_it(shelf, run, tmp_path):
    run("pull", shelf / "model", "--out", tmp_path / "copy")
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (tmp_path / "copy" / "text" / file).read_bytes() == (shelf / "model" / "text" / file).read_bytes()
    run("pull", shelf / "model", "--out", tmp_path / "without", "--no-text")
    assert not (tmp_path / "without" / "text").exists()
    (tmp_path / "copy" / "text" / "tokenizer.json").unlink()
    assert "can't be read" in run("pull", tmp_path / "copy", "--out", tmp_path / "c", code=2).err
    described = json.loads((shelf / "model" / "text" / "config.json").read_text())
    (tmp_path / "copy" / "text" / "config.json").write_text(json.dumps(described | {"image": "0" * 64}))
    shutil.copy(shelf / "model" / "text" / "tokenizer.json", tmp_path / "copy" / "text")
    said = run("pull", tmp_path / "copy", "--out", tmp_path / "stale").err
    assert "without the text side: its texts belong to other image features" in said


@pytest.fixture
def published(tmp_path, write_text_model, clip_files) -> Path:
    """A CLIPModel as transformers publishes it, with the older files of its tokenizer."""
    source, path = write_text_model(tmp_path / "source"), tmp_path / "published"
    vocabulary = clip_files(path)
    config, tensors = read_model(source)
    side = read_text(source)
    theirs = export_tensors(WEIGHTS["clip"], config, tensors)
    theirs |= export_text(TEXTS["clip"], side.config, side.tensors)
    save_file(theirs | {"logit_scale": np.ones((), np.float32)}, path / "model.safetensors")
    both = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    both |= {"hidden_act": "gelu"}
    text = both | {"vocab_size": vocabulary, "max_position_embeddings": 16, "eos_token_id": 2}
    described = {
        "model_type": "clip",
        "text_config": text,
        "vision_config": both | {"image_size": 32, "patch_size": 16},
    }
    (path / "config.json").write_text(json.dumps(described))
    processor = {"size": {"height": 32, "width": 32}, "do_center_crop": False, "resample": 2}
    processor |= {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (path / "preprocessor_config.json").write_text(json.dumps(processor))
    return path


def test_pull_takes_both_sides(published, run, tmp_path, write_text_model):
    assert "texts of up to 16 tokens" in run("pull", published, "--out", tmp_path / "m").err
    side = read_text(tmp_path / "m")
    assert side.image == features_fingerprint_of(*read_model(tmp_path / "m"))
    texts = ["a red kettle", ""]
    assert np.array_equal(load_text(tmp_path / "m").features(texts), load_text(tmp_path / "source").features(texts))
    # At another size the features lie in the same space; before their projection they don't.
    run("pull", published, "--size", "48", "--out", tmp_path / "larger")
    assert load_text(tmp_path / "larger").embed(texts).shape == (2, 12)
    said = run("pull", published, "--features", "pooled", "--out", tmp_path / "pooled").err
    assert "without the text side: the texts of" in said
    assert not (tmp_path / "pooled" / "text").exists()


def test_pull_goes_on_without_a_tokenizer_and_not_without_a_tensor(published, run, tmp_path):
    (published / "merges.txt").rename(published / "spiece.model")
    said = run("pull", published, "--out", tmp_path / "m").err
    assert "no `tokenizer.json` (only `spiece.model`)" in said
    assert "hf download ORG/NAME tokenizer.json" in said
    assert read_text(tmp_path / "m") is None
    (published / "spiece.model").rename(published / "merges.txt")
    tensors = load_file(published / "model.safetensors")
    del tensors["text_model.encoder.layers.1.mlp.fc1.bias"]
    save_file(tensors, published / "model.safetensors")
    assert "`text_model.encoder.layers.1.mlp.fc1.bias` is missing" in run("pull", published, "--out", "x", code=2).err
    run("pull", published, "--out", tmp_path / "image", "--no-text")
    assert read_text(tmp_path / "image") is None


def test_a_query_is_turned_away_from_words(shelf, run):
    collection = Collection.open(shelf / "coll")
    ids, vectors = collection.vectors(collection.card["model"]["column"])
    fox, red = load_text(shelf / "model").embed(["fox", "red"]).astype(float)
    query = fox - (fox @ red) * red
    cosines = vectors @ (query / np.linalg.norm(query))
    arguments = ("search", "-i", shelf / "coll", "--text", "fox", "--not", "red", "-k", "18", "--json")
    (answer,) = json.loads(run(*arguments).out)
    assert answer["query"] == "fox - red"
    assert [match["id"] for match in answer["matches"]] == ids[np.argsort(-cosines, kind="stable")].tolist()
    assert "`--not` holds no words" in run("search", "-i", shelf / "coll", "--text", "fox", "--not", " ", code=2).err
