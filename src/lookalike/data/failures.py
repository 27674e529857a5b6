"""Why images can't be read, in classes, each with what mends it."""

import re
from collections import Counter
from collections.abc import Iterable

_KINDS: tuple[tuple[str, str, str], ...] = (
    ("empty", r"The file is empty", "download these again: nothing was written"),
    (
        "cut off",
        r"ends after|ends? early|truncated|damaged|torn|what was packed",
        "download these again, and compare their sizes",
    ),
    ("can't be opened", r"can't be read:", "`ls -l` says who may read them; then the same command again"),
    (
        "needs a library",
        r"lookalike\[formats\]",
        "`pip install 'lookalike[formats]'`, then the same command with `--retry-failed`",
    ),
    (
        "another kind",
        r"is not read|known format",
        "convert them to JPEG or PNG, or `--exclude` them",
    ),
    ("too large", r"too large|larger than", "make them smaller, or `--exclude` them"),
    ("no memory", r"memory", "give fewer `--workers`, then `--retry-failed`"),
    ("no pixels", r"no pixels|no page|holds no image|can't be\.", "leave them out with `--exclude`"),
)
OTHER = ("other", "`lookalike info COLL --json` has each reason; `--retry-failed` tries again")


def is_passing(reason: str) -> bool:
    """Whether it is about the disk and not about the image, so that each call tries it again. A file that may not be
    read is told by its stamp, and tried when it may.
    """
    return kind_of(reason)[0] == "can't be opened" and "Permission denied" not in reason


def kind_of(reason: str) -> tuple[str, str]:
    """The class of a reason in the errors table, and what to do about it."""
    return next(((name, hint) for name, pattern, hint in _KINDS if re.search(pattern, reason)), OTHER)


def by_kind(reasons: Iterable[str]) -> list[tuple[str, int, str]]:
    """Classes, how many images each has, and what to do; the largest first."""
    found = Counter(kind_of(reason) for reason in reasons)
    return [(name, count, hint) for (name, hint), count in sorted(found.items(), key=lambda item: (-item[1], item[0]))]
