"""lookalike doctor: what this machine has, which versions are installed, and what is missing."""

import platform
import re
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from lookalike.core.devices import machine_memory, unused_accelerators
from lookalike.core.files import json_text
from lookalike.core.journal import table
from lookalike.core.machine import cores

_PIP = f"{sys.executable} -m pip install"


@dataclass(frozen=True)
class Config:
    """Say which backend, devices, memory and versions there are, and what is missing."""

    json: bool = False
    """Write one JSON document instead of tables."""


def main(config: Config) -> None:
    """Print the report on stdout: machine, devices, libraries, and what is missing with the command that brings it."""
    backend, devices, missing = _devices()
    libraries = _libraries()
    machine = {
        "lookalike": metadata.version("lookalike"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": cores(),
        "memory": _size(machine_memory()),
        "backend": backend,
    }
    missing += _missing(libraries, backend)
    if config.json:
        print(json_text({"machine": machine, "devices": devices, "libraries": libraries, "missing": missing}))
        return
    parts = [
        "\n".join(f"{name:<9}  {value}" for name, value in machine.items()),
        table(["device", "kind", "memory"], [[d["name"], d["kind"], _size(d["memory"])] for d in devices]),
        table(["library", "version", "for"], [[p["name"], p["version"] or "missing", p["for"]] for p in libraries]),
        "\n".join(f"{lack['what']}\n  {lack['command']}" for lack in missing) or "Nothing is missing.",
    ]
    print("\n\n".join(parts))


def _devices() -> tuple[str, list[dict[str, Any]], list[dict[str, str]]]:
    """JAX's backend and devices, with memory in bytes where the device tells it; and what kept JAX from starting."""
    try:
        import jax

        devices = jax.devices()
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        return "none", [], [{"what": f"JAX can't start: {reason}", "command": f"{_PIP} --upgrade lookalike"}]
    memory = [(device.memory_stats() or {}).get("bytes_limit") for device in devices]
    found = [{"name": str(d), "kind": d.device_kind, "memory": m} for d, m in zip(devices, memory, strict=True)]
    return jax.default_backend(), found, []


def _libraries() -> list[dict[str, Any]]:
    """Every library that lookalike names in its metadata: its version (None if missing) and the extra it is for."""
    found: dict[str, dict[str, Any]] = {}
    for requirement in metadata.requires("lookalike") or []:
        name = re.split(r"[^\w.-]", requirement)[0]
        extra = re.search(r"""extra == ['"](\w+)['"]""", requirement)
        if name == "lookalike" or name in found:
            continue
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = None
        found[name] = {"name": name, "version": version, "for": extra[1] if extra else "base"}
    return list(found.values())


def _missing(libraries: list[dict[str, Any]], backend: str) -> list[dict[str, str]]:
    """Libraries that are not there, and accelerators that the system shows and JAX does not use."""
    found = []
    for name, extra in ((library["name"], library["for"]) for library in libraries if library["version"] is None):
        words, option = ("", "") if extra == "base" else (f" (optional, extra `{extra}`)", f"[{extra}]")
        found.append({"what": f"{name} is missing{words}", "command": f"{_PIP} 'lookalike{option}'"})
    for extra, name in unused_accelerators(backend):
        what = f"There is {name} that JAX does not use"
        found.append({"what": what, "command": f"{_PIP} 'lookalike[{extra}]'"})
    return found


def _size(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**30:.1f} GiB"
