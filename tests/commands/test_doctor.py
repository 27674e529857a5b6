import json
import os
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from lookalike.commands import doctor, main
from lookalike.core import devices


def test_the_report_is_true(capsys: pytest.CaptureFixture[str]) -> None:
    import jax

    assert main(["doctor", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    report = json.loads(out)
    assert report["machine"]["backend"] == jax.default_backend()
    assert report["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert [device["name"] for device in report["devices"]] == [str(device) for device in jax.devices()]
    versions = {library["name"]: library["version"] for library in report["libraries"]}
    assert versions["jax"] == jax.__version__
    assert versions["pylance"] == metadata.version("pylance")


def test_the_tables_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in ("lookalike", "memory", "GiB", "backend", "cpu", "jax", metadata.version("jax")):
        assert word in out


def test_what_is_missing_comes_with_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["jax<1", "nothinglikethis>=1", "fasterjpeg>=2; extra == 'fast'", "lookalike[fast]; extra == 'all'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: lines)
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [library["name"] for library in report["libraries"]] == ["jax", "nothinglikethis", "fasterjpeg"]
    found = {lack["what"]: lack["command"] for lack in report["missing"]}
    assert found["nothinglikethis is missing"].endswith("-m pip install 'lookalike'")
    assert found["fasterjpeg is missing (optional, extra `fast`)"].endswith("-m pip install 'lookalike[fast]'")
    assert main(["doctor"]) == 0
    assert "nothinglikethis is missing\n  " in capsys.readouterr().out


def test_each_library_of_the_extra_formats_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [f"{line}; extra == 'formats'" for line in project["optional-dependencies"]["formats"]]
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: lines)
    assert main(["doctor", "--json"]) == 0
    told = {library["name"]: library for library in json.loads(capsys.readouterr().out)["libraries"]}
    assert set(told) == {"pillow-heif", "pillow-jxl-plugin", "rawpy"}
    for name, library in told.items():
        assert library == {"name": name, "version": metadata.version(name), "for": "formats"}


def test_a_jax_that_can_not_start_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import jax

    def fail() -> None:
        raise RuntimeError("Unable to initialize backend 'tpu'\nmore lines")

    monkeypatch.setattr(jax, "devices", fail)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "JAX can't start: Unable to initialize backend 'tpu'\n" in out
    assert re.search(r"^backend +none$", out, re.MULTILINE)


def test_an_accelerator_that_is_not_used_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.Path, "exists", lambda self: str(self) in ("/dev/nvidia0", "/dev/accel0"))
    found = {lack["what"]: lack["command"] for lack in doctor._missing([], "cpu")}
    assert found["There is an NVIDIA GPU that JAX does not use"].endswith("'lookalike[gpu]'")
    assert found["There is a TPU that JAX does not use"].endswith("'lookalike[tpu]'")
    assert [lack["what"] for lack in doctor._missing([], "gpu")] == ["There is a TPU that JAX does not use"]
