"""Whole or not at all, whatever happens in between: errors, a full disk, kill -9, a second writer."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.core import files
from lookalike.core.errors import StorageError


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def run(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


# ------------------------------------------------------------------ files


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    files.write_json(path, {"ä": 1})
    assert path.read_text(encoding="utf-8") == '{\n  "ä": 1\n}\n'
    files.write_json(path, [2])
    assert files.read_json(path) == [2]
    assert names(path.parent) == {"a.json"}
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    files.write_bytes(path, b"old")
    monkeypatch.setattr(files.os, "fsync", no_space)
    with pytest.raises(StorageError, match=r"Writing `.*` failed: the disk is full") as caught:
        files.write_bytes(path, b"new")
    assert "give the same command again" in caught.value.hint
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"a"}


KILLED = """
import os, signal, sys
from lookalike.core import files
files.os.replace = files.os.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
{action}
"""


@pytest.mark.parametrize(
    "action",
    [
        "files.write_bytes(sys.argv[1] + '/a', b'new')",
        "with files.new_directory(sys.argv[1] + '/b', 'page') as d: (d / 'x').write_text('x')",
    ],
)
def test_kill_before_the_rename_leaves_the_old_state(tmp_path: Path, action: str) -> None:
    files.write_bytes(tmp_path / "a", b"old")
    process = run(KILLED.format(action=action), tmp_path)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "a").read_bytes() == b"old"
    assert {name for name in names(tmp_path) if not name.startswith(".")} == {"a"}


def test_a_broken_json_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_bytes(b'{"a": ')
    with pytest.raises(StorageError, match=r"card\.json` is not valid JSON: Expecting value"):
        files.read_json(tmp_path / "card.json")
    (tmp_path / "card.json").write_bytes(b'"\xff"')
    with pytest.raises(StorageError, match=r"card\.json` is not valid JSON"):
        files.read_json(tmp_path / "card.json")


# ------------------------------------------------------------------ directories


def test_a_directory_appears_when_it_is_whole(tmp_path: Path) -> None:
    with files.new_directory(tmp_path / "model", "encoder") as directory:
        (directory / "x").write_text("x")
        (directory / "in").mkdir()
        (directory / "in" / "y").write_text("y")
        assert not (tmp_path / "model").exists()
    assert names(tmp_path) == {"model"}
    assert (tmp_path / "model" / "in" / "y").read_text() == "y"
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o755


def test_a_directory_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.new_directory(tmp_path / "model", "encoder") as directory:
        (directory / "x" / "y").write_text("x")
    assert names(tmp_path) == set()
    with pytest.raises(StorageError, match="the disk is full"), files.new_directory(tmp_path / "model", "encoder"):
        no_space()
    assert names(tmp_path) == set()


@pytest.mark.parametrize("error", [RuntimeError("basic_ios::clear: iostream error"), ValueError("No space left on it")])
def test_a_full_disk_that_a_library_reports_in_its_own_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fill(free: int) -> None:
        monkeypatch.setattr(files.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
        with files.new_directory(tmp_path / "out", "export"):
            raise error

    with pytest.raises(StorageError, match=r"out` failed: the disk is full"):
        fill(0)
    with pytest.raises((RuntimeError, StorageError)) as caught:
        fill(10**9)
    assert isinstance(caught.value, StorageError) is ("No space" in str(error))
    assert names(tmp_path) == set()


def test_what_a_killed_writer_left_goes_and_another_writers_stays(tmp_path: Path) -> None:
    code = "import os, sys\nfrom lookalike.core.files import new_directory\n"
    code += "with new_directory(sys.argv[1], 'export') as directory:\n    (directory / 'x').touch()\n"
    code += "    os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=False)
    (left,) = names(tmp_path)
    assert left.startswith(".out.partial-")
    (tmp_path / ".out.settings").mkdir()
    with files.new_directory(tmp_path / "out", "export") as first:
        assert names(tmp_path) == {first.name, ".out.settings"}
        with files.new_directory(tmp_path / "out", "export") as second:
            assert names(tmp_path) == {first.name, second.name, ".out.settings"}
    assert names(tmp_path) == {"out", ".out.settings"}


def test_where_no_directory_can_be_made() -> None:
    with pytest.raises(StorageError, match="No directory can be made in `/proc`"):
        with files.new_directory("/proc/out", "export"):
            pass


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_a_place_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match=rf"No encoder can take the place of `{re.escape(name)}`"):
        with files.new_directory(name, "encoder"):
            pass
    assert names(tmp_path) == set()


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_leads_to_the_place_that_is_filled(tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with files.new_directory(tmp_path / "link", "page") as directory:
        (directory / "x").touch()
    assert names(tmp_path) == {"link", "real"}
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "real") == {"x"}


def test_an_empty_directory_is_taken_and_another_is_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".lock").touch()
    with files.new_directory(tmp_path / "empty", "page") as directory:
        (directory / "x").touch()
    assert names(tmp_path / "empty") == {"x"}
    with pytest.raises(StorageError, match=r"exists and is something else, so no page is written there"):
        with files.new_directory(tmp_path / "empty", "page"):
            pass
    assert names(tmp_path / "empty") == {"x"}


@pytest.mark.parametrize(
    ("inside", "kind"),
    [
        ((), "empty"),
        ((".lock", ".a.tmp"), "empty"),
        (("rows.lance/", "card.json"), "collection"),
        (("config.json", "model.safetensors"), "encoder"),
        (("config.json", "metrics.jsonl", "model/"), "run"),
        (("config.json",), "something else"),
        (("holiday.jpg",), "something else"),
        (("card.json", "config.json", "model.safetensors"), "encoder"),  # a card that can't be read says nothing
    ],
)
def test_a_directory_is_known_by_what_is_in_it(tmp_path: Path, inside: tuple[str, ...], kind: str) -> None:
    for name in inside:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    assert files.kind_of(tmp_path) == kind


def test_kinds_of_other_things(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert files.kind_of(tmp_path / "file") == "something else"
    assert files.kind_of(tmp_path / "nothing") == "missing"
    assert files.refuse_unless(tmp_path / "nothing", ("missing",), "run") == "missing"
    with pytest.raises(StorageError, match=r"file` exists and is something else, so no run is written there"):
        files.refuse_unless(tmp_path / "file", ("missing", "empty"), "run")


# ------------------------------------------------------------------ locks

HOLDS = """
import sys
from lookalike.core.files import locked
with locked(sys.argv[1], "embed"):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_refused_at_once_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    process = holder(tmp_path / "collection")
    with pytest.raises(StorageError, match=r"Another process is writing to `.*`, so `lookalike prepare` did not start"):
        with files.locked(tmp_path / "collection", "prepare"):
            pass
    process.kill()
    process.communicate()
    with files.locked(tmp_path / "collection", "prepare"):
        pass


