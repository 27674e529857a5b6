from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Prepared, picture, tarred, written

Prepare = Callable[[str, Path], Prepared]

CORE: dict[str, bytes | str] = {
    "ilias_core/brass_owl/query/Q001_01.jpg": picture(1),
    "ilias_core/brass_owl/query/Q001_01_bbox.txt": "10 20 30 40",
    "ilias_core/brass_owl/query/T001.txt": "an owl of brass",
    "ilias_core/brass_owl/pos/P001_01.jpg": picture(2),
    "ilias_core/brass_owl/pos/P001_01_bbox.txt": "1 2 3 4\n5 6 7 8\n",
    "ilias_core/brass_owl/pos/P001_01_url.txt": "http://example.org/owl",
    "ilias_core/brass_owl/pos/P001_02.jpg": picture(3),
    "ilias_core/blue mug/query/Q002_01.jpg": picture(4),
    "ilias_core/blue mug/pos/P002_01.jpg": picture(5),
}
DISTRACTORS = {"0001.jpg": picture(6), "0002.jpg": picture(7)}
EXPECTED = {
    "ilias_core/blue mug/pos/P002_01.jpg": ("blue mug", False, True, None),
    "ilias_core/blue mug/query/Q002_01.jpg": ("blue mug", True, False, None),
    "ilias_core/brass_owl/pos/P001_01.jpg": ("brass_owl", False, True, [1, 2, 3, 4, 5, 6, 7, 8]),
    "ilias_core/brass_owl/pos/P001_02.jpg": ("brass_owl", False, True, None),
    "ilias_core/brass_owl/query/Q001_01.jpg": ("brass_owl", True, False, [10, 20, 30, 40]),
}


def told(found: Prepared) -> dict[str, tuple[object, ...]]:
    return {name: (r["label"], r["is_query"], r["is_gallery"], r["box"]) for name, r in found.rows.items()}


@pytest.mark.parametrize("packed", [False, True])
def test_queries_positives_and_distractors(tmp_path: Path, prepared: Prepare, packed: bool) -> None:
    core: dict[str, bytes | str] = {"ilias_core.tar": tarred(CORE)} if packed else CORE
    found = prepared("ilias", written(tmp_path / "i", {**core, "yfcc100m/000.tar": tarred(DISTRACTORS)}))
    assert told(found) == {
        **EXPECTED,
        "yfcc100m/0001.jpg": (None, False, True, None),
        "yfcc100m/0002.jpg": (None, False, True, None),
    }
    assert found.splits == {"test": 7}
    assert found.collection.card["licences"] == {"unknown": 7}


def test_the_core_alone(tmp_path: Path, prepared: Prepare, capsys: pytest.CaptureFixture[str]) -> None:
    found = prepared("ilias", written(tmp_path / "i", CORE) / "ilias_core")
    assert told(found) == {name.removeprefix("ilias_core/"): values for name, values in EXPECTED.items()}
    assert "there are no distractors below `yfcc100m`" in capsys.readouterr().err
