from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lookalike.core.errors import SourceError
from lookalike.data.sources.dataset import dataset_of

from .conftest import Prepared, matlab, picture, tarred, written, zipped

Prepare = Callable[[str, Path], Prepared]

TENCH, COCK, SNAIL = "n01440764", "n01514668", "n01944390"
# CMYK, and a PNG by the name of a JPEG: the set has both.
TRAIN = {
    TENCH: {f"{TENCH}_10026.JPEG": picture(1), f"{TENCH}_7.JPEG": picture(2, mode="CMYK")},
    COCK: {f"{COCK}_10.JPEG": picture(3, "PNG")},
}
VAL = {f"ILSVRC2012_val_0000000{i}.JPEG": picture(10 + i) for i in (1, 2, 3)}
KIT = "ILSVRC2012_devkit_t12/data"
LABELLED = {f"ILSVRC2012_val_0000000{i}.JPEG": label for i, label in ((1, COCK), (2, TENCH), (3, SNAIL))}


def devkit(truth: str = "2\n1\n3\n") -> dict[str, bytes | str]:
    synsets = [
        {"ILSVRC2012_ID": 1, "WNID": TENCH, "words": "tench, Tinca tinca", "gloss": "a fish", "num_children": 0},
        {"ILSVRC2012_ID": 2, "WNID": COCK, "words": "cock", "gloss": "a bird", "num_children": 0},
        {"ILSVRC2012_ID": 3, "WNID": SNAIL, "words": "snail", "gloss": "a snail", "num_children": 0},
        # above the thousand classes there are those that hold them
        {"ILSVRC2012_ID": 1001, "WNID": "n00001740", "words": "entity", "gloss": "", "num_children": np.uint8(2)},
    ]
    return {f"{KIT}/meta.mat": matlab(synsets=synsets), f"{KIT}/ILSVRC2012_validation_ground_truth.txt": truth}


def train_tar() -> bytes:
    return tarred({f"{label}.tar": tarred(files) for label, files in TRAIN.items()})


def by_file(found: Prepared, split: str) -> dict[str, str]:
    return {name.rpartition("/")[2]: label for name, label in found.labels(split).items()}


TRAINED = {f"{TENCH}_10026.JPEG": TENCH, f"{TENCH}_7.JPEG": TENCH, f"{COCK}_10.JPEG": COCK}


def test_the_organisers_tar_files(tmp_path: Path, prepared: Prepare) -> None:
    files = {"ILSVRC2012_img_train.tar": train_tar(), "ILSVRC2012_img_val.tar": tarred(VAL), **devkit()}
    found = prepared("imagenet1k", written(tmp_path / "p", files))
    assert found.labels("train") == {
        f"ILSVRC2012_img_train/{label}/{file}": label for label, files in TRAIN.items() for file in files
    }
    assert found.labels("val") == {f"ILSVRC2012_img_val/{file}": label for file, label in LABELLED.items()}
    assert found.collection.errors().num_rows == 0
    assert all(row["is_query"] and row["is_gallery"] for row in found.rows.values())


def test_the_train_tar_unpacked_once(tmp_path: Path, prepared: Prepare) -> None:
    files = {f"ILSVRC2012_img_train/{label}.tar": tarred(files) for label, files in TRAIN.items()}
    files |= {f"val/{file}": data for file, data in VAL.items()} | devkit()  # type: ignore[operator]
    found = prepared("imagenet1k", written(tmp_path / "p", files))
    assert by_file(found, "train") == TRAINED
    assert by_file(found, "val") == LABELLED


@pytest.mark.parametrize("packed", [True, False])
def test_without_the_devkit_a_note_says_how_to_get_it(
    tmp_path: Path, prepared: Prepare, capsys: pytest.CaptureFixture[str], packed: bool
) -> None:
    files = {f"train/{label}/{file}": data for label, files in TRAIN.items() for file, data in files.items()}
    files |= {f"val/{file}": data for file, data in VAL.items()} | {"train/n01440764/._n01440764_7.JPEG": b"macOS"}
    if packed:
        files["ILSVRC2012_devkit_t12.tar.gz"] = b"\x1f\x8b"
    found = prepared("imagenet1k", written(tmp_path / "p", files))
    assert found.splits == {"train": 3}
    assert by_file(found, "train") == TRAINED
    told = capsys.readouterr().err
    assert ("tar -xf ILSVRC2012_devkit_t12.tar.gz" in told) == packed
    assert "the validation images are left out" in told


def test_validation_images_sorted_into_folders(tmp_path: Path, prepared: Prepare) -> None:
    files = {f"train/{label}/{file}": data for label, files in TRAIN.items() for file, data in files.items()}
    files |= {f"val/{LABELLED[file]}/{file}": data for file, data in VAL.items()}
    assert by_file(prepared("imagenet1k", written(tmp_path / "p", files)), "val") == LABELLED


KAGGLE = (
    "ImageId,PredictionString\r\n"
    f"ILSVRC2012_val_00000002,{TENCH} 155 355 130 273 {TENCH} 1 2 3 4 \r\n"
    f"ILSVRC2012_val_00000001,{COCK} 85 1 499 272 \r\n"
    f"ILSVRC2012_val_00000003,{SNAIL} 85 1 499 272 \r\n"
    f"ILSVRC2012_val_00000099,{SNAIL} 85 1 499 272 \r\n"
)


@pytest.mark.parametrize("packed", [True, False])
def test_kaggles_shape(tmp_path: Path, prepared: Prepare, packed: bool) -> None:
    top = "ILSVRC/Data/CLS-LOC"
    files: dict[str, bytes | str] = {
        f"{top}/train/{label}/{file}": data for label, files in TRAIN.items() for file, data in files.items()
    }
    files |= {f"{top}/val/{file}": data for file, data in VAL.items()}
    files |= {f"{top}/test/ILSVRC2012_test_00000001.JPEG": picture(77), "LOC_val_solution.csv": KAGGLE}
    files["LOC_synset_mapping.txt"] = f"{TENCH} tench, Tinca tinca\n"
    if packed:
        place = written(tmp_path, {"c.zip": zipped(files)}) / "c.zip"
    else:
        place = written(tmp_path / "p", files)
    found = prepared("imagenet1k", place)
    assert by_file(found, "train") == TRAINED
    assert by_file(found, "val") == LABELLED
    assert found.splits == {"train": 3, "val": 3}
    assert found.facts["missing"] == {"val": 1}


def test_a_class_that_the_devkit_does_not_know(tmp_path: Path, prepared: Prepare) -> None:
    files = {"ILSVRC2012_img_train.tar": train_tar(), "ILSVRC2012_img_val.tar": tarred(VAL), **devkit("2\n1\n77\n")}
    with pytest.raises(SourceError, match="image 3: `77` is no class of"):
        prepared("imagenet1k", written(tmp_path / "p", files))


def test_what_is_published() -> None:
    assert dataset_of("imagenet1k").counts["train"] == (1_281_167, 1000)
