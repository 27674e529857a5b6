"""`lookalike pull ORG/NAME` against a stand-in of the Hub: what is fetched, resumed, checked, refused."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from lookalike.commands import main
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, tensor_shapes
from lookalike.encoders.directory import read_model
from lookalike.imaging.preprocess import Preprocess
from lookalike.published.layout import export_tensors
from lookalike.published.layouts import WEIGHTS
from lookalike.towers import ViTConfig

pytestmark = [
    pytest.mark.allow_hosts("127.0.0.1,localhost"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


def pull(tmp_path: Path, *more: str, source: str = "org/name", out: str = "m") -> int:
    return main(["pull", source, "--out", str(tmp_path / out), *more])


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: str, source: str = "org/name") -> str:
    capsys.readouterr()
    assert pull(tmp_path, *more, source=source) == 2
    said = capsys.readouterr()
    assert said.out == ""
    error = said.err[said.err.index("error: ") :]
    assert "\n\nhint: " in error
    assert not (tmp_path / "m").exists()
    return error


def cached(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "cache").glob("models--org--name/snapshots/*/*")}


def test_only_what_is_needed_is_fetched_and_size_and_licence_are_said_first(
    published: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert pull(tmp_path) == 0
    said = capsys.readouterr().err
    size = sum(len(published.files[n]) for n in ("config.json", "preprocessor_config.json", "model.safetensors"))
    assert f"`org/name` at cccccccc: {size / 1e6:,.1f} MB, licence apache-2.0\n" in said
    assert said.index("licence") < said.index("fetch 1/1 MB")
    assert cached(tmp_path) == {"README.md", "config.json", "preprocessor_config.json", "model.safetensors"}
    assert read_model(tmp_path / "m")[0].preprocess.size == 32
    card = json.loads((tmp_path / "m" / "card.json").read_text())
    assert (card["source"], card["license"], card["revision"]) == ("org/name", "apache-2.0", "c" * 40)


def test_files_of_the_text_side_come_along(published: Any, tmp_path: Path):
    published.files |= {"tokenizer.json": b"{}", "merges.txt": b"#", "tokenizer.py": b"raise SystemExit"}
    assert pull(tmp_path) == 0
    assert {"tokenizer.json", "merges.txt"} < cached(tmp_path)
    assert "tokenizer.py" not in cached(tmp_path)


def test_a_licence_of_its_own_is_named(published: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    published.card = {"license": "other", "license_name": "dinov3-license"}
    assert pull(tmp_path) == 0
    assert "MB, licence dinov3-license\n" in capsys.readouterr().err


def test_a_download_that_is_too_short_is_a_sentence(
    published: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    whole = published.describe

    def longer(name: str) -> dict[str, Any]:
        entry = whole(name)
        if "lfs" in entry:
            entry["lfs"]["size"] += 5
        return entry

    monkeypatch.setattr(published, "describe", longer)
    assert "The connection broke while getting `org/name`: Consistency check failed" in refused(tmp_path, capsys)


def test_an_endpoint_that_is_no_hub(published: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    published.answer = lambda request: published._send(request, 200, b"<html>")
    assert "does not answer as a Hub does" in refused(tmp_path, capsys)


def test_a_broken_download_goes_on_where_it_stopped(
    published: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    from huggingface_hub import constants

    whole, some = len(published.files["model.safetensors"]), 100_000
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", some)  # what came of an unfinished chunk is dropped
    published.breaks = [some] + 5 * [0]  # the library tries five times more, then gives up
    assert "it goes on where it stopped" in refused(tmp_path, capsys)
    assert published.served == [("model.safetensors", 0, some)] + 5 * [("model.safetensors", some, 0)]
    assert pull(tmp_path) == 0
    assert published.served[6:] == [("model.safetensors", some, whole - some)]
    assert not list((tmp_path / "cache").rglob("*.incomplete"))


def test_an_interrupted_download_goes_on_too(
    published: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from huggingface_hub import constants

    from lookalike.core.journal import Progress

    def interrupt(*_: Any) -> None:  # once something came
        if any(path.stat().st_size for path in (tmp_path / "cache").rglob("*.incomplete")):
            raise KeyboardInterrupt

    some = 250_000
    with monkeypatch.context() as patch:
        patch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", some)
        patch.setattr(Progress, "advance", interrupt)
        assert pull(tmp_path) == 130
    assert "the same command goes on where it stopped" in capsys.readouterr().err
    assert pull(tmp_path) == 0
    assert [first for _, first, _ in published.served] == [0, some]


def test_a_killed_download_goes_on_too(published: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The library alone begins anew after a SIGKILL; see docs/log.md."""
    whole, dead = published._content, threading.Event()

    def stops(request: Any, name: str) -> None:
        published.breaks = [1_200_000]
        whole(request, name)
        request.wfile.flush()
        dead.wait(60)

    def came() -> int:
        return max((path.stat().st_size for path in (tmp_path / "home").rglob("*.incomplete")), default=0)

    monkeypatch.setattr(published, "_content", stops)
    command = [sys.executable, "-c", "from lookalike.commands import run; run()", "pull", "org/name", "--out"]
    world = os.environ | {"HF_ENDPOINT": published.endpoint, "HF_HOME": str(tmp_path / "home")}
    child = subprocess.Popen([*command, str(tmp_path / "m")], env=world, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while came() < 2**20 and child.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    child.kill()
    assert (child.wait(), came()) == (-9, 2**20)
    dead.set()
    monkeypatch.setattr(published, "_content", whole)
    subprocess.run([*command, str(tmp_path / "m")], env=world, check=True, capture_output=True, timeout=120)
    assert [first for _, first, _ in published.served] == [0, 2**20]
    assert not list((tmp_path / "home").rglob("*.incomplete"))
    read_model(tmp_path / "m")


def test_a_wrong_digest_is_refused_and_the_file_removed(
    published: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    published.lie = "model.safetensors"
    said = refused(tmp_path, capsys)
    digest = hashlib.sha256(published.files["model.safetensors"]).hexdigest()
    assert "`model.safetensors` of `org/name` arrived damaged and was removed: its sha256 digest is" in said
    assert f"the Hub says {digest[:12]}..." in said
    assert "model.safetensors" not in cached(tmp_path)
    assert not any(path.stat().st_size > 10_000 for path in (tmp_path / "cache").rglob("*") if path.is_file())
    published.lie = None
    assert pull(tmp_path) == 0


def test_a_file_that_rots_in_the_cache_is_noticed(published: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert pull(tmp_path, out="first") == 0
    config = next((tmp_path / "cache").glob("models--org--name/snapshots/*/preprocessor_config.json")).resolve()
    config.write_bytes(config.read_bytes().replace(b"0.5", b"0.4"))
    assert "`preprocessor_config.json` of `org/name` arrived damaged" in refused(tmp_path, capsys)
    assert pull(tmp_path) == 0


def test_sharded_tensors(published: Any, tensors: dict[str, np.ndarray], tmp_path: Path):
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    del published.files["model.safetensors"]
    published.files |= {shard: save({name: tensors[name] for name in part}) for shard, part in shards.items()}
    index = {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    published.files["model.safetensors.index.json"] = json.dumps(index).encode()
    assert pull(tmp_path) == 0
    ours = read_model(tmp_path / "m")[1]
    assert sum(array.size for array in ours.values()) == sum(array.size for array in tensors.values())


def test_the_tensors_that_go_with_the_config_are_chosen(published: Any, tmp_path: Path):
    """Repositories often hold one model in several layouts, and a config that is nobody's."""
    tower = ViTConfig(size=32, patch=16, width=64, layers=1, heads=1, hidden=128, activation="gelu", head=16)
    prepare = Preprocess(32, "crop", 32, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), rounding="even")
    config = EncoderConfig(tower, "class", prepare, ProjectionConfig("identity", 16, 16))
    rng = np.random.default_rng(0)
    ours = {n: rng.normal(size=s).astype(np.float32) for n, s in tensor_shapes(config).items()}
    vision = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1, "mlp_ratio": 2.0}
    described = {"model_cfg": {"embed_dim": 16, "vision_cfg": vision}}
    described["preprocess_cfg"] = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    published.files |= {
        "config.json": b'{"model_type": "somebodys"}',
        "open_clip_config.json": json.dumps(described).encode(),
        "open_clip_model.safetensors": save(export_tensors(WEIGHTS["open_clip"], config, ours)),
    }
    assert pull(tmp_path) == 0
    found = read_model(tmp_path / "m")[1]
    assert all(np.array_equal(found[name], ours[name]) for name in ours)
    assert "model.safetensors" not in cached(tmp_path)


def test_an_index_of_shards_that_are_not_there(published: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    del published.files["model.safetensors"]
    published.files["model.safetensors.index.json"] = b'{"weight_map": {"a": "model-00001-of-00001.safetensors"}}'
    assert "names `model-00001-of-00001.safetensors`, which is no safetensors file beside it" in refused(
        tmp_path, capsys
    )
    published.files["model.safetensors.index.json"] = b'{"weight_map": {"a": "pytorch_model.bin"}}'
    published.commit = "e" * 40
    assert "names `pytorch_model.bin`, which is no safetensors file beside it" in refused(tmp_path, capsys)


@pytest.mark.parametrize("index", ["{}", "[]", '{"weight_map": {}}', '{"weight_map": []}', '{"weight_map": {"a": 3}}'])
def test_an_index_that_names_no_shards(published: Any, index: str, tmp_path: Path, capsys: Any):
    del published.files["model.safetensors"]
    published.files["model.safetensors.index.json"] = index.encode()
    assert "does not say which files beside it hold the tensors" in refused(tmp_path, capsys)


def test_offline_a_shard_is_missing(
    published: Any, tensors: dict[str, np.ndarray], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
):
    del published.files["model.safetensors"]
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {name: shards[i % 2] for i, name in enumerate(sorted(tensors))}}
    published.files["model.safetensors.index.json"] = json.dumps(index).encode()
    for i, shard in enumerate(shards):
        published.files[shard] = save({name: tensors[name] for name in sorted(tensors)[i::2]})
    assert pull(tmp_path, out="first") == 0
    offline(monkeypatch)
    assert pull(tmp_path, out="second") == 0
    next((tmp_path / "cache").glob(f"models--org--name/snapshots/*/{shards[1]}")).unlink()
    assert f"Getting `{shards[1]}` of `org/name` failed: there is no connection" in refused(tmp_path, capsys)


def test_a_revision_is_asked_for(published: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert pull(tmp_path, "--revision", "v1") == 0
    assert "/api/models/org/name/revision/v1" in {path for _, path, _ in published.asked}
    capsys.readouterr()
    assert main(["pull", "org/name", "--out", str(tmp_path / "other"), "--revision", "v9"]) == 2
    assert "`org/name` has no revision `v9`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (
            401,
            {"X-Error-Code": "GatedRepo"},
            "given only to those who accepted its licence.\n\nhint: accept it on http",
        ),
        (403, {"X-Error-Code": "GatedRepo"}, "then `hf auth login`, or set HF_TOKEN, and give"),
        (401, {}, "refuses `org/name` (401): the token is missing, wrong"),
        (403, {}, "refuses `org/name` (403): the token is missing, wrong"),
        (404, {"X-Error-Code": "RepoNotFound"}, "There is no model `org/name`"),
        (
            429,
            {"Retry-After": "77"},
            "too many requests from here and refuses `org/name` for now (429).\n\nhint: wait 77",
        ),
        (503, {}, "The Hub answers 503"),
    ],
)
def test_what_the_hub_refuses(
    published: Any, status: int, headers: dict[str, str], words: str, tmp_path: Path, capsys: Any
):
    published.refuse = (status, headers)
    assert words in refused(tmp_path, capsys)


