"""The page of towers shows the table of presets as it is.

`UPDATE_GOLDEN=1 scripts/test tests/house/test_towers_page.py` writes its tables anew.
"""

import os
import re
from pathlib import Path

from lookalike.published.presets import CHOICES, LICENSES, PRESETS, choices, images_per_second, rows
from lookalike.towers.ops import operations

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "towers.md"


def table(headers: list[str], lines: list[list[str]], left: set[str]) -> str:
    marks = ["---" if header in left else "--:" for header in headers]
    return "\n".join(f"| {' | '.join(line)} |" for line in [headers, marks, *lines])


def presets(headers: list[str], lines: list[list[str]]) -> str:
    words = {"name", "tower", "licence", "source", "standing", "for"}
    return table(headers, [[named(line[0]), *line[1:]] for line in lines], words)


def named(cell: str) -> str:
    """The short name as code, and the alias behind it."""
    name, _, alias = cell.partition(" ")
    return f"`{name}` {alias}".rstrip()


def licences() -> str:
    return "\n".join(f"- {name}: {words or 'only that its notice is kept'}." for name, words in LICENSES.items())


def costs() -> str:
    measured = images_per_second()
    headers = [
        "name",
        *(["hours, measured"] if measured else []),
        "hours at 100 GFLOP/s",
        "features, GB",
        "64 numbers, GB",
    ]
    lines = []
    for name, preset in PRESETS.items():
        hours = f"{1e6 * operations(preset.tower, preset.size) / 100e9 / 3600:,.1f}"
        pace = [f"{1e6 / measured[name] / 3600:,.1f}" if name in measured else ""] if measured else []
        lines.append([f"`{name}`", *pace, hours, f"{1e6 * preset.tower.features * 4 / 1e9:.1f}", "0.3"])
    told = "`hours, measured`: as `embed` runs it on two cores, random weights (`benchmarks/presets.py`).\n\n"
    return (told if measured else "") + table(headers, lines, {"name"})


def page(text: str) -> str:
    """The page with its tables written anew."""
    tables = {"choices": presets(*choices()), "presets": presets(*rows()), "licences": licences(), "costs": costs()}
    for name, made in tables.items():
        text, count = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)",
            lambda found, made=made: f"{found[1]}\n{made}\n\n{found[2]}",
            text,
            flags=re.DOTALL,
        )
        assert count == 1, name
    return text


def test_the_page_shows_the_table_of_presets() -> None:
    text = PAGE.read_text(encoding="utf-8")
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(page(text), encoding="utf-8")
        text = PAGE.read_text(encoding="utf-8")
    assert text == page(text)


def test_every_preset_has_a_line_in_both_tables_and_the_few_in_a_third() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert all(text.count(f"| `{name}`") == 2 + (name in CHOICES) for name in PRESETS)
