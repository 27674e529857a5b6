"""What is printed on a made-up product: colours, a pattern, an emblem, a name, and how they are laid out."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]
Points = list[tuple[float, float]]

ART = 224  # side of a printed square in pixels
# Few palettes for many products, so that colours alone do not tell which product it is.
PALETTES: tuple[tuple[Color, Color, Color, Color], ...] = (
    ((236, 84, 68), (253, 224, 178), (36, 60, 92), (255, 250, 240)),
    ((38, 118, 128), (240, 226, 196), (238, 132, 74), (252, 250, 244)),
    ((248, 190, 62), (62, 84, 146), (224, 74, 94), (255, 252, 242)),
    ((122, 168, 98), (250, 240, 214), (116, 62, 88), (253, 252, 246)),
    ((92, 92, 166), (248, 196, 200), (252, 212, 96), (250, 248, 252)),
    ((54, 62, 82), (232, 226, 214), (214, 92, 104), (248, 246, 240)),
)
SYLLABLES = ("ka", "lo", "mi", "ru", "ta", "ne", "vo", "si", "pu", "do", "zel", "bri", "mon", "fa", "yu", "gor")


@dataclass(frozen=True)
class Product:
    """One made-up product; the same whenever it is seen."""

    kind: str  # what it is, one of `shapes.KINDS`: the domain
    name: str  # the word printed on it
    colors: tuple[Color, Color, Color, Color]  # ground, second, accent, and a light one
    pattern: str  # a key of `PATTERNS`
    count: int  # how many times the pattern repeats across
    emblem: str  # a key of `EMBLEMS`
    layout: int  # one of the five arrangements of `print_art`
    form: tuple[float, float, float, float]  # from 0 to 1, they shape the body; what they do is up to the kind


def invent(kind: str, rng: np.random.Generator) -> Product:
    """A product of `kind`, drawn from `rng`."""
    palette = PALETTES[rng.integers(len(PALETTES))]
    first, second, accent = (palette[i] for i in rng.permutation(3))
    a, b, c, d = (float(x) for x in rng.random(4))
    return Product(
        kind=kind,
        name="".join(SYLLABLES[i] for i in rng.choice(len(SYLLABLES), int(rng.integers(2, 4)), replace=False)),
        colors=(first, second, accent, palette[3]),
        pattern=str(rng.choice(list(PATTERNS))),
        count=int(rng.integers(3, 7)),
        emblem=str(rng.choice(list(EMBLEMS))),
        layout=int(rng.integers(5)),
        form=(a, b, c, d),
    )


Grid = Float[np.ndarray, "H W"]

PATTERNS: dict[str, Callable[[Grid, Grid, int], Grid]] = {
    "plain": lambda u, _v, _n: np.ones_like(u),
    "stripes": lambda u, _v, n: u * n % 1 - 0.5,
    "hoops": lambda _u, v, n: v * n % 1 - 0.5,
    "slant": lambda u, v, n: (u + v) * n % 1 - 0.5,
    "dots": lambda u, v, n: np.hypot((u * n + 0.5 * (np.floor(v * n) % 2)) % 1 - 0.5, v * n % 1 - 0.5) - 0.3,
    "checks": lambda u, v, n: ((u * n % 1) - 0.5) * ((v * n % 1) - 0.5),
    "chevrons": lambda u, v, n: (v * n + 2 * abs(u * n / 2 % 1 - 0.5)) % 1 - 0.5,
    "waves": lambda u, v, n: (v * n + 0.25 * np.sin(2 * np.pi * u * (n // 2))) % 1 - 0.5,
    "rays": lambda u, v, n: np.arctan2(v - 0.5, u - 0.5) / (2 * np.pi) * 2 * n % 1 - 0.5,
    "rings": lambda u, v, n: np.hypot(u - 0.5, v - 0.5) * 1.6 * n % 1 - 0.5,
    "grid": lambda u, v, n: np.minimum(u * n % 1, v * n % 1) - 0.18,
    "diamonds": lambda u, v, n: abs(u * n % 1 - 0.5) + abs(v * n % 1 - 0.5) - 0.38,
}
"""Name to a function of (u right, v down, both 0..1, n repeats) that is negative where the second colour lies.

