"""Published preprocessing, read from the file that says it and never assumed."""

from dataclasses import replace
from math import floor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.core.files import read_json, write_json
from lookalike.imaging.preprocess import Preprocess

_Three = tuple[float, float, float]

IMAGENET: tuple[_Three, _Three] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and std of ImageNet, right for the towers that were trained on them, and a known slip in CLIP's."""

_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


class _Kind(NamedTuple):
    """What an image processor of transformers does where its file is silent."""

    crops: bool
    """Whether it crops."""
    number: str
    """What a bare number as size means: the shorter side, or both."""
    normalizes: bool = True
    """Whether it subtracts the mean and divides by std."""


_KINDS = {
    "Bit": _Kind(True, "shorter"),
    "CLIP": _Kind(True, "shorter"),
    "ConvNext": _Kind(False, "shorter"),
    "DINOv3ViT": _Kind(False, "both"),
    "DeiT": _Kind(True, "both"),
    "EfficientNet": _Kind(False, "both"),
    "MobileNetV2": _Kind(True, "shorter"),
    "Siglip": _Kind(False, "shorter"),
    "Tipsv2": _Kind(False, "both", normalizes=False),
    "ViT": _Kind(False, "both"),
}
"""Class names without `ImageProcessor`, its older and faster forms; all that is known."""

_KNOWN_STEPS = {"resize", "center_crop", "rescale", "normalize", "convert_rgb", "reduce_labels"}


def from_transformers(path: Path) -> Preprocess:
    """What `preprocessor_config.json` (or the image part of `processor_config.json`) of a transformers model says.

    The keys `do_*` and `rescale_factor` are younger than some published files; where one is missing, the fixed
    behaviour of the file's image processor holds. Size, crop, filter, mean and std must be there. What a processor
    computes after resizing, `(x * rescale_factor - offset - mean) / std`, is folded into our mean and std.

    Raises:
        EncoderError: There is no such file, it lacks something, or asks for something that we don't do.
    """
    data = _image_processor(path)
    kind, name = _kind(data, path)
    crops = bool(data.get("do_center_crop", kind.crops))
    normalizes = bool(data.get("do_normalize", kind.normalizes))
    needed = ["size", "resample"] + (["image_mean", "image_std"] if normalizes else []) + (["crop_size"] * crops)
    if missing := [key for key in needed if data.get(key) is None]:
        raise EncoderError(f"The preprocessing of `{path}` lacks {', '.join(f'`{key}`' for key in missing)}.")
    for key in ("resize", "rescale"):
        if not data.get(f"do_{key}", True):
            raise EncoderError(f"The preprocessing of `{path}` does not {key}, which is not supported.")
    if foreign := [key for key, on in data.items() if key.startswith("do_") and on and key[3:] not in _KNOWN_STEPS]:
        raise EncoderError(f"The preprocessing of `{path}` has the step `{foreign[0]}`, which is not supported.")
    if data["resample"] not in _RESAMPLE:
        raise EncoderError(f"The preprocessing of `{path}` has filter {data['resample']}; expected 0, 1, 2 or 3.")
    mode, size, resize = _convnext(data, path) if name == "ConvNext" else _geometry(data, kind, crops, path)
    interpolation: Any = _RESAMPLE[data["resample"]]
    return Preprocess(size, mode, resize, interpolation, *_statistics(data, name, normalizes, path))


def from_open_clip(path: Path, described: dict[str, Any], size: int) -> Preprocess:
    """What `preprocess_cfg` of `open_clip_config.json` says; `size` is that of the tower.

    Mean and std must be there. Filter (bicubic) and resize mode (shortest side) are the format's own defaults, which
    its writer leaves out.
    """
    data = described.get("preprocess_cfg") or {}
    if "mean" not in data or "std" not in data:
        raise EncoderError(
            f"`{path / 'open_clip_config.json'}` does not say how images are prepared (`preprocess_cfg`).",
            hint="add `preprocess_cfg` with `mean` and `std` as the model's authors publish them",
        )
    wanted = square(data.get("size") or size, path)
    mode: Any = {"shortest": "crop", "longest": "pad", "squash": "squash"}.get(data.get("resize_mode") or "shortest")
    interpolation: Any = {"bicubic": "bicubic", "random": "bicubic", "bilinear": "bilinear"}.get(
        data.get("interpolation") or "bicubic"
    )
    if mode is None or interpolation is None or data.get("mode", "RGB") != "RGB":
        raise EncoderError(f"The preprocessing of `{path}` is not supported: {data}.")
    mean, std = three(data["mean"], path), three(data["std"], path)
    grey = int(data.get("fill_color") or 0)
    return Preprocess(wanted, mode, wanted, interpolation, mean, std, rounding="even", fill=(grey, grey, grey))


