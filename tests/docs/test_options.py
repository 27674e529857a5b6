"""Options that pages and notebooks name, against the recorded help: what was renamed in the code is renamed there."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HELP = {
    path.stem: frozenset(re.findall(r"(?<![\w-])--[a-z][\w.-]*", path.read_text(encoding="utf-8")))
    for path in (ROOT / "tests" / "golden" / "help").glob("*.txt")
}
ALWAYS = {"--help", "--quiet", "--verbose", "--version"}
DOTTED = re.compile(r"(?<![\w-])--[a-z][\w-]*\.[a-z][\w.-]*")  # of a recipe alone, whoever the words around are about
COMMAND = re.compile(r"\blookalike ([a-z]+)((?: [^`\n|#&;]*)?)")
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *(path for part in ("docs", "results") for path in sorted((ROOT / part).rglob("*.md"))),
    *sorted((ROOT / "notebooks").glob("*.ipynb")),
    *sorted((ROOT / "src" / "lookalike" / "recipes").glob("*.py")),
]


def words(path: Path) -> str:
    """The page, or all cells of the notebook; a backslash at a line's end goes on."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    return text.replace("\\\n", " ")


def unknown(text: str) -> list[str]:
    """Options in `text` that no help has: of the verb and recipe that stand before them, or of any recipe."""
    every = frozenset().union(*HELP.values()) | ALWAYS
    found = [option for option in DOTTED.findall(text) if option.rstrip(".") not in every]
    for verb, rest in COMMAND.findall(text):
        recipe = f"train-{(rest.split() or [''])[0]}"
        if verb in ("train", "plan"):
            options = HELP.get(recipe, every) | (HELP["plan-pca"] if verb == "plan" else frozenset())
        else:
            options = HELP.get(verb, every)
        given = re.findall(r"(?<!\S)--[a-z][\w.-]*", rest)
        found += [f"{verb} {option}" for option in given if option.rstrip(".") not in options | ALWAYS]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_options_are_those_of_the_help(page: Path) -> None:
    assert unknown(words(page)) == []


def test_what_is_no_option() -> None:
    assert unknown("`lookalike train head --loss.margin 0.2`, and `--trained.blocks 4` of `tune`") == []
    assert unknown("`--distill.weight 1`") == ["--distill.weight"]
    assert unknown("lookalike train pca --epochs 3") == ["train --epochs"]
    assert unknown("lookalike plan head --topology v5e:1x1 --epochs 3; lookalike search a.jpg --sheet b.png") == []
    assert unknown("lookalike search a.jpg --sheets b.png") == ["search --sheets"]
