from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Prepared, picture, tarred, written, zipped

Prepare = Callable[[str, Path], Prepared]

NAMES = ("0_a.jpg", "0_b.JPG", "2_x_y.png", "10_c.jpeg", "200_d.jpg", "999_e.jpg", "1199_f.jpg")
FILES = {
    f"images/{name}": picture(i, "PNG" if name.endswith("png") else "JPEG", "L" if name.startswith("999") else "RGB")
    for i, name in enumerate(NAMES)
}


@pytest.mark.parametrize("packed", [False, True])
def test_classes_by_number_and_all_are_searched_in_all(tmp_path: Path, prepared: Prepare, packed: bool) -> None:
    more = {"images/._0_a.jpg": b"macOS", "images/cover.jpg": picture(99), "README.md": "words"}
    files = {"GPR1200.zip": zipped({**FILES, **more})} if packed else {**FILES, **more}
    found = prepared("gpr1200", written(tmp_path / "g", files))
    assert found.splits == {"test": 7}
    # In the order of numbers: as texts, 10 and 1199 would stand before 2.
    assert list(found.labels().items()) == [
        ("images/0_a.jpg", "0"),
        ("images/0_b.JPG", "0"),
        ("images/2_x_y.png", "2"),
        ("images/10_c.jpeg", "10"),
        ("images/200_d.jpg", "200"),
        ("images/999_e.jpg", "999"),
        ("images/1199_f.jpg", "1199"),
    ]
    assert [row["gpr1200_field"] for row in found.rows.values()] == [
        *("gldv2", "gldv2", "gldv2", "gldv2", "inat", "sop", "faces")
    ]
    assert all(row["is_query"] and row["is_gallery"] and row["domain"] == "gpr1200" for row in found.rows.values())
    assert found.facts["found"]["test"] == {"images": 7, "classes": 6}
    assert found.collection.card["licences"] == {"non-commercial research": 7}


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_members_that_lead_out_of_the_archive_are_names_like_others(
    tmp_path: Path, prepared: Prepare, kind: str
) -> None:
    """Nothing is unpacked, so that nothing lands elsewhere; and no list asks for such a name."""
    out = {"../0_out.jpg": picture(50), f"{tmp_path}/0_root.jpg": picture(51), "images/../../0_up.jpg": picture(52)}
    made = {"tar": tarred, "zip": zipped}[kind]({**FILES, **out})
    place = written(tmp_path / "g", {f"GPR1200.{kind}": made})
    found = prepared("gpr1200", place)
    assert sorted(found.rows) == sorted(FILES)
    assert not [path for path in tmp_path.rglob("0_*") if path.is_file()]
