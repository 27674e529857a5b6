"""The bodies of made-up products, seen from any side: boxes, books, bottles, mugs, shop signs, soft toys.

Three ways of drawing serve the six kinds: flat faces in perspective, bodies of revolution, and a jointed doll.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageEnhance

from lookalike.demo.art import ART, Color, Product, letter, readable, stamp

SPRITE = 256
"""Side in pixels of a cut-out; the product fills most of it."""

Corners = Float[np.ndarray, "4 3"]
Rotation = Float[np.ndarray, "3 3"]


@dataclass(frozen=True)
class View:
    """From where a product is seen. Angles in radians."""

    yaw: float
    """Turn about the upright axis; 0 shows the front."""
    pitch: float
    """How far from above; 0 is level."""
    light: float
    """Where the light stands, from -1 (left) to 1 (right)."""


def rotation(view: View) -> Rotation:
    """Turns x right, y up, z towards the eye."""
    cy, sy, cp, sp = np.cos(view.yaw), np.sin(view.yaw), np.cos(view.pitch), np.sin(view.pitch)
    upright = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    turn: Rotation = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]]) @ upright
    return turn


# Flat faces


def quad(corners: Corners, art: Image.Image, turn: Rotation, light: float, onto: Image.Image) -> None:
    """Draw `art` on the face with these corners (clockwise from the upper left) if it looks towards the eye.

    Args:
        corners: in a world where the product reaches from about -1 to 1.
        art: the print; RGBA art may leave parts of the face open.
        turn: from `rotation`.
        light: see `View`.
        onto: the cut-out; changed.
    """
    turned = corners @ turn.T
    depth = 5 / (5 - turned[:, 2])
    points = SPRITE / 2 + SPRITE * 0.44 * turned[:, :2] * depth[:, None] * (1, -1)
    sides = points[[1, 3]] - points[0]
    if sides[0, 0] * sides[1, 1] - sides[0, 1] * sides[1, 0] <= 4:
        return
    normal = np.cross(turned[3] - turned[0], turned[1] - turned[0])
    normal = normal / np.linalg.norm(normal)
    shade = 0.72 + 0.28 * float(normal @ np.array([light, 0.9, 1.0])) / 1.35
    w, h = art.size
    source = [(0, 0), (w, 0), (w, h), (0, h)]
    face = ImageEnhance.Brightness(art).enhance(shade).convert("RGBA")
    size = (SPRITE, SPRITE)
    face = face.transform(size, Image.Transform.PERSPECTIVE, _homography(points, source), Image.Resampling.BILINEAR)
    onto.alpha_composite(face)


def _homography(points: Float[np.ndarray, "4 2"], source: list[tuple[int, int]]) -> list[float]:
    rows, right = [], []
    for (x, y), (u, v) in zip(points.tolist(), source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    return [float(value) for value in np.linalg.solve(np.array(rows), np.array(right, dtype=float))]


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
    sprite, turn = Image.new("RGBA", (SPRITE, SPRITE)), rotation(view)
    a, b, c, roofed = product.form
    w, h, d = 0.45 + 0.35 * a, 0.5 + 0.4 * b, 0.2 + 0.3 * c
    faces = _cuboid(w, h, d)
    shift = np.array([0, -0.15 if roofed > 0.6 else 0, 0])
    side = _side(product, product.colors[2])
    for name in ("left", "right"):
        quad(faces[name] + shift, side, turn, view.light, sprite)
    quad(faces["front"] + shift, art, turn, view.light, sprite)
    lid = Image.new("RGB", (32, 32), product.colors[0])
    if roofed > 0.6:
        slope = np.array([[-w, h + 0.32, 0], [w, h + 0.32, 0], [w, h, d], [-w, h, d]])
        fin = np.array([[-w, h + 0.45, 0], [w, h + 0.45, 0], [w, h + 0.32, 0], [-w, h + 0.32, 0]])
        for end in (-1.0, 1.0):  # the triangles at both ends, as quads with two near corners
            gable = np.array([[end * w, h + 0.32, -0.01], [end * w, h + 0.32, 0.01], [end * w, h, d], [end * w, h, -d]])
            quad((gable if end < 0 else gable[[1, 0, 3, 2]]) + shift, lid, turn, view.light, sprite)
        quad(slope + shift, lid, turn, view.light, sprite)
        quad(fin + shift, Image.new("RGB", (32, 32), product.colors[3]), turn, view.light, sprite)
    else:
        quad(faces["top"], lid, turn, view.light, sprite)
    return sprite


def draw_book(product: Product, art: Image.Image, view: View) -> Image.Image:
    """A book: cover, spine on its left, white pages."""
    sprite, turn = Image.new("RGBA", (SPRITE, SPRITE)), rotation(view)
    a, b, c, _ = product.form
    w, h, d = 0.52 + 0.25 * a, 0.72 + 0.18 * b, 0.08 + 0.12 * c
    faces = _cuboid(w, h, d)
    leaves = (
        Image.fromarray(np.repeat(np.array([[244], [214]] * 8, dtype=np.uint8), 32, axis=1))
        .convert("RGB")
        .resize((64, 64))
    )
    quad(faces["left"], _side(product, product.colors[2]), turn, view.light, sprite)
    quad(faces["right"], leaves.rotate(90), turn, view.light, sprite)
    quad(faces["top"], leaves, turn, view.light, sprite)
    quad(faces["front"], art, turn, view.light, sprite)
    return sprite


def draw_sign(product: Product, art: Image.Image, view: View) -> Image.Image:
    """A board over a shop door: round, arched, a shield, eight-sided or square, with a rim."""
    sprite, turn = Image.new("RGBA", (SPRITE, SPRITE)), rotation(view)
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
    quad(corners * 1.06 - (0, 0, 0.1), rim, turn, view.light, sprite)
    quad(corners * 1.06 - (0, 0, 0.02), rim, turn, view.light + 0.6, sprite)
    quad(corners, face, turn, view.light, sprite)
    return sprite


# Bodies of revolution


def revolve(radii: Float[np.ndarray, "H"], wrap: Image.Image, view: View) -> Image.Image:
    """A body of revolution with a print around it.

    Args:
        radii: of the body in pixels at each row of the cut-out; 0 where there is none.
        wrap: goes once around; its rows are spread over the rows of the body.
        view: the yaw turns the print, the pitch bends level lines.

    Returns:
        RGBA, `SPRITE` pixels a side.
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
    profile = np.where(t < 0.1, neck + 4, neck + (belly - neck) * rise * waist)
    radii = np.zeros(SPRITE)
    radii[8:212] = profile
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
