from collections.abc import Callable
from pathlib import Path

import pytest

from lookalike.core.errors import SourceError

from .conftest import Prepared, picture, written, zipped

Prepare = Callable[[str, Path], Prepared]

IDS = ("17660ef415d37059", "92b6290d571448f6", "cd41bf948edc0340")
PICTURES = {f"train/{name[0]}/{name[1]}/{name[2]}/{name}.jpg": picture(i) for i, name in enumerate(IDS)}
# Labels have gaps: they are no positions.
LABELS = {f"train/1/7/6/{IDS[0]}.jpg": "1", f"train/9/2/b/{IDS[1]}.jpg": "1", f"train/c/d/4/{IDS[2]}.jpg": "203092"}
KAGGLE = f"id,landmark_id\r\n{IDS[0]},1\r\n{IDS[1]},1\r\n{IDS[2]},203092\r\n0123456789abcdef,7\r\n"
OWN = (
    "id,url,landmark_id\n"
    f'{IDS[0]},"http://upload.example/a,_b.jpg",1\n'
    f"{IDS[1]},http://upload.example/b.jpg,1\n"
    f"{IDS[2]},http://upload.example/c.jpg,203092\n"
    f"{IDS[2]},http://upload.example/c.jpg,203092\n"
)


@pytest.mark.parametrize("header", [KAGGLE, OWN])
def test_both_headers(tmp_path: Path, prepared: Prepare, header: str) -> None:
    files = {"train.csv": header, "sample_submission.csv": "id,landmarks\n", **PICTURES}
    files["train/0/f/f/0ff.jpg"] = picture(9)  # no list names it
    files["test/0/0/0/000a.jpg"] = picture(8)  # no labels
    found = prepared("glr2021", written(tmp_path / "landmark-recognition-2021", files))
    assert found.labels() == LABELS
    assert found.splits == {"train": 3}
    assert found.facts["missing"] == ({"train": 1} if header is KAGGLE else {})
    assert found.collection.card["licences"] == {"cc-by-4.0": 3}


@pytest.mark.parametrize("where", ["as it is", "in a folder"])
def test_the_zip_that_kaggle_gives(tmp_path: Path, prepared: Prepare, where: str) -> None:
    data = zipped({"sample_submission.csv": "id,landmarks\n", "train.csv": KAGGLE, **PICTURES})
    place = written(tmp_path / "p", {"landmark-recognition-2021.zip": data})
    found = prepared("glr2021", place / "landmark-recognition-2021.zip" if where == "as it is" else place)
    assert found.labels() == LABELS


def test_an_image_of_two_labels(tmp_path: Path, prepared: Prepare) -> None:
    place = written(tmp_path / "p", {"train.csv": KAGGLE + f"{IDS[0]},8\r\n", **PICTURES, "train/0/x.txt": ""})
    with pytest.raises(SourceError, match=f"give `train/1/7/6/{IDS[0]}.jpg` two labels: `1` and `8`"):
        prepared("glr2021", place)
