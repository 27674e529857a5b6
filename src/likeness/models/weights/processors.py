"""Published preprocessing, read from the file that says it and never assumed."""

from pathlib import Path
from typing import Any

from likeness.core.errors import EncoderError
from likeness.core.files import read_json
from likeness.models.preprocess import Preprocess

_RESAMPLE = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def from_transformers(path: Path) -> Preprocess:
    """What `preprocessor_config.json` (or the image part of `processor_config.json`) of a transformers model says.

    The keys `do_*` and `rescale_factor` are younger than some published files; where one is missing, the image
    processor's fixed behaviour holds (do it; 1/255). Size, crop, filter, mean and std must be there.
    """
    data = _image_processor(path)
    needed = ("size", "resample", "image_mean", "image_std", *(("crop_size",) if _does(data, "center_crop") else ()))
    if missing := [key for key in needed if data.get(key) is None]:
        raise EncoderError(f"The preprocessing of `{path}` lacks {', '.join(f'`{key}`' for key in missing)}.")
    for key in ("resize", "rescale", "normalize"):
        if not _does(data, key):
            raise EncoderError(f"The preprocessing of `{path}` does not {key}, which is not supported.")
    if data.get("do_pad") or data.get("do_flip_channel_order"):
        raise EncoderError(f"The preprocessing of `{path}` pads or swaps channels, which is not supported.")
    if abs(data.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise EncoderError(f"The preprocessing of `{path}` rescales by {data['rescale_factor']}; expected 1/255.")
    if data["resample"] not in _RESAMPLE:
        raise EncoderError(f"The preprocessing of `{path}` has filter {data['resample']}; expected 1, 2 or 3.")
    crops = _does(data, "center_crop")
    shorter = _shorter_side(data["size"])
    if crops and shorter is not None:
        size, resize = square(data["crop_size"], path), shorter
    elif not crops and shorter is None:
        size = resize = square(data["size"], path)
    else:
        raise EncoderError(
            f"The preprocessing of `{path}` resizes to {data['size']} {'and' if crops else 'without'} cropping; "
            "expected a shortest edge and a crop, or a square and none."
        )
    interpolation: Any = _RESAMPLE[data["resample"]]
    mode: Any = "crop" if crops else "squash"
    return Preprocess(
        size, mode, resize, interpolation, _three(data["image_mean"], path), _three(data["image_std"], path)
    )


def from_open_clip(path: Path, described: dict[str, Any], size: int) -> Preprocess:
    """What `preprocess_cfg` of `open_clip_config.json` says; `size` is that of the tower.

    Mean and std must be there. Filter (bicubic) and resize mode (shortest side) are the format's own defaults, which
    its writer leaves out.
    """
    data = described.get("preprocess_cfg") or {}
    if "mean" not in data or "std" not in data:
        raise EncoderError(
            f"`{path / 'open_clip_config.json'}` does not say how pictures are prepared (`preprocess_cfg`).",
            hint="add `preprocess_cfg` with `mean` and `std` as the model's authors publish them",
        )
    wanted = square(data.get("size") or size, path)
    mode: Any = {"shortest": "crop", "longest": "pad", "squash": "squash"}.get(data.get("resize_mode") or "shortest")
    interpolation: Any = {"bicubic": "bicubic", "random": "bicubic", "bilinear": "bilinear"}.get(
        data.get("interpolation") or "bicubic"
    )
    if mode is None or interpolation is None or data.get("mode", "RGB") != "RGB":
        raise EncoderError(f"The preprocessing of `{path}` is not supported: {data}.")
    mean, std = _three(data["mean"], path), _three(data["std"], path)
    fill = int(data.get("fill_color") or 0)
    return Preprocess(wanted, mode, wanted, interpolation, mean, std, rounding="even", fill=fill)


def _image_processor(path: Path) -> dict[str, Any]:
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (path / name).exists():
            data = read_json(path / name)
            data = data.get("image_processor", data) if isinstance(data, dict) else {}
            if "image_mean" in data:
                return dict(data)
    raise EncoderError(
        f"`{path}` has no `preprocessor_config.json`, so how pictures must be prepared is not known.",
        hint="copy that file from where the model comes from; it is never assumed",
    )


def _does(data: dict[str, Any], key: str) -> bool:
    return bool(data.get(f"do_{key}", True))


def _shorter_side(size: Any) -> int | None:
    """The length that the shorter side gets, or None if both sides are given. Old files hold a bare number."""
    if isinstance(size, int):
        return size
    return size.get("shortest_edge") if isinstance(size, dict) and "longest_edge" not in size else None


def square(size: Any, path: Path) -> int:
    """The side of a square from any of its published forms: a number, two, or an object; EncoderError if it is none."""
    if isinstance(size, dict):
        size = [size.get("height"), size.get("width")]
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1 or not all(isinstance(side, int) for side in sides):
        raise EncoderError(f"The input of `{path}` is {size}; expected a square.")
    return int(sides.pop())


def _three(values: Any, path: Path) -> tuple[float, float, float]:
    if not isinstance(values, list) or len(values) != 3:
        raise EncoderError(f"The preprocessing of `{path}` has mean or std {values}; expected three numbers.")
    return float(values[0]), float(values[1]), float(values[2])
