"""Conditions in SQL over the columns of a collection: what Lance lets pass and nobody means, and its errors."""

import re

from lookalike.core.errors import CollectionError


def check_brackets(where: str) -> None:
    """ValueError if a bracket closes that never opened: Lance stops reading there, and our own would match it."""
    depth = 0
    for character in re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`", "", where):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth < 0:
            raise ValueError("a bracket closes that was not opened")


def condition_error(where: str | None, columns: list[str], error: ValueError) -> CollectionError:
    """What is wrong with a condition, from Lance's `error`, and which `columns` it may speak of."""
    # Lance puts its own stages before the reason, and the place in its own sources and its own columns behind it.
    reason = str(error).split(", /")[0].split(" Valid fields are")[0].rstrip(".")
    reason = reason.removeprefix("Invalid user input: ").rpartition("Arrow error: ")[2]
    names = ", ".join(name for name in columns if name != "image")
    return CollectionError(
        f"The condition `{where}` can't be understood: {reason}.",
        hint=f"it is SQL over the columns {names}; texts stand in single quotes",
    )
