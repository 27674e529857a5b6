import tarfile
from pathlib import Path

import pytest

from lookalike.core.errors import ImageError
from lookalike.data.sources import Place
from lookalike.data.sources.beside import Members


def place_of(members: Members, name: str) -> Place:
    path, offset, size, stamp = members.place(int(members.find([name])[0]))
    return Place(path, stamp, offset, size)


def test_every_member_is_found_as_tarfile_reads_it(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for i, name in enumerate(("a.jpg", "set/b.jpg", "./c.jpg", "long/" + "n" * 150 + ".jpg", "a.jpg", "empty.jpg")):
            (tmp_path / "file").write_bytes(bytes([i]) * (100 * i) if name != "empty.jpg" else b"")
            archive.add(tmp_path / "file", name)
        archive.add(tmp_path, "folder", recursive=False)
        link = tarfile.TarInfo("hard.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "set/b.jpg"
        archive.addfile(link)
    members = Members(tmp_path / "x.tar")
    with tarfile.open(tmp_path / "x.tar") as archive:
        expected = {m.name.removeprefix("./"): archive.extractfile(m).read() for m in archive if m.isreg() or m.islnk()}
    assert {name: place_of(members, name).read() for name in members.names()} == expected
    assert place_of(members, "a.jpg").read() == bytes([4]) * 400  # the later of two
    assert members.find(["b.jpg", "folder", ""]).tolist() == [-1, -1, -1]


def test_a_member_that_the_tar_cuts_off_is_no_image(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        (tmp_path / "file").write_bytes(bytes(5000))
        archive.add(tmp_path / "file", "a.jpg")
    place = place_of(Members(tmp_path / "x.tar"), "a.jpg")
    (tmp_path / "x.tar").write_bytes((tmp_path / "x.tar").read_bytes()[:2000])
    with pytest.raises(ImageError, match=f"archive ends after {2000 - place.offset} of this member's 5000 bytes"):
        place.read()
