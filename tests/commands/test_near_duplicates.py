"""`lookalike prepare --model`: what only embeddings see is marked, once; and `evaluate` tells it."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shlex import quote

import numpy as np
import pytest
from PIL import Image

from lookalike.commands import main
from lookalike.core.files import read_card
from lookalike.core.shapes import l2_normalize
from lookalike.data.collection import Collection
from lookalike.encoders.directory import read_model, write_model
from lookalike.vectors.engines import OnnxEngine
from lookalike.vectors.runtime import load

SCENES = 40


def scene(number: int) -> Image.Image:
    """Smooth patches, as of a photograph; the colors of each lie in a direction of their own from gray."""
    # Fibonacci's sphere
    height, turn = 1 - 2 * (number + 0.5) / SCENES, number * np.pi * (3 - 5**0.5)
    width = (1 - height**2) ** 0.5
    color = 128 + 95 * np.array([width * np.cos(turn), width * np.sin(turn), height])
    patches = color + np.random.default_rng(number).integers(-8, 9, (6, 8, 3))
    return Image.fromarray(patches.astype(np.uint8)).resize((120, 90), Image.Resampling.BICUBIC)


def cropped(image: Image.Image) -> Image.Image:
    """Without a border of three in a hundred at each side, which another hash has."""
    return image.crop((4, 3, 116, 87))


CROPPED = {"b": 3, "f": 17}  # test image -> the training image that it is a part of


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_tiny_model: Callable[..., Path]) -> Path:
    """Twenty images to learn from, and six of the test, two of which are parts of the former; a model."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lines = ["path,label,split"]
    for seed in range(20):
        scene(seed).save(tmp_path / f"{seed}.png")
        lines.append(f"{seed}.png,l{seed % 5},train")
    for i, name in enumerate("abcdef"):
        seed = CROPPED.get(name)
        image = scene(20 + i) if seed is None else cropped(scene(seed))
        image.save(tmp_path / f"{name}.png")
        lines.append(f"{name}.png,t{i % 3},test")
    (tmp_path / "shop.csv").write_text("\n".join(lines))
    centered(write_tiny_model(tmp_path / "random"), tmp_path / "model")
    return tmp_path