def from_timm(path: Path, described: dict[str, Any]) -> Preprocess:
    """What `pretrained_cfg` in the `config.json` of a timm model says of evaluation.

    Args:
        path: The directory, for messages.
        described: Its `config.json`. Files older than `pretrained_cfg` hold the same keys at the top.

    The image becomes `floor(size / crop_pct)` long (both sides: squash; the longer: border; the shorter: center),
    then the middle is cut out, as `timm.data.create_transform` does it.
    """
    data = described.get("pretrained_cfg") or described
    needed = ("input_size", "interpolation", "crop_pct", "mean", "std")
    if missing := [key for key in needed if data.get(key) is None]:
        raise EncoderError(f"The `pretrained_cfg` of `{path}` lacks {', '.join(f'`{key}`' for key in missing)}.")
    channels, *sides = data["input_size"]
    interpolation: Any = data["interpolation"]
    mode: Any = {"center": "crop", "squash": "squash", "border": "pad"}.get(data.get("crop_mode") or "center")
    if channels != 3 or mode is None or interpolation not in _RESAMPLE.values() or not 0 < data["crop_pct"] <= 1:
        known = {key: data.get(key) for key in ("input_size", "interpolation", "crop_pct", "crop_mode")}
        raise EncoderError(f"The preprocessing of `{path}` is not supported: {known}.")
    mean, std = three(data["mean"], path), three(data["std"], path)
    size = square(sides, path)
    red, green, blue = (round(255 * value) for value in mean) if mode == "pad" else (0, 0, 0)
    resize = floor(size / data["crop_pct"])
    return Preprocess(size, mode, resize, interpolation, mean, std, rounding="even", fill=(red, green, blue))


def has_imagenet_statistics(preprocess: Preprocess) -> bool:
    """Whether mean and std are those of ImageNet, to three digits."""
    pairs = zip(preprocess.mean + preprocess.std, IMAGENET[0] + IMAGENET[1], strict=True)
    return all(abs(ours - theirs) < 1e-3 for ours, theirs in pairs)


def with_imagenet_statistics(preprocess: Preprocess) -> Preprocess:
    """The same with mean and std of ImageNet, whatever the weights were trained with."""
    return replace(preprocess, mean=IMAGENET[0], std=IMAGENET[1])


def as_the_seed(preprocess: Preprocess) -> Preprocess:
    """As the notebook fed it from which most entries of the 2022 competition descend: with mean and std of ImageNet,
    squashed to the square by bilinear sampling without antialiasing.
    """
    size = preprocess.size
    return Preprocess(size, "squash", size, "bilinear", IMAGENET[0], IMAGENET[1], antialias=False)


def square(size: Any, path: Path) -> int:
    """The side of a square from any of its published forms: a number, two, or an object; EncoderError if it is none."""
    if isinstance(size, dict):
        size = [size.get("height"), size.get("width")]
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1 or not all(isinstance(side, int) for side in sides):
        raise EncoderError(f"The input of `{path}` is {size}; expected a square.")
    return int(sides.pop())


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


def _kind(data: dict[str, Any], path: Path) -> tuple[_Kind, str]:
    """Which image processor wrote the file. Hand-made files name none: then `crop_size` says whether it crops."""
    written = data.get("image_processor_type") or data.get("feature_extractor_type")
    if written is None:
        crops = data.get("crop_size") is not None
        return _Kind(crops or bool(data.get("do_center_crop")), "shorter"), ""
    name = str(written).removesuffix("Fast").removesuffix("Pil")
    name = name.removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
    if name == "Siglip2":
        raise EncoderError(
            f"`{path}` takes patches of any number and shape (NaFlex), which is not supported.",
            hint="the same model is published with a fixed size, for example google/siglip2-base-patch16-224",
        )
    if name not in _KINDS:
        raise EncoderError(
            f"`{path}` has the image processor `{written}`, which is not known; expected one of {', '.join(_KINDS)}."
        )
    return _KINDS[name], name


