"""Contact sheets of matches, as one PNG or as one HTML file that needs no network.

Both show the query on the left, its matches in order with label, file, score and a bar of the score. No name is cropped
without a mark: it wraps, or has an ellipsis in its middle, since ends tell file names apart.
"""

import io
import math
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
    title: str  # what it shows: the label, or the file's name
    caption: str  # where it is from
    score: float  # cosine, -1 to 1
    path: str | None = None  # where it lies

    @property
    def link(self) -> str | None:
        """The address that opens the file; None for a member of an archive and what lies in a store."""
        if not (self.path or "").startswith("/") or ("!" in str(self.path) and not Path(str(self.path)).exists()):
            return None
        return Path(str(self.path)).as_uri()


@dataclass(frozen=True)
class Line:
    """A query and its matches, best first."""

    query: Image  # `fitted`, so that many large ones fit into memory
    name: str  # what tells it from the others
    found: Sequence[Found]
    whole: str = ""  # its name in full: the path


def told_apart(paths: Sequence[str]) -> dict[str, str]:
    """Each path to its last part, or as many last parts as no other path ends with."""
    parts = {path: tuple(part for part in path.split("/") if part) or (path,) for path in paths}
    told = {}
    for path, own in parts.items():
        others = [other for name, other in parts.items() if name != path]
        fits = (n for n in range(1, len(own)) if all(other[-n:] != own[-n:] for other in others))
        told[path] = "/".join(own[-n:]) if (n := next(fits, 0)) else path
    return told


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


COLUMNS = 6  # matches side by side; further ones are below
# Pixels. A cell is a card: image, two lines of text, the score and its bar.
SIDE, MARGIN, GAP, PADDING, TEXT = 184, 28, 14, 10, 74
CELL_WIDTH, CELL_HEIGHT = SIDE + 2 * PADDING, SIDE + 2 * PADDING + TEXT
APART = 34  # between the query and its matches
PAPER, CARD, EDGE, INK, PALE, ACCENT = "#f3f2ee", "#ffffff", "#dddad2", "#1f2328", "#6b7078", "#2f6f4f"
AGAINST = "#b3261e"


def to_png(lines: Sequence[Line]) -> bytes:
    """The sheet as a PNG file, `COLUMNS` matches side by side; what is wider than a cell has an ellipsis."""
    most = min(COLUMNS, max((len(line.found) for line in lines), default=0))
    tops = [MARGIN]
    for line in lines:
        tops.append(tops[-1] + max(1, -(-len(line.found) // COLUMNS)) * (CELL_HEIGHT + GAP))
    width = 2 * MARGIN + CELL_WIDTH + (APART - GAP if most else 0) + most * (CELL_WIDTH + GAP)
    page = PIL.Image.new("RGB", (width, tops[-1] - (GAP if lines else 0) + MARGIN), PAPER)
    for top, line in zip(tops, lines, strict=False):
        _cell(page, MARGIN, top, line.query, (line.name, "", "query"), None)
        x, y = MARGIN + CELL_WIDTH + APART // 2, top + PADDING + SIDE // 2
        ImageDraw.Draw(page).polygon([(x - 4, y - 8), (x + 5, y), (x - 4, y + 8)], PALE)  # an arrow
        for place, found in enumerate(line.found):
            left = MARGIN + CELL_WIDTH + APART + place % COLUMNS * (CELL_WIDTH + GAP)
            below = top + place // COLUMNS * (CELL_HEIGHT + GAP)
            words = (found.title, found.caption, f"{found.score:.3f}")
            _cell(page, left, below, decode(found.image), words, found.score)
    file = io.BytesIO()
    page.save(file, "PNG")
    return file.getvalue()


def joined(images: Sequence[np.ndarray], against: Sequence[bool]) -> Image:
    """The image [H W 3] of a query of several parts, side by side; those it is turned away from are crossed out."""
    columns = math.ceil(math.sqrt(len(images)))
    side = SHARP // columns
    card = PIL.Image.new("RGB", (side * columns, side * -(-len(images) // columns)), CARD)
    for place, (image, is_against) in enumerate(zip(images, against, strict=True)):
        small = PIL.Image.fromarray(fitted(image, side - 4))
        left, top = place % columns * side, place // columns * side
        card.paste(small, (left + (side - small.width) // 2, top + (side - small.height) // 2))
        if is_against:
            ImageDraw.Draw(card).line((left + 4, top + side - 4, left + side - 4, top + 4), AGAINST, 5)
    return np.asarray(card)


def written(words: str) -> Image:
    """The image of a query that is a text: the words on a card, as many as fit."""
    font, lines = load_default(36), textwrap.wrap(words, 18, max_lines=8, placeholder="...")
    card = PIL.Image.new("RGB", (SHARP, SHARP), CARD)
    ImageDraw.Draw(card).multiline_text((SHARP / 2, SHARP / 2), "\n".join(lines), INK, font, "mm", align="center")
    return np.asarray(card)


def _cell(
    page: PIL.Image.Image, left: int, top: int, image: Image, words: tuple[str, str, str], bar: float | None
) -> None:
    """A card with an image and three lines: title, caption, and what stands before the bar; a query has none."""
    draw, (title, caption, below) = ImageDraw.Draw(page), words
    is_query = bar is None
    box = (left, top, left + CELL_WIDTH - 1, top + CELL_HEIGHT - 1)
    draw.rounded_rectangle(box, 8, CARD, ACCENT if is_query else EDGE, 3 if is_query else 1)
    small = PIL.Image.fromarray(fitted(image, SIDE))
    x, y = left + PADDING, top + PADDING
    page.paste(small, (x + (SIDE - small.width) // 2, y + (SIDE - small.height) // 2))
    for text, down, color, size in ((title, 8, INK, 15), (caption, 29, PALE, 12)):
        draw.text((x, y + SIDE + down), cut(text, size), color, load_default(size))
    draw.text((x, y + SIDE + 48), below, ACCENT if is_query else PALE, load_default(13))
    if bar is not None:
        start, level = x + 44, y + SIDE + 55
        draw.rounded_rectangle((start, level, x + SIDE - 1, level + 4), 2, EDGE)
        end = start + round(max(0.0, min(1.0, bar)) * (x + SIDE - 1 - start))
        if end > start:
            draw.rounded_rectangle((start, level, end, level + 4), 2, ACCENT)


def cut(text: str, size: int) -> str:
    """`text` on one line, shortened in its middle where it is wider than a cell in letters of `size`."""
    text, font = " ".join(text.split()), load_default(size)
    if font.getlength(text) <= SIDE:
        return text
    keep = len(text)
    while keep > 2 and font.getlength(shorter := f"{text[: (keep + 1) // 2]}...{text[len(text) - keep // 2 :]}") > SIDE:
        keep -= 1
    return shorter


def to_html(lines: Sequence[Line]) -> str:
    """The sheet as an HTML document with all images inside it."""
    return render("sheet.html", lines=[(line, encode_jpeg(fitted(line.query))) for line in lines])
