from collections.abc import Callable
from pathlib import Path

import pytest

from lookalike.core.errors import SourceError
from lookalike.data.sources.dataset import check

from .conftest import Prepared, picture, written, zipped

Prepare = Callable[[str, Path], Prepared]

HEADER = "image_name item_id evaluation_status\n"
LIST = f"""6
{HEADER}img/WOMEN/Dresses/id_00000002/02_1_front.jpg                    id_00000002 train
img/MEN/Denim/id_00000002/01_7_additional.jpg                     id_00000002 train
img/WOMEN/Tees_Tanks/id_00000004/03_1_front.jpg   id_00000004 query
img/WOMEN/Tees_Tanks/id_00000004/03_4_full.jpg    id_00000004 gallery
img/WOMEN/Tees_Tanks/id_00000005/01_4_full.jpg    id_00000005 gallery
"""
NAMES = [line.split()[0].removeprefix("img/") for line in LIST.splitlines()[2:]]
PICTURES = {name: picture(i) for i, name in enumerate(NAMES[:4])}


def expected(folder: str) -> dict[str, tuple[str, str, bool, bool]]:
    rows = [
        # one space of ids: MEN and WOMEN hold one item
        ("id_00000002", "train", True, True),
        ("id_00000002", "train", True, True),
        ("id_00000004", "test", True, False),
        ("id_00000004", "test", False, True),
    ]
    return {f"{folder}/{name}": row for name, row in zip(NAMES, rows, strict=False)}


@pytest.mark.parametrize("shape", ["zip", "Img/img", "img", "Img/img_highres"])
def test_lists(tmp_path: Path, prepared: Prepare, shape: str) -> None:
    files: dict[str, bytes | str] = {"Eval/list_eval_partition.txt": LIST, "Anno/list_item_inshop.txt": "7982\n"}
    if shape == "zip":
        files["Img/img.zip"] = zipped({f"img/{name}": data for name, data in PICTURES.items()})
    else:
        files |= {f"{shape}/{name}": data for name, data in PICTURES.items()}
    found = prepared("inshop", written(tmp_path / "p", files))
    told = {name: (row["label"], row["split"], row["is_query"], row["is_gallery"]) for name, row in found.rows.items()}
    assert told == expected("Img/img" if shape == "zip" else shape)
    assert found.facts["missing"] == {"test": 1}
    assert found.collection.card["licences"] == {"non-commercial research": 4}


def test_a_status_that_is_none(tmp_path: Path, prepared: Prepare) -> None:
    told = LIST.replace("query", "probe")
    files = {f"img/{name}": data for name, data in PICTURES.items()}
    with pytest.raises(SourceError, match="is `probe`, not train, query, gallery"):
        prepared("inshop", written(tmp_path / "p", {"Eval/list_eval_partition.txt": told, **files}))


def test_the_other_part_of_deepfashion(tmp_path: Path) -> None:
    files = {"Eval/list_eval_partition.txt": LIST, "Anno/list_item_consumer2shop.txt": "33881\n"}
    with pytest.raises(SourceError, match="looks like `deepfashion_c2s`"):
        check("inshop", str(written(tmp_path / "p", files)))