def test_a_lock_ends_with_its_block(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), files.locked(tmp_path, "prepare"):
            raise ZeroDivisionError
    with files.locked(tmp_path, "prepare"):
        pass


# ------------------------------------------------------------------ errors and fingerprints


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "x"), "the disk is full"),
        (OSError("LanceError(IO): No space left on device (os error 28)"), "the disk is full"),
        (OSError(errno.EACCES, "x"), "permission is denied"),
        (OSError(errno.EROFS, "x"), "the file system is read-only"),
        (OSError(errno.EDQUOT, "x"), "the disk quota is used up"),
        (OSError(errno.ENOTDIR, "x"), "a part of the path is a file"),
    ],
)
def test_refusals_of_the_disk_become_sentences(error: OSError, words: str) -> None:
    with pytest.raises(StorageError, match=rf"Writing `there` failed: {words}. What was written before is intact."):
        with files.storage_errors("there"):
            raise error


def test_other_errors_pass_unchanged() -> None:
    inner = StorageError("already said")
    for error in (OSError(errno.EIO, "x"), ValueError("x"), inner):
        with pytest.raises(type(error)) as caught, files.storage_errors("there"):
            raise error
        assert caught.value is error


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refuse: list[Callable[[], object]] = [
        lambda: files.write_bytes(tmp_path / "file" / "x", b""),
        lambda: files.locked(tmp_path / "file", "prepare").__enter__(),
    ]
    for action in refuse:
        with pytest.raises(StorageError):
            action()


