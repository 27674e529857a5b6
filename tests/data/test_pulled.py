"""A disk that is pulled while its images are listed or read, or before: nothing is lost, or marked as gone."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookalike.core.errors import SourceError
from lookalike.data.collection import Collection
from lookalike.data.prepare import prepare
from lookalike.data.sources import Place, folder


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    """Six photos, prepared, and four that are new, or show something else now."""
    for i in range(6):
        draw(tmp_path / f"stick/label{i % 2}/{i}.png", i)
    prepare([str(tmp_path / "stick")], str(tmp_path / "coll"))
    for i in (5, 6, 7, 8, 9):
        draw(tmp_path / f"stick/label{i % 2}/{i}.png", 10 + i)
    return tmp_path / "stick"


def draw(file: Path, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 24 + seed, 3), np.uint8)).save(file)


def unplugged(stick: Path) -> None:
    stick.rename(stick.with_name("drawer"))


def unmounted(stick: Path) -> None:
    """What was mounted is gone, and the folder stays, empty."""
    unplugged(stick)
    stick.mkdir()


def plugged_in(stick: Path) -> None:
    shutil.rmtree(stick, ignore_errors=True)
    stick.with_name("drawer").rename(stick)


def sources(collection: Collection) -> list[str]:
    return sorted(collection.table(["source"])["source"].to_pylist())


def at_call(number: int, call: Callable, pull: Callable[[], None]) -> Callable:
    """`call`, which is preceded by `pull` at its call of this number."""
    calls = 0

    def counted(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == number:
            pull()
        return call(*arguments)

    return counted


@pytest.mark.parametrize("pull", [unplugged, unmounted])
@pytest.mark.parametrize("moment", ["read", "listed"])
def test_pulled_meanwhile(
    stick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pull: Callable[[Path], None], moment: str
) -> None:
    known = sources(Collection.open(tmp_path / "coll"))
    with monkeypatch.context() as patch:
        if moment == "read":
            patch.setattr(Place, "read", at_call(3, Place.read, lambda: pull(stick)))
        else:
            patch.setattr(folder, "is_image", at_call(3, folder.is_image, lambda: pull(stick)))
        with pytest.raises(SourceError, match="is no longer there: its disk was removed") as caught:
            prepare([str(stick)], str(tmp_path / "coll"))
    assert "same command again" in caught.value.hint
    left = Collection.open(tmp_path / "coll")
    assert {*known} <= {*sources(left)}
    assert len(left) == 6 + (2 if moment == "read" else 0)
    assert len(left.errors()) == 0
    plugged_in(stick)
    report = prepare([str(stick)], str(tmp_path / "coll"))
    assert (report.rows, report.failed, report.errors) == (10, 0, 0)
    assert report.gone == 1  # what showed something else


@pytest.mark.parametrize("pull", [unplugged, unmounted])
def test_pulled_before(stick: Path, tmp_path: Path, pull: Callable[[Path], None]) -> None:
    pull(stick)
    with pytest.raises(SourceError):
        prepare([str(stick)], str(tmp_path / "coll"))
    assert len(Collection.open(tmp_path / "coll")) == 6


def test_a_file_that_could_not_be_opened_is_tried_again(
    stick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `--retry-failed`: as after a bad contact, which changes neither size nor time."""
    opened = Path.open

    def refuse(path: Path, *arguments: object, **options: object) -> object:
        if path.name in ("6.png", "7.png"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return opened(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        for _ in range(2):
            report = prepare([str(stick)], str(tmp_path / "coll"))
            assert (report.rows, report.errors) == (8, 2)
    assert prepare([str(stick)], str(tmp_path / "coll")).rows == 10
    assert len(Collection.open(tmp_path / "coll").errors()) == 0
