"""Where a product stands when its image is taken: background, shadow, something in front, light, camera."""

import numpy as np
from jaxtyping import Float32
from PIL import Image, ImageDraw, ImageFilter

from lookalike.demo.art import PATTERNS, Color, paint_pattern, stamp

Picture = Float32[np.ndarray, "H W 3"]


def photograph(sprite: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """Place a cut-out somewhere and take its image.

    Args:
        sprite: RGBA, square; the product without anything around it.
        size: side of the image in pixels.
        rng: everything that changes from image to image is drawn from it.

    Returns:
        RGB, size x size.
    """
    scene = background(size, rng).convert("RGB")
    cutout = place(sprite, size, rng)
    alpha = cutout.getchannel("A")
    shift = (int(rng.integers(-6, 7)), int(rng.integers(2, 8)))
    shadow = alpha.filter(ImageFilter.GaussianBlur(float(rng.uniform(3, 6)))).point(lambda value: value * 0.5)
    scene.paste((12, 12, 20), shift, shadow)
    scene.paste(cutout, (0, 0), alpha)
    if rng.random() < 0.5:
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
        image = paint_pattern(name, int(rng.integers(2, 9)), one, _near(one, rng), 2 * size).reduce(2)
        image = image.rotate(float(rng.uniform(-30, 30)), Image.Resampling.BILINEAR, fillcolor=one)
    elif style == 3:  # boards
        image = _boards(size, one, rng)
    elif style == 4:  # a shop far behind
        image = _blend(size, one, two, rng)
        draw = ImageDraw.Draw(image)
        for _ in range(int(rng.integers(8, 26))):
            x, y, r = (float(value) for value in rng.uniform((0, 0, 5), (size, size, 26)))
            draw.ellipse((x - r, y - r, x + r, y + r), fill=_bright(rng))
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(2, 7))))
    else:  # rough plaster, grass, gravel
        small = rng.normal(0, 1, (size // 4, size // 4, 1)) * rng.uniform(6, 26) + np.array(one)
        image = Image.fromarray(np.clip(small, 0, 255).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    return image


def _tone(rng: np.random.Generator) -> Color:
    gray, tint = rng.uniform(70, 225), rng.normal(0, 20, 3)
    return _color(gray + tint)


def _near(color: Color, rng: np.random.Generator) -> Color:
    return _color(np.array(color) + rng.choice([-1, 1]) * rng.uniform(15, 45))


def _bright(rng: np.random.Generator) -> Color:
    return _color(rng.uniform(30, 255, 3))


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
        draw.rounded_rectangle(box, size * 0.05, fill=_bright(rng))


def expose(scene: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Light and camera: a coloured cast, uneven light, exposure, contrast, focus, noise."""
    if rng.random() < 0.3:
        scene = scene.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.4, 1.1))))
    size = scene.width
    pixels: Picture = np.asarray(scene, dtype=np.float32) / 255
    angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.7)
    steps = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    light = 1 + np.float32(depth) * (np.cos(angle) * steps[:, None] + np.sin(angle) * steps[None, :])
    warmth, green = rng.normal(0, 0.16), rng.normal(0, 0.06)
    cast = np.exp(np.array([warmth, green, -warmth])) * rng.uniform(0.62, 1.18)
    pixels = np.clip(pixels * light[..., None] * cast.astype(np.float32), 0, 1)
    pixels = pixels ** np.float32(rng.uniform(0.75, 1.3))
    pixels += rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(rng.uniform(0.004, 0.03))
    return Image.fromarray((np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8))
