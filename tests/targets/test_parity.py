"""The check of exports can fail, and a failed one leaves nothing behind."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookalike.core.errors import EncoderError, UsageError
from lookalike.imaging.decode import decode
from lookalike.imaging.preprocess import Preprocess
from lookalike.targets import parity
from lookalike.targets.lines import OPENED, preparation
from lookalike.targets.parts import Export
from lookalike.targets.writing import check_request, write_export


def test_images_are_drawn_alike_every_time_and_none_is_square():
    for one, other, size in zip(parity.drawn_images(), parity.drawn_images(), parity.SIZES, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.shape == (*size, 3)
        assert size[0] != size[1]
        assert one.std() > 20


def test_compare_tells_direction_length_and_order():
    rng = np.random.default_rng(0)
    expected = rng.normal(size=(6, 8)).astype(np.float32)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    cosines = (expected @ expected.T)[~np.eye(6, dtype=bool)]
    same = parity.compare(expected, expected)
    assert (same.minimum, same.mixed) == (1, False)
    assert same.different == pytest.approx(cosines.max(), abs=1e-6)
    turned = expected + 0.1 * np.roll(expected, 1, axis=0)
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    assert parity.compare(turned, expected).minimum == pytest.approx((turned * expected).sum(1).min(), abs=1e-6)
    assert parity.compare(2 * expected, expected).minimum < 0.6
    assert parity.compare(np.roll(expected, 1, axis=0), expected).mixed


def test_an_encoder_that_finds_all_images_alike_is_told_by_order():
    rng = np.random.default_rng(0)
    expected = (np.ones((6, 8)) + 1e-3 * rng.normal(size=(6, 8))).astype(np.float32)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    wrong = parity.compare(np.roll(expected, 1, axis=0), expected)
    assert wrong.minimum > 0.9999
    with pytest.raises(EncoderError, match="nearer to the encoder's of another image"):
        parity.refuse(wrong, "onnx", None, int8=False)
    parity.refuse(wrong, "onnx", 0.9, int8=False)  # told otherwise


@pytest.mark.parametrize("found", [np.full((6, 8), np.nan, np.float32), np.zeros((6, 4), np.float32)])
def test_what_is_no_answer_at_all_is_refused(found: np.ndarray):
    with pytest.raises(EncoderError, match=r"are finite; expected \[6, 8\]"):
        parity.compare(found, np.zeros((6, 8), np.float32))


def test_a_failed_export_leaves_nothing_and_names_the_way_out(tmp_path: Path, clip):
    tensors = clip.tensors | {"tower.head.weight": np.roll(clip.tensors["tower.head.weight"], 1, axis=1)}
    export = Export(clip.config, tensors, {"name": "Small"})
    with pytest.raises(EncoderError, match=r"smallest cosine over 6 images is .*expected at least 0.9999") as error:
        write_export("onnx", export, clip.vectors, tmp_path / "out")
    assert "--min-cosine" in error.value.hint
    assert list(tmp_path.iterdir()) == []
    least = float(error.value.hint.split("--min-cosine ")[1].split("`")[0])
    assert write_export("onnx", export, clip.vectors, tmp_path / "out", least)["minimum_cosine"] > least


def test_requests_that_can_not_be_met():
    with pytest.raises(UsageError, match="Did you mean `onnx`"):
        check_request("onx", True, False)
    with pytest.raises(UsageError, match="`--int8` goes with the targets onnx, openvino; not with transformers"):
        check_request("transformers", True, True)
    with pytest.raises(UsageError, match="`--no-preprocess` goes with"):
        check_request("submission", False, False)


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch):
    from lookalike.targets import onnx

    monkeypatch.setattr(onnx, "TARGET", dataclasses.replace(onnx.TARGET, needs=("onnx", "not_there_at_all")))
    with pytest.raises(UsageError, match="is written by libraries that are not installed: not_there_at_all") as error:
        check_request("onnx", True, False)
    assert error.value.hint == "pip install not_there_at_all"


@pytest.mark.parametrize("mode", ["crop", "squash", "pad"])
@pytest.mark.parametrize("rounding", ["floor", "even"])
@pytest.mark.parametrize("resize", [64, 71])
def test_lines_that_prepare_images_do_what_the_encoder_does(tmp_path: Path, mode, rounding, resize):
    preprocess = Preprocess(64, mode, resize, "bicubic", (0.5,) * 3, (0.5,) * 3, rounding=rounding, fill=(9, 99, 200))
    if mode != "pad":
        preprocess = dataclasses.replace(preprocess, fill=(0, 0, 0))
    names: dict = {}
    exec("import numpy as np\nfrom PIL import Image, ImageOps\n" + preparation(preprocess), names)
    for image in parity.drawn_images()[:4]:
        Image.fromarray(image).save(tmp_path / "image.png")
        np.testing.assert_array_equal(names["prepared"](tmp_path / "image.png"), preprocess(image))


def test_lines_that_open_images_do_what_our_decoder_does(tmp_path: Path):
    """Upright, on white, in 8 bits: what cameras and shops give beside plain RGB."""
    drawn = parity.drawn_images()[0]
    rgb, names = Image.fromarray(drawn), {}
    exec("from PIL import Image, ImageOps\n" + OPENED, names)
    glass = rgb.convert("RGBA")
    glass.putalpha(Image.fromarray(np.tile(np.arange(drawn.shape[1], dtype=np.uint8), (drawn.shape[0], 1))))
    deep = Image.fromarray(drawn[:, :, 0].astype(np.uint16) * 251 + 77)
    palette = rgb.quantize(16)
    turned = Image.Exif()
    turned[0x0112] = 6
    files = {
        "turned.jpg": (rgb, {"exif": turned, "quality": 90}),
        "turned.png": (glass, {"exif": turned}),
        "glass.png": (glass, {}),
        "glass_gray.png": (glass.convert("LA"), {}),
        "deep.png": (deep, {}),
        "deep.tif": (deep, {}),
        "palette.png": (palette, {"transparency": 3}),
        "line.png": (rgb.convert("1"), {}),
        "gray.jpg": (rgb.convert("L"), {}),
        "ink.jpg": (rgb.convert("CMYK"), {}),
    }
    for name, (image, options) in files.items():
        image.save(tmp_path / name, **options)
        ours = decode((tmp_path / name).read_bytes())
        theirs = np.asarray(names["opened"](tmp_path / name))
        assert theirs.shape == ours.shape, name
        assert np.abs(theirs.astype(int) - ours).max() == 0, name


def test_without_antialiasing_the_lines_ask_us(tmp_path: Path):
    preprocess = Preprocess(64, "crop", 71, "bicubic", (0.5,) * 3, (0.5,) * 3, antialias=False)
    names: dict = {}
    exec("import numpy as np\nfrom PIL import Image, ImageOps\n" + preparation(preprocess), names)
    image, path = parity.drawn_images()[0], tmp_path / "image.png"
    Image.fromarray(image).save(path)
    np.testing.assert_array_equal(names["prepared"](path), preprocess(image))
