"""Free memory, from the files in which Linux tells it."""

from pathlib import Path

import pytest

from lookalike.core.machine import available_memory

GIB = 2**30
MEMINFO = "MemTotal: 99999999 kB\nMemFree: 1048576 kB\nMemAvailable: 20971520 kB\n"  # 20 GiB


@pytest.mark.parametrize(
    ("limit", "used", "files", "expected"),
    [
        (8 * GIB, 3 * GIB, (0, 0), 5 * GIB),
        (8 * GIB, 8 * GIB, (2 * GIB, 4 * GIB), 6 * GIB),  # full of what was read
        (64 * GIB, 3 * GIB, (0, 0), 20 * GIB),  # the machine has less than the container may take
        ("max", 3 * GIB, (0, 0), 20 * GIB),
    ],
)
def test_the_machine_s_or_the_container_s(monkeypatch, limit, used, files, expected):
    group = "/sys/fs/cgroup/memory"
    told = {"/proc/meminfo": MEMINFO, f"{group}.max": f"{limit}\n", f"{group}.current": f"{used}\n"}
    told[f"{group}.stat"] = f"anon 5\nactive_file {files[0]}\ninactive_file {files[1]}\n"
    monkeypatch.setattr(Path, "read_text", lambda path, *_: told[str(path)])
    assert available_memory() == expected


@pytest.mark.parametrize(("told", "expected"), [({"/proc/meminfo": MEMINFO}, 20 * GIB), ({}, None)])
def test_without_a_container_and_without_linux(monkeypatch, told, expected):
    def read(path, *_):
        if str(path) not in told:
            raise FileNotFoundError
        return told[str(path)]

    monkeypatch.setattr(Path, "read_text", read)
    assert available_memory() == expected
