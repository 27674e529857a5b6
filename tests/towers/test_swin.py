"""Swin: what depends on sizes alone against slow loops, published sizes, programs that don't grow with depth."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, Tensors, declared, tensor_shapes
from lookalike.encoders.encoder import Encoder, init_tensors
from lookalike.imaging.preprocess import Preprocess
from lookalike.towers import SwinConfig
from lookalike.towers.ops import declare, shapes_of
from lookalike.towers.programs.jax import features
from lookalike.towers.swin import log_offsets, pairs, regions

SMALL = SwinConfig(1, width=8, depths=(3, 2), heads=(2, 2), windows=(4, 4), shifts=(2, 2))
SECOND = dataclasses.replace(SMALL, version=2)


def parts(tower: SwinConfig, size: int) -> tuple[EncoderConfig, Tensors]:
    prepare = Preprocess(size, "crop", size, "bicubic", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    config = EncoderConfig(tower, "mean", prepare, ProjectionConfig("identity", tower.features, tower.features))
    rng = np.random.default_rng(0)
    return config, {n: (rng.normal(size=s) * 0.5).astype(np.float32) for n, s in tensor_shapes(config).items()}


@pytest.mark.parametrize(("window", "reach"), [(3, 3), (2, 4), (1, 1)])
def test_pairs_point_to_their_offset(window: int, reach: int):
    offsets = [(down, right) for down in range(1 - reach, reach) for right in range(1 - reach, reach)]
    tokens = [(row, column) for row in range(window) for column in range(window)]
    found = pairs(window, reach)
    for i, (row, column) in enumerate(tokens):
        for j, (row2, column2) in enumerate(tokens):
            assert offsets[found[i, j]] == (row - row2, column - column2)


@pytest.mark.parametrize(("window", "trained"), [(4, 4), (3, 6), (1, 1)])
def test_offsets_are_logarithmic(window: int, trained: int):
    steps = []
    for offset in range(1 - window, window):
        scaled = 8 * offset / (trained - 1) if trained > 1 else 0.0
        steps.append(math.copysign(math.log2(1 + abs(scaled)) / math.log2(8), scaled))
    wanted = [(down, right) for down in steps for right in steps]
    np.testing.assert_allclose(log_offsets(window, trained), wanted, rtol=1e-6)


@pytest.mark.parametrize(("side", "window", "shift"), [(8, 4, 2), (9, 3, 1), (8, 4, 0)])
def test_tokens_of_one_region_are_true_neighbours(side: int, window: int, shift: int):
    """In a window, two tokens are of one region just when they are not further apart than the window's side."""
    places = [[((row + shift) % side, (column + shift) % side) for column in range(side)] for row in range(side)]
    found, count = regions(side, window, shift), side // window
    for at in range(count**2):
        top, left = at // count * window, at % count * window
        inside = [places[top + row][left + column] for row in range(window) for column in range(window)]
        for i, (row, column) in enumerate(inside):
            for j, (row2, column2) in enumerate(inside):
                near = abs(row - row2) < window and abs(column - column2) < window
                assert (found[at, i] == found[at, j]) == near


def test_windows_of_a_map():
    assert SMALL.sides(50) == (13, 7)
    assert [SMALL.window(0, side) for side in (3, 4, 5)] == [(3, 0), (4, 0), (4, 2)]
    assert [SECOND.window(0, side) for side in (3, 4, 5)] == [(4, 2)] * 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"depths": (2,)}, "for every stage"),
        ({"trained_windows": (4,)}, "for every stage"),
        ({"heads": (3, 2)}, r"can't be split among \(3, 2\) heads"),
        ({"shifts": (4, 2)}, "smaller than the windows"),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, Any], words: str):
    with pytest.raises(EncoderError, match=words):
        dataclasses.replace(SMALL, **change)


