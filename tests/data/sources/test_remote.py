"""Images in an object store: a server that speaks as much of S3 as listing and reading take, and its bad days."""

import io
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import numpy as np
import PIL.Image
import pytest

from lookalike.commands import main
from lookalike.data.collection import Collection
from lookalike.data.sources import remote

pytestmark = pytest.mark.allow_hosts("127.0.0.1,localhost")


def jpeg(seed: int) -> bytes:
    data = io.BytesIO()
    PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 30, 3), np.uint8)).save(data, "JPEG")
    return data.getvalue()


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
        self.times = dict.fromkeys(self.files, "2026-01-01T00:00:00.000Z")


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
                if span := self.headers.get("Range"):
                    start, _, end = span.removeprefix("bytes=").partition("-")
                    data = data[int(start) : int(end) + 1 if end else None]
                self.answer(206 if span else 200, data, Last_Modified="Thu, 01 Jan 2026 00:00:00 GMT", ETag='"e"')
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
                f"<Contents><Key>{escape(key)}</Key><LastModified>{held.times[key]}</LastModified>"
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
    remote._client.cache_clear()
    yield held
    remote._client.cache_clear()
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
        ("s3://shop/photos.csv", "`s3://shop/photos.csv` is no folder", "copy it to the disk"),
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
    monkeypatch.setattr(remote, "SECONDS", 1.0)
    monkeypatch.setattr(remote, "_TRIES", 1)
    store.wait = 3.0
    assert main(["prepare", "s3://shop/photos", "--out", str(tmp_path / "coll")]) == 2
    assert "the store did not answer within 1 seconds" in capsys.readouterr().err