def test_a_gate_that_opens_only_for_the_files(published: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Listings of gated models are public; the files are not."""
    answer = published.answer

    def gated(request: Any) -> None:
        published.refuse = (403, {"X-Error-Code": "GatedRepo"}) if "/resolve/" in request.path else None
        answer(request)

    published.answer = gated
    assert "given only to those who accepted its licence" in refused(tmp_path, capsys)


def test_another_name_is_not_found(published: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "There is no model `org/other`" in refused(tmp_path, capsys, source="org/other")
    assert "`org/na--me` is no name of a model" in refused(tmp_path, capsys, source="org/na--me")


def test_pickles_alone_are_refused_with_the_command_that_converts_them(
    published: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    del published.files["model.safetensors"]
    said = refused(tmp_path, capsys)
    assert "`org/name` holds only pickles (pytorch_model.bin), which can run any code" in said
    assert "hint: hf download org/name --local-dir DIR && cd DIR && python -c 'import torch" in said
    assert "pytorch_model.bin" not in cached(tmp_path)


def test_what_is_in_no_layout_is_refused_before_its_tensors_are_fetched(
    published: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    published.files["config.json"] = b'{"model_type": "bert"}'
    assert "in no layout that is known" in refused(tmp_path, capsys)
    assert published.served == []


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import close_session, constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()


def test_offline_the_cache_is_enough(
    published: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert pull(tmp_path, out="first") == 0
    offline(monkeypatch)
    count = len(published.asked)
    assert pull(tmp_path) == 0
    assert "no connection; the copy in the cache is used" in capsys.readouterr().err
    assert len(published.asked) == count
    first, second = (read_model(tmp_path / name)[1] for name in ("first", "m"))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_offline_and_missing(
    published: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert pull(tmp_path, out="first") == 0
    offline(monkeypatch)
    for path in (tmp_path / "cache").glob("models--org--name/snapshots/*/model.safetensors"):
        path.unlink()
    said = refused(tmp_path, capsys)
    assert "Getting `model.safetensors` of `org/name` failed: there is no connection" in said
    assert "hint: where there is one, `hf download org/name --local-dir DIR" in said
    assert "Getting `config.json` of `org/other` failed" in refused(tmp_path, capsys, source="org/other")


def test_no_server_is_no_connection(published: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "Getting `config.json` of `org/name` failed" in refused(tmp_path, capsys)


def test_the_environment_is_honoured(published: Any, tmp_path: Path):
    """HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE, in a process of its own."""
    command = [sys.executable, "-c", "from lookalike.commands import run; run()", "pull", "org/name", "--out"]
    world = os.environ | {"HF_ENDPOINT": published.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_secret"}
    result = subprocess.run([*command, str(tmp_path / "a")], env=world, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "home" / "hub" / "models--org--name").is_dir()
    assert {token for _, path, token in published.asked if "org/name" in path} == {"Bearer hf_secret"}
    assert {token for _, path, token in published.asked if path.startswith("/cdn/")} == {None}
    count = len(published.asked)
    quiet = world | {"HF_HUB_OFFLINE": "1"}
    result = subprocess.run([*command, str(tmp_path / "b")], env=quiet, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert len(published.asked) == count


def test_little_is_lost_on_a_line_that_breaks_often(published: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The library alone keeps whole pieces of 10 MiB."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    published.breaks = [1_500_000] + 5 * [0]
    assert pull(tmp_path) == 2
    assert published.served[1][1] == 2**20
    assert pull(tmp_path) == 0


def test_a_copy_in_the_cache_keeps_licence_and_revision(
    published: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from huggingface_hub import constants

    published.files["README.md"] = b"---\nlicense: apache-2.0\n---\n# A model"
    assert pull(tmp_path, out="first") == 0
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    capsys.readouterr()
    assert pull(tmp_path) == 0
    assert "no connection; the copy in the cache is used; licence apache-2.0" in capsys.readouterr().err
    cards = [json.loads((tmp_path / name / "card.json").read_text()) for name in ("first", "m")]
    assert cards[0] == cards[1]


def test_the_librarys_own_words_are_not_shown(published: Any, tmp_path: Path):
    """In a process of its own, whose logging is as a user has it."""
    published.breaks = 6 * [0]
    code = "import sys, time\ntime.sleep = lambda _: None\n"
    code += "from lookalike.commands import main\nsys.exit(main(sys.argv[1:]))"
    environment = os.environ | {"HF_ENDPOINT": published.endpoint, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", code, "pull", "org/name", "--out", str(tmp_path / "m")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    for words in ("Trying to resume", "Max retries", "Error while downloading"):
        assert words not in done.stderr


@pytest.mark.parametrize("digest", ["/elsewhere/victim", "../victim", "", None, "g" * 64, "a" * 63, "A" * 64])
def test_what_is_no_digest_is_no_path(published: Any, tmp_path: Path, capsys: Any, digest: Any, monkeypatch: Any):
    whole = published.describe

    def lying(name: str) -> dict[str, Any]:
        entry = whole(name)
        if "lfs" in entry:
            entry["lfs"]["sha256"] = digest
        return entry

    monkeypatch.setattr(published, "describe", lying)
    assert "as the SHA-256 of `model.safetensors`; expected 64 hex digits" in refused(tmp_path, capsys)
    assert published.served == []
