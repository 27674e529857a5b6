"""The page is well-formed, tells the numbers it was given, and keeps foreign text harmless."""

import base64
from html.parser import HTMLParser

import pytest

from lookalike.demo.chart import bars, curve
from lookalike.demo.page import Example, Hit, Page, Score, render

VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Collects text, tags in order, and fails where a tag closes what is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.images: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """`<line ... />` opens nothing."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def make_page(label: str = "mugs/plain") -> Page:
    scores = [
        Score("color histogram", 96, {"mp@5": 0.3, "recall@1": 0.4, "map@100": 0.25}, {"mugs": 0.3, "toys": 0.31}),
        Score("untrained", 64, {"mp@5": 0.35, "recall@1": 0.5, "map@100": 0.3}, {"mugs": 0.2, "toys": 0.5}),
        Score("trained", 64, {"mp@5": 0.725, "recall@1": 0.8, "map@100": 0.7}, {"mugs": 0.7, "toys": 0.75}),
    ]
    hits = [Hit(b"one", label, 0.91, True), Hit(b"two", "toys/bear", -0.25, False)]
    return Page(
        480, 60, 20, scores, 1, [(0, 0.35), (50, 0.725)], [Example(b"query", label, hits)],
        [("lookalike prepare", "stored <480> images", 2.5), ("lookalike train", "trained", 61.0)],
        ["lookalike prepare photos --out mine"],
    )  # fmt: skip


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == ["html"] or reader.open == []
    return reader


def test_page_is_well_formed_and_tells_its_numbers() -> None:
    text = " ".join(read(render(make_page())).text)
    for part in ("0.725", "+0.375", "-0.050", "480 drawn images", "other 20", "same · 0.91", "other · -0.25", "64 s"):
        assert part in text, part


def test_images_are_inside_the_page_with_words_for_those_who_do_not_see_them() -> None:
    images = read(render(make_page())).images
    assert [base64.b64decode(str(i["src"]).split(",")[1]) for i in images] == [b"query", b"one", b"two"]
    assert [i["alt"] for i in images] == ["query: mugs/plain", "mugs/plain", "toys/bear"]


def test_page_needs_no_network() -> None:
    text = render(make_page())
    assert "http" not in text
    assert "<script" not in text


def test_labels_are_escaped() -> None:
    label = "'><script>alert(1)</script>"
    page = render(make_page(label))
    assert "<script" not in page
    assert read(page).images[1]["alt"] == label


def test_bars_are_as_long_as_their_values() -> None:
    drawing = bars({"one": {"mugs": 0.25}, "two": {"mugs": 1.0}}, "a chart")
    assert "width='140.0'" in drawing  # a quarter of 560
    assert "width='560.0'" in drawing
    with pytest.raises(ValueError, match="not for 4"):
        bars({str(i): {"mugs": 0.5} for i in range(4)}, "too many")


def test_curve_rises_with_the_value() -> None:
    drawing = curve([(0, 0.0), (10, 1.0)], "a curve")
    assert "points='44.0,210.0 684.0,10.0'" in drawing
