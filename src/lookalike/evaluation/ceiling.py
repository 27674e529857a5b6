"""How much memory a measurement needs, from the sizes that its parts hold; said before it starts."""

from dataclasses import dataclass

from lookalike.core.errors import UsageError
from lookalike.core.journal import note
from lookalike.core.machine import available_memory
from lookalike.evaluation.trials import HELD, REACH
from lookalike.retrieval.exact import working_memory

BASE = 400 * 2**20  # the interpreter, Arrow, Lance and what they read ahead
JAX = 2**30  # JAX itself, its programs, and the scores of a few pieces
DESCRIPTION = 480  # bytes a row while labels, domains and groups are lists of texts, and numbers afterwards
LISTED = 56  # bytes a number in lists of matches: rows, scores, what is left out, and their merging
LARGE = 2**30  # from which on it is said
WORK = 10**12  # multiplications, the same


@dataclass(frozen=True)
class Ceiling:
    """The largest memory of a measurement, in bytes."""

    rows: int  # of the collection, and distractors
    queries: int
    gallery: int
    width: int
    depth: int  # matches of a query that are looked at
    size: int = 4  # bytes of a number as it comes
    by_jax: bool = False  # the gallery goes to devices, which may be this machine's memory

    @property
    def bytes(self) -> int:
        """All of it together."""
        row = 4 * self.width
        # As they come; at unit length; then the queries and the gallery, each a copy unless it is all rows.
        copies = sum(count for count in (self.queries, self.gallery) if count < self.rows)
        vectors = self.rows * self.width * self.size + (self.rows + copies) * row
        held = max(HELD, self.depth) * LISTED
        by_jax = JAX + self.gallery * row if self.by_jax else 0
        return BASE + by_jax + vectors + self.rows * DESCRIPTION + held + working_memory(self.width, self.depth)

    @property
    def words(self) -> str:
        """What is measured."""
        numbers = f" of {self.width:,} numbers" if self.width > 1 else ""
        return f"{self.queries:,} queries in {self.gallery:,} images{numbers}"

    def check(self) -> None:
        """UsageError if this machine has less."""
        there = available_memory()
        if there is not None and self.bytes > there:
            raise UsageError(
                f"Measuring {self.words} needs up to {self.bytes / 2**30:.1f} GiB of memory, and "
                f"{there / 2**30:.1f} GiB are free.",
                hint="vectors of fewer numbers, `--split` or `--gallery` take less; so does a machine with more memory",
            )

    def tell(self) -> None:
        """Say it, if it is much; UsageError if this machine has less."""
        self.check()
        if self.bytes >= LARGE or self.queries * self.gallery * self.width >= WORK:
            note(f"measuring {self.words}: at most {self.bytes / 2**30:.1f} GiB of memory")


def depth_of(depths: "list[int | None]", relevant: int) -> int:
    """How many matches of a query are looked at by metrics of these depths, where one has `relevant` of them."""
    return max([REACH + 1, *(relevant if depth is None else depth for depth in depths)])
