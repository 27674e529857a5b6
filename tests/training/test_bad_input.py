"""What people have and ask for that is odd: trained on as a person would expect, or refused with one sentence."""

import io
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from lookalike.commands import main
from lookalike.data.collection import Collection
from lookalike.encoders.config import EncoderConfig, ProjectionConfig
from lookalike.encoders.directory import read_model
from lookalike.encoders.encoder import Encoder
from lookalike.imaging.preprocess import Preprocess
from lookalike.towers import ViTConfig
from lookalike.training.measuring import Measuring

COLORS = np.random.default_rng(5).integers(0, 256, (2000, 3))


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    prepare = Preprocess(16, "squash", 16, "bilinear", (0.5,) * 3, (0.5,) * 3)
    config = EncoderConfig(
        ViTConfig(16, 8, 12, 3, 3, 20, "gelu"), "class", prepare, ProjectionConfig("identity", 12, 12)
    )
    path = tmp_path_factory.mktemp("vit") / "model"
    Encoder.init(config, jax.random.key(0)).save(path)
    return str(path)


@pytest.fixture
def collection(write_collection):
    """A collection of images of one colour a label, and noise; None has no label."""

    def make(path, labels, domains=None, same=False):
        rng, data = np.random.default_rng(0), []
        for label in labels:
            color = COLORS[0 if same or label is None else label]
            pixels = np.clip(color + (0 if same else rng.integers(-40, 40, (20, 20, 3))), 0, 255).astype(np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (20, 20, 3)))).save(buffer, "PNG")
            data.append(buffer.getvalue())
        names = [None if label is None else f"thing {label}" for label in labels]
        return write_collection(path, data, names, domains or ["toys"] * len(data), [None] * len(data), side=20)

    return make


LABELS = {
    "one image a class": list(range(24)),
    "one beside many": [0] + [1] * 60 + [2] * 2,
    "more classes than a batch": [c for c in range(40) for _ in range(2)],
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("recipe", ["head", "tune"])
def test_classes_of_any_size_are_learned_from(tmp_path, collection, vit, labels, recipe):
    data = collection(tmp_path / "coll", labels)
    argv = ["train", recipe, "--data", data, "--model", vit, "--out", str(tmp_path / "run"), "--dimension", "4"]
    assert main([*argv, "--batch", "16", "--steps", "3"]) == 0
    _, tensors = read_model(tmp_path / "run" / "model")
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())


def test_labels_in_one_domain_are_those_that_are_learned(tmp_path, collection, vit):
    labels = [i % 4 for i in range(24)] + [None] * 24
    data = collection(tmp_path / "coll", labels, ["toys"] * 24 + ["tools"] * 24)
    argv = ["--data", data, "--model", vit, "--dimension", "4", "--batch", "8", "--steps", "2"]
    assert main(["train", "head", *argv, "--out", str(tmp_path / "all")]) == 0
    assert main(["train", "head", *argv, "--out", str(tmp_path / "toys"), "--where", "domain = 'toys'"]) == 0
    written = [(tmp_path / run / "model" / "model.safetensors").read_bytes() for run in ("all", "toys")]
    assert written[0] == written[1]


REFUSED = {
    "one class": ([0] * 30, {}, ["head"], "30 rows of 1 classes to learn from; two classes are the least."),
    "identical images": ([i % 5 for i in range(30)], {"same": True}, ["head"], "point the same way"),
    "a stage that trains nothing": (
        [i % 5 for i in range(30)],
        {},
        ["tune", "--trained.blocks", "0"],
        "Nothing of the tower learns",
    ),
    "a head that trains nothing": (
        [i % 5 for i in range(30)],
        {},
        ["head", "--optimizer.learning-rate", "0", "--optimizer.centers-learning-rate", "0"],
        "trains nothing",
    ),
    "too many classes of a batch": (
        [i % 5 for i in range(30)],
        {},
        ["head", "--batch", "16", "--mixture.per-class", "5"],
        "`per_class` of Mixture is 5; expected a divisor of the batch, 16.",
    ),
    "a filter that nothing meets": ([i % 5 for i in range(30)], {}, ["head", "--where", "domain = 'cars'"], "0 rows"),
    "best of a few classes": ([i % 3 for i in range(30)], {}, ["best"], "3 classes are too few to choose by"),
}


@pytest.mark.parametrize(("labels", "how", "argv", "words"), REFUSED.values(), ids=REFUSED)
def test_refused_with_one_sentence(tmp_path, collection, vit, capsys, labels, how, argv, words):
    data = collection(tmp_path / "coll", labels, **how)
    places = ["--data", data, "--model", vit, "--out", str(tmp_path / "run"), "--dimension", "4"]
    assert main(["train", *argv, *places]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert not (tmp_path / "run" / "model").exists()


def test_shares_that_sum_to_nothing(tmp_path, collection, vit, capsys):
    data = collection(tmp_path / "coll", [i % 5 for i in range(30)])
    places = ["--data", data, "--model", vit, "--out", str(tmp_path / "run"), "--dimension", "4"]
    assert main(["train", "head", *places, "--mixture.cap", "0"]) == 2
    assert "cap" in capsys.readouterr().err


WORDS = {"collection": "was saved with rows 30, and now it is 29", "model": "was saved with model"}


@pytest.mark.parametrize("changed", WORDS)
def test_what_changed_between_two_starts_of_a_run(tmp_path, collection, vit, capsys, monkeypatch, changed):
    data, model = collection(tmp_path / "coll", [i % 5 for i in range(30)]), tmp_path / "model"
    shutil.copytree(vit, model)
    argv = ["train", "head", "--data", data, "--model", str(model), "--out", str(tmp_path / "run"), "--dimension", "4"]
    argv += ["--batch", "8", "--steps", "6", "--save-every", "2", "--log-every", "1"]
    real = Measuring.record

    def stopped(self, step, values):
        real(self, step, values)
        if step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Measuring, "record", stopped)
        assert main(argv) == 130
    assert any((tmp_path / "run" / "checkpoints").rglob("*"))
    if changed == "collection":
        Collection.open(data).mark_gone(np.array([3]))
    else:
        other = Encoder.load(model)
        Encoder.init(other.config, jax.random.key(1)).save(tmp_path / "other")
        shutil.rmtree(model)
        (tmp_path / "other").rename(model)
    capsys.readouterr()
    assert main(argv) == 2
    assert WORDS[changed] in capsys.readouterr().err
    assert not (tmp_path / "run" / "model").exists()


def test_a_size_that_patches_do_not_divide_is_said(tmp_path, collection, vit, capsys):
    data = collection(tmp_path / "coll", [i % 5 for i in range(30)])
    places = ["--data", data, "--model", vit, "--out", str(tmp_path / "run"), "--dimension", "4"]
    assert main(["train", "tune", *places, "--size", "18", "--steps", "1", "--batch", "8"]) == 0
    assert "Patches of 8 px, 8 apart, leave 2 of 18 px unseen" in capsys.readouterr().err
