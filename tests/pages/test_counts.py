"""The picture of a collection's domains."""

import re
from pathlib import Path

from lookalike.commands import main
from lookalike.pages.counts import bars_of, write_counts

COUNTS = {"cars": {"train": 30, "test": 10}, "<b>": {"none": 80}}


def test_bars_are_as_long_as_they_hold_images() -> None:
    first, second = bars_of(COUNTS, {"cars": 3})
    assert (first.domain, first.images, first.classes) == ("<b>", 80, 0)
    assert [(part.split, part.width) for part in second.parts] == [("test", 12.5), ("train", 37.5)]
    assert first.share + second.share == 100
    assert bars_of({}, {}) == []


def test_the_page(tmp_path: Path) -> None:
    write_counts("shop & co", COUNTS, {"cars": 3}, str(tmp_path / "counts.html"))
    page = (tmp_path / "counts.html").read_text()
    assert "<h1>shop &amp; co</h1>" in page
    assert "<b>&lt;b&gt;</b><span>80 images (66.7 %), 0 classes</span>" in page
    assert re.findall(r"style=\"width: ([\d.]+)%\" title=\"(\w+): (\d+)\"", page) == [
        ("100.0", "none", "80"),
        ("12.5", "test", "10"),
        ("37.5", "train", "30"),
    ]
    assert "http" not in page


def test_a_page_is_of_a_collection(tmp_path: Path, capsys) -> None:
    (tmp_path / "photos" / "cup").mkdir(parents=True)
    import PIL.Image

    PIL.Image.linear_gradient("L").save(tmp_path / "photos" / "cup" / "1.png")
    assert main(["prepare", str(tmp_path / "photos"), "--out", str(tmp_path / "coll")]) == 0
    assert main(["info", str(tmp_path / "coll"), "--page", str(tmp_path / "p.html")]) == 0
    assert "photos" in (tmp_path / "p.html").read_text()