def centered(random: Path, out: Path) -> None:
    """A model of what sets images apart, since what random weights give is nearly the same everywhere."""
    config, tensors = read_model(random)
    images = np.stack([config.preprocess(np.asarray(scene(number))) for number in range(SCENES)])
    features = l2_normalize(load(random, "onnx").features(images))
    mean = features.mean(axis=0)
    _, lengths, directions = np.linalg.svd(features - mean, full_matrices=False)
    weight = (directions.T / lengths)[:, : config.projection.dimension]
    write_model(out, config, {**tensors, "projection.weight": weight, "projection.bias": -mean @ weight}, {})


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images went through the encoder, call by call."""
    counts: list[int] = []
    features = OnnxEngine.features

    def counted(self: OnnxEngine, images: np.ndarray) -> np.ndarray:
        counts.append(len(images))
        return features(self, images)

    monkeypatch.setattr(OnnxEngine, "features", counted)
    return counts


def command(shop: Path) -> list[str]:
    return ["prepare", str(shop / "shop.csv"), "--out", str(shop / "coll"), "--model", str(shop / "model")]


def marks(shop: Path) -> dict[str, str]:
    """Image -> the image that it is marked to be like."""
    rows = Collection.open(shop / "coll").table(["id", "source", "duplicate_of"]).to_pylist()
    name = {row["id"]: row["source"].removeprefix("shop/").removesuffix(".png") for row in rows}
    return {name[row["id"]]: name[row["duplicate_of"]] for row in rows if row["duplicate_of"] is not None}


EXPECTED = {name: str(seed) for name, seed in CROPPED.items()}


def test_parts_of_images_are_marked_counted_and_shown(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(shop)[:-2]) == 0
    assert marks(shop) == {}  # looks do not see them
    assert main(command(shop)) == 0
    assert "2 images are nearly the same as an earlier one by their embeddings (cosine" in capsys.readouterr().err
    assert marks(shop) == EXPECTED
    told = read_card(shop / "coll")["duplicates"]
    assert (told["same"], told["near"], told["learned_too"]["test"]["near"]) == (0, 0, 0)
    by = told["embedding"]
    assert (by["images"], by["of_another_label"], by["learned_too"]) == (2, 2, {"test": 2})
    assert by["others"] <= by["cosine"] <= by["copies"] <= 1.0001
    assert (by["model"], by["fingerprint"]) == (str(shop / "model"), read_card(shop / "model")["fingerprint"])
    assert main(["info", str(shop / "coll")]) == 0
    shown = capsys.readouterr().out
    assert f"duplicates.embedding.model             {shop / 'model'}" in shown
    assert "duplicates.embedding.images            2\n" in shown


def test_nothing_is_computed_twice(shop: Path, embedded: list[int]) -> None:
    assert main(command(shop)) == 0
    assert sum(embedded) == 26 + 2 * 26  # the images, and two copies of each
    version, card = Collection.open(shop / "coll").version, read_card(shop / "coll")
    embedded.clear()
    assert main(command(shop)) == 0
    assert (embedded, Collection.open(shop / "coll").version, read_card(shop / "coll")) == ([], version, card)
    cropped(scene(9)).save(shop / "new.png")
    (shop / "shop.csv").write_text((shop / "shop.csv").read_text() + "\nnew.png,t0,train\n")
    assert main(command(shop)) == 0
    assert sum(embedded) == 1 + 2 * 27
    assert marks(shop) == {**EXPECTED, "new": "9"}


def test_marks_of_images_that_have_changed_are_not_kept_in_silence(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(shop)) == 0
    (shop / "shop.csv").write_text((shop / "shop.csv").read_text().replace("\n19.png,l4,train", ""))
    capsys.readouterr()
    assert main(command(shop)[:-2]) == 0
    said = capsys.readouterr().err
    assert "near duplicates by embeddings are no longer marked" in said
    assert f"--out {quote(str(shop / 'coll'))} --model {quote(str(shop / 'model'))}` marks them again" in said
    assert marks(shop) == {}
    assert main(command(shop)) == 0
    assert marks(shop) == EXPECTED
    assert "no longer" not in capsys.readouterr().err


KILLED = """
import os, signal, sys
from lookalike.commands import main
from lookalike.vectors import engines

features, calls = engines.OnnxEngine.features, 0
def dying(self, images):
    global calls
    calls += 1
    if calls == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return features(self, images)
engines.OnnxEngine.features = dying
from lookalike.data import collection
if sys.argv[1] == "0":  # the rows are marked, the card does not say so yet
    collection.Collection.update_card = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[2:])
