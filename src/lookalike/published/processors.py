"""Published preprocessing, read from the file that says it and never assumed; and written in the same words."""

from collections.abc import Mapping
from math import floor
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.core.files import read_json, write_json
from lookalike.imaging.preprocess import Preprocess

_Three = tuple[float, float, float]

IMAGENET: tuple[_Three, _Three] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and std of ImageNet, right for the towers that were trained on them, and a known slip in CLIP's."""

# Our words, and those of each library.
_FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}  # Pillow's numbers
_TIMM_MODES = {"crop": "center", "squash": "squash", "pad": "border"}
_OPEN_CLIP_MODES = {"crop": "shortest", "squash": "squash", "pad": "longest"}

# Image processors of transformers, without `ImageProcessor`, older and faster forms, and what they do where their file
# is silent: these crop; to these a bare number as size is both sides, and not the shorter one; and all that are known.
_CROP = {"Bit", "CLIP", "DeiT", "MobileNetV2"}
_BOTH = {"DINOv3ViT", "DeiT", "EfficientNet", "Tipsv2", "ViT"}
_KINDS = sorted(_CROP | _BOTH | {"ConvNext", "Siglip"})
_KNOWN_STEPS = {"resize", "center_crop", "rescale", "normalize", "convert_rgb", "reduce_labels"}


def from_transformers(path: Path, side: int | None = None) -> Preprocess:
    """What `preprocessor_config.json` (or the image part of `processor_config.json`) of a transformers model says.

    The keys `do_*` and `rescale_factor` are younger than some published files; where one is missing, the fixed
    behaviour of the file's image processor holds. Size, crop, filter, mean and std must be there. What a processor
    computes after resizing, `(x * rescale_factor - offset - mean) / std`, is folded into our mean and std.

    A processor that keeps the shape of an image, and cuts as many patches from it as fit (NaFlex), says no size: its
    images are brought to a square of `side` first, so for a square image the two agree.
    """
    data = _image_processor(path)
    written = data.get("image_processor_type") or data.get("feature_extractor_type") or ""
    name = str(written).removesuffix("Fast").removesuffix("Pil")
    name = name.removesuffix("ImageProcessor").removesuffix("FeatureExtractor")  # hand-made files name none
    if name == "Siglip2" and side is None:
        raise EncoderError(
            f"`{path}` takes patches of any number and shape (NaFlex), which is not supported.",
            hint="the same model is published with a fixed size, for example google/siglip2-base-patch16-224",
        )
    if written and name not in (*_KINDS, "Siglip2"):
        raise _no(path, f"is of a `{written}`, which is not known; expected one of {', '.join(_KINDS)}")
    crops = side is None and bool(data.get("do_center_crop", name in _CROP if name else "crop_size" in data))
    normalizes = bool(data.get("do_normalize", name != "Tipsv2"))
    wanted = ["size"] * (side is None) + ["resample"]
    _require(path, data, *wanted, *["image_mean", "image_std"] * normalizes, *["crop_size"] * crops)
    steps = {key.removeprefix("do_"): on for key, on in data.items() if key.startswith("do_")}
    if absent := [step for step in ("resize", "rescale") if not steps.get(step, True)]:
        raise _no(path, f"does not {absent[0]}, which is not supported")
    if foreign := [step for step, on in steps.items() if on and step not in _KNOWN_STEPS]:
        raise _no(path, f"has the step `do_{foreign[0]}`, which is not supported")
    if (interpolation := _ours(_FILTERS, data["resample"])) is None:
        raise _no(path, f"has filter {data['resample']}; expected 0, 1, 2 or 3")
    mode, size, resize = _geometry(data, name, crops, path, side)
    return Preprocess(size, mode, resize, interpolation, *_statistics(data, name, normalizes, path))


def _image_processor(path: Path) -> dict[str, Any]:
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (path / name).exists():
            data = read_json(path / name)
            data = data.get("image_processor", data) if isinstance(data, dict) else {}
            if {"size", "resample", "image_mean"} & data.keys():
                return {key: value for key, value in data.items() if value is not None}  # null: the class decides
    raise EncoderError(
        f"`{path}` has no `preprocessor_config.json`, so how images must be prepared is not known.",
        hint="copy that file from where the model comes from; it is never assumed",
    )


