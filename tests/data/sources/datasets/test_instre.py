import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from lookalike.core.errors import SourceError
from lookalike.data.sources.dataset import check

from .conftest import Prepared, picture, tarred, written

Prepare = Callable[[str, Path], Prepared]

FILES: dict[str, bytes | str] = {
    "INSTRE-S1/01_gate/001.jpg": picture(1),
    "INSTRE-S1/01_gate/001.txt": "12 20 100 90",
    "INSTRE-S1/01_gate/002.jpg": picture(2),
    "INSTRE-S1/01_gate/002.txt": "1 2 3 4\r\n",
    "INSTRE-S2/01_gate/001.jpg": picture(3),
    "INSTRE-M/07/001.jpg": picture(4),
    "INSTRE-M/07/001.txt": "1 2 3 4\n5 6 7.5 8\n",
    "INSTRE-M/07/Thumbs.db": b"x",
}


def truth(queries: list[str], gallery: list[str]) -> bytes:
    gnd = np.zeros(len(queries), [("ok", object), ("bbx", object)])
    data = io.BytesIO()
    savemat(data, {"qimlist": np.array(queries, object), "imlist": np.array(gallery, object), "gnd": gnd})
    return data.getvalue()


@pytest.mark.parametrize("packed", [False, True])
def test_folders_alone(tmp_path: Path, prepared: Prepare, packed: bool) -> None:
    place = written(tmp_path / "i", {"instre.tar": tarred(FILES)} if packed else FILES)
    found = prepared("instre", place)
    # A folder of S1 and one of S2 may have one name, and are two classes.
    assert found.labels() == {
        "INSTRE-S1/01_gate/001.jpg": "INSTRE-S1/01_gate",
        "INSTRE-S1/01_gate/002.jpg": "INSTRE-S1/01_gate",
        "INSTRE-S2/01_gate/001.jpg": "INSTRE-S2/01_gate",
        "INSTRE-M/07/001.jpg": "INSTRE-M/07",
    }
    assert found.splits == {"test": 4}
    assert [row["box"] for row in found.rows.values()] == [
        [12, 20, 100, 90],
        [1, 2, 3, 4],
        None,
        [1, 2, 3, 4, 5, 6, 7.5, 8],
    ]
    assert all(row["is_query"] and row["is_gallery"] for row in found.rows.values())


def test_the_ground_truth_says_who_is_searched(tmp_path: Path, prepared: Prepare) -> None:
    told = truth(
        ["INSTRE-S1/01_gate/001.jpg"], ["./INSTRE-S1/01_gate/002", "INSTRE-S2/01_gate/001.jpg", "INSTRE-M/07/001.jpg"]
    )
    found = prepared("instre", written(tmp_path / "i", {**FILES, "gnd_instre.mat": told}))
    assert [(name, row["is_query"], row["is_gallery"]) for name, row in found.rows.items()] == [
        ("INSTRE-S1/01_gate/001.jpg", True, False),
        ("INSTRE-S1/01_gate/002.jpg", False, True),
        ("INSTRE-S2/01_gate/001.jpg", False, True),
        ("INSTRE-M/07/001.jpg", False, True),
    ]
    assert found.rows["INSTRE-S1/01_gate/002.jpg"]["label"] == "INSTRE-S1/01_gate"


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"`gnd_instre.mat` of .* can't be read"):
        check("instre", str(written(tmp_path / "a", {**FILES, "gnd_instre.mat": b"no MATLAB file" * 20})))
    with pytest.raises(SourceError, match="holds no box of numbers: 1 2 3 x"):
        check("instre", str(written(tmp_path / "b", {**FILES, "INSTRE-S1/01_gate/001.txt": "1 2 3 x"})))
    with pytest.raises(SourceError) as caught:
        check("instre", str(written(tmp_path / "c", {"INSTRE_release.rar": b"Rar!"})))
    assert "unrar x INSTRE_release.rar" in str(caught.value.hint)
