"""likeness prepare: pictures of any source -> a collection."""

from dataclasses import dataclass

from likeness.core.config import option


@dataclass(frozen=True)
class Config:
    """Make a collection of pictures, or bring one up to date.

    SOURCE is a folder of pictures (picture, label/picture or domain/label/picture), or a CSV or Parquet file with a
    column `path` (and label, domain, split, is_query, is_gallery, group, and any more), its pictures beside it or in
    the .tar of the same name. The same command again goes on where it stopped, adds what is new and marks what is
    gone. Pictures that can't be read are listed in the collection's errors table.
    """

    sources: tuple[str, ...] = option(positional=True, metavar="SOURCE")
    """Folders, CSV or Parquet files."""
    out: str = option(metavar="COLL")
    """The collection to make or to bring up to date."""
    size: int = 256
    """Shorter side of a stored picture, in pixels; smaller ones stay as they are."""
    limit: int | None = None
    """Take only the first so many pictures."""
    test: float = 0.0
    """Share of the labels that become split `test` where the source gives no split (the others: `train`)."""
    workers: int = 0
    """Processes that decode; 0: one a core."""


def main(config: Config) -> None:
    """Prepare, and print what the collection holds."""
    from likeness.core.journal import note
    from likeness.data.prepare import prepare

    report = prepare(
        config.sources, config.out, size=config.size, limit=config.limit, test=config.test, workers=config.workers
    )
    print(report.table())
    note(report.sentence(config.out))
