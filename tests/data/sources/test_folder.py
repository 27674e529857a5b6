import os
import pickle
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest

from lookalike.core.errors import ImageError, SourceError
from lookalike.data.sources import layout_of, open_source
from lookalike.data.sources.listed import LISTED, Source, place_of


def image(path: Path, format: str = "JPEG", seed: int = 0) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(path, format)
    return path.read_bytes()


def rows(source: Source) -> list[SimpleNamespace]:
    """What a source says, image by image."""
    return [
        SimpleNamespace(**row, place=place_of(row), extra={n: row[n] for n in row if n not in LISTED.names})
        for batch in source
        for row in batch.to_pylist()
    ]


def listed(path: Path, *exclude: str) -> list[SimpleNamespace]:
    return rows(open_source(str(path), exclude))


def told(path: Path) -> list[tuple[str, str | None, str | None]]:
    return [(row.source, row.domain, row.label) for row in listed(path)]


def test_the_path_says_domain_and_label(tmp_path: Path) -> None:
    for name in (
        "photos/flat.jpg",
        "photos/mug/1.jpg",
        "photos/mug/2.jpg",
        "photos/shoes/boot/1.jpg",
        "photos/shoes/boot/day 2/left/1.jpg",
        "photos/mug/red/1.jpg",
    ):
        image(tmp_path / name)
    assert told(tmp_path / "photos") == [
        ("flat.jpg", "photos", None),
        ("mug/1.jpg", "photos", "mug"),
        ("mug/2.jpg", "photos", "mug"),
        ("mug/red/1.jpg", "mug", "red"),
        ("shoes/boot/1.jpg", "shoes", "boot"),
        ("shoes/boot/day 2/left/1.jpg", "shoes", "boot"),
    ]


def test_the_folder_has_the_same_name_however_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "photos" / "mug" / "1.jpg")
    monkeypatch.chdir(tmp_path / "photos" / "mug")
    assert [row.domain for row in listed(Path(".."))] == ["photos"]
    assert [row.domain for row in rows(open_source("../../photos/"))] == ["photos"]
    assert [row.domain for row in listed(Path("."))] == ["mug"]


def test_rows_have_all_roles_and_readable_places(tmp_path: Path) -> None:
    data = image(tmp_path / "a" / "1.jpg")
    (row,) = listed(tmp_path / "a")
    assert (row.is_query, row.is_gallery, row.split, row.group, row.extra) == (True, True, None, None, {})
    place = pickle.loads(pickle.dumps(row.place))
    assert place.read() == data
    os.utime(tmp_path / "a" / "1.jpg", (5, 5))
    assert listed(tmp_path / "a")[0].place.stamp != place.stamp


def test_an_image_is_known_by_suffix_or_by_its_first_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, format in (
        ("a.JPG", "JPEG"),
        ("b.png", "GIF"),
        ("c.dat", "PNG"),
        ("d", "WEBP"),
        ("e.bin", "TIFF"),
        ("f.x", "BMP"),
    ):
        image(tmp_path / name, format)
    (tmp_path / "broken.jpeg").write_text("no image")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "Thumbs.db").write_bytes(b"")
    (tmp_path / ".hidden.jpg").write_bytes(b"x")
    image(tmp_path / ".thumbnails" / "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert [row.source for row in listed(tmp_path)] == ["a.JPG", "b.png", "broken.jpeg", "c.dat", "d", "e.bin", "f.x"]
    assert "left out: 3" in capsys.readouterr().err


def test_links_are_followed_but_not_in_circles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image(tmp_path / "elsewhere" / "1.jpg")
    image(tmp_path / "photos" / "mug" / "1.jpg")
    (tmp_path / "photos" / "mug" / "2.jpg").symlink_to(tmp_path / "elsewhere" / "1.jpg")
    (tmp_path / "photos" / "cup").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "mug" / "up").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "self.jpg").symlink_to("self.jpg")
    (tmp_path / "photos" / "dangling.jpg").symlink_to("nowhere")
    rows = listed(tmp_path / "photos")
    assert [row.source for row in rows] == ["cup/1.jpg", "dangling.jpg", "mug/1.jpg", "mug/2.jpg", "self.jpg"]
    assert "`" + str(tmp_path / "photos/mug/up") + "`, a link to a folder that it lies in" in capsys.readouterr().err
    for row in (rows[1], rows[4]):
        with pytest.raises(ImageError, match="can't be read"):
            row.place.read()


