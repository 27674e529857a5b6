"""Published preprocessing: read to the letter, or refused; nothing is assumed."""

import json
from pathlib import Path
from typing import Any

import pytest

from likeness.core.errors import EncoderError
from likeness.models.preprocess import Preprocess
from likeness.models.weights.processors import from_transformers

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
