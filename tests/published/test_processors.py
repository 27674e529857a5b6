"""Published preprocessing: read to the letter, or refused; nothing is assumed."""

import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from lookalike.core.errors import EncoderError
from lookalike.imaging.decode import decode
from lookalike.imaging.preprocess import Preprocess
from lookalike.published.processors import (
    IMAGENET,
    as_the_seed,
    from_timm,
    from_transformers,
    has_imagenet_statistics,
)

MEAN, STD = [0.48, 0.45, 0.4], [0.26, 0.25, 0.27]
NEW: dict[str, Any] = {
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "resample": 2,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 0.00392156862745098,
    "do_normalize": True,
    "image_mean": MEAN,
    "image_std": STD,
}


def read(path: Path, data: Any, name: str = "preprocessor_config.json") -> Preprocess:
    (path / name).write_text(json.dumps(data))
    return from_transformers(path)


def test_new_and_old_files_and_a_processors_say_the_same(tmp_path: Path):
    expected = Preprocess(224, "crop", 256, "bilinear", (0.48, 0.45, 0.4), (0.26, 0.25, 0.27))
    assert read(tmp_path, NEW) == expected
    old = {k: v for k, v in NEW.items() if "rescale" not in k} | {"size": 256, "crop_size": 224}
    assert read(tmp_path, old) == expected
    (tmp_path / "preprocessor_config.json").unlink()
    assert (
        read(tmp_path, {"image_processor": NEW, "processor_class": "CLIPProcessor"}, "processor_config.json")
        == expected
    )


def test_null_leaves_it_to_the_image_processor(tmp_path: Path):
    """As transformers 5 writes what was never set, and reads it."""
    unset = dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize", "rescale_factor", "do_pad"))
    kind = {"image_processor_type": "CLIPImageProcessor"}
    assert read(tmp_path, NEW | unset | kind) == read(tmp_path, NEW)


def test_a_square_without_a_crop_is_squashed(tmp_path: Path):
    data = NEW | {"do_center_crop": False, "size": {"height": 96, "width": 96}, "resample": 3}
    assert read(tmp_path, data) == Preprocess(96, "squash", 96, "bicubic", (0.48, 0.45, 0.4), (0.26, 0.25, 0.27))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_std": None}, "lacks `image_std`"),
        ({"crop_size": None}, "lacks `crop_size`"),
        ({"size": None, "resample": None}, "lacks `size`, `resample`"),
        ({"do_resize": False}, "does not resize"),
        ({"do_rescale": False}, "does not rescale"),
        ({"do_pad": True}, "has the step `do_pad`"),
        ({"do_flip_channel_order": True}, "has the step `do_flip_channel_order`"),
        ({"rescale_factor": 0.5}, "rescales by 0.5"),
        ({"resample": 4}, "filter 4"),
        ({"include_top": True}, "EfficientNet's keys"),
        ({"image_processor_type": "Siglip2ImageProcessor"}, "any number and shape"),
        ({"image_processor_type": "GotOcr2ImageProcessorFast"}, "which is not known; expected one of Bit, CLIP"),
        ({"crop_size": {"height": 224, "width": 200}}, "expected a square"),
        ({"size": {"height": 200, "width": 200}}, "and crops to"),
        ({"size": {"shortest_edge": 256, "longest_edge": 400}}, "expected a shortest edge"),
        ({"image_processor_type": "ConvNextImageProcessor", "do_center_crop": False}, "lacks `crop_pct`"),
        ({"image_processor_type": "ConvNextImageProcessor", "crop_pct": 0.9}, "expected a shortest edge"),
        ({"do_center_crop": False}, "without cropping"),
        ({"image_mean": [0.5]}, "three numbers"),
    ],
)
def test_what_is_missing_or_foreign_is_refused(tmp_path: Path, change: dict[str, Any], words: str):
    with pytest.raises(EncoderError) as caught:
        read(tmp_path, NEW | change)
    assert words in caught.value.message


def test_no_file_is_a_sentence_with_a_hint(tmp_path: Path):
    with pytest.raises(EncoderError, match=r"no `preprocessor_config\.json`") as caught:
        from_transformers(tmp_path)
    assert "never assumed" in caught.value.hint


def test_without_statistics_nothing_is_subtracted(tmp_path: Path):
    said = read(tmp_path, {k: v for k, v in NEW.items() if "image_" not in k} | {"do_normalize": False})
    assert (said.mean, said.std) == ((0, 0, 0), (1, 1, 1))


