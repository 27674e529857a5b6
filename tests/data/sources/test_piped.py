"""Files that standard input names: the same rows as of the folder that holds them."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import PIL.Image
import pyarrow as pa
import pytest

from lookalike.core.errors import SourceError
from lookalike.data.collection import Collection
from lookalike.data.sources import open_source

NAMES = (
    "photos/flat.jpg",
    "photos/mug/1.jpg",
    "photos/mug/a\nb.jpg",
    "photos/shoes/boot/x y.jpg",
    "photos/shoes/Ä.png",
)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for i, name in enumerate(NAMES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (8, 9), (i, 0, 9)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def piped(monkeypatch: pytest.MonkeyPatch, data: bytes, *exclude: str) -> list[dict[str, Any]]:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    return pa.Table.from_batches(open_source("-", exclude)).to_pylist()


def folder(photos: Path, *exclude: str) -> list[dict[str, Any]]:
    return pa.Table.from_batches(open_source(str(photos), exclude)).to_pylist()


def test_names_between_zero_bytes_are_rows_as_of_their_folder(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"\0".join(os.fsencode(name) for name in reversed(NAMES)) + b"\0"
    assert piped(monkeypatch, data) == folder(photos)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_names_one_a_line_absolute_or_with_dots(photos: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    (photos / "mug/a\nb.jpg").unlink()
    names = [str(photos / "flat.jpg"), "", "./photos/../photos/mug/1.jpg", "photos/mug/1.jpg", *NAMES[3:]]
    assert piped(monkeypatch, end.join(names).encode()) == folder(photos)


def test_what_find_writes_is_read_and_its_folders_do_not_count(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = subprocess.run(["find", "photos", "-print0"], check=True, capture_output=True).stdout
    assert piped(monkeypatch, found) == folder(photos)


def test_the_innermost_folder_that_holds_all_is_the_source(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert piped(monkeypatch, b"photos/mug/1.jpg\0photos/mug/a\nb.jpg") == folder(photos / "mug")
    alone = piped(monkeypatch, b"photos/shoes/boot/x y.jpg\n")
    assert [(row["source"], row["label"], row["domain"]) for row in alone] == [("x y.jpg", None, "boot")]


@pytest.mark.parametrize("pattern", ["mug", "shoes/boot", "*.png", "shoes/*"])
def test_what_is_excluded_is_what_the_folder_leaves_out(
    photos: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    data = b"\0".join(map(os.fsencode, NAMES))
    rows = piped(monkeypatch, data, pattern)
    assert rows == folder(photos, pattern)
    assert len(rows) < len(NAMES)


def test_files_that_are_no_images_are_left_out_and_told(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "notes.txt").write_text("a text")
    assert len(piped(monkeypatch, b"photos/notes.txt\nphotos/flat.jpg")) == 1
    assert "files of standard input that are not images, left out: 1" in capsys.readouterr().err


def test_a_name_that_is_not_utf8(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = os.fsencode(photos) + b"/\xff.jpg"
    PIL.Image.new("RGB", (3, 3)).save(os.fsdecode(name))
    assert [row["source"] for row in piped(monkeypatch, name)] == ["\\xff.jpg"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "Standard input names no file."),
        (b"\n\n", "Standard input names no file."),
        (b"photos/mug\n", "Standard input names no file."),
        (b"photos/gone.jpg\nphotos/flat.jpg", "gone.jpg`, which is not there"),
        (b"photos/flat.jpg/1.jpg", "1.jpg`, which is not there"),
        (b"s3://bucket/a.jpg", "a.jpg`, which is not there"),
        (b"notes.txt", "Standard input names no image."),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "which is not there"),
    ],
)
def test_refused_in_one_sentence(photos: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, words: str) -> None:
    (photos.parent / "notes.txt").write_text("a text")
    with pytest.raises(SourceError) as refused:
        piped(monkeypatch, data)
    assert words in refused.value.message


def test_a_terminal_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for stdin in (None, type("Terminal", (), {"isatty": lambda _: True})()):
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(SourceError, match="nothing is piped"):
            open_source("-")


def test_prepare_takes_the_list_and_goes_on_with_the_folder(photos: Path) -> None:
    def prepare(source: str, data: bytes) -> str:
        command = [sys.executable, "-m", "lookalike", "prepare", source, "--out", "coll", "--workers", "1"]
        return subprocess.run(command, input=data, check=True, capture_output=True).stderr.decode()

    listed = b"\0".join(map(os.fsencode, NAMES[:4]))
    assert "4 added" in prepare("-", listed)
    assert "nothing was new" in prepare("-", listed)
    assert "1 added" in prepare("photos", b"")  # the same images have the same names
    sources = Collection.open("coll").table(["source"])["source"].to_pylist()
    assert sorted(sources) == sorted(NAMES)