The repeats are whole, so that a pattern goes round a cylinder.
"""


def paint_pattern(pattern: str, count: int, ground: Color, second: Color, size: int) -> Image.Image:
    """A square of `size` pixels in two colours; hard edges."""
    steps = (np.arange(size, dtype=np.float32) + 0.5) / size
    v, u = np.meshgrid(steps, steps, indexing="ij")
    inside = PATTERNS[pattern](u, v, count) < 0
    return Image.fromarray(np.array([ground, second], dtype=np.uint8)[inside.astype(np.uint8)])


def _angles(count: int) -> list[float]:
    return [2 * np.pi * i / count for i in range(count)]


def _around(radii: list[float]) -> Points:
    turns = [a - np.pi / 2 for a in _angles(len(radii))]
    return [(r * np.cos(a), r * np.sin(a)) for r, a in zip(radii, turns, strict=True)]


EMBLEMS: dict[str, Points] = {
    "star": _around([1.0, 0.45] * 5),
    "heart": [
        (np.sin(a) ** 3, -(13 * np.cos(a) - 5 * np.cos(2 * a) - 2 * np.cos(3 * a) - np.cos(4 * a)) / 16)
        for a in _angles(60)
    ],
    "drop": [(0.75 * np.sin(a) * np.sin(a / 2) ** 1.5, -np.cos(a)) for a in _angles(60)],
    "leaf": [(0.55 * np.sin(a) * abs(np.sin(a)) + 0.1 * np.cos(a), -np.cos(a)) for a in _angles(60)],
    "moon": [
        *((np.cos(a) * 0.95, np.sin(a) * 0.95) for a in np.linspace(0.9, 2 * np.pi - 0.9, 40)),
        *((0.42 + 0.76 * np.cos(a), 0.76 * np.sin(a)) for a in np.linspace(2 * np.pi - 1.3, 1.3, 40)),
    ],
    "fish": [
        *((0.15 + 0.8 * np.cos(a), 0.5 * np.sin(a)) for a in np.linspace(-2.7, 2.7, 40)),
        (-1.0, 0.5), (-0.8, 0.0), (-1.0, -0.5),
    ],
    "tree": [
        (0, -1), (0.45, -0.4), (0.25, -0.4), (0.65, 0.1), (0.4, 0.1), (0.85, 0.65), (0.15, 0.65), (0.15, 1),
        (-0.15, 1), (-0.15, 0.65), (-0.85, 0.65), (-0.4, 0.1), (-0.65, 0.1), (-0.25, -0.4), (-0.45, -0.4),
    ],
    "bolt": [(0.25, -1), (-0.6, 0.15), (-0.05, 0.15), (-0.3, 1), (0.6, -0.25), (0.05, -0.25)],
    "flower": _around([0.68 + 0.32 * np.cos(5 * a) for a in _angles(80)]),
    "peak": [(-1, 0.7), (-0.35, -0.6), (-0.05, -0.1), (0.25, -0.45), (1, 0.7)],
    "burst": _around([1.0, 0.72] * 12),
    "cat": [
        (-0.8, -0.9), (-0.35, -0.5), (0.35, -0.5), (0.8, -0.9), (0.85, 0.1), (0.55, 0.6), (0, 0.85), (-0.55, 0.6),
        (-0.85, 0.1),
    ],
}  # fmt: skip
"""Name to the corners of its outline, in the unit circle, y down."""


def stamp(draw: ImageDraw.ImageDraw, emblem: str, x: float, y: float, radius: float, color: Color) -> None:
    """Fill an emblem around (x, y)."""
    draw.polygon([(x + radius * px, y + radius * py) for px, py in EMBLEMS[emblem]], fill=color)


def letter(draw: ImageDraw.ImageDraw, text: str, x: float, y: float, width: float, height: float, color: Color) -> None:
    """Write `text` centred at (x, y), as large as fits into width x height."""
    font = ImageFont.load_default(size=max(8, min(int(height), int(1.75 * width / len(text)))))
    draw.text((x, y), text, fill=color, font=font, anchor="mm", stroke_width=2)


def readable(on: Color, product: Product) -> Color:
    """Of a product's colours, the one that stands out most from `on`."""
    weights = np.array([0.3, 0.59, 0.11])
    return max(product.colors, key=lambda color: abs(float(weights @ (np.array(color) - np.array(on)))))


def print_art(product: Product) -> Image.Image:
    """The printed square of a product: RGB, `ART` pixels a side."""
    ground, second, accent, light = product.colors
    on_light, on_accent = readable(light, product), readable(accent, product)
    side = 2 * ART
    image = paint_pattern(product.pattern, product.count, ground, second, side)
    draw = ImageDraw.Draw(image)
    middle, name = side / 2, product.name.upper()
    if product.layout == 0:  # a seal in the middle, the name on a ribbon
        draw.ellipse((0.2 * side, 0.1 * side, 0.8 * side, 0.7 * side), fill=light)
        stamp(draw, product.emblem, middle, 0.4 * side, 0.22 * side, on_light)
        draw.rectangle((0, 0.74 * side, side, 0.92 * side), fill=accent)
        letter(draw, name, middle, 0.83 * side, 0.9 * side, 0.14 * side, on_accent)
    elif product.layout == 1:  # a plain head with the name, the emblem astride its edge
        draw.rectangle((0, 0, side, 0.42 * side), fill=light)
        letter(draw, name, middle, 0.14 * side, 0.92 * side, 0.2 * side, on_light)
        draw.ellipse((0.28 * side, 0.26 * side, 0.72 * side, 0.7 * side), fill=light)
        stamp(draw, product.emblem, middle, 0.48 * side, 0.18 * side, accent)
    elif product.layout == 2:  # a broad band with the name in it, emblems above
        draw.rectangle((0, 0.5 * side, side, 0.8 * side), fill=accent)
        letter(draw, name, middle, 0.65 * side, 0.9 * side, 0.24 * side, on_accent)
        for x in (0.2, 0.5, 0.8):
            stamp(draw, product.emblem, x * side, 0.27 * side, 0.13 * side, accent)
    elif product.layout == 3:  # a frame of pattern around a large emblem
        draw.rounded_rectangle((0.13 * side, 0.1 * side, 0.87 * side, 0.9 * side), 0.12 * side, fill=light)
        stamp(draw, product.emblem, middle, 0.4 * side, 0.25 * side, accent)
        letter(draw, name, middle, 0.78 * side, 0.66 * side, 0.14 * side, on_light)
    else:  # the lower part in one colour, a large emblem over the edge
        draw.rectangle((0, 0.62 * side, side, side), fill=accent)
        stamp(draw, product.emblem, middle, 0.36 * side, 0.31 * side, light)
        letter(draw, name, middle, 0.8 * side, 0.9 * side, 0.2 * side, on_accent)
    return image.reduce(2)  # drawn at twice the size: soft edges
