"""Draws the images of the offline demonstration: products that nobody makes, each in many places.

Six kinds of thing are the domains. Products of a kind share a few palettes, patterns and emblems, so that telling
them apart takes more than their colours; two thirds of the products are for training, the rest are never seen.
"""

import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from lookalike.core.files import storage_errors, write_bytes
from lookalike.demo.art import PATTERNS, Color, Product, invent, paint_pattern, print_art, stamp
from lookalike.demo.shapes import KINDS, View

SIZE = 160  # side of an image in pixels
COLUMNS = ("path", "label", "domain", "split", "is_query", "is_gallery", "group")


def draw(out: Path, seed: int = 0, products: int = 60, views: int = 8) -> Path:
    """Draw made-up products under changing view, light, background and occlusion; deterministic in `seed`.

    `out` gets `images/KIND/NAME-VIEW.jpg` and `products.csv`, which is returned (columns `COLUMNS`, paths relative to
    it). `products` are spread evenly over `KINDS`, none is in both splits, and each has `views` images; the first
    stay the same when more are asked for. StorageError if the disk refuses.
    """
    rows: list[tuple[str, ...]] = []
    for product, split in catalogue(seed, products):
        art, role = print_art(product), str(split == "test").lower()
        for view in range(views):
            image = drawn(product, art, np.random.default_rng([seed, view, *product.name.encode()]))
            file = out / "images" / product.kind / f"{product.name}-{view + 1:02}.jpg"
            with storage_errors(file):
                file.parent.mkdir(parents=True, exist_ok=True)
                image.save(file, quality=88)
            name, label = file.relative_to(out).as_posix(), f"{product.kind}/{product.name}"
            rows.append((name, label, product.kind, split, role, role, ""))
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([COLUMNS, *rows])
    write_bytes(out / "products.csv", table.getvalue().encode())
    return out / "products.csv"


