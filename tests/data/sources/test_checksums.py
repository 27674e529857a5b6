"""Published files against their checksums: `hashlib` is what they are compared with."""

import dataclasses
import gzip
import hashlib
from pathlib import Path

import pytest

from lookalike.commands import main
from lookalike.data.sources import dataset
from lookalike.data.sources.checksums import compare

from .datasets.conftest import tarred, written, zipped
from .datasets.test_food101 import FILES as FOOD
from .datasets.test_sop import FILES as SOP

ARCHIVE = zipped(SOP)
PACKED = gzip.compress(tarred(FOOD), mtime=0)


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture(autouse=True)
def miniatures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data sets as they would be, if these miniatures were what is published."""
    known = dataset.dataset_of
    sums = {
        "sop": {"Stanford_Online_Products.zip": sha256(ARCHIVE)},
        "food101": {"food-101.tar.gz": f"md5:{hashlib.md5(PACKED).hexdigest()}"},
        "inat2018": {"a.tar.gz": sha256(b"a"), "b.tar.gz": sha256(b"b")},
    }
    monkeypatch.setattr(
        "lookalike.data.sources.dataset.dataset_of",
        lambda name: dataclasses.replace(known(name), checksums=sums.get(name, {})),
    )


def test_what_is_right_wrong_unread_and_not_there(tmp_path: Path) -> None:
    data = {"a": b"1" * 3_000_001, "deep/er/b": b"2", "b": b"3", "deep/er/est/c": b"4", "d": b"", "e/x": b"5"}
    written(tmp_path, data)
    sums = {name: sha256(value) for name, value in (("a", data["a"]), ("b", b"2"), ("c", b"4"), ("d", b"x"))}
    sums |= {"e": sha256(b""), "md5": f"md5:{hashlib.md5(b'').hexdigest()}"}
    (tmp_path / "md5").write_bytes(b"")
    found = [
        (one.name, one.place and str(one.place.relative_to(tmp_path)), str(one)) for one in compare(sums, str(tmp_path))
    ]
    assert found == [
        ("a", "a", "right"),
        ("b", "b", f"wrong: found {sha256(b'3')}, expected {sha256(b'2')}"),
        ("b", "deep/er/b", "right"),
        ("c", None, "not compared: not there"),  # three folders down
        ("d", "d", f"wrong: found {sha256(b'')}, expected {sha256(b'x')}"),
        ("e", None, "not compared: not there"),  # a folder of that name
        ("md5", "md5", "right"),
    ]
    assert [one.is_wrong for one in compare({"a": sums["a"], "c": sums["c"]}, str(tmp_path))] == [False, False]


def test_progress_is_said_and_a_file_that_can_not_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, {"a": bytes(3_000_000), "b": bytes(2_500_000)})
    opened = Path.open

    def refusing(self: Path, *options: str) -> object:
        if self.name == "b":
            raise PermissionError(13, "Permission denied")
        return opened(self, *options)

    monkeypatch.setattr(Path, "open", refusing)
    one, other = compare({"a": sha256(bytes(3_000_000)), "b": sha256(b"")}, str(tmp_path))
    assert (str(one), str(other), other.is_wrong) == ("right", "can't be read: Permission denied", True)
    assert "check 3/5 MB" in capsys.readouterr().err


def checked(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(["prepare", name, "--from", str(place), "--check"])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize("inside", ["", "Stanford_Online_Products.zip"])
def test_an_archive_that_is_read_where_it_lies(tmp_path: Path, capsys: pytest.CaptureFixture[str], inside: str) -> None:
    files = {name: data for name, data in SOP.items() if name != "Ebay_test.txt"} | {
        "Ebay_test.txt": SOP["Ebay_info.txt"]
    }
    place = written(tmp_path / "p", {"Stanford_Online_Products.zip": ARCHIVE})
    code, out, _ = checked("sop", place / inside, capsys)
    assert code == 1  # the miniature's lists name an image that is not there
    assert out.splitlines()[2].rsplit(maxsplit=1) == [str(place / "Stanford_Online_Products.zip"), "right"]
    assert "missing: toaster_final/none.JPG" in out
    (place / "Stanford_Online_Products.zip").write_bytes(zipped(files))  # whole, and another one
    code, out, err = checked("sop", place / inside, capsys)
    assert code == 1
    assert f"wrong: found {sha256(zipped(files))}, expected {sha256(ARCHIVE)}" in out
    assert "missing:" not in out
    assert "download it again" in err


def test_half_an_archive_is_told_by_its_checksum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = written(tmp_path / "p", {"Stanford_Online_Products.zip": ARCHIVE[: len(ARCHIVE) // 2]})
    code, out, err = checked("sop", place, capsys)
    assert code == 1
    assert "wrong: found" in out
    assert "can't be read as a zip file" in err


@pytest.mark.parametrize("inside", ["", "food-101.tar.gz"])
def test_an_archive_that_must_be_unpacked_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], inside: str
) -> None:
    place = written(tmp_path / "p", {"food-101.tar.gz": PACKED})
    code, out, err = checked("food101", place / inside, capsys)
    assert code == 2  # what is in it can't be said
    assert out.splitlines()[2].rsplit(maxsplit=1) == [str(place / "food-101.tar.gz"), "right"]
    assert "tar -xf food-101.tar.gz" in err.partition("hint: ")[2]
    (place / "food-101.tar.gz").write_bytes(PACKED[:-9])
    code, out, err = checked("food101", place / inside, capsys)
    assert code == 1
    assert "wrong: found md5:" in out
    assert "tar -xf food-101.tar.gz" in err


def test_what_was_unpacked_is_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = checked("food101", written(tmp_path / "p", FOOD), capsys)
    assert (code, err) == (0, "")
    assert out.splitlines()[2].split() == ["food-101.tar.gz", "not", "compared:", "not", "there"]
    assert checked("food101", tmp_path / "absent", capsys)[0] == 2


def test_without_a_known_checksum_nothing_is_said_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = written(tmp_path / "p", {"train.csv": "name,class,group\n1.jpg,0,0\n"})
    assert "checksum" not in checked("products10k", place, capsys)[1]
