"""The drawn images: the same for a seed, split by product, and neither trivial nor hopeless."""

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookalike.demo.art import EMBLEMS, PATTERNS, Product, invent, paint_pattern, print_art, readable
from lookalike.demo.draw import COLUMNS, SIZE, catalogue, draw, photograph
from lookalike.demo.draw import drawn as drawn_image
from lookalike.demo.shapes import KINDS, SPRITE, View, revolve

FRONT = View(yaw=0.0, pitch=0.05, light=0.0)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("drawn"), seed=3, products=18, views=4)


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def product(kind: str, seed: int = 0) -> Product:
    return invent(kind, np.random.default_rng(seed))


def test_table_lists_every_picture_once(drawn: Path) -> None:
    rows = rows_of(drawn)
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 18 * 4
    pictures = {path.relative_to(drawn.parent).as_posix() for path in drawn.parent.rglob("*.jpg")}
    assert {row["path"] for row in rows} == pictures
    for row in rows:
        assert row["label"].startswith(row["domain"] + "/")
        assert row["is_query"] == row["is_gallery"] == ("true" if row["split"] == "test" else "false")
    assert {row["domain"] for row in rows} == set(KINDS)


def test_pictures_are_square_jpegs_that_all_differ(drawn: Path) -> None:
    files = list(drawn.parent.rglob("*.jpg"))
    for file in files:
        with Image.open(file) as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (SIZE, SIZE), "RGB")
    assert len(set(digest(drawn.parent).values())) == len(files) + 1


def test_same_seed_same_bytes_other_seed_other_products(drawn: Path, tmp_path: Path) -> None:
    again = draw(tmp_path / "again", seed=3, products=18, views=4)
    assert digest(again.parent) == digest(drawn.parent)
    other = draw(tmp_path / "other", seed=4, products=6, views=1)
    assert {row["label"] for row in rows_of(other)} != {row["label"] for row in rows_of(drawn)[:24]}


def test_more_products_leave_the_first_ones_as_they_are() -> None:
    assert catalogue(0, 60)[:18] == catalogue(0, 18)


def test_splits_share_no_product_and_are_forty_to_twenty() -> None:
    entries = catalogue(0, 60)
    assert len({entry.name for entry, _ in entries}) == 60
    assert sum(split == "test" for _, split in entries) == 20
    for kind in KINDS:
        splits = [split for entry, split in entries if entry.kind == kind]
        assert len(splits) == 10
        assert 3 <= splits.count("test") <= 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_product_fills_its_cutout_from_every_side(kind: str, seed: int) -> None:
    entry = product(kind, seed)
    art = print_art(entry)
    for view in (FRONT, View(-0.85, 0.5, -1.0), View(0.85, 0.02, 1.0)):
        sprite = KINDS[kind](entry, art, view)
        assert (sprite.size, sprite.mode) == ((SPRITE, SPRITE), "RGBA")
        covered = np.asarray(sprite.getchannel("A")) > 128
        assert 0.1 < covered.mean() < 0.9
        border = np.concatenate([covered[0], covered[-1], covered[:, 0], covered[:, -1]])
        assert not border.any()


def test_two_pictures_of_a_product_share_its_art_but_not_its_pixels() -> None:
    entry = product("books")
    art = print_art(entry)
    one, two = (np.asarray(drawn_image(entry, art, np.random.default_rng(seed)), dtype=float) for seed in (1, 2))
    assert np.abs(one - two).mean() > 10


def test_colour_histogram_is_better_than_chance_and_far_from_enough(tmp_path: Path) -> None:
    rows = rows_of(draw(tmp_path, seed=0, products=24, views=5))
    pixels = np.stack([np.asarray(Image.open(tmp_path / row["path"]))[40:120, 40:120] for row in rows]) // 64
    codes = pixels[..., 0] * 16 + pixels[..., 1] * 4 + pixels[..., 2]
    bins = np.sqrt(np.stack([np.bincount(code.ravel(), minlength=64) for code in codes]))
    similar = bins @ bins.T
    np.fill_diagonal(similar, -1)
    labels = np.array([row["label"] for row in rows])
    best = np.argsort(-similar, axis=1)[:, :4]
    hits = float((labels[best] == labels[:, None]).mean())
    assert 2 * 4 / (len(rows) - 1) < hits < 0.5


def test_photograph_keeps_the_product_in_sight() -> None:
    red = Image.new("RGBA", (SPRITE, SPRITE))
    red.paste((255, 0, 0, 255), (40, 40, 216, 216))
    for seed in range(8):
        pixels = np.asarray(photograph(red, 96, np.random.default_rng(seed)), dtype=int)
        assert pixels.shape == (96, 96, 3)
        assert ((pixels[..., 0] > 2 * pixels[..., 1]) & (pixels[..., 0] > 60)).mean() > 0.1


def test_revolved_print_follows_the_yaw() -> None:
    wrap = Image.new("RGB", (360, 50), (0, 0, 0))
    wrap.paste((255, 255, 255), (85, 0, 95, 50))  # at a quarter of the turn: the front
    radii = np.zeros(SPRITE)
    radii[60:200] = 80.0
    columns = []
    for yaw in (-0.5, 0.0, 0.5):
        strip = np.asarray(revolve(radii, wrap, View(yaw, 0.0, -1.0)).convert("L"), dtype=float)[130]
        strip = np.where(strip > 80, strip, 0)
        columns.append(float(strip @ np.arange(SPRITE) / strip.sum()) - SPRITE / 2)
    assert columns == pytest.approx([80 * np.sin(0.5), 0, -80 * np.sin(0.5)], abs=4)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_show_both_colours_or_are_plain(pattern: str) -> None:
    pixels = np.asarray(paint_pattern(pattern, 4, (0, 0, 0), (255, 255, 255), 64))[..., 0]
    share = float((pixels > 0).mean())
    assert share == 0 if pattern == "plain" else 0.1 < share < 0.9


@pytest.mark.parametrize("emblem", EMBLEMS)
def test_emblems_fill_the_unit_square(emblem: str) -> None:
    corners = np.array(EMBLEMS[emblem])
    assert np.abs(corners).max() <= 1.25
    assert np.ptp(corners, axis=0).min() > 0.8


def test_readable_picks_the_strongest_contrast() -> None:
    entry = product("signs")
    white, black = readable((255, 255, 255), entry), readable((0, 0, 0), entry)
    assert sum(white) < sum(black)
