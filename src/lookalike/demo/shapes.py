"""The bodies of made-up products, seen from any side: boxes, books, bottles, mugs, shop signs, soft toys.

Three ways of drawing serve the six kinds: flat faces in perspective, bodies of revolution, and a jointed doll.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageChops, ImageDraw, ImageEnhance

from lookalike.demo.art import ART, Color, Product, letter, readable, stamp

SPRITE = 256  # side in pixels of a cut-out; the product fills most of it

Corners = Float[np.ndarray, "4 3"]


@dataclass(frozen=True)
class View:
    """From where a product is seen. Angles in radians."""

    yaw: float  # turn about the upright axis; 0 shows the front
    pitch: float  # how far from above; 0 is level
    light: float  # where the light stands, from -1 (left) to 1 (right)


def quad(corners: Corners, art: Image.Image, view: View, onto: Image.Image) -> None:
    """Draw `art` on the face with these corners (clockwise from the upper left) if it looks towards the eye.

    Corners are x right, y up, z towards the eye, where the product reaches from about -1 to 1.
    """
    cy, sy, cp, sp = np.cos(view.yaw), np.sin(view.yaw), np.cos(view.pitch), np.sin(view.pitch)
    turn = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]]) @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    turned = corners @ turn.T
    depth = 5 / (5 - turned[:, 2])
    points = SPRITE / 2 + SPRITE * 0.44 * turned[:, :2] * depth[:, None] * (1, -1)
    sides = points[[1, 3]] - points[0]
    if sides[0, 0] * sides[1, 1] - sides[0, 1] * sides[1, 0] <= 4:
        return
    normal = np.cross(turned[3] - turned[0], turned[1] - turned[0])
    normal = normal / np.linalg.norm(normal)
    shade = 0.72 + 0.28 * float(normal @ np.array([view.light, 0.9, 1.0])) / 1.35
    w, h = art.size
    rows, right = [], []  # of the equations whose solution leads from the points to the corners of the print
    for (x, y), (u, v) in zip(points.tolist(), [(0, 0), (w, 0), (w, h), (0, h)], strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    homography = np.linalg.solve(np.array(rows), np.array(right, dtype=float)).tolist()
    face = ImageEnhance.Brightness(art).enhance(shade).convert("RGBA")
    perspective, bilinear = Image.Transform.PERSPECTIVE, Image.Resampling.BILINEAR
    onto.alpha_composite(face.transform((SPRITE, SPRITE), perspective, homography, bilinear))


# Corners of the faces of a cube, clockwise from the upper left as seen from outside.
_FACES = {
    "front": ((-1, 1, 1), (1, 1, 1), (1, -1, 1), (-1, -1, 1)),
    "left": ((-1, 1, -1), (-1, 1, 1), (-1, -1, 1), (-1, -1, -1)),
    "right": ((1, 1, 1), (1, 1, -1), (1, -1, -1), (1, -1, 1)),
    "top": ((-1, 1, -1), (1, 1, -1), (1, 1, 1), (-1, 1, 1)),
}


def _cuboid(w: float, h: float, d: float) -> dict[str, Corners]:
    return {name: np.array(corners) * (w, h, d) for name, corners in _FACES.items()}


def _side(product: Product, color: Color) -> Image.Image:
    """The narrow side of a box or a book: one colour, an emblem, the name along it."""
    image = Image.new("RGB", (2 * ART, ART // 2), color)
    draw, ink = ImageDraw.Draw(image), readable(color, product)
    letter(draw, product.name.upper(), 0.62 * ART, 0.25 * ART, 1.1 * ART, 0.26 * ART, ink)
    stamp(draw, product.emblem, 1.6 * ART, 0.25 * ART, 0.17 * ART, ink)
    return image.rotate(90, expand=True)


def draw_carton(product: Product, art: Image.Image, view: View) -> Image.Image:
    """A box with a print on the front, some with the sloping roof of a milk carton."""
    sprite = Image.new("RGBA", (SPRITE, SPRITE))
    a, b, c, roofed = product.form
    w, h, d = 0.45 + 0.35 * a, 0.5 + 0.4 * b, 0.2 + 0.3 * c
    faces = _cuboid(w, h, d)
    shift = np.array([0, -0.15 if roofed > 0.6 else 0, 0])
    side = _side(product, product.colors[2])
    for name in ("left", "right"):
        quad(faces[name] + shift, side, view, sprite)
    quad(faces["front"] + shift, art, view, sprite)
    lid = Image.new("RGB", (32, 32), product.colors[0])
    if roofed > 0.6:
        slope = np.array([[-w, h + 0.32, 0], [w, h + 0.32, 0], [w, h, d], [-w, h, d]])
        fin = np.array([[-w, h + 0.45, 0], [w, h + 0.45, 0], [w, h + 0.32, 0], [-w, h + 0.32, 0]])
        for end in (-1.0, 1.0):  # the triangles at both ends, as quads with two near corners
            gable = np.array([[end * w, h + 0.32, -0.01], [end * w, h + 0.32, 0.01], [end * w, h, d], [end * w, h, -d]])
            quad((gable if end < 0 else gable[[1, 0, 3, 2]]) + shift, lid, view, sprite)
        quad(slope + shift, lid, view, sprite)
        quad(fin + shift, Image.new("RGB", (32, 32), product.colors[3]), view, sprite)
    else:
        quad(faces["top"], lid, view, sprite)
    return sprite


def draw_book(product: Product, art: Image.Image, view: View) -> Image.Image:
    """A book: cover, spine on its left, white pages."""
    sprite = Image.new("RGBA", (SPRITE, SPRITE))
    a, b, c, _ = product.form
    w, h, d = 0.52 + 0.25 * a, 0.72 + 0.18 * b, 0.08 + 0.12 * c
    faces = _cuboid(w, h, d)
    lines = Image.fromarray(np.repeat(np.array([[244], [214]] * 8, dtype=np.uint8), 32, axis=1))
    leaves = lines.convert("RGB").resize((64, 64))
    quad(faces["left"], _side(product, product.colors[2]), view, sprite)
    quad(faces["right"], leaves.rotate(90), view, sprite)
    quad(faces["top"], leaves, view, sprite)
    quad(faces["front"], art, view, sprite)
    return sprite


def draw_sign(product: Product, art: Image.Image, view: View) -> Image.Image:
    """A board over a shop door: round, arched, a shield, eight-sided or square, with a rim."""
    sprite = Image.new("RGBA", (SPRITE, SPRITE))
    mask = Image.new("L", art.size, 0)
    draw, s = ImageDraw.Draw(mask), ART - 1
    outline = int(product.form[0] * 5)
    if outline == 0:
        draw.ellipse((0, 0, s, s), fill=255)
    elif outline == 1:
        draw.pieslice((0, 0, s, s), 180, 360, fill=255)
        draw.rectangle((0, s // 2, s, s), fill=255)
    elif outline == 2:
        draw.polygon([(0, 0), (s, 0), (s, 0.6 * s), (s / 2, s), (0, 0.6 * s)], fill=255)
    elif outline == 3:
        k = 0.25 * s
        draw.polygon([(k, 0), (s - k, 0), (s, k), (s, s - k), (s - k, s), (k, s), (0, s - k), (0, k)], fill=255)
    else:
        draw.rounded_rectangle((0, 0, s, s), 24, fill=255)
    w, h = 0.7 + 0.25 * product.form[1], 0.6 + 0.3 * product.form[2]
    rim = Image.new("RGB", art.size, tuple(int(0.5 * x) for x in product.colors[0]))
    face = art.copy()
    rim.putalpha(mask)
    face.putalpha(mask)
    corners = _cuboid(w, h, 1.0)["front"] * (1, 1, 0)
    quad(corners * 1.06 - (0, 0, 0.1), rim, view, sprite)
    quad(corners * 1.06 - (0, 0, 0.02), rim, replace(view, light=view.light + 0.6), sprite)
    quad(corners, face, view, sprite)
    return sprite


def revolve(radii: Float[np.ndarray, "H"], wrap: Image.Image, view: View) -> Image.Image:
    """A body of revolution with a print around it: RGBA, `SPRITE` pixels a side.

    `radii` are in pixels at each row of the cut-out, 0 where there is no body. `wrap` goes once around, and its rows
    are spread over those of the body; the yaw turns it, and the pitch bends level lines.
    """
    print_ = np.asarray(wrap.convert("RGB"), dtype=np.float32)
    rows = np.flatnonzero(radii)
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    y, x = np.mgrid[0:SPRITE, 0:SPRITE].astype(np.float32)
    x = x - SPRITE / 2 + 0.5
    sag, widest = np.float32(np.sin(view.pitch)), float(radii.max())
    # A level circle looks like an ellipse: its near side hangs lower than its edge.
    level = y - sag * np.sqrt(np.clip(widest**2 - x**2, 0, None))
    row = np.clip(np.rint(level).astype(int), 0, SPRITE - 1)
    radius = radii[row].astype(np.float32)
    inside = (abs(x) < radius) & (level >= top) & (level < bottom)
    across = np.clip(x / np.maximum(radius, 1), -1, 1)
    angle = np.arcsin(across) + np.float32(view.yaw)
    u = ((angle / (2 * np.pi) + 0.25) % 1 * print_.shape[1]).astype(int) % print_.shape[1]
    v = np.clip((level - top) / (bottom - top) * print_.shape[0], 0, print_.shape[0] - 1).astype(int)
    bright = 0.62 + 0.38 * np.clip(np.cos(np.arcsin(across) - 0.8 * view.light), 0, 1)
    gloss = 70 * np.exp(-(((across - 0.5 * view.light) / 0.08) ** 2))
    pixels = np.clip(print_[v, u] * bright[..., None] + gloss[..., None], 0, 255)
    return Image.fromarray(np.dstack([pixels, inside * 255.0]).astype(np.uint8))


def draw_bottle(product: Product, art: Image.Image, view: View) -> Image.Image:
    """A bottle: cap, neck, shoulder, belly with a label around it."""
    a, b, c, d = product.form
    neck, belly, shoulder = 12 + 14 * a, 40 + 26 * b, 0.25 + 0.3 * c
    t = np.linspace(0, 1, 204)
    slope = np.clip((t - 0.16) / (shoulder - 0.12), 0, 1)
    rise = slope**2 * (3 - 2 * slope) if d < 0.6 else np.sqrt(slope)
    waist = 1 - (0.14 * np.sin(np.pi * np.clip((t - shoulder) / (1 - shoulder), 0, 1)) if d > 0.8 else 0)
    radii = np.zeros(SPRITE)
    radii[8:212] = np.where(t < 0.1, neck + 4, neck + (belly - neck) * rise * waist)
    glass, label = product.colors[1 if d < 0.5 else 0], int(204 * shoulder) + 18
    wrap = Image.new("RGB", (4 * ART, 204), glass)
    wrap.paste(product.colors[2], (0, 0, 4 * ART, 22))
    for i in range(3):
        wrap.paste(art.resize((4 * ART // 3, 190 - label)), (i * 4 * ART // 3, label))
    return revolve(radii, wrap, View(view.yaw / 2, view.pitch, view.light))


def draw_mug(product: Product, art: Image.Image, view: View) -> Image.Image:
    """A mug with a print around it and a handle that shows on the side it is turned to."""
    a, b, c, d = product.form
    width, height = 58 + 22 * a, int(120 + 60 * b)
    top = (SPRITE - height) // 2
    t = np.linspace(0, 1, height)
    radii = np.zeros(SPRITE)
    radii[top : top + height] = width * (1 - 0.3 * max(0.0, c - 0.4) * t - 0.2 * max(0.0, d - 0.5) * np.sin(np.pi * t))
    wrap = Image.new("RGB", (2 * ART, ART), product.colors[3])
    for i in range(2):
        wrap.paste(art, (i * ART, 0))
    body = revolve(radii, wrap, view)
    drop = float(np.sin(view.pitch)) * width
    draw = ImageDraw.Draw(body)
    rim = (SPRITE / 2 - width, top - drop, SPRITE / 2 + width, top + drop)
    draw.ellipse(rim, fill=product.colors[3])
    inner = (rim[0] + 6, top - 0.88 * drop, rim[2] - 6, top + 0.92 * drop)
    draw.ellipse(inner, fill=tuple(int(0.55 * x) for x in product.colors[0]))
    sprite = Image.new("RGBA", (SPRITE, SPRITE))
    angle = 1.25 * (1 if view.yaw > 0 else -1) + 0.4 * view.yaw
    x, reach, middle = SPRITE / 2 + width * np.sin(angle), 34 * abs(np.sin(angle)), top + 0.5 * height + 0.4 * drop
    box = (x - reach, middle - 0.32 * height, x + reach, middle + 0.32 * height)
    ImageDraw.Draw(sprite).ellipse(box, outline=product.colors[2 if d < 0.5 else 3], width=13)
    sprite.alpha_composite(body)
    return sprite


class _Doll:
    """A soft toy, drawn at twice the size; lengths are in pixels of the cut-out, from its middle, y down."""

    def __init__(self, product: Product, view: View) -> None:
        self.image = Image.new("RGBA", (2 * SPRITE, 2 * SPRITE))
        self.draw, self.product = ImageDraw.Draw(self.image), product
        self.coat, self.trim, self.mark, self.light = product.colors
        a, b, c, d = product.form
        self.head_size, self.fat, self.ears, self.long = 38 + 10 * a, 42 + 20 * b, int(c * 5), 0.75 + 0.5 * d
        self.look = float(np.sin(view.yaw))  # where the face looks
        self.swing, self.up = view.light * 16, view.pitch * 20  # limbs hang differently each time

    def at(self, x: float, y: float) -> tuple[float, float]:
        return 2 * (SPRITE / 2 + x), 2 * (SPRITE / 2 + y)

    def oval(self, x: float, y: float, rx: float, ry: float, color: Color) -> None:
        self.draw.ellipse((*self.at(x - rx, y - ry), *self.at(x + rx, y + ry)), fill=color)

    def limbs(self) -> None:
        for side in (-1, 1):
            reach, shift, drop = 30 * self.long, self.swing * 0.3, 22.0 + side * self.swing
            self.oval(side * (self.fat + 4) + shift, drop, 17.0, reach, self.coat)
            self.oval(side * (self.fat + 6) + shift, drop + 0.7 * reach, 13.0, 12.0, self.trim)
            x = side * 30 - self.swing * 0.4
            self.oval(x, 92.0 - self.up * 0.3, 21.0, 20.0 + 6 * self.long, self.coat)
            self.oval(x, 104.0 - self.up * 0.3, 15.0, 12.0, self.trim)

    def belly(self, art: Image.Image) -> None:
        self.oval(0.0, 42.0, self.fat, 54.0, self.coat)
        x, half = 14 * self.look, 0.68 * self.fat * (1 - 0.2 * abs(self.look))
        box = (*self.at(x - half, 10.0), *self.at(x + half, 82.0))
        mask, printed = Image.new("L", self.image.size, 0), Image.new("RGBA", self.image.size)
        ImageDraw.Draw(mask).ellipse(box, fill=255)
        printed.paste(art.resize((int(box[2] - box[0]), int(box[3] - box[1]))), (int(box[0]), int(box[1])))
        self.image.paste(printed, (0, 0), mask)

    def head(self) -> None:
        r, y = self.head_size, -52.0
        for side in (-1, 1):
            self._ear(side, r, y)
        self.oval(0.0, y, r * 1.12, r, self.coat)
        x = 0.45 * r * self.look
        self.oval(x, y + 0.35 * r, 0.5 * r, 0.38 * r, self.trim)
        self.oval(x * 1.25, y + 0.2 * r, 0.15 * r, 0.11 * r, (40, 30, 34))
        for side in (-1, 1):
            self.oval(x + side * 0.42 * r, y - 0.18 * r, 0.13 * r, 0.15 * r, (30, 26, 30))
            self.oval(x + side * 0.42 * r + 2, y - 0.22 * r, 0.04 * r, 0.05 * r, (255, 255, 255))
        if self.product.count % 2:  # some wear their emblem on the forehead
            stamp(self.draw, self.product.emblem, *self.at(x, y - 0.62 * r), 2 * 0.24 * r, self.mark)

    def _ear(self, side: int, r: float, y: float) -> None:
        x = side * 0.85 * r - 6 * self.look
        if self.ears == 0:  # bear
            self.oval(x, y - 0.75 * r, 0.4 * r, 0.4 * r, self.coat)
            self.oval(x, y - 0.75 * r, 0.22 * r, 0.22 * r, self.trim)
        elif self.ears == 1:  # rabbit
            self.oval(0.6 * x, y - 1.02 * r, 0.22 * r, 0.5 * r, self.coat)
            self.oval(0.6 * x, y - 1.0 * r, 0.11 * r, 0.35 * r, self.mark)
        elif self.ears == 2:  # dog
            self.oval(1.2 * x, y + 0.1 * r, 0.28 * r, 0.7 * r, self.mark)
        else:  # cat, or horns
            tip, color = (1.5, self.coat) if self.ears == 3 else (1.25, self.light)
            corners = [(0.3 * x, y - 0.8 * r), (1.15 * x, y - tip * r), (1.25 * x, y - 0.3 * r)]
            self.draw.polygon([self.at(*corner) for corner in corners], fill=color)


def draw_plush(product: Product, art: Image.Image, view: View) -> Image.Image:
    """A soft toy whose limbs move from image to image, with fur; its print is on the belly."""
    doll = _Doll(product, view)
    doll.limbs()
    doll.belly(art)
    doll.head()
    sprite = doll.image.reduce(2)
    y, x = np.mgrid[-1 : 1 : SPRITE * 1j, -1 : 1 : SPRITE * 1j]
    hair = np.random.default_rng(0).normal(0, 0.07, (SPRITE, SPRITE))  # the same short hair for every toy
    shade = np.clip(0.9 + hair + 0.22 * view.light * x - 0.14 * y, 0, 1)
    image = ImageChops.multiply(sprite.convert("RGB"), Image.fromarray((255 * shade).astype(np.uint8)).convert("RGB"))
    image.putalpha(sprite.getchannel("A"))
    return image


KINDS: dict[str, Callable[[Product, Image.Image, View], Image.Image]] = {
    "cartons": draw_carton,
    "bottles": draw_bottle,
    "mugs": draw_mug,
    "books": draw_book,
    "signs": draw_sign,
    "plush": draw_plush,
}
"""Kind of product (the domain) to the function that draws one from a side."""
