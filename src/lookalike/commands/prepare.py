"""lookalike prepare: images of any source -> a collection."""

from dataclasses import dataclass

from lookalike.core.config import option
from lookalike.core.journal import note


@dataclass(frozen=True)
class Config:
    """Make a collection of images, or bring one up to date.

    SOURCE is a folder, or a CSV or Parquet file.

    In a folder the path says all: FOLDER/label/image, or FOLDER/domain/label/image; deeper folders belong to the
    label. An image right in FOLDER has no label. Where the path gives no domain, it is FOLDER's name. Left out are
    names that begin with a dot, files that are not images, what systems keep there (thumbnails, trash), and links that
    lead in a circle.

    A table has a column `path`, relative to the file or a member of the .tar of the same name beside it. It may have
    label, domain, split (train, val, test), is_query, is_gallery and group; further columns are kept to filter by.

    The same command again goes on where it stopped, adds what is new, marks what is gone, and decodes nothing twice.
    An image that can't be read becomes a row of the errors table. Images are called NAME/PATH, NAME being the
    source's name without its suffix.
    """

    sources: tuple[str, ...] = option(positional=True, metavar="SOURCE")
    """Folders, CSV or Parquet files."""
    out: str = option(metavar="COLL")
    """The collection to make or to bring up to date."""
    size: int = 256
    """Shorter side of a stored image, in pixels; smaller ones stay as they are."""
    limit: int | None = None
    """Take only the first so many images."""
    test: float = 0.0
    """Share of the labels that become split `test` where the source gives no split (the others: `train`)."""
    workers: int = 0
    """Processes that decode; 0: one a core."""
    exclude: tuple[str, ...] = option(default=(), metavar="PATTERN")
    """Leave out folders and files of these names or paths within SOURCE: `thumbs`, `*.png`, `2019/*/raw`."""


def main(config: Config) -> None:
    """Prepare, and print what the collection holds."""
    from lookalike.data.prepare import prepare

    options = {name: getattr(config, name) for name in ("size", "limit", "test", "workers", "exclude")}
    report = prepare(config.sources, config.out, **options)
    print(report.table())
    note(report.sentence(config.out))