def _geometry(data: dict[str, Any], kind: _Kind, crops: bool, path: Path) -> tuple[Any, int, int]:
    """Mode, side of the square, and length before the crop."""
    size = data["size"]
    if isinstance(size, int):
        size = {"shortest_edge": size} if kind.number == "shorter" else {"height": size, "width": size}
    if "longest_edge" not in size and "shortest_edge" in size and crops:
        return "crop", square(data["crop_size"], path), int(size["shortest_edge"])
    if size.keys() == {"height", "width"}:
        resize = square(size, path)
        side = square(data["crop_size"], path) if crops else resize
        if side <= resize:
            return "squash", side, resize
    cropping = f"and crops to {data['crop_size']}" if crops else "without cropping"
    raise EncoderError(
        f"The preprocessing of `{path}` resizes to {data['size']} {cropping}; "
        "expected a shortest edge and a crop, or a square."
    )


def _convnext(data: dict[str, Any], path: Path) -> tuple[Any, int, int]:
    """As `_geometry`: ConvNeXt's crops by a share below 384 px and squashes from there on."""
    size = data["size"] if isinstance(data["size"], int) else data["size"].get("shortest_edge")
    if not isinstance(size, int) or data.get("do_center_crop"):
        raise EncoderError(f"The preprocessing of `{path}` resizes to {data['size']}; expected a shortest edge.")
    if size >= 384:
        return "squash", size, size
    if not data.get("crop_pct"):
        raise EncoderError(f"The preprocessing of `{path}` lacks `crop_pct`.")
    return "crop", size, int(size / data["crop_pct"])


def _statistics(data: dict[str, Any], name: str, normalizes: bool, path: Path) -> tuple[_Three, _Three]:
    """What is subtracted from and divides values of 0 to 1, with their scale, offset and second division folded in."""
    scale, offset = float(data.get("rescale_factor") or 1 / 255) * 255, 0.0
    mean, std = np.zeros(3), np.ones(3)
    if normalizes:
        mean, std = np.array(three(data["image_mean"], path)), np.array(three(data["image_std"], path))
    if name == "EfficientNet":
        offset = 1.0 if data.get("rescale_offset") else 0.0
        if data.get("include_top", True):  # it divides by std once more
            std = std * three(data.get("image_std"), path)
    elif data.get("rescale_offset") or data.get("include_top"):
        raise EncoderError(f"The preprocessing of `{path}` has EfficientNet's keys and another image processor.")
    if abs(scale - 1) > 1e-6 and not offset:
        raise EncoderError(f"The preprocessing of `{path}` rescales by {data['rescale_factor']}; expected 1/255.")
    if abs(scale - 1) <= 1e-6:  # 1/255 as written in decimals; x / 255 is what the graph computes
        scale = 1.0
    return three(((mean + offset) / scale).tolist(), path), three((std / scale).tolist(), path)


def three(values: Any, path: Path) -> _Three:
    """Mean or std; EncoderError if it is none."""
    if not isinstance(values, (list, tuple)) or len(values) != 3:
        raise EncoderError(f"The preprocessing of `{path}` has mean or std {values}; expected three numbers.")
    return float(values[0]), float(values[1]), float(values[2])


def as_transformers(preprocess: Preprocess) -> dict[str, Any]:
    """`preprocessor_config.json` of transformers that comes nearest."""
    squash = preprocess.mode != "crop"
    size: dict[str, int] = (
        {"height": preprocess.resize, "width": preprocess.resize} if squash else {"shortest_edge": preprocess.resize}
    )
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": size,
        "resample": {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}[preprocess.interpolation],
        "do_center_crop": not squash or preprocess.resize != preprocess.size,
        "crop_size": {"height": preprocess.size, "width": preprocess.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }


def write_processor(preprocess: Preprocess, directory: Path) -> bool:
    """`preprocessor_config.json`; whether it says exactly what `preprocess` does."""
    write_json(directory / "preprocessor_config.json", as_transformers(preprocess))
    return from_transformers(directory) == preprocess


def as_timm(preprocess: Preprocess) -> dict[str, Any]:
    """The words of timm's `pretrained_cfg` that come nearest."""
    return {
        "input_size": [3, preprocess.size, preprocess.size],
        "interpolation": preprocess.interpolation,
        "crop_pct": preprocess.size / preprocess.resize,
        "crop_mode": {"crop": "center", "squash": "squash", "pad": "border"}[preprocess.mode],
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
        "resize_mode": {"crop": "shortest", "pad": "longest", "squash": "squash"}[preprocess.mode],
        "fill_color": preprocess.fill[0],
    }


def ratio(inside: int, width: int) -> float:
    """What `int(width * ratio)` gives `inside` of, as other libraries compute the width inside an MLP."""
    plain = inside / width
    return plain if int(width * plain) == inside else (inside + 0.5) / width