@given(st.lists(st.binary(max_size=4), max_size=4), st.lists(st.binary(max_size=4), max_size=4))
def test_fingerprints_tell_lists_apart(a: list[bytes], b: list[bytes]) -> None:
    assert (files.fingerprint(*a) == files.fingerprint(*b)) == (a == b)
    assert len(files.fingerprint(*a)) == 64


def test_a_fingerprint_does_not_change_from_version_to_version() -> None:
    import hashlib

    text = (5).to_bytes(8, "little") + b"hello"
    assert files.fingerprint("hello") == hashlib.sha256(text).hexdigest()
    assert files.fingerprint("hello") == files.fingerprint(b"hello")
    assert json.dumps(files.fingerprint()) == f'"{hashlib.sha256().hexdigest()}"'


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_and_directories_have_the_mode_of_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        files.write_json(tmp_path / "a.json", {})
        with files.new_directory(tmp_path / "model", "encoder") as directory:
            (directory / "x").touch()
            (directory / "x").chmod(0o600)  # as a library that writes by way of a private file
        with files.locked(tmp_path / "collection", "prepare"):
            pass
    finally:
        os.umask(before)
    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("a.json", "model", "model/x", "collection")}
    assert modes == {
        "a.json": 0o666 & ~mask, "model": 0o777 & ~mask, "model/x": 0o666 & ~mask, "collection": 0o777 & ~mask,
    }  # fmt: skip


def no_constant(name: str) -> None:
    pytest.fail(f"{name} is no JSON")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates() | st.decimals(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner),
    max_leaves=8,
)


@given(values)
def test_what_is_written_as_json_is_json(value: object) -> None:
    for indent, ascii in ((2, True), (None, False)):
        text = files.json_text(value, indent, ascii=ascii)
        json.loads(text, parse_constant=no_constant)
        assert not ascii or text.isascii()


def test_json_keeps_what_json_knows(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, True, "é"], "b": {"c": [float("nan"), float("-inf")]}, "d": b"x", "e": np.float32(0.5)}
    files.write_json(tmp_path / "x.json", value)
    kept = {"a": [1, 2.5, None, True, "é"], "b": {"c": [None, None]}, "d": "eA==", "e": 0.5}
    assert files.read_json(tmp_path / "x.json") == kept
    files.write_json(tmp_path / "x.json", {"name": "\udcff"})  # half a character, of a name that is not UTF-8
    assert files.read_json(tmp_path / "x.json") == {"name": "\udcff"}


def test_a_directory_is_no_place_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is a directory, and a file would be written there"):
        files.write_json(tmp_path, {})
    assert not list(tmp_path.iterdir())


def test_a_place_where_nobody_may_write_is_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != closed)  # root may write anywhere
    files.refuse_unwritable(tmp_path / "x.json")
    with pytest.raises(StorageError, match="closed` is not writable"):
        files.refuse_unwritable(closed / "new" / "x.json")


def test_places_for_a_file(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("{}")
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "new" / "x.json", tmp_path / "old.json", tmp_path / "pipe", "/dev/null", "/dev/stdout"):
        files.refuse_unwritable(place)
    assert {path.name for path in tmp_path.iterdir()} == {"old.json", "pipe"}


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    """Renaming a file over a device would take it from every program of the machine."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    for place in (pipe, tmp_path / "link"):
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        try:
            files.write_bytes(place, b"words")
            assert os.read(reader, 100) == b"words"
        finally:
            os.close(reader)
        assert pipe.is_fifo()
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's places")
def test_what_the_system_keeps_is_not_replaced(tmp_path: Path) -> None:
    for place in ("/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/x.html"):
        assert files._belongs_to_the_system(Path(place)), place
    assert not files._belongs_to_the_system(Path("/dev/shm/x.html"))
    assert not files._belongs_to_the_system(tmp_path / "new" / "x.html")
    with pytest.raises(StorageError, match="can't be written to"):
        files.write_bytes("/proc/x.html", b"")
