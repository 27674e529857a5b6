import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lookalike.core.errors import SourceError
from lookalike.data.sources.dataset import check

from .conftest import Prepared, picture, tarred, written

Prepare = Callable[[str, Path], Prepared]


def listings(*told: dict[str, Any]) -> bytes:
    return gzip.compress("".join(json.dumps(one) + "\n" for one in told).encode())


PHONE = {"product_type": [{"value": "CELLULAR_PHONE_CASE"}]}
LISTINGS: dict[str, bytes | str] = {
    "listings/README.md": "words",
    "listings/metadata/listings_0.json.gz": listings(
        {"item_id": "B01", "domain_name": "amazon.in", "main_image_id": "a1", "other_image_id": ["a2", "s"], **PHONE},
        {"item_id": "B01", "domain_name": "amazon.com", "main_image_id": "a1", **PHONE},
        {"item_id": "B00", "domain_name": "amazon.com", "product_type": [{"value": "BOOK"}]},
    ),
    "listings/metadata/listings_f.json.gz": listings(
        {
            "item_id": "B02",
            "item_name": [{"language_tag": "de_DE", "value": "Stuhl\u2028, grün"}],
            "main_image_id": "b1",
            "other_image_id": ["s"],
        }
    ),
}
IMAGES: dict[str, bytes | str] = {
    "images/metadata/images.csv.gz": gzip.compress(
        b"image_id,height,width,path\na1,12,16,14/14fe.jpg\na2,12,16,14/1400.jpg\ns,12,16,20/2000.jpg\n"
        b"b1,12,16,ff/ff01.jpg\nu,12,16,ff/ff02.png\n"
    ),
    "images/small/14/14fe.jpg": picture(1),
    "images/small/14/1400.jpg": picture(2, mode="CMYK"),
    "images/small/20/2000.jpg": picture(3),
    "images/small/ff/ff01.jpg": picture(4, mode="L"),
    "images/small/ff/ff02.png": picture(5, "PNG"),
}


@pytest.mark.parametrize("packed", [False, True])
def test_the_class_is_the_item_that_shows_an_image(
    tmp_path: Path, prepared: Prepare, packed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    tars = {"abo-listings.tar": tarred(LISTINGS), "abo-images-small.tar": tarred(IMAGES)}
    found = prepared("abo", written(tmp_path / "a", tars if packed else {**LISTINGS, **IMAGES}))
    assert found.rows.keys() == {name for name in IMAGES if "small" in name}
    assert {name: (row["label"], row["product_type"]) for name, row in found.rows.items()} == {
        "images/small/14/14fe.jpg": ("B01", "CELLULAR_PHONE_CASE"),
        "images/small/14/1400.jpg": ("B01", "CELLULAR_PHONE_CASE"),
        "images/small/20/2000.jpg": (None, None),  # of B01 and of B02
        "images/small/ff/ff01.jpg": ("B02", None),
        "images/small/ff/ff02.png": (None, None),  # of no listing
    }
    assert found.splits == {"train": 5}
    assert "1 images are shown for several items" in capsys.readouterr().err
    assert found.collection.card["licences"] == {"cc-by-4.0": 5}


def test_the_benchmark_of_views(tmp_path: Path, prepared: Prepare) -> None:
    told = (
        "class_id,path,image_type,split_set,meta\n"
        "B01,14/14fe.jpg,catalog,train,B01:main\n"
        "B02,ff/ff01.jpg,catalog,test-target,B02:main\n"
        "B02,renders/B02/0.png,render,test-query,B02:0\n"
        "B01,14/1400.jpg,catalog,val-query,B01:x\n"
        "B03,renders/B03/0.png,render,train,B03:0\n"
    )
    files = {
        **IMAGES,
        "renders/B02/0.png": picture(9, "PNG"),
        "benchmarks/abo-mvr.csv.xz": lzma.compress(told.encode()),
    }
    found = prepared("abo", written(tmp_path / "a", files))
    assert {
        name: (r["label"], r["split"], r["is_query"], r["is_gallery"], r["image_type"])
        for name, r in found.rows.items()
    } == {
        "images/small/14/14fe.jpg": ("B01", "train", True, True, "catalog"),
        "images/small/ff/ff01.jpg": ("B02", "test", False, True, "catalog"),
        "renders/B02/0.png": ("B02", "test", True, False, "render"),
        "images/small/14/1400.jpg": ("B01", "val", True, False, "catalog"),
    }
    assert found.facts["missing"] == {"train": 1}


def test_mistakes(tmp_path: Path) -> None:
    for number, (data, words) in enumerate(
        (
            (gzip.compress(b'{"item_id": "B1"}\n[1]\n'), "listings_0.json.gz` of .*, line 2: no listing in JSON"),
            (gzip.compress(b"{}" * 50)[:-9], "listings_0.json.gz` of .* can't be unpacked"),
            (b"plain", "can't be unpacked"),
        )
    ):
        place = written(tmp_path / str(number), {**LISTINGS, **IMAGES, "listings/metadata/listings_0.json.gz": data})
        with pytest.raises(SourceError, match=words):
            check("abo", str(place))
