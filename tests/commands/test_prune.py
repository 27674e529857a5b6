"""`lookalike prune`, and `index --retry-failed`, as a user gives them."""

import shutil
import subprocess

import pytest
from PIL import Image

import lookalike as la
from lookalike.commands import main
from lookalike.data.collection import Collection


@pytest.fixture
def photos(shop, tmp_path, monkeypatch):
    """A folder with an index beside it, and one image that is gone since."""
    home = tmp_path / "home"
    shutil.copytree(shop.images, home / "photos")
    monkeypatch.chdir(home)
    assert main(["index", "photos", "--model", str(shop.model)]) == 0
    (home / "photos/domain1/label3/2.png").unlink()
    assert main(["index"]) == 0
    return home / "photos"


def du(path) -> int:
    return int(subprocess.run(["du", "-sb", str(path)], capture_output=True, check=True).stdout.split()[0])


def test_what_would_go_is_shown_and_then_goes(photos, capsys):
    size = du("photos.lookalike")
    capsys.readouterr()
    assert main(["prune", "--dry-run"]) == 0
    said = capsys.readouterr()
    assert "`photos.lookalike` would let go of 1 row that is gone: about" in said.err
    assert du("photos.lookalike") == size
    column = Collection.open("photos.lookalike").card["model"]["column"]
    lines = [line.split() for line in said.out.splitlines()[2:]]
    assert [column, "12", "0.0", "search"] in lines
    assert main(["prune", "photos.lookalike"]) == 0
    said = capsys.readouterr()
    assert "`photos.lookalike` let go of 1 row that is gone: " in said.err
    assert [column, "11", "0.0", "search"] in [line.split() for line in said.out.splitlines()]
    assert du("photos.lookalike") < size
    assert main(["search", str(next(photos.rglob("*.png"))), "-k", "20"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 2 + 10
    assert main(["prune"]) == 0
    assert "let go of 0 rows that are gone: 0.0 MB are free" in capsys.readouterr().err


def test_what_comes_back_is_embedded_again(photos, shop, capsys):
    shutil.copy(shop.images / "domain1/label3/2.png", photos / "domain1/label3/2.png")
    assert main(["index"]) == 0
    assert "1 edited" in capsys.readouterr().err  # not pruned: its row is there
    (photos / "domain1/label3/2.png").unlink()
    assert main(["index"]) == 0
    assert main(["prune"]) == 0
    shutil.copy(shop.images / "domain1/label3/2.png", photos / "domain1/label3/2.png")
    capsys.readouterr()
    assert main(["index"]) == 0
    assert "12 images: 1 added" in capsys.readouterr().err
    assert Collection.open("photos.lookalike").table(["id"])["id"].to_pylist()[-1] == 12  # 11 was another row's


def test_vectors_of_the_model_before(photos, shop, write_tiny_model, tmp_path, capsys):
    before = Collection.open("photos.lookalike").card["model"]["column"]
    assert main(["prune", "--columns", before]) == 2
    assert "is what `lookalike search` looks at" in capsys.readouterr().err
    other = write_tiny_model(tmp_path / "other", 1)
    assert main(["index", "photos", "--model", str(other)]) == 0
    old = [name for name in Collection.open("photos.lookalike").columns if name.endswith("_float32")][:2]
    assert before in old
    assert main(["prune", "--columns", *old]) == 0
    assert "1 row that is gone and `" in capsys.readouterr().err
    assert not {*old} & {*Collection.open("photos.lookalike").columns}
    assert main(["search", str(next(photos.rglob("*.png")))]) == 0


def test_from_python(photos, capsys):
    index = la.index("photos")
    told = la.prune(index, dry_run=True)
    assert (told.rows, told.is_dry) == (1, True)
    size = du("photos.lookalike")
    pruned = la.prune(index)
    assert (pruned.rows, pruned.is_held) == (1, False)
    assert pruned.bytes > 0
    assert du("photos.lookalike") < size
    assert la.prune("photos.lookalike").rows == 0


def test_images_that_failed_are_tried_again(photos, shop, monkeypatch, capsys):
    """As after the installation of what reads them: the file is the same, what can be read is not."""
    Image.new("RGB", (40, 40), (9, 200, 90)).save(photos / "new.png")
    with monkeypatch.context() as patch:
        patch.setattr("lookalike.data.convert.store", lambda *_: 1 / 0)
        assert main(["index"]) == 0
    assert "1 could not be read" in capsys.readouterr().err
    assert main(["index"]) == 0
    assert "11 images: nothing was new; 1 could not be read" in capsys.readouterr().err
    assert len(la.index("photos", retry_failed=True)) == 12
    assert "12 images: 1 added" in capsys.readouterr().err
    assert main(["index", str(shop.collection), "--out", "copy", "--model", str(shop.model), "--retry-failed"]) == 2
    assert "`--test`, `--exclude` and `--retry-failed` are for sources" in capsys.readouterr().err
