from collections.abc import Callable
from pathlib import Path

from .conftest import Prepared, picture, written, zipped

Prepare = Callable[[str, Path], Prepared]

FIRST, SECOND = "0000a68812bc7e98c42888dfb1c07da0.jpg", "00039780dfc94d01db8676fe789ecd05.jpg"
TRAIN = (
    "posting_id,image,image_phash,title,label_group\n"
    f"train_129225211,{FIRST},94974f937d4c2433,Paper Bag Victoria Secret,249114794\n"
    f'train_3386243561,{SECOND},af3f9460c2838f0f,"Double Tape 3M VHB 12 mm x 4,5 m ""ORIGINAL""",2937985045\n'
    f"train_2288590299,{FIRST},94974f937d4c2433,Kantong Kertas ✔,249114794\n"
)
TEST = "posting_id,image,image_phash,title\ntest_2255846744,0006c8e5462ae52167402bac1c2e916e.jpg,ec9,Edufuntoys\n"
FILES = {"train.csv": TRAIN, "test.csv": TEST, "sample_submission.csv": "posting_id,matches\n"}
IMAGES = {
    f"train_images/{FIRST}": picture(1),
    f"train_images/{SECOND}": picture(2),
    "test_images/0006c.jpg": picture(3),
}


def test_postings_of_one_file_are_rows_and_one_group(tmp_path: Path, prepared: Prepare) -> None:
    found = prepared("shopee", written(tmp_path / "s", {**FILES, **IMAGES}))
    assert found.labels() == {
        "train_129225211": "249114794",
        "train_3386243561": "2937985045",
        "train_2288590299": "249114794",
    }
    assert found.splits == {"train": 3}
    assert [row["group"] for row in found.rows.values()] == [FIRST, SECOND, FIRST]
    assert [row["title"] for row in found.rows.values()] == [
        "Paper Bag Victoria Secret",
        'Double Tape 3M VHB 12 mm x 4,5 m "ORIGINAL"',
        "Kantong Kertas ✔",
    ]
    assert found.facts["missing"] == {}


def test_as_kaggle_packs_it(tmp_path: Path, prepared: Prepare) -> None:
    place = written(tmp_path / "s", {"shopee-product-matching.zip": zipped({**FILES, **IMAGES})})
    assert len(prepared("shopee", place / "shopee-product-matching.zip").rows) == 3
