"""A small real encoder, a folder of small images, and what `lookalike index` makes of them, once a session.

And a stand-in of the Hub: tests that use it are marked `allow_hosts("127.0.0.1,localhost")`.
"""

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image


@dataclass(frozen=True)
class Shop:
    """Paths."""

    images: Path
    model: Path
    collection: Path


def draw(label: int, number: int) -> Image.Image:
    """Four colored quarters that belong to the label, and some noise that belongs to the image."""
    quarters = np.random.default_rng(label).integers(30, 225, (2, 2, 3))
    noise = np.random.default_rng((label, number)).integers(-25, 25, (40, 48, 3))
    return Image.fromarray((quarters.repeat(20, 0).repeat(24, 1) + noise).astype(np.uint8))


@pytest.fixture(scope="session")
def write_tiny_model() -> Callable[[Path, int], Path]:
    """Writes a convolutional encoder with random weights to a path; another seed, another encoder."""
    from lookalike.encoders.config import EncoderConfig, ProjectionConfig, tensor_shapes
    from lookalike.encoders.directory import write_model
    from lookalike.imaging.preprocess import Preprocess
    from lookalike.towers import ConvNetConfig

    def write(path: Path, seed: int = 0) -> Path:
        config = EncoderConfig(
            tower=ConvNetConfig(widths=(8, 16), depths=(0, 1)),
            pooling="mean",
            preprocess=Preprocess(32, "squash", 32, "bilinear", (0.5,) * 3, (0.25,) * 3),
            projection=ProjectionConfig("linear", 16, 6),
        )
        rng = np.random.default_rng(seed)
        tensors = {
            name: (rng.standard_normal(shape) * (0.3 if len(shape) > 1 else 0.1)).astype(np.float32)
            for name, shape in tensor_shapes(config).items()
        }
        tensors |= {name: np.abs(value) + 1 for name, value in tensors.items() if "norm" in name and value.ndim == 1}
        write_model(path, config, tensors, {"name": "tiny", "license": "Apache-2.0"})
        return path

    return write


@pytest.fixture(scope="session")
def shop_once(tmp_path_factory: pytest.TempPathFactory, write_tiny_model: Callable[..., Path]) -> Iterator[Shop]:
    """Two domains of two labels of three images, indexed."""
    from lookalike.commands import main

    base = tmp_path_factory.mktemp("shop")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(base / "cache"))
        for label in range(4):
            folder = base / "images" / f"domain{label // 2}" / f"label{label}"
            folder.mkdir(parents=True)
            for number in range(3):
                draw(label, number).save(folder / f"{number}.png")
        write_tiny_model(base / "model")
        arguments = ["index", str(base / "images"), "--model", str(base / "model"), "--out", str(base / "shop.coll")]
        assert main(arguments) == 0
        yield Shop(base / "images", base / "model", base / "shop.coll")


@pytest.fixture
def shop(shop_once: Shop, tmp_path: Path) -> Shop:
    """A copy of it, to change; the images are read where they are."""
    shutil.copytree(shop_once.collection, tmp_path / "shop.coll")
    return Shop(shop_once.images, shop_once.model, tmp_path / "shop.coll")


