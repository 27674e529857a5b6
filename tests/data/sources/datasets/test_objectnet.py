import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from lookalike.core.errors import CollectionError, SourceError
from lookalike.data.sources.dataset import check
from lookalike.training.rows import training_rows

from .conftest import Prepared, picture, written, zipped

Prepare = Callable[[str, Path], Prepared]

LABELS = '{"air_freshener": "Air freshener", "alarm_clock": "Alarm clock", "tv_remote": "Remote"}'


def bordered(value: int, width: int = 20, height: int = 14) -> bytes:
    """A gray picture with two pixels of red around it."""
    pixels = np.full((height, width, 3), (255, 0, 0), np.uint8)
    pixels[2:-2, 2:-2] = value
    data = io.BytesIO()
    PIL.Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


FILES: dict[str, bytes | str] = {
    "objectnet-1.0/mappings/folder_to_objectnet_label.json": LABELS,
    "objectnet-1.0/mappings/objectnet_to_imagenet_1k.json": '{"Alarm clock": "analog clock; digital clock"}',
    "objectnet-1.0/images/air_freshener/0a1.png": bordered(100),
    "objectnet-1.0/images/air_freshener/0b2.png": bordered(200),
    "objectnet-1.0/images/alarm_clock/0c3.png": bordered(50),
    "objectnet-1.0/images/alarm_clock/._0c3.png": b"macOS",
    "objectnet-1.0/images/alarm_clock/0d4.png": picture(1, "PNG")[:200],
}


@pytest.mark.parametrize("packed", [False, True])
def test_labels_and_no_border(tmp_path: Path, prepared: Prepare, packed: bool) -> None:
    found = prepared("objectnet", written(tmp_path / "o", {"objectnet-1.0.zip": zipped(FILES)} if packed else FILES))
    assert found.labels() == {
        "images/air_freshener/0a1.png": "Air freshener",
        "images/air_freshener/0b2.png": "Air freshener",
        "images/alarm_clock/0c3.png": "Alarm clock",
    }
    assert found.splits == {"test": 3}
    assert [error["source"] for error in found.collection.errors().to_pylist()] == [
        "objectnet/images/alarm_clock/0d4.png"
    ]
    for stored, value in zip(found.collection.table(["image"])["image"].to_pylist(), (100, 200, 50), strict=True):
        pixels = np.asarray(PIL.Image.open(io.BytesIO(stored)).convert("RGB")).astype(int)
        assert pixels.shape == (10, 16, 3)
        assert abs(pixels - value).max() < 3, "red is left"
    assert {(row["width"], row["height"]) for row in found.rows.values()} == {(16, 10)}


def test_what_is_impossible_is_said(tmp_path: Path) -> None:
    more = {**FILES, "objectnet-1.0/images/anvil/1.png": bordered(1)}
    with pytest.raises(SourceError, match="has no label of the folder `anvil`"):
        check("objectnet", str(written(tmp_path / "a", more)))
    wrong = {**FILES, "objectnet-1.0/mappings/folder_to_objectnet_label.json": "{"}
    with pytest.raises(SourceError, match="is no table from folders to labels"):
        check("objectnet", str(written(tmp_path / "b", wrong)))


def test_nobody_learns_from_it(tmp_path: Path, prepared: Prepare) -> None:
    found = prepared("objectnet", written(tmp_path / "o", FILES))
    with pytest.raises(CollectionError, match="`objectnet` may not be learned from, only be measured on"):
        training_rows(found.collection, "", labelled=True)