def catalogue(seed: int, products: int) -> list[tuple[Product, str]]:
    """The products and their splits, kinds in turn; every third of a kind is for testing. Names are unique."""
    kinds, found, names = list(KINDS), [], set[str]()
    rng = np.random.default_rng(seed)
    for i in range(products):
        kind = i % len(kinds)
        product = invent(kinds[kind], rng)
        while product.name in names:
            product = invent(kinds[kind], rng)
        names.add(product.name)
        found.append((product, "test" if i // len(kinds) % 3 == kind % 3 else "train"))
    return found


def drawn(product: Product, art: Image.Image, rng: np.random.Generator) -> Image.Image:
    """One image of a product: RGB, `SIZE` pixels a side; `art` is `print_art(product)`."""
    view = View(
        yaw=float(np.clip(rng.normal(0, 0.42), -0.85, 0.85)),
        pitch=float(rng.uniform(0.02, 0.5)),
        light=float(rng.uniform(-1, 1)),
    )
    return photograph(KINDS[product.kind](product, art, view), SIZE, rng)


def photograph(sprite: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """Place a square RGBA cut-out somewhere and take its image: RGB, size x size; all that changes comes from `rng`."""
    scene = background(size, rng).convert("RGB")
    cutout = place(sprite, size, rng)
    alpha = cutout.getchannel("A")
    shift = (int(rng.integers(-6, 7)), int(rng.integers(2, 8)))
    shadow = alpha.filter(ImageFilter.GaussianBlur(float(rng.uniform(3, 6)))).point(lambda value: value * 0.5)
    scene.paste((12, 12, 20), shift, shadow)
    scene.paste(cutout, (0, 0), alpha)
    if rng.random() < 0.3:
        occlude(scene, rng)
    return expose(scene, rng)


def place(sprite: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """The sprite turned, scaled and shifted at random on an empty image; RGBA, size x size."""
    double = 2 * size  # drawn at twice the size: soft edges
    roll = np.deg2rad(np.clip(rng.normal(0, 13), -40, 40))
    scale = sprite.width / (double * rng.uniform(0.72, 1.05))
    x, y = double / 2 + double * rng.uniform(-0.09, 0.09, 2)
    cos, sin, half = scale * np.cos(roll), scale * np.sin(roll), sprite.width / 2
    inverse = (cos, sin, half - cos * x - sin * y, -sin, cos, half + sin * x - cos * y)
    return sprite.transform((double, double), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR).reduce(2)


def background(size: int, rng: np.random.Generator) -> Image.Image:
    """A wall, a table, tiles, boards, cloth or a blurred crowd of colours."""
    one, two = _tone(rng), _tone(rng)
    style = rng.integers(6)
    if style == 0:
        image = _blend(size, one, two, rng)
    elif style == 1:  # table before a wall
        image = _blend(size, one, one, rng)
        ImageDraw.Draw(image).rectangle((0, int(size * rng.uniform(0.5, 0.8)), size, size), fill=two)
    elif style == 2:  # tiles or cloth
        name = str(rng.choice([name for name in PATTERNS if name != "plain"]))
        count = int(rng.integers(2, 9))
        near = _color(np.array(one) + rng.choice([-1, 1]) * rng.uniform(15, 45))
        image = paint_pattern(name, count, one, near, 2 * size).reduce(2)
        image = image.rotate(float(rng.uniform(-30, 30)), Image.Resampling.BILINEAR, fillcolor=one)
    elif style == 3:  # boards
        image = _boards(size, one, rng)
    elif style == 4:  # a shop far behind
        image = _blend(size, one, two, rng)
        draw = ImageDraw.Draw(image)
        for _ in range(int(rng.integers(8, 26))):
            x, y, r = (float(value) for value in rng.uniform((0, 0, 5), (size, size, 26)))
            draw.ellipse((x - r, y - r, x + r, y + r), fill=_color(rng.uniform(30, 255, 3)))
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(2, 7))))
    else:  # rough plaster, grass, gravel
        small = rng.normal(0, 1, (size // 4, size // 4, 1)) * rng.uniform(6, 26) + np.array(one)
        image = Image.fromarray(np.clip(small, 0, 255).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    return image


def _tone(rng: np.random.Generator) -> Color:
    return _color(rng.uniform(70, 225) + rng.normal(0, 20, 3))


def _color(values: np.ndarray) -> Color:
    r, g, b = (int(x) for x in np.clip(values, 0, 255))
    return r, g, b


def _blend(size: int, one: Color, two: Color, rng: np.random.Generator) -> Image.Image:
    angle = rng.uniform(0, 2 * np.pi)
    steps = np.linspace(-0.5, 0.5, size)
    part = np.clip(0.5 + np.cos(angle) * steps[:, None] + np.sin(angle) * steps[None, :], 0, 1)[..., None]
    return Image.fromarray((np.array(one) * (1 - part) + np.array(two) * part).astype(np.uint8))


def _boards(size: int, color: Color, rng: np.random.Generator) -> Image.Image:
    grain = np.repeat(rng.normal(0, 6, (size, 1)), size, axis=1) + rng.normal(0, 2, (size, size))
    width = int(rng.integers(18, 44))
    board = np.arange(size) // width
    grain += (rng.normal(0, 14, board.max() + 1)[board] - 40 * (np.arange(size) % width < 2))[:, None]
    wood = np.array(color) * 0.6 + np.array([150, 105, 65]) * 0.4
    image = Image.fromarray(np.clip(wood + grain[..., None], 0, 255).astype(np.uint8))
    return image.rotate(90) if rng.random() < 0.5 else image


def occlude(scene: Image.Image, rng: np.random.Generator) -> None:
    """Put something before the product: leaves, a strap, a price tag, or a neighbour's edge. Changes `scene`."""
    size, draw = scene.width, ImageDraw.Draw(scene)
    what = rng.integers(4)
    if what == 0:
        x, y = size * rng.choice([0.1, 0.9]), size * rng.uniform(0.2, 0.95)
        for _ in range(int(rng.integers(3, 7))):
            green = _color(np.array([60, 120, 60]) + rng.normal(0, 28, 3))
            dx, dy = rng.normal(0, 0.1 * size, 2)
            stamp(draw, str(rng.choice(["leaf", "drop"])), x + dx, y + dy, size * rng.uniform(0.09, 0.2), green)
    elif what == 1:
        x, slope, width = size * rng.uniform(0.1, 0.9), size * rng.uniform(-0.4, 0.4), size * rng.uniform(0.04, 0.1)
        corners = [(x, 0), (x + width, 0), (x + slope + width, size), (x + slope, size)]
        draw.polygon(corners, fill=_tone(rng))
    elif what == 2:
        x, y = size * rng.uniform(0.25, 0.75, 2)
        w, h = size * rng.uniform(0.1, 0.17), size * rng.uniform(0.06, 0.1)
        draw.rounded_rectangle((x - w, y - h, x + w, y + h), 4, fill=(250, 248, 235), outline=(90, 90, 90))
        draw.text((x, y), f"{rng.integers(1, 30)}.{rng.integers(10, 99)}", fill=(200, 40, 40), anchor="mm")
    else:
        reach = size * rng.uniform(0.15, 0.3)
        x = -reach if rng.random() < 0.5 else size - reach
        box = (x, size * rng.uniform(0.15, 0.5), x + 2 * reach, size * 1.2)
        draw.rounded_rectangle(box, size * 0.05, fill=_color(rng.uniform(30, 255, 3)))


def expose(scene: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Light and camera: a coloured cast, uneven light, exposure, contrast, focus, noise."""
    if rng.random() < 0.3:
        scene = scene.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.4, 1.1))))
    size = scene.width
    pixels = np.asarray(scene, dtype=np.float32) / 255
    angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.7)
    steps = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    light = 1 + np.float32(depth) * (np.cos(angle) * steps[:, None] + np.sin(angle) * steps[None, :])
    warmth, green = rng.normal(0, 0.12), rng.normal(0, 0.04)
    cast = np.exp(np.array([warmth, green, -warmth])) * rng.uniform(0.62, 1.18)
    pixels = np.clip(pixels * light[..., None] * cast.astype(np.float32), 0, 1)
    pixels = pixels ** np.float32(rng.uniform(0.75, 1.3))
    pixels += rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(rng.uniform(0.004, 0.03))
    return Image.fromarray((np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8))
