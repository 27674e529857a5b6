"""lookalike demo: what it draws is said by its options. Its whole way is walked by the tests of the tutorials."""

import csv
from pathlib import Path

import pytest

from lookalike.commands import main


def drawn(out: Path, *options: str) -> tuple[set[str], list[bytes]]:
    """The products, and the images in the order of their names."""
    assert main(["demo", "--images-only", "--out", str(out), "--products", "6", "--views", "1", *options]) == 0
    with (out / "products.csv").open(encoding="utf-8", newline="") as file:
        labels = {row["label"] for row in csv.DictReader(file)}
    return labels, [path.read_bytes() for path in sorted((out / "images").rglob("*.jpg"))]


def test_a_seed_draws_other_products(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, again, other = (
        drawn(tmp_path / name, *o) for name, o in (("a", []), ("b", ["--seed", "0"]), ("c", ["--seed", "1"]))
    )
    assert first == again
    assert not first[0] & other[0]
    assert not {*first[1]} & {*other[1]}
    assert "--seed 1 --images-only" in capsys.readouterr().err


def test_a_folder_keeps_its_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn(tmp_path / "a", "--seed", "1")
    before = (tmp_path / "a" / "products.csv").read_bytes()
    argv = ["demo", "--images-only", "--out", str(tmp_path / "a"), "--products", "6", "--views", "1"]
    assert main(argv) == 2
    assert "holds a demonstration of" in capsys.readouterr().err
    assert (tmp_path / "a" / "products.csv").read_bytes() == before


def test_a_folder_from_before_there_were_seeds_goes_on(tmp_path: Path) -> None:
    before = drawn(tmp_path / "a")
    (tmp_path / "a" / "demo.json").write_text('{"products": 6, "views": 1}')
    assert drawn(tmp_path / "a") == before
