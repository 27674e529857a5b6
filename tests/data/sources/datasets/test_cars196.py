from collections.abc import Callable
from pathlib import Path

import pytest

from lookalike.core.errors import SourceError

from .conftest import Prepared, matlab, picture, written

Prepare = Callable[[str, Path], Prepared]


def annotations(files: dict[str, int], field: str = "fname") -> bytes:
    """As Stanford's: a box, the class from 1 on, the file."""
    box = {"bbox_x1": 39, "bbox_y1": 116, "bbox_x2": 569, "bbox_y2": 375}
    return matlab(annotations=[{**box, "class": label, field: name} for name, label in files.items()])


# Both halves have classes of 1-98 and of 99-196.
TRAIN = {"00001.jpg": 14, "00002.jpg": 98, "00003.jpg": 99}
TEST = {"00001.jpg": 181, "00002.jpg": 1, "08041.jpg": 196}


@pytest.mark.parametrize("twice", [True, False])
@pytest.mark.parametrize("kit", ["devkit/", "car_devkit/devkit/"])
def test_two_halves(tmp_path: Path, prepared: Prepare, twice: bool, kit: str) -> None:
    folders = {half: f"{half}/{half}" if twice else half for half in ("cars_train", "cars_test")}
    files: dict[str, bytes | str] = {f"{folders['cars_train']}/{n}": picture(i) for i, n in enumerate(TRAIN)}
    files |= {f"{folders['cars_test']}/{name}": picture(10 + i, mode="L") for i, name in enumerate(TEST)}
    files |= {f"{kit}cars_train_annos.mat": annotations(TRAIN), "cars_test_annos_withlabels.mat": annotations(TEST)}
    found = prepared("cars196", written(tmp_path / "stanford_cars", files))
    assert found.labels("train") == {
        f"{folders['cars_train']}/00001.jpg": "14",
        f"{folders['cars_train']}/00002.jpg": "98",
        f"{folders['cars_test']}/00002.jpg": "1",
    }
    assert found.labels("test") == {
        f"{folders['cars_train']}/00003.jpg": "99",
        f"{folders['cars_test']}/00001.jpg": "181",
        f"{folders['cars_test']}/08041.jpg": "196",
    }
    assert found.collection.card["licences"] == {"non-commercial research": 6}


def test_without_labels_of_the_official_test_half(
    tmp_path: Path, prepared: Prepare, capsys: pytest.CaptureFixture[str]
) -> None:
    files: dict[str, bytes | str] = {f"cars_train/{name}": picture(i) for i, name in enumerate(TRAIN)}
    files |= {"devkit/cars_train_annos.mat": annotations(TRAIN), "cars_test/00001.jpg": picture(9)}
    found = prepared("cars196", written(tmp_path / "p", files))
    assert found.splits == {"train": 2, "test": 1}
    assert "cars_test are left out, since cars_test_annos_withlabels.mat is not there" in capsys.readouterr().err


def test_one_folder(tmp_path: Path, prepared: Prepare) -> None:
    told = {"car_ims/000001.jpg": 1, "car_ims/000002.jpg": 98, "car_ims/016185.jpg": 99, "car_ims/016000.jpg": 99}
    files: dict[str, bytes | str] = {name: picture(i) for i, name in enumerate(list(told)[:3])}
    place = written(tmp_path / "p", {**files, "cars_annos.mat": annotations(told, "relative_im_path")})
    found = prepared("cars196", place)
    assert found.labels("train") == {"car_ims/000001.jpg": "1", "car_ims/000002.jpg": "98"}
    assert found.labels("test") == {"car_ims/016185.jpg": "99"}
    assert found.facts["missing"] == {"test": 1}


def test_a_list_of_a_single_car(tmp_path: Path, prepared: Prepare) -> None:
    files = {
        "car_ims/000001.jpg": picture(1),
        "cars_annos.mat": annotations({"car_ims/000001.jpg": 7}, "relative_im_path"),
    }
    assert prepared("cars196", written(tmp_path / "p", files)).labels() == {"car_ims/000001.jpg": "7"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no such file", "can't be read as a file of MATLAB's"),
        (annotations({"car_ims/000001.jpg": 1}), r"has no `annotations.relative_im_path`; it has bbox_x1, "),
        (matlab(other=[{"class": 1}]), "it has no such array"),
        (annotations({"car_ims/000001.jpg": 197}, "relative_im_path"), "the class `197`, not 1 to 196"),
    ],
)
def test_lists_that_are_none(tmp_path: Path, prepared: Prepare, data: bytes, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        prepared("cars196", written(tmp_path / "p", {"car_ims/000001.jpg": picture(1), "cars_annos.mat": data}))