@dataclass
class Hub:
    """A stand-in of the Hub's HTTP API: model info, tree, resolve with redirects, ranges and digests."""

    endpoint: str = ""
    repository: str = "org/name"
    commit: str = "c" * 40
    files: dict[str, bytes] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=lambda: {"license": "apache-2.0"})
    revisions: tuple[str, ...] = ("main", "v1")
    refuse: tuple[int, dict[str, str]] | None = None
    """Status and headers with which everything is refused."""
    breaks: list[int] = field(default_factory=list)
    """How many bytes of a large file are sent before the connection breaks, one number an answer; then none breaks."""
    lie: str | None = None
    """The file of which wrong content is sent."""
    served: list[tuple[str, int, int]] = field(default_factory=list)
    """Name, first byte and number of bytes of every answer with a large file's content."""
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and authorization of every request."""

    def describe(self, name: str) -> dict[str, Any]:
        """An entry of the listing; tensors are in large-file storage."""
        data = self.files[name]
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        if not name.endswith((".safetensors", ".bin")):
            return {"oid": oid, "size": len(data)}
        lfs = {"sha256": hashlib.sha256(data).hexdigest(), "oid": hashlib.sha256(data).hexdigest()}
        return {"oid": oid, "size": len(data), "lfs": {**lfs, "size": len(data), "pointerSize": 130}}

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """One request."""
        path = unquote(urlsplit(request.path).path)
        self.asked.append((request.command, path, request.headers.get("Authorization")))
        if path.startswith("/cdn/"):
            return self._content(request, path.removeprefix("/cdn/"))
        if self.refuse is not None:
            return self._send(request, self.refuse[0], {"error": "refused"}, self.refuse[1])
        if self.repository not in path:
            return self._send(request, 404, {"error": "x"}, {"X-Error-Code": "RepoNotFound"})
        _, _, rest = path.partition(self.repository)
        if "/api/models/" in path:
            return self._api(request, rest)
        _, _, _, name = rest.split("/", 3)
        if name not in self.files:
            return self._send(request, 404, {}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.commit})
        entry = self.describe(name)
        facts = {"X-Repo-Commit": self.commit, "X-Linked-Size": str(entry["size"])}
        if "lfs" in entry:
            facts |= {
                "X-Linked-ETag": f'"{entry["lfs"]["sha256"]}"',
                "Location": f"{self.endpoint.replace('127.0.0.1', 'localhost')}/cdn/{name}",
            }
            return self._send(request, 302, {}, facts)
        return self._send(request, 200, self.files[name], facts | {"ETag": f'"{entry["oid"]}"'})

    def _api(self, request: BaseHTTPRequestHandler, rest: str) -> None:
        kind, revision, *_ = [*rest.strip("/").split("/"), "main"] if rest else ["revision", "main"]
        if revision not in (*self.revisions, self.commit):
            return self._send(request, 404, {"error": "x"}, {"X-Error-Code": "RevisionNotFound"})
        if kind == "tree":
            tree = [{"type": "file", "path": name, **self.describe(name)} for name in self.files]
            return self._send(request, 200, tree)
        files = []
        for name in self.files:
            entry = self.describe(name)
            files.append({"rfilename": name, "blobId": entry.pop("oid"), **entry})
        known = {"id": self.repository, "modelId": self.repository, "sha": self.commit, "cardData": self.card}
        return self._send(request, 200, {**known, "siblings": files, "tags": []})

    def _content(self, request: BaseHTTPRequestHandler, name: str) -> None:
        data = self.files[name]
        if name == self.lie:
            data = bytes(len(data))
        first = int((request.headers.get("Range") or "bytes=0-")[len("bytes=") :].split("-")[0])
        part = data[first:]
        request.send_response(206 if first else 200)
        request.send_header("Content-Length", str(len(part)))
        request.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        request.end_headers()
        sent = part[: self.breaks.pop(0)] if self.breaks else part
        self.served.append((name, first, len(sent)))
        request.wfile.write(sent)
        request.close_connection = True

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, body: Any, headers: dict[str, str] | None = None
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(data)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub of its own on 127.0.0.1, with an empty cache, in place of the real one."""
    from huggingface_hub import close_session, constants

    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        do_HEAD = do_GET  # noqa: N815  the name that the library calls

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", state.endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", state.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    close_session()
    yield state
    close_session()
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def tensors() -> dict[str, np.ndarray]:
    """Of a small MobileNetV2, as transformers names them."""
    from lookalike.encoders.config import EncoderConfig, ProjectionConfig, tensor_shapes
    from lookalike.imaging.preprocess import Preprocess
    from lookalike.published.layout import export_tensors
    from lookalike.published.layouts import WEIGHTS
    from lookalike.towers import MobileNetV2Config

    tower = MobileNetV2Config(multiplier=0.35, same_padding=True)
    prepare = Preprocess(32, "crop", 36, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    config = EncoderConfig(tower, "mean", prepare, ProjectionConfig("identity", 1280, 1280))
    rng = np.random.default_rng(0)
    ours = {n: rng.normal(size=s).astype(np.float32) for n, s in tensor_shapes(config).items()}
    ours |= {n: np.abs(value) + 1 for n, value in ours.items() if n.endswith("variance")}
    return dict(export_tensors(WEIGHTS["mobilenet_v2"], config, ours))


@pytest.fixture
def published(hub: Hub, tensors: dict[str, np.ndarray]) -> Hub:
    """The stand-in, with that model and some files that nobody asked for."""
    from safetensors.numpy import save

    processor = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}, "resample": 2}
    processor |= {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    hub.files |= {
        "config.json": json.dumps(
            {"model_type": "mobilenet_v2", "depth_multiplier": 0.35, "tf_padding": True}
        ).encode(),
        "preprocessor_config.json": json.dumps(processor).encode(),
        "model.safetensors": save(tensors),
        "pytorch_model.bin": b"a pickle",
        "modeling_x.py": b"raise SystemExit('never run')",
        "README.md": b"# A model",
    }
    return hub
