"""The page is well-formed, tells the numbers it was given, and keeps foreign text harmless; the baseline counts."""

import base64
import math
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lookalike.demo.page import Example, Page, Score, histogram, to_html
from lookalike.pages.report import Hit

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
        480, 60, 20, scores, [(0, 0.35), (50, 0.725)], [Example(b"query", label, hits)],
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
    text = " ".join(read(to_html(make_page())).text)
    for part in ("0.725", "+0.375", "-0.050", "480 drawn images", "other 20", "same · 0.91", "other · -0.25", "64 s"):
        assert part in text, part


def test_the_page_says_that_settings_were_chosen_on_what_it_shows() -> None:
    words = "chosen on these very products"
    told = {on: " ".join(read(to_html(replace(make_page(), chosen_on=on))).text) for on in (True, False)}
    assert words in told[True]
    assert words not in told[False]


def test_images_are_inside_the_page_with_words_for_those_who_do_not_see_them() -> None:
    images = read(to_html(make_page())).images
    assert [base64.b64decode(str(i["src"]).split(",")[1]) for i in images] == [b"query", b"one", b"two"]
    assert [i["alt"] for i in images] == ["query: mugs/plain", "mugs/plain", "toys/bear"]


def test_page_needs_no_network() -> None:
    text = to_html(make_page())
    assert "http" not in text
    assert "<script" not in text


def test_names_from_outside_are_escaped() -> None:
    """Labels come from folders, domains from tables, commands from paths."""
    hostile = """'"><script>alert(1)</script>&{{ 7 * 7 }}"""
    page = make_page(hostile)
    page = replace(
        page,
        own=[hostile],
        seconds=[(hostile, hostile, 1.0)],
        scores=[replace(score, name=hostile, per_domain={hostile: 0.5}) for score in page.scores],
    )
    text = to_html(page)
    assert "<script" not in text
    reader = read(text)
    assert reader.images[1]["alt"] == hostile
    assert " ".join(reader.text).count(hostile) >= 9  # as what it says, wherever it stands


def test_bars_are_as_long_as_their_values() -> None:
    text = to_html(make_page())
    for value in (0.3, 0.31, 0.2, 0.5, 0.7, 0.75):
        assert f'width="{236 * value:.1f}" height="13"' in text


def test_the_curve_rises_with_the_value() -> None:
    assert 'points="40.0,107.5 316.0,51.2 "' in to_html(make_page())


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6))
def test_histogram_equals_a_slow_count(seed: int, height: int, width: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    counts = [0] * 64
    for row in image.tolist():
        for red, green, blue in row:
            counts[red // 64 * 16 + green // 64 * 4 + blue // 64] += 1
    expected = [math.sqrt(count / (height * width)) for count in counts]
    np.testing.assert_allclose(histogram(image), expected, rtol=1e-6)
    assert abs(np.linalg.norm(histogram(image)) - 1) < 1e-6
