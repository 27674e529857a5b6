"""`lookalike train` from argv to the model directory, measured on classes that it never saw."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookalike.commands import main


@pytest.fixture(scope="module")
def shelf(tmp_path_factory, write_tiny_model):
    """A collection of twelve things, four images each, three of the things kept for the test; and an encoder."""
    base = tmp_path_factory.mktemp("shelf")
    rng = np.random.default_rng(0)
    (base / "images").mkdir()
    rows = ["path,label,domain,split"]
    for thing in range(12):
        color = rng.integers(0, 256, (4, 5, 3))
        for i in range(4):
            pixels = np.clip(color.repeat(8, 0).repeat(8, 1) + rng.integers(-30, 30, (32, 40, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(base / "images" / f"{thing}_{i}.jpg", quality=95)
            rows.append(f"images/{thing}_{i}.jpg,thing {thing},toys,{'test' if thing > 8 else 'train'}")
    (base / "table.csv").write_text("\n".join(rows) + "\n")
    assert main(["prepare", str(base / "table.csv"), "--out", str(base / "collection")]) == 0
    write_tiny_model(base / "model", 0)
    return base


def scores(run):
    lines = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    return {line["encoder"]: line for line in lines if "encoder" in line}


def evaluated(model, collection, capsys):
    capsys.readouterr()
    assert main(["evaluate", str(model), str(collection), "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)["metrics"]


@pytest.mark.parametrize("recipe", ["pca", "head"])
def test_on_cached_features(shelf, tmp_path, capsys, recipe):
    """What training says of its encoder is what `lookalike evaluate` says of it."""
    run = tmp_path / "run"
    argv = ["train", recipe, "--data", str(shelf / "collection"), "--model", str(shelf / "model"), "--out", str(run)]
    argv += ["--dimension", "4", *(["--steps", "3", "--batch", "8"] if recipe == "head" else [])]
    assert main(argv) == 0
    assert capsys.readouterr().out == f"{run}/model\n"
    found = scores(run)
    assert list(found) == (["untouched", "start", "trained"] if recipe == "head" else ["untouched", "trained"])
    for name, value in evaluated(run / "model", shelf / "collection", capsys).items():
        assert found["trained"][name] == pytest.approx(value, abs=1e-6)
    for name, value in evaluated(shelf / "model", shelf / "collection", capsys).items():
        assert found["untouched"][name] == pytest.approx(value, abs=1e-6)
    page = (run / "report.html").read_text()
    assert f"{found['trained']['mp@5']:.3f} <small" in page
    assert f"{found['trained']['mp@5'] - found['untouched']['mp@5']:+.3f}" in page
    assert page.count("<svg") == (3 if recipe == "head" else 1)
    assert main(argv) == 0
    words = capsys.readouterr().err.splitlines()
    assert words[0].startswith("backend cpu: 1 x cpu, ")
    assert "is finished" in words[1]


def test_from_nothing(shelf, tmp_path, capsys):
    run = tmp_path / "run"
    argv = ["train", "tiny", "--data", str(shelf / "collection"), "--out", str(run), "--steps", "2", "--batch", "8"]
    small = ["--new.tower.widths", "8", "16", "--new.tower.depths", "0", "0", "--new.size", "16", "--dimension", "4"]
    assert main([*argv, *small]) == 0
    found = scores(run)
    assert list(found) == ["untouched", "start", "trained"]
    for name, value in evaluated(run / "model", shelf / "collection", capsys).items():
        assert found["trained"][name] == pytest.approx(value, abs=0.1)  # another runtime, and ties are near


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "haed"], "There is no recipe `haed`. Did you mean `head`?"),
        (["train", "head", "--loss.margn", "1"], "Unknown option `--loss.margn`. Did you mean `--loss.margin`?"),
        (["train", "head", "--data", "nowhere", "--model", "m", "--out", "r"], "There is nothing at `nowhere`"),
    ],
)
def test_what_the_user_can_mend(argv, message, capsys):
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {message}")
    assert "\n\nhint: " in captured.err


def test_another_config_in_the_same_run(shelf, tmp_path, capsys):
    run = ["--data", str(shelf / "collection"), "--model", str(shelf / "model"), "--out", str(tmp_path / "run")]
    assert main(["train", "pca", *run, "--dimension", "4"]) == 0
    assert main(["train", "pca", *run, "--dimension", "5"]) == 2
    assert "was started with dimension 4, and this command says 5." in capsys.readouterr().err


def test_best_leaves_a_page_of_what_it_kept(shelf, tmp_path, capsys):
    run = tmp_path / "mine"
    places = ["--data", str(shelf / "collection"), "--model", str(shelf / "model"), "--out", str(run)]
    assert main(["train", "best", *places, "--dimension", "2", "--minutes", "0"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{run}/model\n"
    assert "is kept; on what it has not seen" in said.err
    assert "<h1>mine</h1>" in (run / "report.html").read_text()
    found = scores(run / "final")["trained"]
    for name, value in evaluated(run / "model", shelf / "collection", capsys).items():
        assert found[name] == pytest.approx(value, abs=1e-6)
