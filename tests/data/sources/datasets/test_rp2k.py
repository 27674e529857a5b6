import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Prepared, picture, written, zipped

Prepare = Callable[[str, Path], Prepared]

TEA, CAFE = "康师傅绿茶500ml", "Caf\u00e9\u5496\u5561"
ESCAPED = "#U5eb7#U5e08#U5085#U7eff#U8336500ml"


def files(tea: str, cafe: str) -> dict[str, bytes | str]:
    return {
        f"all/train/{tea}/0.jpg": picture(1),
        f"all/train/{tea}/1.png": picture(2, "PNG"),
        f"all/train/{cafe}/0.jpg": picture(3),
        f"all/test/{tea}/0.jpg": picture(4),
        f"all/test/{tea}/._0.jpg": b"macOS",
        f"all/test/{tea}/Thumbs.db": b"Windows",
    }


@pytest.mark.parametrize("tea", [TEA, ESCAPED, ESCAPED.replace("5eb7", "5EB7")])
@pytest.mark.parametrize("cafe", [CAFE, unicodedata.normalize("NFD", CAFE), "Caf#U00e9#U5496#U5561"])
def test_names_as_they_are_and_as_escapes(tmp_path: Path, prepared: Prepare, tea: str, cafe: str) -> None:
    found = prepared("rp2k", written(tmp_path / "rp2k_dataset", files(tea, cafe)))
    told = sorted((row["split"], row["label"], name.rpartition("/")[2]) for name, row in found.rows.items())
    assert told == sorted(
        [("train", TEA, "0.jpg"), ("train", TEA, "1.png"), ("train", CAFE, "0.jpg"), ("test", TEA, "0.jpg")]
    )


def test_both_ways_in_one_place_and_a_zip(tmp_path: Path, prepared: Prepare) -> None:
    mixed = files(TEA, CAFE) | {f"all/train/{ESCAPED}/7.jpg": picture(7)}
    data = zipped({f"rp2k_dataset/{name}": content for name, content in mixed.items()})
    found = prepared("rp2k", written(tmp_path, {"rp2k_dataset.zip": data}) / "rp2k_dataset.zip")
    assert set(found.labels().values()) == {TEA, CAFE}
    assert found.splits == {"train": 4, "test": 1}


def test_unpacked_beside_its_zip_an_image_stands_once(tmp_path: Path, prepared: Prepare) -> None:
    data = zipped({f"rp2k_dataset/{name}": content for name, content in files(TEA, CAFE).items()})
    place = written(tmp_path / "p", {"rp2k_dataset.zip": data})
    written(place / "rp2k_dataset", files(TEA, CAFE))
    assert prepared("rp2k", place).splits == {"train": 3, "test": 1}