def test_names_that_are_not_utf8_are_written_and_found(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    data = image(tmp_path / "1.jpg")
    (folder / os.fsdecode(b"\xff.jpg")).write_bytes(data)
    _, row = listed(tmp_path)
    assert (row.source, row.label) == ("caf\\xe9/\\xff.jpg", "caf\\xe9")
    assert pickle.loads(pickle.dumps(row.place)).read() == data


def test_the_order_is_that_of_names_and_every_time_the_same(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/10.jpg", "a/1.jpg", "B/1.jpg", "c.jpg"):
        image(tmp_path / name)
    names = [row.source for row in listed(tmp_path)]
    assert names == ["B/1.jpg", "a/1.jpg", "b/10.jpg", "b/2.jpg", "c.jpg"]
    assert [row.source for row in listed(tmp_path)] == names


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "photos" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "photos" / "notes.txt").write_text("x")
    with pytest.raises(SourceError, match="holds no images") as caught:
        listed(tmp_path / "photos")
    assert "label/" in caught.value.hint


def test_what_is_no_source_is_said(tmp_path: Path) -> None:
    image(tmp_path / "photos" / "1.jpg")
    (tmp_path / "shop.xlsx").write_bytes(b"")
    with pytest.raises(SourceError, match="nothing at") as caught:
        layout_of(str(tmp_path / "photo"))
    assert "photos" in caught.value.hint
    with pytest.raises(SourceError, match="nothing at"):
        layout_of(str(tmp_path / "no" / "where"))
    with pytest.raises(SourceError) as caught:
        layout_of(str(tmp_path / "shop.xlsx"))
    assert ".csv" in caught.value.hint


def test_a_folder_that_can_not_be_read_costs_its_images_and_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image(tmp_path / "photos" / "mug" / "1.jpg")
    image(tmp_path / "photos" / "cup" / "1.jpg")
    real = os.scandir

    def refuse(path: str) -> object:  # chmod would not stop root
        if str(path).endswith(refused):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    refused = "mug"
    monkeypatch.setattr(os, "scandir", refuse)
    source = open_source(str(tmp_path / "photos"))
    assert [row.source for row in rows(source)] == ["cup/1.jpg"]
    assert source.unread == ["mug/"]
    assert "mug`, which can't be read (Permission denied)" in capsys.readouterr().err
    refused = "photos"
    with pytest.raises(SourceError, match="photos` can't be read: Permission denied"):
        listed(tmp_path / "photos")


def test_what_systems_keep_among_the_photos_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (
        "2023/@eaDir/1.jpg",
        "#recycle",
        "@Recycle",
        "$RECYCLE.BIN",
        "__MACOSX",
        "a/System Volume Information",
    ):
        image(tmp_path / "nas" / folder / "1.jpg")
    image(tmp_path / "nas" / "2023" / "1.jpg")
    image(tmp_path / "nas" / "@home" / "#1.jpg")
    assert [row.source for row in listed(tmp_path / "nas")] == ["2023/1.jpg", "@home/#1.jpg"]
    assert "@eaDir`, which the system keeps for itself" in capsys.readouterr().err
    assert len(listed(tmp_path / "nas" / "#recycle")) == 1  # given by name it is meant


def test_patterns_leave_folders_and_files_out(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/small/1.jpg", "b/small/2.jpg", "b/x.png", "Ku\u0308che/1.jpg"):
        image(tmp_path / name)
    for patterns, left in (
        (("small",), ["Ku\u0308che/1.jpg", "a/1.jpg", "b/x.png"]),
        (("a/small", "*.png"), ["Ku\u0308che/1.jpg", "a/1.jpg", "b/small/2.jpg"]),
        (("a/", "b/*"), ["Ku\u0308che/1.jpg"]),
        (("K\u00fcche", "[ab]"), []),
    ):
        if left:
            assert [row.source for row in listed(tmp_path, *patterns)] == left
        else:
            with pytest.raises(SourceError, match="holds no images"):
                listed(tmp_path, *patterns)


def test_a_class_is_one_in_any_form_of_unicode(tmp_path: Path) -> None:
    image(tmp_path / "Ku\u0308che" / "1.jpg")
    image(tmp_path / "K\u00fcche" / "1.jpg")
    assert sorted((row.source, row.label) for row in listed(tmp_path)) == [
        ("Ku\u0308che/1.jpg", "K\u00fcche"), ("K\u00fcche/1.jpg", "K\u00fcche"),
    ]  # fmt: skip


def test_what_is_no_source_names_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spark").mkdir()
    (tmp_path / "spark" / "part-0.snappy.parquet").write_bytes(b"PAR1")
    (tmp_path / "spark" / "part-0.npy").write_bytes(b"")
    with pytest.raises(SourceError) as caught:
        listed(tmp_path / "spark")
    assert f"{shlex.quote(str(tmp_path / 'spark'))}/*.parquet" in caught.value.hint
    capsys.readouterr()
    image(tmp_path / "deep" / "a.jpg")
    (tmp_path / "deep" / "metadata.jsonl").write_text('{"file_name": "a.jpg", "label": "007"}\n')
    listed(tmp_path)
    assert "metadata.jsonl` is not read" in capsys.readouterr().err
