from collections.abc import Callable
from pathlib import Path

import pytest

from lookalike.core.errors import SourceError

from .conftest import Prepared, picture, written, zipped

Prepare = Callable[[str, Path], Prepared]

A, B, C = "img/TOPS/T_Shirt/id_00000218", "img/DRESSES/Dress/id_00000220", "img/TOPS/Blouse/id_00000221"
LIST = f"""4
image_pair_name_1 image_pair_name_2 item_id evaluation_status
{A}/comsumer_01.jpg   {A}/shop_01.jpg   id_00000218 train
{A}/comsumer_02.jpg   {A}/shop_01.jpg   id_00000218 train
{B}/comsumer_01.jpg {B}/shop_01.jpg id_00000220 val
{C}/comsumer_01.jpg {C}/shop_01.jpg id_00000221 test
{C}/comsumer_01.jpg {C}/shop_02.jpg id_00000221 test
"""
PICTURES = {
    name: picture(i)
    for i, name in enumerate(word for line in LIST.splitlines() for word in line.split() if word.endswith(".jpg"))
}


@pytest.mark.parametrize("shape", ["zip", "unpacked"])
def test_consumers_are_queries_and_shops_the_gallery(tmp_path: Path, prepared: Prepare, shape: str) -> None:
    files: dict[str, bytes | str] = {"Eval/list_eval_partition.txt": LIST.replace("\n", "\r\n")}
    files["Anno/list_bbox_consumer2shop.txt"] = "239557\n"
    files |= {"Img/img.zip": zipped(PICTURES)} if shape == "zip" else {f"Img/{n}": d for n, d in PICTURES.items()}
    found = prepared("deepfashion_c2s", written(tmp_path / "p", files))
    told = {name: (row["label"], row["split"], row["is_query"], row["is_gallery"]) for name, row in found.rows.items()}
    query, gallery = (True, False), (False, True)
    assert told == {  # an image of several pairs stands once
        f"Img/{A}/comsumer_01.jpg": ("id_00000218", "train", *query),
        f"Img/{A}/comsumer_02.jpg": ("id_00000218", "train", *query),
        f"Img/{A}/shop_01.jpg": ("id_00000218", "train", *gallery),
        f"Img/{B}/comsumer_01.jpg": ("id_00000220", "val", *query),
        f"Img/{B}/shop_01.jpg": ("id_00000220", "val", *gallery),
        f"Img/{C}/comsumer_01.jpg": ("id_00000221", "test", *query),
        f"Img/{C}/shop_01.jpg": ("id_00000221", "test", *gallery),
        f"Img/{C}/shop_02.jpg": ("id_00000221", "test", *gallery),
    }
    assert found.facts["missing"] == {}


def test_an_image_of_two_items(tmp_path: Path, prepared: Prepare) -> None:
    told = LIST + f"{C}/comsumer_01.jpg {A}/shop_01.jpg id_00000999 test\n"
    files = {"Eval/list_eval_partition.txt": told, **PICTURES}
    with pytest.raises(SourceError, match="two labels: `id_00000221` and `id_00000999`"):
        prepared("deepfashion_c2s", written(tmp_path / "p", files))
