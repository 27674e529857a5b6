"""Contact sheets of matches, as one PNG or as one HTML file that needs no network.

Both show a line a query: the query on the left, its matches in order with label, score and a bar of the score.
"""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
from jaxtyping import UInt8
from PIL import ImageDraw
from PIL.ImageFont import load_default  # part of Pillow, so that a sheet looks the same everywhere

from lookalike.core.errors import UsageError
from lookalike.core.files import write_bytes
from lookalike.core.shapes import Image
from lookalike.imaging.decode import decode, encode_jpeg
from lookalike.imaging.resample import resize
from lookalike.pages.render import render

SUFFIXES = (".png", ".html")
SHARP = 400  # pixels of a query's longer side; sheets show it smaller, and dense screens show all of them


@dataclass(frozen=True)
class Found:
    """One match."""

    image: bytes  # as the collection keeps it
    title: str  # what it shows: the label
    caption: str  # where it is from
    score: float  # cosine, -1 to 1


@dataclass(frozen=True)
class Line:
    """A query and its matches, best first."""

    query: Image  # `fitted`, so that many large ones fit into memory
    path: str  # its file, or its words
    found: Sequence[Found]
    is_words: bool = False

    @property
    def name(self) -> str:
        """What tells queries apart: the last part of the path, or the words."""
        return self.path if self.is_words else Path(self.path).name


def check_suffix(path: str | Path) -> None:
    """UsageError unless a sheet can be written to `path`."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"A contact sheet is a .png or .html file, and `{path}` is neither.", hint="--sheet sheet.html"
        )


def write_sheet(path: str | Path, lines: Sequence[Line]) -> None:
    """Write the sheet of `lines`, whole or not at all, in the form that the suffix of `path` names."""
    check_suffix(path)
    write_bytes(path, to_png(lines) if Path(path).suffix.lower() == ".png" else to_html(lines).encode())


def fitted(image: Image, side: int = SHARP) -> UInt8[np.ndarray, "h w 3"]:
    """`image` reduced (never enlarged) so that its longer side is at most `side` pixels."""
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    return image if scale == 1.0 else resize(image, max(1, round(height * scale)), max(1, round(width * scale)))


# Pixels. A cell is a card: image, two lines of text, a bar.
SIDE, MARGIN, GAP, PADDING, TEXT = 184, 28, 14, 10, 56
CELL_WIDTH, CELL_HEIGHT = SIDE + 2 * PADDING, SIDE + 2 * PADDING + TEXT
APART = 34  # between the query and its matches
PAPER, CARD, EDGE, INK, PALE, ACCENT = "#f3f2ee", "#ffffff", "#dddad2", "#1f2328", "#6b7078", "#2f6f4f"


def to_png(lines: Sequence[Line]) -> bytes:
    """The sheet as a PNG file; titles beyond a cell's width are cut short."""
    most = max((len(line.found) for line in lines), default=0)
    width = 2 * MARGIN + CELL_WIDTH + (APART - GAP if most else 0) + most * (CELL_WIDTH + GAP)
    height = 2 * MARGIN + len(lines) * (CELL_HEIGHT + GAP) - GAP if lines else 2 * MARGIN
    page = PIL.Image.new("RGB", (width, height), PAPER)
    for number, line in enumerate(lines):
        top = MARGIN + number * (CELL_HEIGHT + GAP)
        _cell(page, MARGIN, top, line.query, line.name, "query", None)
        x, y = MARGIN + CELL_WIDTH + APART // 2, top + PADDING + SIDE // 2
        ImageDraw.Draw(page).polygon([(x - 4, y - 8), (x + 5, y), (x - 4, y + 8)], PALE)  # an arrow
        for place, found in enumerate(line.found):
            left = MARGIN + CELL_WIDTH + APART + place * (CELL_WIDTH + GAP)
            _cell(page, left, top, decode(found.image), found.title, f"{found.score:.3f}", found.score)
    file = io.BytesIO()
    page.save(file, "PNG")
    return file.getvalue()


def written(words: str) -> Image:
    """The image of a query that is a text: the words on a card, as many as fit."""
    font, lines = load_default(36), textwrap.wrap(words, 18, max_lines=8, placeholder="...")
    card = PIL.Image.new("RGB", (SHARP, SHARP), CARD)
    ImageDraw.Draw(card).multiline_text((SHARP / 2, SHARP / 2), "\n".join(lines), INK, font, "mm", align="center")
    return np.asarray(card)


def _cell(page: PIL.Image.Image, left: int, top: int, image: Image, title: str, below: str, bar: float | None) -> None:
    draw = ImageDraw.Draw(page)
    is_query = bar is None
    box = (left, top, left + CELL_WIDTH - 1, top + CELL_HEIGHT - 1)
    draw.rounded_rectangle(box, 8, CARD, ACCENT if is_query else EDGE, 3 if is_query else 1)
    small = PIL.Image.fromarray(fitted(image, SIDE))
    x, y = left + PADDING, top + PADDING
    page.paste(small, (x + (SIDE - small.width) // 2, y + (SIDE - small.height) // 2))
    draw.text((x, y + SIDE + 8), _cut(title), INK, load_default(15))
    draw.text((x, y + SIDE + 29), below, ACCENT if is_query else PALE, load_default(13))
    if bar is not None:
        start, level = x + 44, y + SIDE + 36
        draw.rounded_rectangle((start, level, x + SIDE - 1, level + 4), 2, EDGE)
        end = start + round(max(0.0, min(1.0, bar)) * (x + SIDE - 1 - start))
        if end > start:
            draw.rounded_rectangle((start, level, end, level + 4), 2, ACCENT)


def _cut(text: str) -> str:
    """`text`, shortened in its middle where it is wider than a cell: ends tell file names apart."""
    text, font = " ".join(text.split()), load_default(15)
    if font.getlength(text) <= SIDE:
        return text
    keep = len(text)
    while keep > 2 and font.getlength(shorter := f"{text[: (keep + 1) // 2]}...{text[len(text) - keep // 2 :]}") > SIDE:
        keep -= 1
    return shorter


def to_html(lines: Sequence[Line]) -> str:
    """The sheet as an HTML document with all images inside it."""
    return render("sheet.html", lines=[(line, encode_jpeg(fitted(line.query))) for line in lines])