def test_a_bare_number_means_what_its_processor_takes_it_for(tmp_path: Path):
    """Files from before `size` was an object, as microsoft/swin-tiny and facebook/convnext-tiny had them."""
    old = {"image_mean": MEAN, "image_std": STD, "do_resize": True, "do_normalize": True, "resample": 3, "size": 224}
    swin = read(tmp_path, old | {"feature_extractor_type": "ViTFeatureExtractor"})
    assert (swin.mode, swin.size, swin.resize) == ("squash", 224, 224)
    convnext = read(tmp_path, old | {"feature_extractor_type": "ConvNextFeatureExtractor", "crop_pct": 0.875})
    assert (convnext.mode, convnext.size, convnext.resize) == ("crop", 224, 256)
    large = read(tmp_path, old | {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 384})
    assert (large.mode, large.size, large.resize) == ("squash", 384, 384)
    clip = read(tmp_path, old | {"feature_extractor_type": "CLIPFeatureExtractor", "crop_size": 224})
    assert (clip.mode, clip.size, clip.resize) == ("crop", 224, 224)


# --- against the image processors of transformers -----------------------------------------------------------------

SIZES = [(30, 700), (700, 30), (223, 225), (384, 384), (481, 640)]
LARGE = (3000, 4000)
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
KERAS_STD = [0.47853944, 0.4732864, 0.47434163]
SQUARE = {"height": 96, "width": 96}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
SHORT: dict[str, Any] = {"size": {"shortest_edge": 112}, "crop_size": {"height": 96, "width": 96}}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "CLIP": ("clip", SHORT | {"size": {"shortest_edge": 96}}),
    "CLIP squashed": ("clip", {"size": SQUARE, "do_center_crop": False}),
    "DINOv2": ("bit", SHORT | {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}),
    "SigLIP": ("siglip", {"size": SQUARE}),
    "SigLIP 2": ("siglip", {"size": SQUARE, "resample": 2}),
    "Swin": ("vit", {"size": SQUARE, "resample": 3, "image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}),
    "DeiT": ("deit", {"size": {"height": 111, "width": 111}, "crop_size": SQUARE}),
    "MobileNetV2": ("mobilenet_v2", SHORT),
    "ConvNeXt": ("convnext", {"size": {"shortest_edge": 96}, "crop_pct": 0.875}),
    "ConvNeXt 384": ("convnext", {"size": {"shortest_edge": 384}}),
    "EfficientNet": ("efficientnet", {"size": SQUARE, "resample": 0, "image_std": KERAS_STD}),
    "EfficientNet, offset": (
        "efficientnet",
        {"size": SQUARE, "resample": 2, "rescale_offset": True, "rescale_factor": 1 / 127.5, "include_top": False},
    ),
}


@cache
def picture(height: int, width: int) -> np.ndarray:
    """Coarse structure with noise on top, so that both a shift and a wrong filter show."""
    rng = np.random.default_rng(height)
    coarse = rng.integers(0, 256, (max(2, height // 16), max(2, width // 16), 3), dtype=np.uint8)
    large = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    image = np.clip(large + rng.integers(-30, 31, large.shape, dtype=np.int16), 0, 255).astype(np.uint8)
    image.flags.writeable = False
    return image


def normalized(ours: Preprocess, pixels: np.ndarray) -> np.ndarray:
    """What the graph makes of the pixels: [S S 3]."""
    return (pixels / 255 - ours.mean) / ours.std


@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_image_processor_that_wrote_the_file(family: str, tmp_path: Path):
    module, options = FAMILIES[family]
    classes = import_module(f"transformers.models.{module}.image_processing_pil_{module}")
    theirs = getattr(classes, classes.__all__[0])(**options)
    theirs.save_pretrained(tmp_path)
    ours = from_transformers(tmp_path)
    for height, width in [*SIZES, *([LARGE] if family in ("DINOv2", "Swin") else [])]:
        image = picture(height, width)
        wanted = theirs(Image.fromarray(image), return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        assert np.allclose(normalized(ours, ours(image)), wanted, atol=2e-5), (height, width)


@pytest.mark.reference("torch")
@pytest.mark.parametrize("kind", ["DINOv3ViTImageProcessorFast", "Tipsv2ImageProcessor"])
def test_equals_what_torchvision_computes_for_the_processors_that_need_it(kind: str, tmp_path: Path):
    """Those resize float tensors (torch's antialiased interpolation), ours 8 bits: a rounding apart, never a filter."""
    import torch

    statistics = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD} if "DINO" in kind else {"do_normalize": False}
    ours = read(tmp_path, {"image_processor_type": kind, "size": SQUARE, "resample": 2, "crop_size": None} | statistics)
    for height, width in [*SIZES, LARGE]:
        image = picture(height, width)
        pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())[None] / 255
        resized = torch.nn.functional.interpolate(pixels, (96, 96), mode="bilinear", antialias=True)
        wanted = resized[0].numpy().transpose(1, 2, 0)
        if "DINO" in kind:
            wanted = (wanted - IMAGENET_MEAN) / IMAGENET_STD
        assert np.abs(normalized(ours, ours(image)) - wanted).max() <= 1.01 / 255 / min(ours.std), (height, width)
        assert cosine(tower(normalized(ours, ours(image))), tower(wanted)) >= 0.9995


@pytest.mark.reference("torch")
@pytest.mark.parametrize("resample", [2, 3])
def test_torchvision_s_form_of_the_other_processors_is_a_rounding_apart(resample: int, tmp_path: Path):
    """Where torchvision is installed, transformers resizes 8-bit tensors with it: one rounding, and Pillow has two."""
    import torch

    ours = read(tmp_path, {"image_processor_type": "SiglipImageProcessor", "size": SQUARE, "resample": resample} | HALF)
    for height, width in [*SIZES, LARGE]:
        image = picture(height, width)
        pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float()
        mode = {2: "bilinear", 3: "bicubic"}[resample]
        resized = torch.nn.functional.interpolate(pixels, (96, 96), mode=mode, antialias=True)
        wanted = resized.clip(0, 255).round()[0].permute(1, 2, 0).numpy()
        assert np.abs(ours(image) - wanted).max() <= 2
        assert cosine(tower(normalized(ours, ours(image))), tower(normalized(ours, wanted))) >= 0.9995


# --- timm ---------------------------------------------------------------------------------------------------------

TIMM: dict[str, Any] = {
    "input_size": [3, 96, 96],
    "interpolation": "bicubic",
    "crop_pct": 0.9,
    "crop_mode": "center",
    "mean": IMAGENET_MEAN,
    "std": IMAGENET_STD,
}


def timm_pixels(image: np.ndarray, size: int, share: float, mode: str, filter_: int) -> np.ndarray:
    """`timm.data.create_transform` for evaluation, written out with Pillow."""
    height, width = image.shape[:2]
    long = math.floor(size / share)
    if mode == "squash":
        new = (long, long)
    elif mode == "border":
        ratio = max(height, width) / long
        new = (round(width / ratio), round(height / ratio))
    else:
        new = (long, int(long * height / width)) if width <= height else (int(long * width / height), long)
    fill = tuple(round(255 * value) for value in IMAGENET_MEAN) if mode == "border" else (0, 0, 0)
    resized = Image.fromarray(image).resize(new, filter_)
    paper = Image.new("RGB", (max(size, new[0]), max(size, new[1])), fill)
    paper.paste(resized, (max(0, (size - new[0]) // 2), max(0, (size - new[1]) // 2)))
    left, top = round((paper.width - size) / 2.0), round((paper.height - size) / 2.0)
    return np.asarray(paper.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize(
    ("share", "name", "filter_"), [(0.9, "bicubic", 3), (1.0, "bilinear", 2), (0.875, "nearest", 0)]
)
def test_timm_s_config_is_its_transform(mode: str, share: float, name: str, filter_: int):
    ours = from_timm(
        Path("m"), {"pretrained_cfg": TIMM | {"crop_pct": share, "crop_mode": mode, "interpolation": name}}
    )
    for height, width in SIZES:
        image = picture(height, width)
        assert np.array_equal(ours(image), timm_pixels(image, 96, share, mode, filter_)), (height, width)


@pytest.mark.reference("timm")
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_timm_itself_agrees(mode: str):
    import timm

    config = TIMM | {"crop_mode": mode}
    ours = from_timm(Path("m"), {"pretrained_cfg": config})
    theirs = timm.data.create_transform(**timm.data.resolve_data_config(config), is_training=False)
    for height, width in SIZES:
        image = picture(height, width)
        wanted = theirs(Image.fromarray(image)).numpy().transpose(1, 2, 0)
        assert np.allclose(normalized(ours, ours(image)), wanted, atol=2e-5)


def test_timm_s_older_files_have_the_keys_at_the_top():
    old = {key: value for key, value in TIMM.items() if key != "crop_mode"} | {"architecture": "vit_base_patch16_224"}
    assert from_timm(Path("m"), old) == from_timm(Path("m"), {"pretrained_cfg": TIMM})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": None, "crop_pct": None}, "lacks `crop_pct`, `mean`"),
        ({"interpolation": "random"}, "is not supported"),
        ({"crop_mode": "corner"}, "is not supported"),
        ({"input_size": [1, 96, 96]}, "is not supported"),
        ({"input_size": [3, 96, 128]}, "expected a square"),
        ({"crop_pct": 1.2}, "is not supported"),
    ],
)
def test_what_timm_does_not_say_is_refused(change: dict[str, Any], words: str):
    with pytest.raises(EncoderError) as caught:
        from_timm(Path("m"), {"pretrained_cfg": TIMM | change})
    assert words in caught.value.message


# --- from the file to the vector ------------------------------------------------------------------------------------


def tower(pixels: np.ndarray) -> np.ndarray:
    """Features of a small random tower: patches of 8 px, two layers, the mean."""
    rng = np.random.default_rng(0)
    side = len(pixels) // 8
    patches = pixels.reshape(side, 8, side, 8, 3).transpose(0, 2, 1, 3, 4).reshape(side * side, -1)
    hidden = np.tanh(patches @ rng.normal(0, 0.1, (192, 64)) + rng.normal(0, 0.5, (side * side, 64)))
    return np.asarray(np.tanh(hidden @ rng.normal(0, 0.2, (64, 32))).mean(0))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def file(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pillow(data: bytes) -> np.ndarray:
    """Upright RGB of the first frame by Pillow's own conversions; transparent parts on white paper."""
    image: Image.Image = Image.open(io.BytesIO(data))
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # convert() would clip at 255
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def upside(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return file(image, "JPEG", quality=95, exif=exif)


def sixteen(image: Image.Image) -> bytes:
    return file(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), "PNG")


def see_through(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def frames(image: Image.Image) -> dict[str, Any]:
    return {"save_all": True, "append_images": [ImageOps.invert(image)], "duration": 100}


FILES: dict[str, Callable[[Image.Image], bytes]] = {
    "RGB": lambda i: file(i, "PNG"),
    "JPEG": lambda i: file(i, "JPEG", quality=90),
    "gray": lambda i: file(i.convert("L"), "PNG"),
    "gray JPEG": lambda i: file(i.convert("L"), "JPEG"),
    "black and white": lambda i: file(i.convert("1"), "PNG"),
    "gray with alpha": lambda i: file(see_through(i).convert("LA"), "PNG"),
    "alpha": lambda i: file(see_through(i), "PNG"),
    "alpha, WebP": lambda i: file(see_through(i), "WEBP", lossless=True),
    "palette": lambda i: file(i.quantize(64), "PNG"),
    "palette with a transparent color": lambda i: file(i.quantize(64), "PNG", transparency=3),
    "CMYK": lambda i: file(i.convert("CMYK"), "JPEG", quality=95),
    "16 bits": sixteen,
    "EXIF": upside,
    "GIF, animated": lambda i: file(i, "GIF", **frames(i)),
    "PNG, animated": lambda i: file(i, "PNG", **frames(i)),
    "WebP, animated": lambda i: file(i, "WEBP", lossless=True, **frames(i)),
    "TIFF": lambda i: file(i, "TIFF"),
}


@pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")
@pytest.mark.parametrize("form", FILES)
def test_every_form_of_file_gives_the_vector_of_pillow_s_pixels(form: str):
    ours = Preprocess(96, "crop", 96, "bicubic", (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
    for height, width in [(30, 700), (700, 30), (301, 227)]:
        data = FILES[form](Image.fromarray(picture(height, width)))
        vectors = [tower(normalized(ours, ours(pixels))) for pixels in (decode(data), pillow(data))]
        assert cosine(*vectors) >= 0.9995, (height, width)


def test_photographs_of_twelve_megapixels_give_it_too():
    ours = Preprocess(96, "crop", 96, "bicubic", (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
    data = upside(Image.fromarray(picture(*LARGE)))
    vectors = [tower(normalized(ours, ours(pixels))) for pixels in (decode(data), pillow(data))]
    assert cosine(*vectors) >= 0.9995


def test_wrong_statistics_would_be_seen():
    """The seed's slip: the mean and std of ImageNet in front of a tower that was trained with CLIP's."""
    clip = Preprocess(
        96, "crop", 96, "bicubic", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.2613026, 0.27577711)
    )
    slip = replace(clip, mean=IMAGENET[0], std=IMAGENET[1])
    assert has_imagenet_statistics(slip)
    assert not has_imagenet_statistics(clip)
    pixels = clip(picture(301, 227))
    assert cosine(tower(normalized(clip, pixels)), tower(normalized(slip, pixels))) < 0.9995


@pytest.mark.reference("torch")
def test_the_seed_s_pixels(tmp_path: Path):
    """Bilinear at the pixel centres, both sides at once, nothing averaged: TensorFlow's `resize`, and torch's."""
    import torch

    ours = as_the_seed(read(tmp_path, NEW))
    image = picture(481, 640)
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float()
    resized = torch.nn.functional.interpolate(pixels, (224, 224), mode="bilinear", align_corners=False)
    wanted = (resized[0].permute(1, 2, 0).numpy() / 255 - IMAGENET_MEAN) / IMAGENET_STD
    assert np.abs(normalized(ours, ours(image)) - wanted).max() <= 0.51 / 255 / min(IMAGENET_STD)
