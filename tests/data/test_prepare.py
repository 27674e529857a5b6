import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lookalike.core.errors import CollectionError, SourceError, StorageError, UsageError
from lookalike.core.files import locked
from lookalike.data import convert
from lookalike.data import prepare as module
from lookalike.data.collection import Collection
from lookalike.data.prepare import prepare


def image(path: Path, seed: int = 0, time: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(path, "JPEG")
    os.utime(path, (time, time))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four labels with five images each; the third file of each is no image."""
    for label in ("cup", "jug", "mug", "pot"):
        for i in range(5):
            image(tmp_path / "photos" / label / f"{i}.jpg", seed=10 * ord(label[0]) + i)
        (tmp_path / "photos" / label / "2.jpg").write_text(f"no image of a {label}")
    return tmp_path / "photos"


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """The bytes that were decoded since."""
    seen: list[bytes] = []
    real = convert.store

    def store(data: bytes, *options: int) -> Any:
        seen.append(data)
        return real(data, *options)

    monkeypatch.setattr(convert, "store", store)
    return seen


def sources(out: Path, *, gone: bool = False) -> dict[str, int]:
    table = Collection.open(out).table(["source", "id"], gone=gone)
    return dict(zip(table["source"].to_pylist(), table["id"].to_pylist(), strict=True))


def everything(out: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    collection = Collection.open(out)
    rows = collection.table(collection.columns, gone=True).to_pylist()
    return rows, sorted(collection.errors().to_pylist(), key=lambda row: row["id"])


def test_images_become_rows_and_what_is_none_an_error(photos: Path, tmp_path: Path) -> None:
    image(photos / "cup" / "large.jpg", seed=9)
    with PIL.Image.open(photos / "cup" / "large.jpg") as small:
        small.resize((640, 480)).save(photos / "cup" / "large.jpg")
    report = prepare([str(photos)], str(tmp_path / "shop"), size=64)
    assert (report.added, report.edited, report.gone, report.failed, report.errors, report.rows) == (17, 0, 0, 4, 4, 17)
    assert report.counts == {"photos": {"none": 17}}
    collection = Collection.open(tmp_path / "shop")
    rows = collection.table(collection.columns).to_pylist()
    assert [row["source"] for row in rows[:5]] == [f"photos/cup/{n}.jpg" for n in (0, 1, 3, 4, "large")]
    assert [row["id"] for row in rows[:6]] == [0, 1, 3, 4, 5, 6]
    first, large = rows[0], rows[4]
    assert first["image"] == (photos / "cup" / "0.jpg").read_bytes()  # small enough: byte for byte
    assert (first["label"], first["domain"], first["split"], first["is_query"]) == ("cup", "photos", None, True)
    assert (large["width"], large["height"]) == (640, 480)
    with PIL.Image.open(io.BytesIO(large["image"])) as stored:
        assert stored.size == (85, 64)
    errors = collection.errors().to_pylist()
    assert [(row["id"], row["source"]) for row in errors][:2] == [(2, "photos/cup/2.jpg"), (8, "photos/jug/2.jpg")]
    assert all(row["reason"].endswith(".") for row in errors)


def test_the_same_command_again_does_nothing(photos: Path, tmp_path: Path, decodes: list[bytes]) -> None:
    out = str(tmp_path / "shop")
    prepare([str(photos)], out)
    assert len(decodes) == 20
    version, card = Collection.open(out).version, (tmp_path / "shop/card.json").read_bytes()
    report = prepare([str(photos)], out)
    assert (report.added, report.edited, report.gone, report.failed, report.errors) == (0, 0, 0, 0, 4)
    assert len(decodes) == 20
    assert Collection.open(out).version == version
    assert (tmp_path / "shop/card.json").read_bytes() == card


def test_a_changed_folder_is_followed(photos: Path, tmp_path: Path, decodes: list[bytes]) -> None:
    out = tmp_path / "shop"
    prepare([str(photos)], str(out))
    before = sources(out)
    decodes.clear()
    (photos / "cup" / "0.jpg").unlink()
    shutil.rmtree(photos / "pot")
    image(photos / "jug" / "1.jpg", seed=77, time=2)  # another image of the same name
    os.utime(photos / "mug" / "3.jpg", (9, 9))  # the same image, touched
    image(photos / "a new one" / "0.jpg", seed=5)
    image(photos / "mug" / "2.jpg", seed=6)  # was no image
    report = prepare([str(photos)], str(out))
    assert len(decodes) == 3
    assert (report.added, report.edited, report.gone, report.failed, report.errors) == (3, 1, 6, 0, 2)
    after = sources(out)
    assert set(before) - set(after) == {"photos/cup/0.jpg", *(f"photos/pot/{i}.jpg" for i in (0, 1, 3, 4))}
    new = {"photos/a new one/0.jpg": 20, "photos/jug/1.jpg": 21, "photos/mug/2.jpg": 22}
    assert after == {**{source: i for source, i in before.items() if source in after}, **new}
    assert [row["source"] for row in Collection.open(out).errors().to_pylist()] == [
        "photos/cup/2.jpg",
        "photos/jug/2.jpg",
    ]
    assert prepare([str(photos)], str(out)).edited == 0
    assert len(decodes) == 3


def test_an_image_that_comes_back_gets_its_row_back(photos: Path, tmp_path: Path, decodes: list[bytes]) -> None:
    out = tmp_path / "shop"
    prepare([str(photos)], str(out))
    before = sources(out)
    (photos / "cup").rename(tmp_path / "away")
    assert prepare([str(photos)], str(out)).gone == 4
    (tmp_path / "away").rename(photos / "cup")
    os.utime(photos / "cup" / "1.jpg", (9, 9))
    decodes.clear()
    report = prepare([str(photos)], str(out))
    assert (report.added, report.edited, report.gone, report.errors) == (0, 4, 0, 4)
    assert sources(out) == before
    assert len(decodes) == 1  # the one that is no image: its error was forgotten with it


ALL = ("id", "source", "label", "domain", "stamp", "sha256", "pixels", "image")


def test_a_file_that_was_moved_keeps_its_row(photos: Path, tmp_path: Path, decodes: list[bytes]) -> None:
    """And with it all vectors, which belong to the row. Another file of the same size and time is another image."""
    prepare([str(photos)], str(tmp_path / "c"))
    before = {row["source"]: row for row in Collection.open(tmp_path / "c").table(ALL).to_pylist()}
    moved = sorted(path for path in photos.rglob("*") if f"photos/{path.relative_to(photos)}" in before)
    first, second, *_ = moved
    (photos / "elsewhere").mkdir()
    first.rename(photos / "elsewhere" / "a.jpg")
    status = second.stat()
    data = bytearray(second.read_bytes())
    second.unlink()
    PIL.Image.fromarray(np.full((9, 9, 3), 7, np.uint8)).save(other := photos / "elsewhere" / "b.png")
    padded = other.read_bytes() + bytes(max(0, len(data) - other.stat().st_size))
    other.write_bytes(padded)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    decodes.clear()
    prepare([str(photos)], str(tmp_path / "c"))
    after = {row["source"]: row for row in Collection.open(tmp_path / "c").table(ALL).to_pylist()}
    old, new = before[f"photos/{first.relative_to(photos)}"], after["photos/elsewhere/a.jpg"]
    assert new == {**old, "source": "photos/elsewhere/a.jpg", "label": "elsewhere"}
    assert decodes == [padded]
    assert after["photos/elsewhere/b.png"]["id"] not in {row["id"] for row in before.values()}
    assert {*after} == {*before} - {f"photos/{path.relative_to(photos)}" for path in (first, second)} | {
        f"photos/elsewhere/{name}" for name in ("a.jpg", "b.png")
    }


def test_new_labels_change_rows_and_decode_nothing(photos: Path, tmp_path: Path, decodes: list[bytes]) -> None:
    table, out = tmp_path / "t.csv", tmp_path / "shop"
    table.write_text("path,label,price,split\nphotos/cup/0.jpg,cup,1.5,train\nphotos/cup/1.jpg,cup,,\n")
    prepare([str(table)], str(out))
    vectors = np.arange(8, dtype=np.float32).reshape(2, 4)
    Collection.open(out).write_vectors("embedding_a", np.array([0, 1]), vectors, {})
    decodes.clear()
    table.write_text("path,label,price,split,note\nphotos/cup/0.jpg,,2,test,n\nphotos/cup/1.jpg,cup,,,\n")
    report = prepare([str(table)], str(out))
    assert (report.added, report.edited, report.gone) == (0, 1, 0)
    assert decodes == []
    rows = Collection.open(out).table(["label", "price", "split", "note"]).to_pylist()
    assert rows == [
        {"label": None, "price": 2.0, "split": "test", "note": "n"},
        {"label": "cup", "price": None, "split": None, "note": None},
    ]
    np.testing.assert_array_equal(Collection.open(out).vectors("embedding_a")[1], vectors)


def test_several_sources_share_a_collection(photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "photos"
    image(other / "cup" / "0.jpg", seed=1)
    table = tmp_path / "elsewhere" / "t.csv"
    table.write_text("path,label,domain,split\nphotos/cup/0.jpg,c,cars,test\n")
    out = tmp_path / "shop"
    report = prepare([str(photos), str(other), str(table)], str(out))
    assert report.counts == {"cars": {"test": 1}, "photos": {"none": 17}}
    assert list(sources(out))[-2:] == ["photos-2/cup/0.jpg", "t/photos/cup/0.jpg"]
    card = Collection.open(out).card
    assert [entry["name"] for entry in card["sources"]] == ["photos", "photos-2", "t"]
    assert [entry["path"] for entry in card["sources"]] == [str(photos), str(other), str(table)]
    assert card["counts"] == report.counts
    (other / "cup" / "0.jpg").unlink()
    image(other / "cup" / "1.jpg", seed=2, time=3)
    report = prepare([str(other)], str(out))  # the others are not asked, and stay
    assert (report.added, report.gone, report.rows) == (1, 1, 18)


def test_limit_takes_the_first_and_goes_on_later(photos: Path, tmp_path: Path) -> None:
    prepare([str(photos)], str(tmp_path / "whole"))
    prepare([str(photos)], str(tmp_path / "parts"), limit=7)
    assert len(Collection.open(tmp_path / "parts")) + len(Collection.open(tmp_path / "parts").errors()) == 7
    prepare([str(photos)], str(tmp_path / "parts"), limit=3)
    prepare([str(photos)], str(tmp_path / "parts"))
    assert everything(tmp_path / "parts") == everything(tmp_path / "whole")


def test_a_share_of_the_labels_becomes_the_test_split(photos: Path, tmp_path: Path) -> None:
    prepare([str(photos)], str(tmp_path / "shop"), test=0.5)
    table = Collection.open(tmp_path / "shop").table(["label", "split"]).to_pylist()
    found = {(row["label"], row["split"]) for row in table}
    assert len(found) == 4  # no label is on both sides
    assert {split for _, split in found} == {"train", "test"}


def test_several_processes_make_the_same_collection(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare([str(photos)], str(tmp_path / "one"), workers=1)
    monkeypatch.setattr(convert, "WORTH", 10)
    prepare([str(photos)], str(tmp_path / "two"), workers=2)
    assert everything(tmp_path / "one") == everything(tmp_path / "two")


def test_licences_are_counted_in_the_card(photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(
        "path,license\nphotos/cup/0.jpg,MIT\nphotos/cup/1.jpg,MIT\nphotos/cup/3.jpg,\nphotos/cup/4.jpg,CC0\n"
    )
    prepare([str(table)], str(tmp_path / "shop"))
    assert Collection.open(tmp_path / "shop").card["licences"] == {"MIT": 2, "CC0": 1}


def tiny(size: int) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (size, size)).save(file, "BMP")
    return file.getvalue()


CONTENTS = [tiny(4), tiny(6), tiny(8), b"no image"]
states = st.dictionaries(
    st.sampled_from([f"{label}/{i}.png" for label in "ab" for i in range(3)]),
    st.tuples(st.integers(0, 3), st.integers(1, 2)),  # which content, which time
    min_size=1,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(states, min_size=2, max_size=4))
def test_after_any_changes_the_rows_are_the_images_of_the_folder(history: list[dict[str, tuple[int, int]]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder, out = Path(place, "photos"), Path(place, "shop")
        before: dict[str, tuple[int, bytes]] = {}
        for state in history:
            shutil.rmtree(folder, ignore_errors=True)
            for name, (content, time) in state.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(CONTENTS[content])
                os.utime(folder / name, (time, time))
            report = prepare([str(folder)], str(out))
            collection = Collection.open(out)
            rows = collection.table(["source", "id", "sha256"]).to_pylist()
            now = {row["source"]: (row["id"], row["sha256"]) for row in rows}
            good = {f"photos/{name}": CONTENTS[content] for name, (content, _) in state.items() if content < 3}
            assert len(rows) == len(now) == report.rows
            # An image is told by size and time: one that changed and kept both is not seen. These differ in size.
            assert {source: digest for source, (_, digest) in now.items()} == {
                source: hashlib.sha256(data).digest() for source, data in good.items()
            }
            assert set(collection.errors()["source"].to_pylist()) == {f"photos/{n}" for n in state} - set(good)
            for source in set(now) & set(before):
                assert (now[source] == before[source]) == (now[source][1] == before[source][1])
            again = prepare([str(folder)], str(out))
            assert (again.added, again.edited, again.gone, again.failed) == (0, 0, 0, 0)
            before = now


# ---------------------------------------------------------------------- kills

SCRIPT = """
import os, signal, sys
from lookalike.data import prepare as module
from lookalike.data.collection import Collection

_, out, method, moment, count, *sources = sys.argv
calls = 0
real = getattr(Collection, method)

def killing(self, *arguments):
    global calls
    calls += 1
    if calls == int(count) and moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(self, *arguments)
    if calls == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(Collection, method, killing)
module.BATCH, module.BATCH_SECONDS = 3, 0.0
module.prepare(sources, out, workers=1)
"""


@pytest.mark.parametrize(
    ("method", "moment", "count"),
    [("update_card", "before", 1), ("append", "before", 1), ("append", "before", 3), ("append", "after", 3)],
)
def test_after_a_kill_the_rows_come_out_as_if_nothing_had_happened(
    photos: Path, tmp_path: Path, decodes: list[bytes], method: str, moment: str, count: int
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    prepare([str(photos)], str(whole))
    command = [sys.executable, "-c", SCRIPT, str(killed), method, moment, str(count), str(photos)]
    assert subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == -signal.SIGKILL
    done = 0
    if method == "append":
        collection = Collection.open(killed)
        done = len(collection) + len(collection.errors())
        assert 3 * (count - 1) < done <= 3 * count  # the last batch: all of it, or its one that is no image
    decodes.clear()
    prepare([str(photos)], str(killed))
    assert len(decodes) == 20 - done
    assert everything(killed) == everything(whole)
    assert Collection.open(killed).card["counts"] == {"photos": {"none": 16}}


@pytest.mark.parametrize("left", ["rows.lance/data/x.lance", "rows.lance/_versions/.tmp", "errors.lance/data/x.lance"])
def test_a_first_write_that_was_killed_is_begun_anew(photos: Path, tmp_path: Path, left: str) -> None:
    (tmp_path / "shop" / "rows.lance").mkdir(parents=True)
    (tmp_path / "shop" / left).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "shop" / left).write_bytes(b"half")
    report = prepare([str(photos)], str(tmp_path / "shop"))
    assert (report.rows, report.errors) == (16, 4)


def test_an_image_that_becomes_readable_is_tried_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, locked_away = str(tmp_path / "shop"), str(photos / "cup" / "0.jpg")
    access, read = os.access, Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:  # chmod would not stop root
        if str(path) == locked_away:
            raise PermissionError(13, "Permission denied")
        return read(path, *arguments, **options)

    monkeypatch.setattr(os, "access", lambda path, mode: path != locked_away and access(path, mode))
    monkeypatch.setattr(Path, "open", refuse)
    assert prepare([str(photos)], out).failed == 5
    assert prepare([str(photos)], out).failed == 0
    assert Collection.open(out).errors()["reason"].to_pylist()[0] == "The file can't be read: Permission denied."
    monkeypatch.undo()
    assert prepare([str(photos)], out).added == 1


def test_a_kill_between_a_new_image_and_its_old_row_is_made_good(photos: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for out in (whole, killed):
        prepare([str(photos)], str(out))
    for i in (0, 1, 3):
        image(photos / "cup" / f"{i}.jpg", seed=50 + i, time=7)
    prepare([str(photos)], str(whole))
    command = [sys.executable, "-c", SCRIPT, str(killed), "append", "after", "1", str(photos)]
    assert subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == -signal.SIGKILL
    assert len(Collection.open(killed)) == 19
    assert prepare([str(photos)], str(killed)).gone == 3
    assert everything(killed) == everything(whole)


def test_an_interrupt_keeps_what_was_done(
    photos: Path, tmp_path: Path, decodes: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.convert_all

    def interrupted(*arguments: Any) -> Iterator[Any]:
        for done, outcome in enumerate(real(*arguments)):
            if done == 11:
                raise KeyboardInterrupt
            yield outcome

    monkeypatch.setattr(module, "convert_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare([str(photos)], str(tmp_path / "shop"))
    assert len(Collection.open(tmp_path / "shop")) == 9
    monkeypatch.setattr(module, "convert_all", real)
    prepare([str(photos)], str(tmp_path / "shop"))
    assert len(decodes) == 20 + 1  # the one on the way when the interrupt came
    prepare([str(photos)], str(tmp_path / "whole"))
    assert everything(tmp_path / "shop") == everything(tmp_path / "whole")


# ---------------------------------------------------------------------- beside others, and at size


def test_a_second_writer_between_listing_and_writing_is_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it wrote would be written over: the card of the first is that from before."""
    out = str(tmp_path / "shop")
    other = tmp_path / "other" / "b"
    image(other / "cup" / "0.jpg", seed=1)
    prepare([str(photos)], out)
    real = module.list_images

    def slow(*arguments: Any) -> Any:
        monkeypatch.setattr(module, "list_images", real)
        with pytest.raises(StorageError, match="Another process is writing"):
            prepare([str(other)], out)
        return real(*arguments)

    monkeypatch.setattr(module, "list_images", slow)
    prepare([str(photos)], out)
    prepare([str(other)], out)
    assert [entry["name"] for entry in Collection.open(out).card["sources"]] == ["photos", "b"]
    image(tmp_path / "third" / "b" / "cup" / "9.jpg", seed=2)
    assert prepare([str(tmp_path / "third" / "b")], out).gone == 0
    assert list(sources(Path(out)))[-2:] == ["b/cup/0.jpg", "b-2/cup/9.jpg"]


def test_images_of_a_folder_that_can_not_be_read_stay(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "shop"
    prepare([str(photos)], str(out))
    before = everything(out)
    real = os.scandir

    def refuse(path: str) -> Any:  # chmod would not stop root
        if str(path).endswith("cup"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    report = prepare([str(photos)], str(out))
    assert (report.gone, report.rows, report.errors) == (0, 16, 4)
    assert everything(out) == before


def test_what_is_excluded_later_goes_and_comes_back(photos: Path, tmp_path: Path, decodes: list[bytes]) -> None:
    out = str(tmp_path / "shop")
    prepare([str(photos)], out)
    decodes.clear()
    report = prepare([str(photos)], out, exclude=["cup", "jug/1*"])
    assert (report.gone, report.rows, report.errors) == (5, 11, 3)
    report = prepare([str(photos)], out)
    assert (report.edited, report.rows, report.errors) == (5, 16, 4)
    assert len(decodes) == 1  # the one that is no image


MEMORY = """
import sys
from lookalike.commands import main

code = main(["prepare", sys.argv[1], "--out", sys.argv[2], "--limit", "20", "--workers", "1"])
# Not ru_maxrss, in which a child begins with what its parent has.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(code, int(peak.split()[1]) // 1024)
"""


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of a million images, which are a thousand files, and of a thousand of them."""
    place = tmp_path_factory.mktemp("million")
    (place / "real").mkdir()
    for i in range(1000):
        PIL.Image.new("RGB", (4, 4), (i % 256, i // 256, 0)).save(place / "real" / f"{i:03}.png")
    (place / "photos").mkdir()
    for i in range(1000):
        (place / "photos" / f"label{i:03}").symlink_to(place / "real")
    paths = [f"photos/label{i:03}/{k:03}.png" for i in range(1000) for k in range(1000)]
    table = pa.table({"path": paths, "note": [f"note {i}" for i in range(len(paths))], "price": np.arange(len(paths))})
    pyarrow.parquet.write_table(table.slice(0, 1000), place / "few.parquet")
    pyarrow.parquet.write_table(table, place / "many.parquet")
    return place


def test_memory_hardly_grows_with_the_listing(million: Path) -> None:
    """10 million rows within 1 GB: what a million add to a thousand, ten times, and the program itself."""
    peaks = []
    for source in ("few.parquet", "many.parquet"):
        command = [sys.executable, "-c", MEMORY, str(million / source), str(million / f"{source}.coll")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        code, peak = map(int, done.stdout.split()[-2:])
        assert code == 0
        assert len(Collection.open(million / f"{source}.coll").table(["id"])) == 20
        peaks.append(peak)
    assert peaks[0] + 10 * (peaks[1] - peaks[0]) < 1000, peaks


# ---------------------------------------------------------------------- refusals


def test_other_options_are_refused(photos: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "shop")
    prepare([str(photos)], out, size=128)
    with pytest.raises(CollectionError, match="`--size 128`, not 256") as caught:
        prepare([str(photos)], out)
    assert "--size 128" in caught.value.hint
    with pytest.raises(CollectionError, match="--test"):
        prepare([str(photos)], out, size=128, test=0.5)
    for options in ({"size": 0}, {"test": 1.0}, {"test": -0.1}, {"limit": 0}, {"workers": -1}):
        with pytest.raises(UsageError):
            prepare([str(photos)], str(tmp_path / "other"), **options)
    assert not (tmp_path / "other").exists()


def test_a_column_that_changes_its_type_is_refused(photos: Path, tmp_path: Path) -> None:
    table, out = tmp_path / "t.csv", str(tmp_path / "shop")
    table.write_text("path,price\nphotos/cup/0.jpg,1\n")
    prepare([str(table)], out)
    table.write_text("path,price\nphotos/cup/0.jpg,cheap\n")
    with pytest.raises(CollectionError, match=r"`price` holds string.*int64"):
        prepare([str(table)], out)
    table.write_text("path,price\nphotos/cup/0.jpg,\n")
    assert prepare([str(table)], out).edited == 1


def test_a_bad_source_leaves_nothing_behind(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "absent"):
        with pytest.raises(SourceError):
            prepare([str(photos), str(path)], str(tmp_path / "shop"))
    assert not (tmp_path / "shop").exists()


def test_a_folder_that_lost_everything_is_an_error_and_marks_nothing(photos: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "shop")
    prepare([str(photos)], out)
    photos.rename(tmp_path / "away")
    photos.mkdir()  # a disk that is not mounted looks like this
    with pytest.raises(SourceError, match="holds no images"):
        prepare([str(photos)], out)
    assert len(Collection.open(out)) == 16


def test_something_else_is_never_overwritten(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "notes", tmp_path / "file", photos):
        with pytest.raises(StorageError, match="something else"):
            prepare([str(photos)], str(path))
    assert [p.name for p in (tmp_path / "notes").iterdir()] == ["diary.txt"]


def test_two_writers_at_once_are_refused(photos: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "shop")
    with locked(out, "embed"), pytest.raises(StorageError, match="Another process is writing"):
        prepare([str(photos)], out)
    assert prepare([str(photos)], out).added == 16


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user can't mount a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_loses_nothing(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decodes: list[bytes]
) -> None:
    for i in range(40):
        noise = np.random.default_rng(i).integers(0, 255, (128, 128, 3), np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        PIL.Image.fromarray(noise).save(tmp_path / "photos" / f"{i:02}.jpg", quality=95)
    photos = str(tmp_path / "photos")
    monkeypatch.setattr(module, "BATCH", 4)
    monkeypatch.setattr(module, "BATCH_SECONDS", 0.0)
    (small_disk / "ballast").write_bytes(bytes(500_000))
    out = small_disk / "shop"
    with pytest.raises(StorageError, match="the disk is full") as caught:
        prepare([photos], str(out))
    assert "make room" in caught.value.hint
    kept = len(Collection.open(out))
    assert 4 <= kept < 40
    for _ in range(2):  # and still full
        with pytest.raises(StorageError, match="the disk is full"):
            prepare([photos], str(out))
    assert len(Collection.open(out)) == kept
    (small_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    decodes.clear()
    prepare([photos], str(out))
    assert len(decodes) == 40 - kept
    prepare([photos], str(tmp_path / "whole"))
    assert everything(out) == everything(tmp_path / "whole")
    sizes = [sum(f.stat().st_size for f in (c / "rows.lance" / "data").iterdir()) for c in (out, tmp_path / "whole")]
    assert sizes[0] < 1.3 * sizes[1]  # no scraps of the refused writes


# ---------------------------------------------------------------------- real images


@pytest.mark.data
def test_ten_real_sets_become_one_collection(data_path: Path, tmp_path: Path) -> None:
    tables = sorted(str(path) for path in data_path.glob("*.csv"))
    report = prepare(tables, str(tmp_path / "all"), workers=2)
    assert {domain: (c["train"], c["test"]) for domain, c in report.counts.items()} == {
        "apparel": (84, 98), "caltech_objects": (224, 224), "cars": (245, 245), "dishes": (108, 136),
        "earrings": (184, 184), "furniture": (41, 33), "grocery_packages": (210, 224), "grocery_produce": (200, 200),
        "landmarks": (168, 163), "logos": (182, 196),
    }  # fmt: skip
    assert (report.rows, report.errors) == (3349, 0)
    rows = Collection.open(tmp_path / "all").table(["label", "split", "is_query", "is_gallery"]).to_pylist()
    assert len({row["label"] for row in rows if row["split"] == "train"}) == 177
    assert len({row["label"] for row in rows if row["split"] == "test"}) == 181
    assert all(row["is_query"] == row["is_gallery"] == (row["split"] == "test") for row in rows)
    again = prepare(tables, str(tmp_path / "all"), workers=2)
    assert (again.added, again.edited, again.gone, again.rows) == (0, 0, 0, 3349)


def test_the_same_bytes_are_decoded_once(photos: Path, tmp_path: Path, decodes: list[bytes]) -> None:
    """Side by side, far apart, later, from another source, and where they are no image."""
    cup = photos / "cup" / "0.jpg"
    for name in ("cup/0a.jpg", "pot/z.jpg"):
        (photos / name).write_bytes(cup.read_bytes())
    for label in ("jug", "pot"):
        (photos / label / "2.jpg").write_bytes((photos / "cup" / "2.jpg").read_bytes())
    other = bytearray(cup.read_bytes())
    other[-9] ^= 1  # as long, and begins and ends alike but for one bit
    (photos / "jug" / "other.jpg").write_bytes(other)
    out = tmp_path / "shop"
    report = prepare([str(photos)], str(out))
    assert (report.added, report.failed) == (19, 4)
    assert len(decodes) == len(set(decodes)) == 19  # 16 images, one that is nearly the same, two that are none
    (photos / "pot" / "later.jpg").write_bytes(cup.read_bytes())
    image(tmp_path / "more" / "0.jpg", seed=10 * ord("mug"[0]) + 1)  # photos/mug/1.jpg
    assert prepare([str(photos), str(tmp_path / "more")], str(out)).added == 2
    assert len(decodes) == 19
    rows, errors = everything(out)
    told = {row["source"]: row for row in rows}
    for name in ("cup/0a.jpg", "pot/z.jpg", "pot/later.jpg"):
        copy, first = told[f"photos/{name}"], told["photos/cup/0.jpg"]
        for column in ("image", "width", "height", "pixels", "phash", "sha256"):
            assert copy[column] == first[column]
        assert (copy["label"], copy["duplicate_of"]) == (name.split("/")[0], first["id"])
    assert len({row["reason"] for row in errors}) == 1
    assert [row["id"] for row in rows[:5]] == [0, 1, 2, 4, 5]  # in the order of the listing: 3 is an error


def test_copies_in_other_commits_have_the_image_too(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed meanwhile is read from the table. Compared with a collection of one commit."""
    for i, file in enumerate(sorted(photos.rglob("*.jpg"))[::3]):
        (photos / "pot" / f"copy {i}.jpg").write_bytes(file.read_bytes())
        os.utime(photos / "pot" / f"copy {i}.jpg", (1, 1))
    prepare([str(photos)], str(tmp_path / "whole"))
    for name, value in (("BATCH", 1), ("BATCH_SECONDS", 0.0)):
        monkeypatch.setattr(module, name, value)
    prepare([str(photos)], str(tmp_path / "pieces"))
    assert everything(tmp_path / "pieces") == everything(tmp_path / "whole")


def test_a_copy_of_what_changes_meanwhile_is_read_by_the_next_call(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cup, copy = photos / "cup" / "0.jpg", photos / "pot" / "copy.jpg"
    copy.write_bytes(cup.read_bytes())
    real = module.find_again

    def then_changed(*arguments: Any) -> Any:
        found = real(*arguments)
        image(cup, seed=99)
        return found

    monkeypatch.setattr(module, "find_again", then_changed)
    out = tmp_path / "shop"
    assert prepare([str(photos)], str(out)).failed == 5
    assert "has changed meanwhile" in " ".join(Collection.open(out).errors()["reason"].to_pylist())
    monkeypatch.undo()
    assert prepare([str(photos)], str(out)).failed == 0
    assert sources(out).keys() >= {"photos/cup/0.jpg", "photos/pot/copy.jpg"}


def test_an_image_whose_disk_fails_keeps_its_old_row(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it can be read again, when the new image takes its place."""
    out, cup, read = tmp_path / "shop", photos / "cup" / "0.jpg", Path.open
    prepare([str(photos)], str(out))
    before = sources(out)
    image(cup, seed=98, time=7)

    def fail(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == cup:
            raise OSError(5, "Input/output error")
        return read(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", fail)
    for _ in range(2):
        report = prepare([str(photos)], str(out))
        assert (report.failed, report.gone, report.errors) == (1, 0, 5)
        assert sources(out) == before
    monkeypatch.undo()
    report = prepare([str(photos)], str(out))
    assert (report.added, report.gone, report.errors) == (1, 1, 4)
    assert sources(out)["photos/cup/0.jpg"] > max(before.values())
