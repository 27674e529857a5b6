"""Words that must not stand in any file of the project: the name before, paths of one machine, hosts, promises."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Written in pieces, so that this file does not hold them.
FORBIDDEN = {
    "a path of one machine": re.compile("/" + "work/" + "|/" + r"home/\w" + "|/" + r"Users/\w" + "|/" + "root/"),
    "a host of a package registry": re.compile("pypi" + r"\.org|python" + r"hosted\.org|npm" + r"js\.(com|org)"),
    "the name before": re.compile("like" + "ness", re.IGNORECASE),
    "an install line that is not ours": re.compile(
        r"pip install '?(?!lookalike)\w*\[text\]|pip install '?like" + "ness"
    ),
    "a promise": re.compile(r"\b(TO" + "DO|FIX" + r"ME|XX" + r"X)\b"),
}


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]


def faults(text: str) -> list[str]:
    return [f"{what}: {match[0]!r}" for what, pattern in FORBIDDEN.items() if (match := pattern.search(text))]


def test_no_forbidden_words() -> None:
    found = {}
    for path in tracked():
        data = path.read_bytes() if path.is_file() else b""
        if b"\0" not in data[:4096] and (wrong := faults(data.decode("utf-8", "replace"))):
            found[path.relative_to(ROOT).as_posix()] = wrong
    assert found == {}


def test_the_check_can_fail() -> None:
    for text in (
        "see /" + "work/x",
        "Like" + "ness",
        "pip " + "install 'other[text]'",
        "pypi" + ".org",
        "# TO" + "DO later",
    ):
        assert faults(text), text
    assert faults("a workplace/ of /var/data, /tmp/x") == []
