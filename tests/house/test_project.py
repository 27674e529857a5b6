"""What the project says about itself agrees: versions, locks, the README's tree, the site's pages."""

import re
import tomllib
from pathlib import Path

import pytest

import lookalike

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = sorted((ROOT / "locks").glob("*.txt"))


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\s\[<>=!~;]", line)[0].lower().replace("_", "-") for line in requirements}


def locked(path: Path) -> set[str]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if re.match(r"[a-zA-Z]", line)]
    return names(lines)


def test_one_version() -> None:
    assert PROJECT["project"]["version"] == lookalike.__version__
    assert f"version: {lookalike.__version__}" in text("CITATION.cff")
    assert f"## {lookalike.__version__}" in text("CHANGELOG.md")


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_locks_have_hashes_and_no_addresses(lock: Path) -> None:
    content = lock.read_text(encoding="utf-8")
    assert "://" not in content
    assert not re.search(r"^--", content, re.MULTILINE)
    for entry in re.split(r"\n(?=[a-zA-Z])", content)[1:]:
        assert "==" in entry.split("\n")[0], entry
        assert "--hash=sha256:" in entry, entry


def test_locks_hold_what_the_project_names() -> None:
    groups = PROJECT["dependency-groups"]
    assert names(PROJECT["project"]["dependencies"]) <= locked(ROOT / "locks" / "base.txt")
    for group in ("tools", "test", "check", "docs", "reference"):
        assert names(groups[group]) <= locked(ROOT / "locks" / f"{group}.txt"), f"make lock ({group})"


def test_no_lock_brings_torch_or_a_gpu() -> None:
    for lock in LOCKS:
        assert not [name for name in locked(lock) if re.match(r"torch$|nvidia|cuda|triton", name)], lock


def test_the_readme_shows_every_room() -> None:
    shown = set(re.findall(r"^  (\w+)/ ", text("CONTRIBUTING.md"), re.MULTILINE))
    assert shown == {path.parent.name for path in (ROOT / "src" / "lookalike").glob("*/__init__.py")}


def test_the_house_page_names_every_file() -> None:
    page = text("docs/design/house.md")
    for path in (ROOT / "src" / "lookalike").rglob("*.py"):
        room = path.relative_to(ROOT / "src" / "lookalike").parts[0]
        if (
            path.stem != "__init__"
            and room not in {"commands", "demo", "recipes"}
            and not {"layouts", "modules", "graphs", "datasets"} & {*path.parts}
        ):
            assert re.search(rf"\b{path.stem}\b", page), path


def test_the_site_shows_every_page() -> None:
    listed = set(re.findall(r"[\w/-]+\.md", text("mkdocs.yml")))
    assert listed == {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