"""


@pytest.mark.parametrize(("call", "again"), [(1, 26 + 52), (2, 52), (0, 52)], ids=["images", "copies", "marks"])
def test_goes_on_after_a_kill(shop: Path, embedded: list[int], call: int, again: int) -> None:
    """In the images, in the copies, and between rows and card; what was embedded is not embedded again."""
    if call == 0:
        assert main(command(shop)[:-2]) == 0
        assert main(["embed", str(shop / "coll"), "--model", str(shop / "model")]) == 0
        embedded.clear()
    done = subprocess.run([sys.executable, "-c", KILLED, str(call), *command(shop)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert main(command(shop)) == 0
    assert sum(embedded) == again
    assert marks(shop) == EXPECTED
    assert read_card(shop / "coll")["duplicates"]["embedding"]["images"] == 2


@pytest.mark.parametrize("model", ["absent", "shop.csv", "."])
def test_a_model_that_is_none_is_refused_before_work_begins(
    shop: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    assert main([*command(shop)[:-1], str(shop / model)]) == 2
    assert "model directory" in capsys.readouterr().err
    assert not (shop / "coll").exists()


def test_embeddings_that_are_no_numbers_are_refused(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    features = OnnxEngine.features
    monkeypatch.setattr(OnnxEngine, "features", lambda self, images: features(self, images) * np.float32(np.nan))
    assert main(command(shop)) == 2
    assert "gives embeddings that are not finite: 26 of 26, first of row 0" in capsys.readouterr().err


def test_an_encoder_that_finds_all_images_alike_marks_none(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(OnnxEngine, "features", lambda self, images: np.ones((len(images), 16), np.float32))
    assert main(command(shop)) == 0
    assert "can't tell copies of these images (cosine 1.000) from other images (1.000)" in capsys.readouterr().err
    assert marks(shop) == {}
    assert read_card(shop / "coll")["duplicates"]["embedding"]["cosine"] is None
    assert main(["evaluate", str(shop / "model"), str(shop / "coll")]) == 0


def test_where_no_image_could_be_read(shop: Path, embedded: list[int]) -> None:
    for file in shop.glob("*.png"):
        file.write_bytes(b"no image")
    assert main(command(shop)) == 0
    assert embedded == []


def test_evaluate_tells_queries_that_are_so_by_embeddings(
    shop: Path, capsys: pytest.CaptureFixture[str], embedded: list[int]
) -> None:
    coll = str(shop / "coll")
    assert main(command(shop)) == 0
    embedded.clear()
    capsys.readouterr()
    assert main(["evaluate", str(shop / "model"), coll, "--json", str(shop / "r.json")]) == 0
    assert embedded == []
    shown = capsys.readouterr()
    assert (
        f"no query looks like an image to learn from of `{coll}`\n2 more are nearly so by the embeddings of"
        in shown.out
    )
    assert shown.err == ""
    leakage = json.loads((shop / "r.json").read_text())["leakage"]
    assert (leakage["same"], leakage["near"], leakage["embedding"]["queries"]) == (0, 0, 2)
    # By hand: the four others, each searched among all six of the test.
    rows = Collection.open(coll).table(["source", "label", "split"]).to_pylist()
    vectors = Collection.open(coll).vectors(leakage["embedding"]["column"])[1]
    test = [i for i, row in enumerate(rows) if row["split"] == "test"]
    hits = []
    for i in test:
        if rows[i]["source"].removeprefix("shop/").removesuffix(".png") not in CROPPED:
            order = sorted((j for j in test if j != i), key=lambda j: -float(vectors[i] @ vectors[j]))
            hits.append(rows[order[0]]["label"] == rows[i]["label"])
    assert len(hits) == 4
    assert leakage["embedding"]["metrics"]["recall@1"] == pytest.approx(np.mean(hits))


def test_evaluate_tells_what_another_collection_shares_or_that_it_is_not_embedded(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(shop)) == 0
    (shop / "other" / "x").mkdir(parents=True)
    cropped(Image.open(shop / "c.png")).save(shop / "other" / "x" / "c.png")
    scene(30).save(shop / "other" / "x" / "y.png")
    assert main(["prepare", str(shop / "other"), "--out", str(shop / "elsewhere")]) == 0
    evaluate = [
        "evaluate",
        str(shop / "model"),
        str(shop / "coll"),
        "--trained-on",
        str(shop / "elsewhere"),
        "--json",
        "-",
    ]
    capsys.readouterr()
    assert main(evaluate) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["leakage"]["embedding"]["queries"] == 2
    assert f"`lookalike embed {quote(str(shop / 'elsewhere'))} --model {quote(str(shop / 'model'))}`" in said.err
    assert main(["embed", str(shop / "elsewhere"), "--model", str(shop / "model")]) == 0
    capsys.readouterr()
    assert main(evaluate) == 0
    said = capsys.readouterr()
    assert (json.loads(said.out)["leakage"]["embedding"]["queries"], said.err) == (3, "")


def test_evaluate_says_nothing_of_embeddings_where_none_were_marked_by(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(shop)[:-2]) == 0
    assert main(["embed", str(shop / "coll"), "--model", str(shop / "model")]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(shop / "model"), str(shop / "coll"), "--json", "-"]) == 0
    said = capsys.readouterr()
    assert (json.loads(said.out)["leakage"]["embedding"], said.err) == (None, "")
