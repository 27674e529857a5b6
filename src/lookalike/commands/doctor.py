"""`lookalike doctor`: what this machine has, which versions are installed, and what is missing."""

import os
import platform
import re
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from lookalike.core.files import json_text
from lookalike.core.journal import table
from lookalike.core.machine import cores


@dataclass(frozen=True)
class Config:
    """Say which backend, devices, memory and versions there are, and what is missing."""

    json: bool = False
    """Write one JSON document instead of tables."""


def main(config: Config) -> None:
    """Print the report on stdout."""
    report = examine()
    if config.json:
        print(json_text(report))
        return
    machine = report["machine"]
    width = max(map(len, machine))
    print("\n".join(f"{name:<{width}}  {value}" for name, value in machine.items()))
    print(
        "\n"
        + table(["device", "kind", "memory"], [[d["name"], d["kind"], _size(d["memory"])] for d in report["devices"]])
    )
    print(
        "\n"
        + table(
            ["library", "version", "for"],
            [[p["name"], p["version"] or "missing", p["for"]] for p in report["libraries"]],
        )
    )
    print(
        "\n"
        + ("\n".join(f"{lack['what']}\n  {lack['command']}" for lack in report["missing"]) or "Nothing is missing.")
    )


def examine() -> dict[str, Any]:
    """The whole report: machine, devices, libraries, and what is missing with the command that brings it."""
    backend, devices, trouble = _devices()
    libraries = _libraries()
    return {
        "machine": {
            "lookalike": metadata.version("lookalike"),
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "cores": cores(),
            "memory": _size(_memory()),
            "backend": backend,
        },
        "devices": devices,
        "libraries": libraries,
        "missing": trouble + _missing(libraries) + _idle_hardware(backend),
    }


def _devices() -> tuple[str, list[dict[str, Any]], list[dict[str, str]]]:
    """JAX's backend and devices, with memory in bytes where the device tells it; and what kept JAX from starting."""
    try:
        import jax

        devices = jax.devices()
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        return "none", [], [{"what": f"JAX can't start: {reason}", "command": f"{_pip()} install --upgrade lookalike"}]
    found = []
    for device in devices:
        statistics = device.memory_stats() or {}
        found.append({"name": str(device), "kind": device.device_kind, "memory": statistics.get("bytes_limit")})
    return jax.default_backend(), found, []


def _libraries() -> list[dict[str, Any]]:
    """Every library that lookalike names in its metadata: its version (None if missing) and the extra it is for."""
    found: dict[str, dict[str, Any]] = {}
    for requirement in metadata.requires("lookalike") or []:
        match = re.match(r"([\w.-]+)", requirement)
        extra = re.search(r"""extra == ['"](\w+)['"]""", requirement)
        if match is None or match[1] == "lookalike" or match[1] in found:
            continue
        try:
            version = metadata.version(match[1])
        except metadata.PackageNotFoundError:
            version = None
        found[match[1]] = {"name": match[1], "version": version, "for": extra[1] if extra else "base"}
    return list(found.values())


def _missing(libraries: list[dict[str, Any]]) -> list[dict[str, str]]:
    lacks = [library for library in libraries if library["version"] is None]
    return [
        {
            "what": f"{lack['name']} is missing"
            + ("" if lack["for"] == "base" else f" (optional, extra `{lack['for']}`)"),
            "command": f"{_pip()} install 'lookalike{'' if lack['for'] == 'base' else '[' + lack['for'] + ']'}'",
        }
        for lack in lacks
    ]


def _idle_hardware(backend: str) -> list[dict[str, str]]:
    """Accelerators that the system shows and JAX does not use."""
    lacks = []
    if backend != "gpu" and Path("/dev/nvidia0").exists():
        lacks.append(
            {"what": "There is an NVIDIA GPU that JAX does not use", "command": f"{_pip()} install 'lookalike[gpu]'"}
        )
    if backend != "tpu" and Path("/dev/accel0").exists():
        lacks.append({"what": "There is a TPU that JAX does not use", "command": f"{_pip()} install 'lookalike[tpu]'"})
    return lacks


def _pip() -> str:
    return f"{sys.executable} -m pip"


def _memory() -> int | None:
    """The machine's memory in bytes, where the system tells it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _size(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**30:.1f} GiB"