def test_a_smaller_map_uses_the_middle_of_the_table():
    """As a model of smaller windows does that has the same bias for each offset."""
    large = SwinConfig(1, width=8, depths=(2,), heads=(2,), windows=(4,), shifts=(2,))
    config, tensors = parts(large, 12)
    table = tensors["tower.stages.0.blocks.attention.table"].reshape(2, 7, 7, 2)
    smaller = dataclasses.replace(config, tower=dataclasses.replace(large, windows=(3,), shifts=(0,)))
    cut = tensors | {"tower.stages.0.blocks.attention.table": table[:, 1:6, 1:6].reshape(2, 25, 2)}
    images = jnp.asarray(np.random.default_rng(1).integers(0, 256, (2, 12, 12, 3), dtype=np.uint8))
    run = jax.jit(lambda encoder, images: encoder.features(images))
    found = run(Encoder.from_parts(config, tensors), images)
    np.testing.assert_allclose(found, run(Encoder.from_parts(smaller, cut), images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tower", [SMALL, SECOND])
def test_blocks_are_compiled_two_by_two_however_many_there_are(tower: SwinConfig):
    sizes = []
    for depth in (2, 18):
        config, tensors = parts(dataclasses.replace(tower, depths=(2, depth)), 32)
        program = jax.make_jaxpr(lambda e, x: e.features(x))(
            Encoder.from_parts(config, tensors), jnp.zeros((1, 32, 32, 3), jnp.uint8)
        )
        sizes.append(str(program).count("dot_general"))
    assert sizes[0] == sizes[1]


def test_computing_blocks_again_changes_no_gradient_and_takes_less_memory():
    tower = SwinConfig(1, width=8, depths=(12,), heads=(2,), windows=(4,), shifts=(2,))
    own = {name.removeprefix("tower."): jnp.asarray(t) for name, t in parts(tower, 32)[1].items()}
    image = jnp.asarray(np.random.default_rng(1).normal(size=(1, 32, 32, 3)), jnp.float32)
    found, bytes_ = [], []
    for remat in (False, True):
        slopes = jax.grad(lambda own, remat=remat: features(tower, "mean", own, image, remat=remat)[0, 0])
        program = jax.jit(slopes).lower(own).compile()
        bytes_.append(program.memory_analysis().temp_size_in_bytes)
        found.append(program(own))
    assert bytes_[1] < 0.6 * bytes_[0]
    for name, slope in found[0].items():
        np.testing.assert_allclose(slope, found[1][name], rtol=1e-3, atol=1e-4 * float(jnp.abs(slope).max()))


def test_new_tensors():
    config, _ = parts(SECOND, 32)
    tensors = init_tensors(declared(config), jax.random.key(0))
    np.testing.assert_allclose(tensors["tower.stages.1.blocks.attention.logit_scale"], math.log(10), rtol=1e-6)
    assert not tensors["tower.stages.1.blocks.attention.qkv.bias"].any()
    assert (tensors["tower.norm_patch.weight"] == 1).all()


SIZES = {
    "T": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "S": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "B": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "L": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
FIRST = {name: SwinConfig(1, *sizes, windows=(7,) * 4, shifts=(3, 3, 3, 0)) for name, sizes in SIZES.items()}
LATER = {name: SwinConfig(2, *sizes, windows=(8,) * 4, shifts=(4, 4, 4, 0)) for name, sizes in SIZES.items()}

# Millions with a classifier of 1000 classes: table 1 of Liu et al. (2021) to one digit, timm's table of results to two.
PUBLISHED = {("T", 1): 28.29, ("S", 1): 49.61, ("B", 1): 87.77, ("L", 1): 196.53}
PUBLISHED |= {("T", 2): 28.35, ("S", 2): 49.73, ("B", 2): 87.92, ("L", 2): 196.74}


@pytest.mark.parametrize(("name", "version"), PUBLISHED)
def test_parameter_counts_are_the_published_ones(name: str, version: int):
    config = (FIRST, LATER)[version - 1][name]
    made = jax.eval_shape(lambda key: init_tensors(declare(config), key), jax.random.key(0))
    count = sum(math.prod(tensor.shape) for tensor in made.values())
    assert round((count + 1000 * (config.features + 1)) / 1e6, 2) == PUBLISHED[name, version]
    if name == "B":
        assert count == (86_743_224, 86_893_816)[version - 1]


@pytest.mark.parametrize(("tower", "size"), [(FIRST["B"], 224), (LATER["B"], 256)])
def test_the_base_size_fits_together(tower: SwinConfig, size: int):
    """All of its shapes, without computing anything."""
    tensors = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes_of(tower).items()}
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    assert jax.eval_shape(lambda t, x: features(tower, "mean", t, x), tensors, image).shape == (1, 1024)
    assert tower.sides(size) == tuple(size // 4 // 2**i for i in range(4))
