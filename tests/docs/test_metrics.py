"""The examples of the page of metrics, run as they stand there."""

import doctest
import re
from pathlib import Path

from lookalike.evaluation.metrics import NAMES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "metrics.md"


def test_every_example_gives_what_it_says():
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "metrics.md", str(PAGE), 0)
    assert len(test.examples) >= 15
    runner = doctest.DocTestRunner()
    runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_every_metric_has_its_place_with_formula_and_example():
    text = PAGE.read_text(encoding="utf-8")
    for name in NAMES:
        section = text.split(f"\n### {name}")[1].split("\n### ")[0]
        assert "```text" in section, name
        assert f'value("{name.removesuffix("K")}' in section, name
