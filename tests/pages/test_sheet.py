"""Contact sheets, read back by Pillow and an HTML parser."""

import base64
import io
import os
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources

import numpy as np
import PIL.Image
import pytest
from jinja2 import UndefinedError

from lookalike.core.errors import UsageError
from lookalike.imaging.decode import encode_jpeg
from lookalike.pages.render import render
from lookalike.pages.sheet import (
    CELL_HEIGHT,
    CELL_WIDTH,
    COLUMNS,
    Found,
    Line,
    cut,
    to_html,
    to_png,
    told_apart,
    write_sheet,
)

COLORS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 210)}


def plain(color, height=90, width=120):
    return np.full((height, width, 3), COLORS[color], np.uint8)


def found(color, title="a thing", score=0.5, caption="shop/1.jpg"):
    return Found(encode_jpeg(plain(color)), title, caption, score)


LINES = [
    Line(plain("red", 4000, 300), "q1.jpg", [found("green"), found("blue", "x" * 200, -0.25)]),
    Line(
        plain("blue"),
        "<script>alert('q').jpg",
        [found("red", '"><img src=x>', 1.0, "a & b.jpg")],
        "photos/<script>alert('q').jpg",
    ),
    Line(plain("green"), "nothing.jpg", []),
]


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.images, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data):
        self.text += data


def test_png_shows_every_picture_in_its_place():
    page = np.asarray(PIL.Image.open(io.BytesIO(to_png(LINES)))).astype(int)
    assert page.shape[0] > 3 * CELL_HEIGHT
    assert page.shape[1] > 3 * CELL_WIDTH

    def near_to(color):
        return np.abs(page - COLORS[color]).sum(axis=2) < 30

    for color, rows, columns in [("red", (0, 1), (0, 1)), ("green", (0, 2), (1, 0)), ("blue", (0, 1), (2, 0))]:
        near = near_to(color)
        for row, column in zip(rows, columns, strict=True):
            x, y = round((column + 0.5) * page.shape[1] / 3), round((row + 0.4) * page.shape[0] / 3)
            assert near[y - 20 : y + 20, x - 40 : x + 40].any(), (color, row, column)


def test_html_is_one_file_with_escaped_words_and_alt_texts():
    text = to_html(LINES)
    reader = Reader()
    reader.feed(text)
    assert "script" not in reader.tags
    assert len(reader.images) == 6
    assert reader.images[0]["alt"] == "query: q1.jpg"
    assert reader.images[1]["alt"] == "match 1: a thing"
    assert reader.images[4]["alt"] == 'match 1: "><img src=x>'
    assert "<script>alert('q').jpg" in reader.text
    assert "photos/" not in reader.text  # the last part of a path tells queries apart; the whole is the tooltip
    assert "photos/&lt;script&gt;" in text
    assert "1.000 · a & b.jpg" in " ".join(reader.text.split())
    assert "no match" in reader.text
    assert "http" not in text
    for image, color in zip(reader.images, ["red", "green", "blue", "blue", "red", "green"], strict=True):
        head, data = image["src"].split(",")
        assert head == "data:image/jpeg;base64"
        picture = PIL.Image.open(io.BytesIO(base64.b64decode(data)))
        assert max(picture.size) <= 400
        assert np.abs(np.asarray(picture).mean(axis=(0, 1)) - COLORS[color]).max() < 5


@pytest.mark.parametrize("suffix", [".png", ".html", ".PNG"])
def test_write_sheet_follows_the_suffix(tmp_path, suffix):
    path = tmp_path / f"sheet{suffix}"
    write_sheet(path, LINES[:1])
    assert path.read_bytes().startswith(b"\x89PNG" if suffix.lower() == ".png" else b"<!doctype html>")


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(UsageError, match="neither"):
        write_sheet(tmp_path / "sheet.pdf", LINES)
    assert not list(tmp_path.iterdir())


def test_no_query_at_all_still_makes_a_sheet():
    assert PIL.Image.open(io.BytesIO(to_png([]))).size[0] > 0
    assert "0 queries" in to_html([])


def test_a_value_that_a_template_lacks_is_an_error_and_not_an_empty_place():
    with pytest.raises(UndefinedError):
        render("sheet.html")


def test_templates_are_in_the_package():
    """Beside the code, where the build takes every file of the package into the wheel."""
    names = {path.name for path in resources.files("lookalike.pages").joinpath("templates").iterdir()}
    pages = {
        "changed",
        "counts",
        "curve",
        "demo",
        "evaluation",
        "head",
        "looks",
        "map",
        "queries",
        "report",
        "sheet",
        "worst",
    }
    assert names == {*(f"{page}.html" for page in pages), "style.css", "every.css", "queries.css"}


def test_many_matches_wrap():
    few, many = (
        np.asarray(PIL.Image.open(io.BytesIO(to_png([Line(plain("red"), "q", [found("green")] * count)]))))
        for count in (COLUMNS, 2 * COLUMNS + 1)
    )
    assert many.shape[1] == few.shape[1]
    assert many.shape[0] > 2.5 * few.shape[0]
    bottom = many[-CELL_HEIGHT:, CELL_WIDTH + 60 :].astype(int)  # the last one, alone on its line
    near = np.abs(bottom - COLORS["green"]).sum(axis=2) < 30
    assert near[:, :CELL_WIDTH].any()
    assert not near[:, CELL_WIDTH + 20 :].any()


def test_long_names_keep_both_ends_or_are_whole():
    name = "IMG_20240101_" + "0123456789" * 20 + "_final.jpg"
    short = cut(name, 15)
    assert "..." in short
    start, _, end = short.partition("...")
    assert start
    assert end
    assert name.startswith(start)
    assert name.endswith(end)
    page = to_html([Line(plain("red"), name, [found("green", name, caption=f"photos/{name}")])])
    reader = Reader()
    reader.feed(page)
    assert reader.text.count(name) == 3
    style = page[page.index("<style>") : page.index("</style>")]
    assert "ellipsis" not in style
    assert "line-clamp" not in style


def test_links_lead_to_files_alone(tmp_path):
    (tmp_path / "a!b #1.jpg").touch()
    links = {
        str(tmp_path / "a!b #1.jpg"): f"{tmp_path.as_uri()}/a%21b%20%231.jpg",
        "/gone/x.jpg": "file:///gone/x.jpg",
        "/some/x.tar!x.jpg": None,
        "s3://bucket/x.jpg": None,
    }
    for path, link in links.items():
        assert replace(found("green"), path=path).link == link
    assert found("green").link is None
    odd = os.fsdecode(b"/photos/\xff.jpg")
    page = to_html([Line(plain("red"), "q", [replace(found("green"), path=odd)])])
    assert 'href="file:///photos/%FF.jpg"' in page.encode().decode()


def test_names_are_as_long_as_they_must_be():
    told = told_apart(["a/b/1.jpg", "c/b/1.jpg", "c/b/2.jpg", "1.jpg", "a/b/1.jpg"])
    assert told == {"a/b/1.jpg": "a/b/1.jpg", "c/b/1.jpg": "c/b/1.jpg", "c/b/2.jpg": "2.jpg", "1.jpg": "1.jpg"}
    assert told_apart(["x/a/1.jpg", "x/b/1.jpg"]) == {"x/a/1.jpg": "a/1.jpg", "x/b/1.jpg": "b/1.jpg"}
    assert told_apart(["-"]) == {"-": "-"}