def _geometry(data: dict[str, Any], name: str, crops: bool, path: Path, side: int | None) -> tuple[Any, int, int]:
    """Mode, side of the square, and length before the crop."""
    if side is not None:
        return "squash", side, side
    size = data["size"]
    if isinstance(size, int):
        size = {"height": size, "width": size} if name in _BOTH else {"shortest_edge": size}
    edge = size.get("shortest_edge")
    if name == "ConvNext":
        if edge and not crops and edge >= 384:
            return "squash", int(edge), int(edge)
        if edge and not crops:
            _require(path, data, "crop_pct")
            return "crop", int(edge), int(edge / data["crop_pct"])
    elif crops and edge and "longest_edge" not in size:
        return "crop", square(data["crop_size"], path), int(edge)
    elif size.keys() == {"height", "width"}:
        resize = square(size, path)
        side = square(data["crop_size"], path) if crops else resize
        if side <= resize:
            return "squash", side, resize
    cropping = f"and crops to {data['crop_size']}" if crops else "without cropping"
    raise _no(path, f"resizes to {data['size']} {cropping}; expected a shortest edge and a crop, or a square")


def _statistics(data: dict[str, Any], name: str, normalizes: bool, path: Path) -> tuple[_Three, _Three]:
    """What is subtracted from and divides values of 0 to 1, with their scale, offset and second division folded in."""
    scale, offset = float(data.get("rescale_factor") or 1 / 255) * 255, 0.0
    mean, std = np.zeros(3), np.ones(3)
    if normalizes:
        mean, std = np.array(_three(data["image_mean"], path)), np.array(_three(data["image_std"], path))
    if name == "EfficientNet":
        offset = 1.0 if data.get("rescale_offset") else 0.0
        if data.get("include_top", True):  # it divides by std once more
            std = std * _three(data.get("image_std"), path)
    elif data.get("rescale_offset") or data.get("include_top"):
        raise _no(path, "has EfficientNet's keys and another image processor")
    if abs(scale - 1) <= 1e-6:  # 1/255 as written in decimals; x / 255 is what the graph computes
        scale = 1.0
    elif not offset:
        raise _no(path, f"rescales by {data['rescale_factor']}; expected 1/255")
    return _three(((mean + offset) / scale).tolist(), path), _three((std / scale).tolist(), path)


def from_open_clip(path: Path, described: dict[str, Any], size: int) -> Preprocess:
    """What `preprocess_cfg` of `open_clip_config.json` says; `size` is that of the tower.

    Mean and std must be there; its writer leaves out the format's own filter (bicubic) and mode (shortest side).
    """
    data = described.get("preprocess_cfg") or {}
    if "mean" not in data or "std" not in data:
        raise EncoderError(
            f"`{path / 'open_clip_config.json'}` does not say how images are prepared (`preprocess_cfg`).",
            hint="add `preprocess_cfg` with `mean` and `std` as the model's authors publish them",
        )
    size = square(data.get("size") or size, path)
    mode = _ours(_OPEN_CLIP_MODES, data.get("resize_mode") or "shortest")
    names = {"bicubic": "bicubic", "random": "bicubic", "bilinear": "bilinear"}
    interpolation: Any = names.get(data.get("interpolation") or "bicubic")
    if mode is None or interpolation is None or data.get("mode", "RGB") != "RGB":
        raise _no(path, f"is not supported: {data}")
    mean, std = _three(data["mean"], path), _three(data["std"], path)
    grey = int(data.get("fill_color") or 0)
    return Preprocess(size, mode, size, interpolation, mean, std, rounding="even", fill=(grey, grey, grey))


