"""Images in an object store: a server that speaks as much of S3 as listing and reading take, and its bad days."""

import datetime
import io
import json
import threading
import time
from collections.abc import Iterator, Mapping
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet
import pytest

from lookalike.commands import main
from lookalike.core.errors import ImageError, SourceError
from lookalike.data.collection import Collection
from lookalike.data.prepare import prepare
from lookalike.data.sources import Place, open_source
from lookalike.data.sources import store as stores

from .datasets.conftest import tarred, zipped

pytestmark = pytest.mark.allow_hosts("127.0.0.1,localhost")


def jpeg(seed: int) -> bytes:
    data = io.BytesIO()
    PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 30, 3), np.uint8)).save(data, "JPEG")
    return data.getvalue()


NEW_YEAR = "2026-01-01T00:00:00.000Z"


class Store:
    """What lies in the bucket `shop`, and how the server behaves."""

    def __init__(self) -> None:
        self.files = {
            "photos/cups/mug one/1.jpg": jpeg(1),
            "photos/cups/mug one/2.jpg": jpeg(2),
            "photos/cups/jug é/1.jpg": jpeg(3),
            "photos/notes.txt": b"no image",
            "photos/bad.jpg": b"no image either",
            "other/x.jpg": jpeg(4),
        }
        self.refused: set[str] = set()  # keys that answer 403
        self.wait = 0.0  # seconds before each answer
        self.times: dict[str, str] = {}  # key -> when it was written, if not `NEW_YEAR`
        self.asked: list[str] = []  # requests


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    held = Store()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            """Silent."""

        def answer(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")  # which ends the handler's thread, too
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def error(self, status: int, code: str) -> None:
            self.answer(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode())

        def do_GET(self) -> None:
            time.sleep(held.wait)
            held.asked.append(f"{self.command} {self.path}")
            address = urlsplit(self.path)
            bucket, _, key = unquote(address.path).lstrip("/").partition("/")
            asked = parse_qs(address.query)
            if bucket == "locked":
                self.error(403, "AccessDenied")
            elif bucket != "shop":
                self.error(404, "NoSuchBucket")
            elif "list-type" in asked:
                self.listing(asked.get("prefix", [""])[0], asked.get("delimiter", [""])[0])
            elif key in held.refused:
                self.error(403, "AccessDenied")
            elif key in held.files:
                data, start = held.files[key], 0
                written = datetime.datetime.fromisoformat(held.times.get(key, NEW_YEAR))
                modified = format_datetime(written.astimezone(datetime.UTC), usegmt=True)
                if span := self.headers.get("Range"):
                    start, _, end = span.removeprefix("bytes=").partition("-")
                    data = data[int(start) : int(end) + 1 if end else None]
                self.answer(206 if span else 200, data, Last_Modified=modified, ETag='"e"')
            elif key:
                self.error(404, "NoSuchKey")
            else:
                self.answer(200, b"")

        def do_HEAD(self) -> None:
            self.do_GET()

        def listing(self, prefix: str, delimiter: str) -> None:
            keys = sorted(key for key in held.files if key.startswith(prefix))
            folders = set()
            if delimiter:
                behind = {key: key[len(prefix) :] for key in keys}
                folders = {prefix + rest.split("/")[0] + "/" for rest in behind.values() if "/" in rest}
                keys = [key for key in keys if "/" not in behind[key]]
            body = "".join(
                f"<Contents><Key>{escape(key)}</Key><LastModified>{held.times.get(key, NEW_YEAR)}</LastModified>"
                f"<ETag>e</ETag><Size>{len(held.files[key])}</Size></Contents>"
                for key in keys
            )
            body += "".join(f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in sorted(folders))
            self.answer(
                200,
                f'<?xml version="1.0"?><ListBucketResult><Name>shop</Name><Prefix>{escape(prefix)}</Prefix>'
                f"<IsTruncated>false</IsTruncated><KeyCount>{len(keys)}</KeyCount>{body}</ListBucketResult>".encode(),
                Content_Type="application/xml",
            )

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    stores._client.cache_clear()
    yield held
    stores._client.cache_clear()
    server.shutdown()
    server.server_close()


def test_a_folder_in_a_store(store: Store, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "coll")
    arguments = ["prepare", "s3://shop/photos/", "--out", out, "--workers", "1"]
    assert main(arguments) == 0
    collection = Collection.open(out)
    rows = {r["source"]: (r["domain"], r["label"]) for r in collection.table(["source", "domain", "label"]).to_pylist()}
    assert rows == {
        "photos/cups/mug one/1.jpg": ("cups", "mug one"),
        "photos/cups/mug one/2.jpg": ("cups", "mug one"),
        "photos/cups/jug é/1.jpg": ("cups", "jug é"),
    }
    assert [error["source"] for error in collection.errors().to_pylist()] == ["photos/bad.jpg"]
    assert collection.card["sources"] == [{"name": "photos", "path": "s3://shop/photos", "layout": "remote"}]
    # The same command again: what is gone is marked, what is new is read, and nothing else.
    del store.files["photos/cups/mug one/2.jpg"]
    store.files["photos/cups/mug one/3.jpg"], store.times["photos/cups/mug one/3.jpg"] = (
        jpeg(9),
        "2026-02-01T00:00:00.000Z",
    )
    capsys.readouterr()
    assert main(arguments) == 0
    assert "holds 3 images: 1 added, 1 gone" in capsys.readouterr().err


def test_an_image_that_the_store_refuses_is_a_row_of_the_errors(store: Store, tmp_path: Any) -> None:
    store.refused.add("photos/cups/mug one/1.jpg")
    assert main(["prepare", "s3://shop/photos", "--out", str(tmp_path / "coll"), "--workers", "1"]) == 0
    errors = {e["source"]: e["reason"] for e in Collection.open(tmp_path / "coll").errors().to_pylist()}
    assert errors["photos/cups/mug one/1.jpg"] == "The file can't be read: the store refuses access (403)."
    store.refused.clear()
    assert main(["prepare", "s3://shop/photos", "--out", str(tmp_path / "coll"), "--retry-failed"]) == 0
    assert len(Collection.open(tmp_path / "coll")) == 3


@pytest.mark.parametrize(
    ("address", "words", "hint"),
    [
        (
            "s3://locked/photos",
            "`s3://locked/photos` can't be listed: the store refuses access (403).",
            "AWS_ACCESS_KEY_ID",
        ),
        ("s3://nowhere/photos", "there is no such bucket (404)", "aws s3 ls"),
        ("s3://shop/photo", "`s3://shop/photo` can't be listed: nothing lies there (404).", "aws s3 ls s3://shop/"),
        ("s3://shop/photos.csv", "`s3://shop/photos.csv` can't be listed: nothing lies there (404).", "aws s3 ls"),
    ],
)
def test_what_a_store_refuses(
    store: Store, tmp_path: Any, capsys: pytest.CaptureFixture[str], address: str, words: str, hint: str
) -> None:
    assert main(["prepare", address, "--out", str(tmp_path / "coll")]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert hint in said


def test_a_store_that_does_not_answer(
    store: Store, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stores, "SECONDS", 1.0)
    monkeypatch.setattr(stores, "_TRIES", 1)
    store.wait = 3.0
    assert main(["prepare", "s3://shop/photos", "--out", str(tmp_path / "coll")]) == 2
    assert "the store did not answer within 1 seconds" in capsys.readouterr().err


def shelved(store: Store, folder: str, files: Mapping[str, bytes | str]) -> str:
    """Put files into the bucket; the address of their folder."""
    for name, data in files.items():
        store.files[f"{folder}/{name}"] = data.encode() if isinstance(data, str) else data
    return f"s3://shop/{folder}"


def whole(collection: Path) -> list[dict[str, Any]]:
    opened = Collection.open(collection)
    rows: list[dict[str, Any]] = opened.table(opened.columns).to_pylist()
    return rows


def prepared(address: str, out: Path, *more: str) -> list[dict[str, Any]]:
    """The rows of a collection that the command makes of it, and makes no other of when it is given again."""
    arguments = ["prepare", address, "--out", str(out), "--workers", "1", *more]
    assert main(arguments) == 0
    before = whole(out)
    assert main(arguments) == 0
    assert whole(out) == before
    return before


def told(rows: list[dict[str, Any]], *columns: str) -> dict[str, tuple[Any, ...]]:
    return {row["source"]: tuple(row[column] for column in columns) for row in rows}


PHOTOS = {"images/a#1.jpg": jpeg(11), "images/b é?%20.jpg": jpeg(12), "c.jpg": jpeg(13)}


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_in_a_store_with_its_images_beside(store: Store, tmp_path: Path, kind: str) -> None:
    table = pa.table({"path": [*PHOTOS], "label": ["x", "y", None], "split": ["train", "test", None], "n": [1, 2, 3]})
    written = io.BytesIO()
    if kind == "parquet":
        pyarrow.parquet.write_table(table, written)
    elif kind == "jsonl":
        written.write("".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode())
    else:
        lines = [table.column_names, *([str(value or "") for value in row.values()] for row in table.to_pylist())]
        written.write("\n".join(("\t" if kind == "tsv" else ",").join(line) for line in lines).encode())
    address = shelved(store, "sale", {**PHOTOS, f"list.{kind}": written.getvalue()})
    rows = prepared(f"{address}/list.{kind}", tmp_path / "c")
    assert told(rows, "label", "split", "n", "image") == {
        f"list/{name}": (label, split, number, PHOTOS[name])
        for name, label, split, number in zip(*table.to_pydict().values(), strict=True)
    }
    assert len([asked for asked in store.asked if "list-type" in asked]) <= 6  # and not one for each image
    del store.files["sale/c.jpg"]
    with pytest.raises(SourceError, match=r"there is no file `c\.jpg`"):
        list(open_source(f"{address}/list.{kind}"))


def test_a_table_may_name_addresses(store: Store, tmp_path: Path) -> None:
    shelved(store, "sale", PHOTOS)
    address = shelved(store, "lists", {"t.csv": "path\n../sale/c.jpg\ns3://shop/other/x.jpg\n"})
    rows = prepared(f"{address}/t.csv", tmp_path / "c")
    assert told(rows, "image") == {"t/../sale/c.jpg": (jpeg(13),), "t/s3://shop/other/x.jpg": (jpeg(4),)}
    (tmp_path / "here.csv").write_text("path\ns3://shop/other/x.jpg\n")
    assert [row["image"] for row in prepared(str(tmp_path / "here.csv"), tmp_path / "d")] == [jpeg(4)]
    shelved(store, "lists", {"t.csv": f"path\n{tmp_path}/here.csv\n"})
    with pytest.raises(SourceError, match=r"there is no file|nothing lies there"):
        list(open_source(f"{address}/t.csv"))


def test_a_table_in_a_store_with_a_tar_beside(store: Store, tmp_path: Path) -> None:
    address = shelved(store, "sale", {"t.csv": "path,label\nimages/a#1.jpg,x\nc.jpg,y\n", "t.tar": tarred(PHOTOS)})
    rows = prepared(f"{address}/t.csv", tmp_path / "c")
    assert told(rows, "label", "image") == {"t/images/a#1.jpg": ("x", jpeg(11)), "t/c.jpg": ("y", jpeg(13))}
    with pytest.raises(SourceError, match=r"belongs to the table `t\.csv`"):
        open_source(f"{address}/t.tar")


def test_tar_files_in_a_store(store: Store, tmp_path: Path) -> None:
    def shard(first: int) -> bytes:
        files: dict[str, bytes | str] = {}
        for i in range(first, first + 20):
            files |= {f"{i:04}.jpg": jpeg(i), f"{i:04}.cls": f"l{i}", f"{i:04}.json": json.dumps({"caption": f"c{i}"})}
        return tarred(files)

    address = shelved(store, "web", {"0.tar": shard(0), "1.tar": shard(20), "stats.json": "{}"})
    rows = prepared(address, tmp_path / "c")
    assert told(rows, "label", "caption", "domain", "image") == {
        f"web/{i // 20}/{i:04}.jpg": (f"l{i}", f"c{i}", "web", jpeg(i)) for i in range(40)
    }
    store.asked.clear()
    list(open_source(f"{address}/1.tar"))
    assert len(store.asked) < 20  # it is read in large pieces, and not a member at a time
    assert told(prepared(f"{address}/1.tar", tmp_path / "d"), "label") == {
        f"1/{i:04}.jpg": (f"l{i}",) for i in range(20, 40)
    }
    # Another tar at the same place: what it holds is read anew.
    store.files["web/1.tar"], store.times["web/1.tar"] = shard(30), "2026-03-01T00:00:00.000Z"
    assert len(prepared(address, tmp_path / "c")) == 40
    store.files["web/1.tar"] = store.files["web/1.tar"][:3000]
    with pytest.raises(SourceError, match="can't be read as a tar file"):
        list(open_source(address))


def test_a_folder_with_metadata_in_a_store(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = '{"file_name": "images/a#1.jpg", "label": "x"}\n{"file_name": "c.jpg"}\n'
    address = shelved(store, "pets", {**{f"train/{n}": d for n, d in PHOTOS.items()}, "train/metadata.jsonl": lines})
    shelved(store, "pets/validation", {"1.jpg": jpeg(20), "metadata.csv": "file_name,label\n1.jpg,z\n"})
    rows = prepared(address, tmp_path / "c")
    assert told(rows, "label", "split", "domain", "image") == {
        "pets/train/images/a#1.jpg": ("x", "train", "pets", jpeg(11)),
        "pets/train/c.jpg": (None, "train", "pets", jpeg(13)),
        "pets/validation/1.jpg": ("z", "val", "pets", jpeg(20)),
    }
    assert "its metadata does not name, left out: 1" in capsys.readouterr().err


@pytest.mark.parametrize("packed", ["folder", "zip", "tar", "inside"])
def test_a_data_set_by_name_in_a_store(
    store: Store, tmp_path: Path, packed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files: dict[str, bytes | str] = {f"bicycle_final/{i}.JPG": jpeg(i) for i in range(4)}
    head = "image_id class_id super_class_id path\n"
    for split, some in (("train", (0, 1)), ("test", (2, 3))):
        files[f"Ebay_{split}.txt"] = head + "".join(f"{i + 1} {i // 2} 1 bicycle_final/{i}.JPG\n" for i in some)
    within = {f"Stanford_Online_Products/{name}": data for name, data in files.items()}
    place = {
        "folder": lambda: shelved(store, "sop", within),
        "zip": lambda: shelved(store, "sop", {"s.zip": zipped(within)}) + "/s.zip",
        "tar": lambda: shelved(store, "sop", {"s.tar": tarred(within)}) + "/s.tar",
        "inside": lambda: shelved(store, "sop", {"Stanford_Online_Products.zip": zipped(within)}),
    }[packed]()
    arguments = ["prepare", "sop", "--from", place]
    assert main([*arguments, "--check"]) == (packed == "inside")  # its name is the published one, its checksum not
    assert ("wrong: found sha256:" in capsys.readouterr().out) == (packed == "inside")
    assert main([*arguments, "--out", str(tmp_path / "c"), "--workers", "1"]) == 0
    rows = whole(tmp_path / "c")
    assert told(rows, "label", "split", "image") == {
        f"sop/bicycle_final/{i}.JPG": (str(i // 2), "train" if i < 2 else "test", jpeg(i)) for i in range(4)
    }
    report = prepare([("sop", place)], str(tmp_path / "c"), workers=1)
    assert (report.added, report.edited, report.gone) == (0, 0, 0)


def test_tar_files_in_a_tar_file_in_a_store(store: Store, tmp_path: Path) -> None:
    inner = {f"n0144076{i}.tar": tarred({f"n0144076{i}_{j}.JPEG": jpeg(10 * i + j) for j in range(3)}) for i in (4, 5)}
    address = shelved(store, "imagenet", {"ILSVRC2012_img_train.tar": tarred(inner)})
    prepare([("imagenet1k", address)], str(tmp_path / "c"), workers=1)
    rows = whole(tmp_path / "c")
    assert {(row["label"], row["image"]) for row in rows} == {
        (f"n0144076{i}", jpeg(10 * i + j)) for i in (4, 5) for j in range(3)
    }


def test_images_in_parquet_in_a_store(store: Store, tmp_path: Path) -> None:
    def shard(*images: tuple[bytes | None, str | None]) -> bytes:
        data = io.BytesIO()
        rows = [{"image": {"bytes": image, "path": path}, "label": "x"} for image, path in images]
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), data, row_group_size=4)
        return data.getvalue()

    address = shelved(
        store, "hub", {"README.md": "x", "data/train-0.parquet": shard(*((jpeg(i), "") for i in range(9)))}
    )
    beside = [(jpeg(30), None), (None, "../../other/x.jpg"), (None, "gone.jpg"), (None, None)]
    shelved(store, "hub", {"data/test-0.parquet": shard(*beside)})
    rows = prepared(address, tmp_path / "c")
    assert told(rows, "split", "image") == {
        **{f"hub/data/train-0/{i}": ("train", jpeg(i)) for i in range(9)},
        "hub/data/test-0/0": ("test", jpeg(30)),
        "hub/data/test-0/1": ("test", jpeg(4)),
    }
    errors = {e["source"]: e["reason"] for e in Collection.open(tmp_path / "c").errors().to_pylist()}
    assert errors == {
        "hub/data/test-0/2": "The file can't be read: nothing lies there (404).",
        "hub/data/test-0/3": "The row holds no image.",
    }
    store.refused.add("hub/data/train-0.parquet")
    with pytest.raises(SourceError, match=r"can't be read: the store refuses access \(403\)"):
        open_source(address)


def test_odd_keys_lead_nowhere(store: Store, tmp_path: Path) -> None:
    address = shelved(
        store, "odd", {"a/1.jpg": jpeg(1), "../2.jpg": jpeg(2), "a/./3.jpg": jpeg(3), "a//4.jpg": jpeg(4)}
    )
    assert [row["source"] for row in prepared(address, tmp_path / "c")] == ["odd/a/1.jpg"]


def test_workers_read_stretches_of_a_store(store: Store, tmp_path: Path) -> None:
    images = {f"{i:03}.jpg": jpeg(i) for i in range(150)}
    address = shelved(store, "web", {"0.tar": tarred(images)})
    assert main(["prepare", f"{address}/0.tar", "--out", str(tmp_path / "c"), "--workers", "2"]) == 0
    rows = whole(tmp_path / "c")
    assert told(rows, "image") == {f"0/{name}": (data,) for name, data in images.items()}


def test_what_is_not_read_in_a_store(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = shelved(store, "saved one", {"state.json": "{}", "dataset_info.json": "{}", "0.arrow": b""})
    assert main(["prepare", address, "--out", str(tmp_path / "c")]) == 2
    said = capsys.readouterr().err
    assert "which `save_to_disk` wrote, is not read in a store" in said
    assert "aws s3 cp --recursive 's3://shop/saved one' 'saved one'" in said
    for place, words in (("s3://shop/nothing", "nothing at"), ("s3://locked/sop", "can't be read: the store refuses")):
        assert main(["prepare", "sop", "--from", place, "--out", str(tmp_path / "c")]) == 2
        assert words in capsys.readouterr().err
    shelved(store, "zips", {"s.zip": zipped({"a.jpg": jpeg(1)})})
    assert main(["prepare", "s3://shop/zips/s.zip", "--out", str(tmp_path / "c")]) == 2
    assert "no source of images that is known here" in capsys.readouterr().err


def test_an_image_that_does_not_come_in_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "SECONDS", 1.0)
    monkeypatch.setattr(stores, "_TRIES", 1)
    assert Place("s3://shop/other/x.jpg", "", 2, 30).read() == jpeg(4)[2:32]
    store.wait = 3.0
    with pytest.raises(ImageError, match="can't be read: the store did not answer within 1 seconds"):
        Place("s3://shop/other/x.jpg", "", 2, 30).read()
