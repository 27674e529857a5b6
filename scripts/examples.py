"""A hook of the documentation site (mkdocs.yml): examples in docstrings, `>>> ...` up to a blank line, are code.

Markdown takes `>>>` for a quotation in a quotation in a quotation, and `['label']` behind it for a link.
"""

from typing import Any

from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor


class _Fences(Preprocessor):
    def run(self, lines: list[str]) -> list[str]:
        """The lines with a fence around each example."""
        made, inside, fenced = [], False, False
        for line in [*lines, ""]:
            fenced ^= line.lstrip().startswith("```")  # pages have fences of their own
            if not inside and not fenced and line.startswith(">>> "):
                made.append("```pycon")
                inside = True
            if inside and not line.strip():
                made.append("```")
                inside = False
            made.append(line)
        return made[:-1]


class _Examples(Extension):
    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802  the name is Markdown's
        """Before fences are read (25), behind the normalisation of blanks (30)."""
        md.preprocessors.register(_Fences(md), "examples", 27)


def on_config(config: Any) -> Any:
    """Called by mkdocs."""
    config["markdown_extensions"].append(_Examples())
    return config