def from_timm(path: Path, described: dict[str, Any]) -> Preprocess:
    """What `pretrained_cfg` in the `config.json` of a timm model says of evaluation; older files have it at the top.

    The image becomes `floor(size / crop_pct)` long (both sides: squash; the longer: border; the shorter: center),
    then the middle is cut out, as `timm.data.create_transform` does it.
    """
    data = described.get("pretrained_cfg") or described
    _require(path, data, "input_size", "interpolation", "crop_pct", "mean", "std")
    channels, *sides = data["input_size"]
    interpolation, mode = data["interpolation"], _ours(_TIMM_MODES, data.get("crop_mode") or "center")
    if channels != 3 or mode is None or interpolation not in _FILTERS or not 0 < data["crop_pct"] <= 1:
        known = {key: data.get(key) for key in ("input_size", "interpolation", "crop_pct", "crop_mode")}
        raise _no(path, f"is not supported: {known}")
    mean, std, size = _three(data["mean"], path), _three(data["std"], path), square(sides, path)
    red, green, blue = (round(255 * value) for value in mean) if mode == "pad" else (0, 0, 0)
    resize = floor(size / data["crop_pct"])
    return Preprocess(size, mode, resize, interpolation, mean, std, rounding="even", fill=(red, green, blue))


def has_imagenet_statistics(preprocess: Preprocess) -> bool:
    """Whether mean and std are those of ImageNet, to three digits."""
    return np.allclose((preprocess.mean, preprocess.std), IMAGENET, rtol=0, atol=1e-3)


def as_the_seed(preprocess: Preprocess) -> Preprocess:
    """As the notebook fed it from which most entries of the 2022 competition descend: with mean and std of ImageNet,
    squashed to the square by bilinear sampling without antialiasing.
    """
    return Preprocess(preprocess.size, "squash", preprocess.size, "bilinear", *IMAGENET, antialias=False)


def square(size: Any, path: Path) -> int:
    """The side of a square from any of its published forms: a number, two, or an object."""
    if isinstance(size, dict):
        size = [size.get("height"), size.get("width")]
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1 or not all(isinstance(side, int) for side in sides):
        raise EncoderError(f"The input of `{path}` is {size}; expected a square.")
    return int(sides.pop())


def _three(values: Any, path: Path) -> _Three:
    if not isinstance(values, (list, tuple)) or len(values) != 3:
        raise _no(path, f"has mean or std {values}; expected three numbers")
    return float(values[0]), float(values[1]), float(values[2])


def _no(path: Path, words: str) -> EncoderError:
    return EncoderError(f"The preprocessing of `{path}` {words}.")


def _require(path: Path, data: Mapping[str, Any], *names: str) -> None:
    if missing := [f"`{name}`" for name in names if data.get(name) is None]:
        raise _no(path, f"lacks {', '.join(missing)}")


def _ours(words: Mapping[str, Any], theirs: Any) -> Any:
    """Our word for theirs; None if there is none."""
    return next((ours for ours, word in words.items() if word == theirs), None)


def write_processor(preprocess: Preprocess, directory: Path) -> bool:
    """The `preprocessor_config.json` that comes nearest; whether it says exactly what `preprocess` does."""
    crop, resize = preprocess.mode == "crop", preprocess.resize
    data = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": resize} if crop else {"height": resize, "width": resize},
        "resample": _FILTERS[preprocess.interpolation],
        "do_center_crop": crop or resize != preprocess.size,
        "crop_size": {"height": preprocess.size, "width": preprocess.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }
    write_json(directory / "preprocessor_config.json", data)
    return from_transformers(directory) == preprocess


def as_timm(preprocess: Preprocess) -> dict[str, Any]:
    """The words of timm's `pretrained_cfg` that come nearest."""
    return {
        "input_size": [3, preprocess.size, preprocess.size],
        "interpolation": preprocess.interpolation,
        "crop_pct": preprocess.size / preprocess.resize,
        "crop_mode": _TIMM_MODES[preprocess.mode],
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
    }


def as_open_clip(preprocess: Preprocess) -> dict[str, Any]:
    """OpenCLIP's `preprocess_cfg` that comes nearest."""
    return {
        "size": preprocess.size,
        "mode": "RGB",
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "interpolation": "bilinear" if preprocess.interpolation == "bilinear" else "bicubic",
        "resize_mode": _OPEN_CLIP_MODES[preprocess.mode],
        "fill_color": preprocess.fill[0],
    }


def ratio(inside: int, width: int) -> float:
    """What `int(width * ratio)` gives `inside` of, as other libraries compute the width inside an MLP."""
    plain = inside / width
    return plain if int(width * plain) == inside else (inside + 0.5) / width
