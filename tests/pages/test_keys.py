"""What lets every page be used without a mouse and be read by all: names, scopes, boxes that keys scroll, contrast."""

import re
from html.parser import HTMLParser
from importlib import resources

import pytest

TEMPLATES = resources.files("lookalike.pages").joinpath("templates")
SOURCES = {path.name: path.read_text() for path in TEMPLATES.iterdir()}
DOCUMENTS = [name for name, text in SOURCES.items() if "</html>" in text]
SCHEMES = ("light", "dark")
TEXT = {  # custom properties that letters are written in, and those that lie below them
    "style.css": (("ink", "soft", "good", "bad"), ("ground", "card")),
    "sheet.html": (("ink", "pale", "accent"), ("paper", "card")),
    "counts.html": (("ink", "pale"), ("paper", "card")),
}


class Reader(HTMLParser):
    """Tags with their attributes, and the words inside each button, summary and heading."""

    def __init__(self):
        super().__init__()
        self.tags, self.words, self._open = [], {}, []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open = [*self._open, len(self.tags) - 1] if tag in ("button", "summary") else self._open

    def handle_endtag(self, tag):
        if tag in ("button", "summary"):
            self._open.pop()

    def handle_data(self, data):
        for place in self._open:
            self.words[place] = self.words.get(place, "") + data.strip()


def read(name):
    """The template with its expressions as words, and no conditions, so that tags and attributes can be told."""
    reader = Reader()
    text = re.sub(r"\{\{.*?\}\}", "x", re.sub(r"\{[%#].*?[%#]\}", "", SOURCES[name], flags=re.S), flags=re.S)
    reader.feed(text)
    return reader


@pytest.mark.parametrize("name", [name for name in SOURCES if name.endswith(".html")])
def test_tags_say_what_they_are(name):
    reader = read(name)
    for place, (tag, attrs) in enumerate(reader.tags):
        words = reader.words.get(place, "") or attrs.get("aria-label")
        match tag:
            case "img":
                assert attrs.get("alt"), attrs
            case "th":
                assert attrs.get("scope") in ("row", "col"), attrs
            case "button":
                assert attrs.get("type") == "button", attrs
                assert words, attrs
            case "summary":
                assert words, attrs
            case "svg":
                assert attrs.get("role") == "img", attrs
                assert attrs.get("aria-label"), attrs
            case "canvas":
                assert attrs.get("aria-label") or attrs.get("aria-hidden") == "true", attrs
        if "scroll" in attrs.get("class", "").split():
            assert (attrs.get("tabindex"), attrs.get("role")) == ("0", "region"), attrs
            assert attrs.get("aria-label"), attrs
        assert int(attrs.get("tabindex", 0)) <= 0, attrs  # the order of the page is that of its text


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_have_a_language_one_heading_and_a_main_part(name):
    text = SOURCES[name] + ("" if "<style>" in SOURCES[name] else SOURCES["head.html"])
    assert '<html lang="en">' in text
    assert "width=device-width" in text
    assert "<title>" in text
    assert text.count("<h1>") == 1
    assert text.count("<main>") == text.count("</main>") == 1
    assert '{% include "every.css" %}' in text


@pytest.mark.parametrize("name", SOURCES)
def test_what_scrolls_can_be_scrolled_by_keys(name):
    """Only boxes that take the focus, which another test sees, have a bar of their own."""
    rules = re.findall(r"([^{}]+)\{[^{}]*overflow(?:-x|-y)?: *(?:auto|scroll)[^{}]*\}", SOURCES[name])
    assert {rule.strip().splitlines()[-1].strip() for rule in rules} <= {".scroll", "details ul"}
    assert "details ul" not in SOURCES[name] or '<ul tabindex="0" aria-label=' in SOURCES[name]


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_hides_the_focus_or_moves(name):
    assert not re.search(r"outline: *(none|0)", SOURCES[name])
    assert not re.search(r"\b(transition|animation|scroll-behavior)\b *:", SOURCES[name])


def colors(name, scheme):
    """Custom properties of a style sheet in one scheme: those of the dark block lie above those of the first."""
    light, _, dark = SOURCES[name].partition("@media screen and (prefers-color-scheme: dark)")
    dark = dark.partition("} }")[0]
    pair = r"--([\w-]+): *(#[0-9a-f]{3,6})\b"
    return dict(re.findall(pair, light)) | (dict(re.findall(pair, dark)) if scheme == "dark" else {})


def contrast(one, other):
    """Contrast ratio of WCAG 2.2: relative luminances, each with 0.05 for stray light."""

    def luminance(color):
        digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
        parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_ratio_is_that_of_the_standard():
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(4.48, abs=0.005)  # the known gray that just fails


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", TEXT)
def test_letters_stand_out(name, scheme):
    found = colors(name, scheme)
    for letters in TEXT[name][0]:
        for below in TEXT[name][1]:
            assert contrast(found[letters], found[below]) >= 4.5, (letters, below)
    if name == "style.css":  # letters of a pressed button
        assert contrast(found["ground"], found["bad"]) >= 4.5


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", TEXT)
def test_the_focus_and_bars_stand_out(name, scheme):
    """3 to 1 for what is no text (WCAG 2.2, 1.4.11)."""
    found, focus = colors(name, scheme), colors("every.css", scheme)["focus"]
    below = TEXT[name][1]
    assert min(contrast(focus, found[ground]) for ground in below) >= 3
    bars = [value for key, value in found.items() if key.startswith("series-") or key in ("train", "val", "test")]
    assert all(contrast(bar, found[below[0]]) >= 3 for bar in bars), bars


@pytest.mark.parametrize("name", SOURCES)
def test_paper_is_light(name):
    """A dark scheme is the screen's alone: printed, it would be a page of ink."""
    assert not re.search(r"@media *\(prefers-color-scheme", SOURCES[name])
