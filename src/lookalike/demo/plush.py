"""Soft toys: a jointed doll of ellipses with fur, whose limbs move from image to image."""

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from lookalike.demo.art import Color, Product, stamp
from lookalike.demo.shapes import SPRITE, View


def draw_plush(product: Product, art: Image.Image, view: View) -> Image.Image:
    """A soft toy; its print is on the belly."""
    scale = 2
    sprite = Image.new("RGBA", (scale * SPRITE, scale * SPRITE))
    doll = _Doll(ImageDraw.Draw(sprite), product, view, scale)
    doll.limbs()
    doll.body()
    belly = Image.new("L", sprite.size, 0)
    box = doll.belly_box()
    ImageDraw.Draw(belly).ellipse(box, fill=255)
    printed = Image.new("RGBA", sprite.size)
    printed.paste(art.resize((int(box[2] - box[0]), int(box[3] - box[1]))), (int(box[0]), int(box[1])))
    sprite.paste(printed, (0, 0), belly)
    doll.head()
    return _fur(sprite.reduce(scale), view)


class _Doll:
    """Draws the parts; lengths are in pixels of the cut-out, from its middle, y down."""

    def __init__(self, draw: ImageDraw.ImageDraw, product: Product, view: View, scale: int) -> None:
        self.draw, self.product, self.scale = draw, product, scale
        self.coat, self.trim, self.mark, self.light = product.colors
        a, b, c, d = product.form
        self.head_size, self.fat, self.ears, self.long = 38 + 10 * a, 42 + 20 * b, int(c * 5), 0.75 + 0.5 * d
        self.look = float(np.sin(view.yaw))  # where the face looks
        self.swing = view.light * 16  # limbs hang differently each time
        self.up = view.pitch * 20

    def oval(self, x: float, y: float, rx: float, ry: float, color: Color) -> None:
        middle, s = SPRITE / 2, self.scale
        box = (s * (middle + x - rx), s * (middle + y - ry), s * (middle + x + rx), s * (middle + y + ry))
        self.draw.ellipse(box, fill=color)

    def limbs(self) -> None:
        for side in (-1, 1):
            reach = 30 * self.long
            self.oval(side * (self.fat + 4) + self.swing * 0.3, 22.0 + side * self.swing, 17.0, reach, self.coat)
            self.oval(
                side * (self.fat + 6) + self.swing * 0.3, 22.0 + side * self.swing + 0.7 * reach, 13.0, 12.0, self.trim
            )
            self.oval(side * 30 - self.swing * 0.4, 92.0 - self.up * 0.3, 21.0, 20.0 + 6 * self.long, self.coat)
            self.oval(side * 30 - self.swing * 0.4, 104.0 - self.up * 0.3, 15.0, 12.0, self.trim)

    def body(self) -> None:
        self.oval(0.0, 42.0, self.fat, 54.0, self.coat)

    def belly_box(self) -> tuple[float, float, float, float]:
        x, y, r = SPRITE / 2 + 14 * self.look, SPRITE / 2 + 46, 0.68 * self.fat
        box = (x - r * (1 - 0.2 * abs(self.look)), y - 36, x + r * (1 - 0.2 * abs(self.look)), y + 36)
        return box[0] * self.scale, box[1] * self.scale, box[2] * self.scale, box[3] * self.scale

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
            middle, s = SPRITE / 2, self.scale
            stamp(
                self.draw, self.product.emblem, s * (middle + x), s * (middle + y - 0.62 * r), s * 0.24 * r, self.mark
            )

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
            middle, s, tip = SPRITE / 2, self.scale, 1.5 if self.ears == 3 else 1.25
            corners = [(0.3 * x, y - 0.8 * r), (1.15 * x, y - tip * r), (1.25 * x, y - 0.3 * r)]
            color = self.coat if self.ears == 3 else self.light
            self.draw.polygon([(s * (middle + px), s * (middle + py)) for px, py in corners], fill=color)


def _fur(sprite: Image.Image, view: View) -> Image.Image:
    """Soft shading and the same short hair for every toy."""
    alpha = sprite.getchannel("A")
    y, x = np.mgrid[-1 : 1 : SPRITE * 1j, -1 : 1 : SPRITE * 1j]
    hair = np.random.default_rng(0).normal(0, 0.07, (SPRITE, SPRITE))
    shade = np.clip(0.9 + hair + 0.22 * view.light * x - 0.14 * y, 0, 1)
    veil = Image.fromarray((255 * shade).astype(np.uint8)).convert("RGB")
    image = ImageChops.multiply(sprite.convert("RGB"), veil)
    image.putalpha(alpha)
    return image
