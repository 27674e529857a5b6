"""The path of every row leads to the very bytes that its SHA-256 is of, whatever the layout of its source."""

import hashlib
import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.data.collection import Collection
from lookalike.data.prepare import prepare
from lookalike.data.sources.tree import Tree
from lookalike.data.whereabouts import kept_place, paths_of, whole_path


def png(seed: int) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 8, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            (info := tarfile.TarInfo(name)).size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def bytes_at(path: str) -> bytes:
    """By the standard library alone."""
    if not Path(path).exists() and "!" in path:
        archive, _, member = path.partition("!")
        if archive.endswith(".parquet"):
            image = pyarrow.parquet.read_table(archive)["image"][int(member)].as_py()
            return bytes(image["bytes"])
        with tarfile.open(archive) as opened:
            file = opened.extractfile(member)
            assert file is not None
            return file.read()
    return Path(path).read_bytes()


def told(coll: Path) -> dict[str, str | None]:
    """Source to path, each path checked."""
    collection = Collection.open(coll)
    rows = collection.table(["source", "place", "sha256"]).to_pylist()
    assert rows
    found = dict(zip((row["source"] for row in rows), paths_of(rows, collection.card), strict=True))
    for row in rows:
        path = found[row["source"]]
        assert path is not None
        assert hashlib.sha256(bytes_at(path)).digest() == row["sha256"], path
    return found


def make(folder: Path, layout: str) -> Path:
    """A source of two images."""
    (place := folder / "photos").mkdir(parents=True)
    images = {"a/1.png": png(1), "b/2!x.png": png(2)}
    if layout in ("folder", "table", "imagefolder"):
        for name, data in images.items():
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_bytes(data)
    if layout == "imagefolder":
        (place / "metadata.csv").write_text("file_name,label\n" + "".join(f"{name},x\n" for name in images))
    if layout in ("table", "table of a tar"):
        (place / "list.csv").write_text("path\n" + "".join(f"{name}\n" for name in images))
        if layout == "table of a tar":
            tar(place / "list.tar", images)
        return place / "list.csv"
    if layout == "tar":
        return tar(place / "list.tar", images)
    if layout == "tars":
        for i, (name, data) in enumerate(images.items()):
            tar(place / f"{i}.tar", {name: data})
    if layout == "parquet":
        values = [{"bytes": data, "path": None} for data in images.values()]
        pyarrow.parquet.write_table(pa.table({"image": values}), place / "train.parquet")
    return place


LAYOUTS = ["folder", "table", "table of a tar", "imagefolder", "tar", "tars", "parquet"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_path_leads_to_the_image_also_after_its_source_moved(
    tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(tmp_path / "first", layout)
    monkeypatch.chdir(tmp_path / "first")
    prepare([str(source.relative_to(tmp_path / "first"))], str(tmp_path / "coll"))
    before = told(tmp_path / "coll")
    assert all(path is not None and path.startswith(f"{tmp_path}/first/photos/") for path in before.values())
    (tmp_path / "first").rename(tmp_path / "second")
    monkeypatch.chdir(tmp_path)
    report = prepare([str(tmp_path / "second" / source.relative_to(tmp_path / "first"))], str(tmp_path / "coll"))
    assert (report.added, report.edited, report.gone) == (0, 0, 0)
    assert told(tmp_path / "coll") == {
        name: str(path).replace("/first/", "/second/", 1) for name, path in before.items()
    }


def test_names_that_are_not_utf8_and_line_ends_can_be_opened(tmp_path: Path) -> None:
    for number, name in enumerate((b"\xff.png", b"a\nb.png", "ä.png".encode())):
        place = tmp_path / "photos" / os.fsdecode(name)
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(png(number))
    prepare([str(tmp_path / "photos")], str(tmp_path / "coll"))
    assert len(told(tmp_path / "coll")) == 3


def test_rows_from_before_paths_were_kept_have_none_until_the_next_prepare(tmp_path: Path) -> None:
    prepare([str(make(tmp_path, "folder"))], str(tmp_path / "coll"))
    collection = Collection.open(tmp_path / "coll")
    rows = collection.table(["id", "source"])
    assert paths_of(rows.to_pylist(), collection.card) == [None, None]
    collection.update(pa.table({"id": rows["id"], "place": pa.nulls(2, pa.binary())}))
    report = prepare([str(tmp_path / "photos")], str(tmp_path / "coll"))
    assert (report.added, report.edited) == (0, 2)
    told(tmp_path / "coll")


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("inside", ["0/1.png", "train/0/1.png", "images/0/1.png", "train/images/0/1.png"])
def test_members_of_archives_in_a_tree_have_their_own_names(tmp_path: Path, kind: str, inside: str) -> None:
    """As `tree` finds them by a publisher's name, with the archive's own name in it or without."""
    (tmp_path / "train").mkdir()
    archive = tmp_path / "train" / f"images.{kind}"
    if kind == "tar":
        tar(archive, {inside: b"data"})
    else:
        with zipfile.ZipFile(archive, "w") as opened:
            opened.writestr(inside, b"data")
    tree, found = Tree(str(tmp_path)), 0
    for name in ("train/0/1.png", "train/images/0/1.png"):
        (place,) = tree.find([name])
        if place is not None:
            found += 1
            assert (place.member, place.read()) == (inside, b"data"), name
    assert found


NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1).filter(
    lambda name: name not in (".", "..")
)


@given(root=st.lists(NAME, max_size=3), below=st.lists(NAME, min_size=1, max_size=3), member=st.none() | NAME)
def test_what_is_kept_is_told_whole(root: list[str], below: list[str], member: str | None) -> None:
    for start in ("/", "s3://bucket/"):
        folder = start + "/".join(root)
        end = "" if member is None else f"!{member}"
        for file in (f"{folder.rstrip('/')}/{'/'.join(below)}", f"{start}else/{'/'.join(below)}"):
            kept = kept_place(file.encode(), member, folder)
            assert whole_path(kept, folder) == file + end


def test_a_place_outside_its_source_is_kept_whole() -> None:
    assert kept_place(b"/data/1.jpg", None, "/lists/shop.csv") == b"/data/1.jpg"
    assert kept_place(b"/lists/1.jpg", None, "/lists/shop.csv") == b"../1.jpg"
    assert kept_place(b"s3://b/k/1.jpg", None, "s3://b/k") == b"1.jpg"
    assert kept_place(b"s3://b/k/1.tar", "x.jpg", "s3://b/k/1.tar") == b"../1.tar!x.jpg"
