"""lookalike prune: let go of what is gone from the sources, and of vectors that nobody wants, with their bytes."""

from dataclasses import dataclass

from lookalike.core.config import option
from lookalike.core.journal import note, table


@dataclass(frozen=True)
class Config:
    """Let go of the images that are gone from their sources, with their bytes, and of vectors that nobody wants.

    `prepare` and `index` only mark what a source no longer has: an image that comes back is then there at once. What is
    pruned is decoded and embedded again if it comes back. Prints the columns of vectors that are left and their sizes;
    after a change of model, `--columns` takes those of the one before.

    A killed or interrupted command leaves a whole collection, and the same one goes on. While another process searches,
    the files stay; the next command that writes removes them.
    """

    collection: str = option(positional=True, metavar="COLL", default="")
    """The collection or index; the only index here, or LOOKALIKE_INDEX, unless given."""
    columns: tuple[str, ...] = option(default=(), metavar="NAME")
    """Columns of vectors to let go of, too; not the one that `search` takes."""
    dry_run: bool = False
    """Say what would go, and how many bytes; change nothing."""


def main(config: Config) -> None:
    """Prune, and print what vectors there are."""
    from lookalike.commands.indexes import index_of
    from lookalike.data.collection import Collection
    from lookalike.data.prune import prune, vectors_of

    path = config.collection or index_of("")
    collection = Collection.open(path)
    note(prune(collection, config.columns, dry_run=config.dry_run).sentence(path))
    rows = [
        [each.column, f"{each.rows:,}", f"{each.bytes / 1e6:,.1f}", "search" if each.searched else ""]
        for each in vectors_of(collection)
    ]
    if rows:
        print(table(["vectors", "rows", "MB", "used by"], rows))
