"""`lookalike push` against a stand-in of the Hub that takes commits, on 127.0.0.1."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lookalike.commands import main

pytestmark = [
    pytest.mark.allow_hosts("127.0.0.1,localhost"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


@dataclass
class Taker:
    """A Hub that only takes: repositories, and commits of small files."""

    refuse: int = 0
    """Status with which everything is refused; 0: nothing is."""
    repositories: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    authorizations: set[str | None] = field(default_factory=set)
    endpoint: str = ""

    def answer(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, Any, dict[str, str]]:
        if request.command == "POST" and request.path != "/api/validate-yaml":  # asked without a token
            self.authorizations.add(request.headers.get("Authorization"))
        if self.refuse:
            code = {404: "RepoNotFound"}.get(self.refuse, "")
            return self.refuse, {"error": "refused"}, {"X-Error-Code": code} if code else {}
        path = request.path.split("?")[0]
        if path == "/api/repos/create":
            self.repositories.append(json.loads(body))
            return 200, {"url": f"{self.endpoint}/somebody/shop"}, {}
        if path == "/api/models/somebody/shop/preupload/main":
            asked = json.loads(body)["files"]
            return (
                200,
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]},
                {},
            )
        if path == "/api/models/somebody/shop/commit/main":
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            return 200, {"commitUrl": f"{self.endpoint}/somebody/shop/commit/1", "commitOid": "1"}, {}
        return 200, {"id": "somebody/shop", "sha": "0" * 40, "siblings": [], "tags": []}, {}


@pytest.fixture
def taker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Taker]:
    from huggingface_hub import close_session, constants

    state = Taker()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            status, content, headers = state.answer(self, self.rfile.read(length))
            data = json.dumps(content).encode()
            self.send_response(status)
            for name, value in {
                "Content-Length": str(len(data)),
                "Content-Type": "application/json",
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST  # noqa: N815  the name that the library calls

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", state.endpoint)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    close_session()
    yield state
    close_session()
    server.shutdown()
    server.server_close()


@pytest.fixture
def model(tmp_path: Path, write_tiny_model: Callable[..., Path]) -> Path:
    """A trained encoder, as its card tells it."""
    path = write_tiny_model(tmp_path / "model")
    card = json.loads((path / "card.json").read_text())
    card |= {"name": "Shop", "recipe": "Head", "data": str(tmp_path / "somewhere" / "shop.coll"), "license": "mit"}
    card["images"] = {"rows": 90, "licences": {"cc-by-4.0": 60, "cc-by-nc-4.0": 20}, "sources": ["shop"]}
    card["metrics"] = {"untouched": {"mp@5": 0.25}, "trained": {"mp@5": 0.5}}
    card["began_from"] = {"name": "clip-vit-b-32", "source": "openai/clip-vit-base-patch32", "license": "mit"}
    (path / "card.json").write_text(json.dumps(card))
    (path / ".scrap").write_text("not to be uploaded")
    (path / "export").mkdir()
    (path / "export" / "model.onnx").write_text("not either")
    return path


def test_push_uploads_the_model_and_its_card(
    taker: Taker, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["push", "--model", str(model), "somebody/shop", "--private"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{taker.endpoint}/somebody/shop/commit/1\n"
    assert "licence: unknown, of 10 images of `shop.coll` without a word" in said.err
    assert set(taker.files) == {"README.md", "card.json", "config.json", "model.safetensors"}
    assert taker.files["model.safetensors"] == (model / "model.safetensors").read_bytes()
    assert taker.authorizations == {"Bearer hf_secret"}
    created = taker.repositories[0]
    assert "shop" in created["name"]
    readme = taker.files["README.md"].decode()
    assert "license: other\nlicense_name: unknown\n" in readme
    assert "| trained | 0.5000 |" in readme
    assert "- `mp@5`: " in readme
    assert "| 20 images of `shop.coll` | cc-by-nc-4.0 | non-commercial |" in readme
    assert "| the weights `openai/clip-vit-base-patch32` | mit | attribution |" in readme
    assert "# lookalike pull somebody/shop --out shop" in readme
    assert str(tmp_path) not in readme + taker.files["card.json"].decode()


def test_push_of_an_export_keeps_its_lines(taker: Taker, model: Path, tmp_path: Path):
    assert main(["export", "--model", str(model), "--to", "onnx", "--out", str(tmp_path / "out")]) == 0
    assert main(["push", "--model", str(tmp_path / "out"), "somebody/shop"]) == 0
    assert set(taker.files) == {"README.md", "card.json", "model.onnx"}
    readme = taker.files["README.md"].decode()
    assert "library_name: onnx\n" in readme
    assert "Input `images`: uint8 `[batch, height, width, 3]`" in readme
    assert "onnxruntime.InferenceSession('model.onnx'" in readme
    assert "the smallest cosine with the encoder's own vector is 1.000000" in readme


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "the token is missing or wrong"),
        (403, "the token may not write there"),
        (404, "there is no such user or organisation"),
        (500, "it does not say why"),
    ],
)
def test_what_the_hub_refuses(taker: Taker, model: Path, status: int, words: str, capsys: pytest.CaptureFixture[str]):
    taker.refuse = status
    assert main(["push", "--model", str(model), "somebody/shop"]) == 2
    said = capsys.readouterr().err
    assert f"The Hub refuses to take `somebody/shop` ({status}): {words}" in said
    assert "\n\nhint: " in said
    assert taker.files == {}


def test_without_a_connection(
    taker: Taker, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert main(["push", "--model", str(model), "somebody/shop"]) == 2
    said = capsys.readouterr().err
    assert "there is no connection to the Hub" in said
    assert "hint: look whether `http://127.0.0.1:9` answers" in said
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(["push", "--model", str(model), "somebody/shop"]) == 2
    assert "hint: unset HF_HUB_OFFLINE" in capsys.readouterr().err


def test_what_is_no_model(taker: Taker, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["push", "--model", str(tmp_path), "somebody/shop"]) == 2
    assert "is not a model directory" in capsys.readouterr().err
    assert main(["push", "somebody/shop"]) == 2
    assert "A model and the repository that it goes to are needed" in capsys.readouterr().err
    assert main(["push", "one", "somebody/shop", "--model", "other"]) == 2
    assert "One model is taken, and 2 are named: one, other." in capsys.readouterr().err
    for name in ("not a name", "shop", "a/b/c", ""):
        assert main(["push", str(model), name]) == 2  # the same as --model
        assert capsys.readouterr().err == f"error: `{name}` is no name of a model on the Hub.\n\nhint: it is ORG/NAME\n"
    assert taker.files == {}


def test_what_is_not_whole(taker: Taker, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["export", "--model", str(model), "--to", "onnx", "--out", str(tmp_path / "out")]) == 0
    for directory, file in ((model, "model.safetensors"), (tmp_path / "out", "model.onnx")):
        content = (directory / file).read_bytes()
        (directory / file).write_bytes(content[:-100])
        assert main(["push", "--model", str(directory), "somebody/shop"]) == 2
        assert "Traceback" not in capsys.readouterr().err
        (directory / file).unlink()
        assert main(["push", "--model", str(directory), "somebody/shop"]) == 2
        (directory / file).write_bytes(content)
    assert "when it was exported they had" in capsys.readouterr().err
    assert taker.files == {}
