"""`lookalike blend`, from argv to the model directory, and what it refuses."""

import numpy as np
import pytest
from PIL import Image

from lookalike.commands import main
from lookalike.core.files import read_card
from lookalike.encoders.directory import read_model
from lookalike.evaluation import encoders


@pytest.fixture(scope="module")
def shelf(tmp_path_factory, write_tiny_model):
    """Two models of one tower with different weights, and a collection with rows of split test."""
    base = tmp_path_factory.mktemp("blend")
    rng = np.random.default_rng(0)
    (base / "images").mkdir()
    rows = ["path,label,domain,split"]
    for thing in range(4):
        color = rng.integers(0, 256, (4, 5, 3))
        for i in range(3):
            pixels = np.clip(color.repeat(8, 0).repeat(8, 1) + rng.integers(-30, 30, (32, 40, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(base / "images" / f"{thing}_{i}.jpg", quality=95)
            rows.append(f"images/{thing}_{i}.jpg,thing {thing},{('toys', 'tools')[thing % 2]},test")
    (base / "table.csv").write_text("\n".join(rows) + "\n")
    assert main(["prepare", str(base / "table.csv"), "--out", str(base / "coll")]) == 0
    write_tiny_model(base / "a", 0)
    write_tiny_model(base / "b", 1)
    return base


def test_shares_are_written_without_a_measurement(shelf, tmp_path, capsys):
    out = tmp_path / "mean"
    assert main(["blend", "--model", str(shelf / "a"), str(shelf / "b"), "--shares", "1", "3", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    (_, a), (_, b), (_, found) = (read_model(path) for path in (shelf / "a", shelf / "b", out))
    for name in a:
        np.testing.assert_allclose(found[name], 0.25 * a[name] + 0.75 * b[name], rtol=1e-5, atol=1e-6)
    assert [(part["model"], part["share"]) for part in read_card(out)["blend"]] == [
        (str(shelf / "a"), 0.25),
        (str(shelf / "b"), 0.75),
    ]


@pytest.mark.parametrize("way", ["uniform", "greedy", "interpolate"])
def test_it_is_kept_only_if_it_is_better(shelf, tmp_path, capsys, way):
    out = tmp_path / "mean"
    argv = [
        "blend",
        "--model",
        str(shelf / "a"),
        str(shelf / "b"),
        "--way",
        way,
        "--steps",
        "2",
        "--data",
        str(shelf / "coll"),
    ]
    assert main([*argv, "--out", str(out)]) == 0
    captured = capsys.readouterr()
    cells = [line.split() for line in captured.out.splitlines()[2:] if not line.startswith("/")]
    scores = {f"{one} {other}": float(score) for one, other, score, *_ in cells}
    given, tried = (scores["1 0"], scores["0 1"]), scores["0.5 0.5"]
    assert out.exists() == (tried > max(given))
    assert ("nothing is written" in captured.err) != out.exists()


def test_greedy_measures_each_average_once(shelf, tmp_path, write_tiny_model, monkeypatch):
    """Measuring embeds a whole collection: each of three models, and two averages on the way from the best of them."""
    write_tiny_model(tmp_path / "c", 2)
    measured, measure_on = [], encoders.measure_on

    def counting(*given):
        measure = measure_on(*given)
        return lambda encoder: measured.append(encoder) or measure(encoder)

    monkeypatch.setattr(encoders, "measure_on", counting)
    models = [str(shelf / "a"), str(shelf / "b"), str(tmp_path / "c")]
    argv = ["blend", *models, "--way", "greedy", "--data", str(shelf / "coll"), "--out", str(tmp_path / "mean")]
    assert main(argv) == 0
    assert len(measured) == 3 + 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["a"], "Two models and `--out` are the least; there are 1 models."),
        (["a", "b"], "Two models and `--out` are the least; there are 2 models."),
        (["a", "b", "c", "--out", "o", "--way", "interpolate"], "`interpolate` goes from one model to another"),
        (["a", "b", "--out", "o", "--way", "greedy"], "`greedy` chooses by measuring, and there is no `--data`."),
        (
            ["a", "b", "--out", "o", "--shares", "1"],
            "`--shares` are [1.0]; expected one for each of 2 models, 0 or more.",
        ),
        (["a", "b", "--out", "o", "--shares", "0", "0"], "`--shares` are [0.0, 0.0]; expected one"),
        (["a", "b", "--out", "o", "--shares", "1", "nan"], "`--shares` are [1.0, nan]; expected one"),
        (["a", "b", "--out", "o", "--shares", "inf", "1"], "`--shares` are [inf, 1.0]; expected one"),
        (
            ["a", "b", "--out", "o", "--way", "interpolate", "--data", "d", "--steps", "1"],
            "`--steps` is 1; expected 2 or more.",
        ),
    ],
)
def test_what_the_user_can_mend(argv, message, capsys):
    assert main(["blend", "--model", *argv]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_a_place_that_is_taken_is_told_before_anything_is_measured(shelf, tmp_path, capsys):
    argv = ["blend", "--model", str(shelf / "a"), str(shelf / "b"), "--data", "nowhere", "--out", str(shelf / "a")]
    assert main(argv) == 2
    assert "exists and is an encoder, so no encoder is written there." in capsys.readouterr().err
