import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from lookalike.commands import main
from lookalike.data.collection import Collection


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("photos/cup/1.png", "photos/cup/2.png", "photos/cars/mini/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(len(name)).integers(0, 255, (40, 30, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "photos" / "cup" / "bad.jpg").write_bytes(b"")
    return tmp_path / "photos"


def test_counts_go_to_stdout_and_words_to_stderr(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "shop")
    assert main(["prepare", str(photos), "--out", out, "--size", "20"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "domain  none  rows",
        "------  ----  ----",
        "cars       1     1",
        "photos     2     2",
        "all        3     3",
    ]
    assert "3 added; 1 is the same picture as an earlier one; 1 could not be read" in said.err
    assert "images/s" in said.err
    assert main(["prepare", str(photos), "--out", out, "--size", "20"]) == 0
    said = capsys.readouterr()
    assert "nothing was new" in said.err
    assert "images/s" not in said.err


def test_the_card_says_what_from_where_and_how(photos: Path, tmp_path: Path) -> None:
    assert main(["prepare", str(photos), "--out", str(tmp_path / "shop"), "--test", "0.5"]) == 0
    card = json.loads((tmp_path / "shop" / "card.json").read_text())
    assert card["options"] == {"size": 256, "test": 0.5, "quality": 90}
    assert card["sources"] == [{"name": "photos", "path": str(photos), "layout": "folder"}]
    assert (card["rows"], card["errors"]) == (3, 1)
    assert sum(n for splits in card["counts"].values() for n in splits.values()) == 3
    assert card["created"] <= card["updated"]


@pytest.mark.parametrize(
    ("arguments", "sentence", "hint"),
    [
        (["photo", "--out", "c"], "There is nothing at `photo`.", "did you mean `photos`?"),
        (["empty", "--out", "c"], "`empty` holds no images.", "label/"),
        (["photos", "--out", "photos"], "exists and is something else", "another `--out`"),
        (["photos", "--out", "c", "--size", "0"], "`--size` is 0; expected at least 1 pixel.", ""),
        (["t.csv", "--out", "c"], "`t.csv` has no column `path`; its columns are 'Path'.", "name the column `Path`"),
    ],
)
def test_what_can_be_mended_is_said_in_a_sentence_with_a_hint(
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
    hint: str,
) -> None:
    monkeypatch.chdir(photos.parent)
    Path("empty").mkdir()
    Path("t.csv").write_text("Path\nphotos/cup/1.png\n")
    before = sorted(Path().rglob("*"))
    assert main(["prepare", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert sentence in said.err
    assert hint in said.err.partition("\n\nhint: ")[2]
    assert sorted(Path().rglob("*")) == before


def test_names_that_are_not_utf8_go_all_the_way(photos: Path, tmp_path: Path) -> None:
    (photos / "cup" / "1.png").rename(Path(str(photos / "cup"), b"caf\xe9.png".decode("utf-8", "surrogateescape")))
    command = [sys.executable, "-c", "from lookalike.commands import run; run()"]
    done = subprocess.run(
        [*command, "prepare", str(photos), "--out", str(tmp_path / "shop")], capture_output=True, check=True
    )
    assert b"3 added" in done.stderr
    assert "photos/cup/caf\\xe9.png" in Collection.open(tmp_path / "shop").table(["source"])["source"].to_pylist()


def test_images_that_failed_are_tried_again_when_asked(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a decoder was missing, or memory: the files are as they were."""
    out = str(tmp_path / "shop")
    (photos / "cup" / "bad.jpg").unlink()
    with monkeypatch.context() as broken:
        broken.setattr("lookalike.data.convert.store", None)
        assert main(["prepare", str(photos), "--out", out, "--workers", "1"]) == 0
    assert "3 could not be read" in capsys.readouterr().err
    assert main(["prepare", str(photos), "--out", out]) == 0
    assert len(Collection.open(out).errors()) == 3
    assert main(["prepare", str(photos), "--out", out, "--retry-failed"]) == 0
    assert "3 added" in capsys.readouterr().err
    assert len(Collection.open(out).errors()) == 0


def test_too_many_errors_end_the_work_and_lose_nothing(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "shop")
    for name in ("a", "b", "c"):
        (photos / "cup" / f"{name}.jpg").write_bytes(b"no image")
    assert main(["prepare", str(photos), "--out", out, "--max-error-rate", "0.3"]) == 2
    said = capsys.readouterr().err
    assert "error: 3 of 7 images can't be read, which is more than `--max-error-rate` (0.3) allows." in said
    assert f"hint: `lookalike info {shlex.quote(out)}` says why" in said
    assert main(["prepare", str(photos), "--out", out]) == 0
    assert "holds 3 images" in capsys.readouterr().err


def test_quality_is_that_of_what_is_encoded(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = []
    for quality in ("30", "95"):
        assert main(["prepare", str(photos), "--out", str(tmp_path / quality), "--quality", quality]) == 0
        sizes.append(len(Collection.open(tmp_path / quality).table(["image"])["image"][0].as_py()))
    assert sizes[0] < sizes[1] / 2
    assert main(["prepare", str(photos), "--out", str(tmp_path / "30"), "--quality", "40"]) == 2
    assert "was made with `--quality 30`, not 40" in capsys.readouterr().err


def test_a_split_that_was_not_asked_for_is_made_afterwards(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hint of a refused `--test` can be given as it stands."""
    out = str(tmp_path / "coll")
    assert main(["prepare", str(photos), "--out", out]) == 0
    assert main(["prepare", str(photos), "--out", out, "--test", "0.5"]) == 2
    hint = capsys.readouterr().err.rpartition("; `")[2].partition("`")[0]
    verb, *rest = shlex.split(hint)
    assert verb == "lookalike"
    assert main(rest) == 0
    assert set(Collection.open(out).table(["split"])["split"].to_pylist()) <= {"train", "test"}
    assert main(["prepare", str(photos), "--out", out]) == 0


def test_the_data_sets_that_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    from lookalike.data.sources.datasets import DATASETS

    assert main(["prepare", "--list"]) == 0
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]]
    assert shown == sorted(DATASETS)


@pytest.mark.parametrize(
    ("arguments", "sentence", "hint"),
    [
        (["product10k", "--from", "d"], "no data set that is known here. Did you mean `products10k`?", "--list"),
        (
            ["products10k", "glr2021", "--from", "d"],
            "2 data sets are named, and `--from` gives 1 places.",
            "same order",
        ),
        (["products10k", "--from", "d"], "There is nothing at `d`.", "how to get `products10k`"),
        (
            ["products10k", "--from", "photos"],
            "`photos` is not `products10k`: there is no `train.csv`",
            "how to get it",
        ),
        (["photos", "--check"], "`--check` is for data sets", "--from DIR"),
        (["photos", "--max-per-class", "0"], "`--max-per-class` is 0; expected 1 or more.", None),
        (["photos", "--preset", "sed"], "`--preset` is `sed`, which is not known. Did you mean `seed`?", "seed: "),
        (["photos", "--preset", "seed"], "`--preset seed` is of other data sets", "lookalike prepare imagenet1k"),
    ],
)
def test_data_sets_that_can_not_be(
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
    hint: str | None,
) -> None:
    monkeypatch.chdir(photos.parent)
    assert main(["prepare", *arguments, "--out", "c"]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert hint is None or hint in said.partition("hint:")[2]
