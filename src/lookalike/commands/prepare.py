"""lookalike prepare: images of any source -> a collection."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lookalike.core.config import in_range, option
from lookalike.core.errors import EncoderError, SourceError, UsageError
from lookalike.core.files import locked, read_card
from lookalike.core.journal import note, table

if TYPE_CHECKING:
    from lookalike.data.card import Report
    from lookalike.vectors.runtime import Embedder


@dataclass(frozen=True)
class Config:
    """Make a collection of images, or bring one up to date.

    SOURCE is a folder, a CSV, TSV, Parquet or JSON lines file, a WebDataset tar or a folder of them, a data set of
    Hugging Face's Hub (Parquet files with the images in them, or what `save_to_disk` wrote), or with `--from` the name
    of a public data set, whose files lie there as they are published: `lookalike prepare sop --from DIR --out COLL`.
    `--list` shows the names. All but what `save_to_disk` wrote may lie in an object store: s3://BUCKET/PATH,
    gs://BUCKET/PATH.

    In a folder the path says all: FOLDER/label/image, or FOLDER/domain/label/image; deeper folders belong to the
    label. An image right in FOLDER has no label. Where the path gives no domain, it is FOLDER's name. Left out are
    names that begin with a dot, files that are not images, what systems keep there (thumbnails, trash), and links that
    lead in a circle.

    A table has a column `path`, or `file_name`, relative to the file or a member of the .tar of the same name beside
    it. It may have label, domain, split (train, val, test), is_query, is_gallery and group; further columns are kept
    to filter by.

    In a folder with metadata.csv, .jsonl or .parquet, or with one in its folders train, validation and test, that is
    the table. In a tar file the label of 0001.jpg stands in 0001.cls, or in 0001.json as `label` or `class`.

    A Parquet file, or a folder of them, may hold the images themselves, in a column of bytes, or of bytes and a path.
    The label is the column `label`, else the only column of classes; the split is what the file is called, such as
    train-00000-of-00003.parquet. Images are called by file and row.

    Images are JPEG, PNG, WebP, GIF, AVIF, TIFF, BMP, PPM, and with `pip install 'lookalike[formats]'` HEIC, JPEG XL
    and RAW.

    With - for SOURCE, standard input names the images, one a line or with zero bytes between them:
    `find photos -name "*.jpg" -print0 | lookalike prepare - --out COLL`. They are called and labelled as in the
    innermost folder that holds them all, and images of it that the list does not name any more are marked as gone.

    The same command again goes on where it stopped, adds what is new, marks what is gone, and decodes nothing twice.
    An image that can't be read becomes a row of the errors table. Images are called NAME/PATH, NAME being the
    source's name without its suffix.
    """

    sources: tuple[str, ...] = option(positional=True, metavar="SOURCE", default=())
    """Folders, files, or names of data sets; - is a list of files on standard input."""
    out: str = option(metavar="COLL", default="")
    """The collection to make or to bring up to date."""
    from_: tuple[str, ...] = option(default=(), metavar="PLACE")
    """Folders or archives of the data sets that are named, one each, in their order."""
    check: bool = False
    """Say what of a data set is missing there, what differs from what is published and what is in no list, and compare
    its archives with the published checksums, where these are known; make nothing. The exit code is 1 if an image is
    missing or a checksum is wrong."""
    list_: bool = False
    """Show the data sets that are known, what they are and what they forbid."""
    size: int = 256
    """Shorter side of a stored image, in pixels; smaller ones stay as they are: all do, if it is large enough."""
    quality: int = 90
    """Quality of what is encoded anew as JPEG, 1 to 95."""
    limit: int | None = None
    """Take only the first so many images."""
    test: float = 0.0
    """Share of the labels that become split `test` where the source gives no split (the others: `train`); labels that
    share a `group` stay together."""
    merge_labels: str = option(metavar="FILE", default="")
    """Give classes another label: a CSV with columns domain, label, into. Two that get the same one are one class."""
    workers: int = 0
    """Processes that decode; 0: one a core."""
    exclude: tuple[str, ...] = option(default=(), metavar="PATTERN")
    """Leave out folders and files of these names or paths within SOURCE: `thumbs`, `*.png`, `2019/*/raw`."""
    preset: str = ""
    """Take of the named data sets what a known mixture takes: seed, unifex, uned. `--test` is then a share of its
    classes, whatever split the data sets give."""
    max_per_class: int | None = None
    """Take at most so many images of a class; those of split `test` and `val` are all taken."""
    min_per_class: int = 1
    """Leave out classes that have fewer images to learn from."""
    max_classes: int | None = None
    """Take the classes that have the most images, so many of each source."""
    commercial: bool = False
    """Leave out images whose licence forbids commercial use or is not known, and say how many. Images of a source that
    says nothing of licences count as yours."""
    model: str = option(default="", metavar="MODEL")
    """Embed the images with this model too (a directory, a short name of `lookalike pull --list`, ORG/NAME on the Hub),
    and mark those that are nearly the same by their embeddings, as cropped and mirrored copies are. How alike that is,
    copies of some of the images decide."""
    retry_failed: bool = False
    """Try images again that could not be read before."""
    max_error_rate: float = 1.0
    """Stop when a larger share of the images than this can't be read."""

    def __post_init__(self) -> None:
        in_range(self, 1.0, math.inf, "max_per_class", "min_per_class", "max_classes")


def main(config: Config) -> None:
    """Prepare, and print what the collection holds."""
    if config.list_:
        _list()
    elif config.check and config.sources:
        _check(_named(config))
    else:
        run(config, print)


def run(config: Config, tell: Callable[[str], None] | None = None) -> "Report":
    """Prepare; `tell` gets the table of what the collection holds before its images are embedded."""
    for missing in [name for name, given in (("SOURCE...", config.sources), ("--out", config.out)) if not given]:
        raise UsageError(f"Missing: `{missing}`.", hint="`lookalike prepare --help` lists the options")
    named = _named(config)
    from lookalike.data.collection import Collection
    from lookalike.data.duplicates import note_lost
    from lookalike.data.prepare import prepare
    from lookalike.data.sources.selection import Selection

    names = (
        "size",
        "limit",
        "test",
        "workers",
        "exclude",
        "preset",
        "quality",
        "retry_failed",
        "max_error_rate",
        "merge_labels",
    )
    options = {name: getattr(config, name) for name in names}
    chosen = {name: getattr(config, name) for name in ("max_per_class", "min_per_class", "max_classes", "commercial")}
    embedder = _loaded(config.model)  # first: it may be what is wrong
    before = read_card(config.out)
    report = prepare(named, config.out, selection=Selection(**chosen), **options)
    if tell:
        tell(report.table())
    note(report.sentence(config.out))
    if embedder is None:
        note_lost(before, Collection.open(config.out))
    elif report.rows:
        _mark(embedder, config)
    return report


def _loaded(model: str) -> "Embedder | None":
    from lookalike.commands.models import named_model
    from lookalike.vectors.runtime import load

    return load(named_model(model)) if model else None


def _mark(embedder: "Embedder", config: Config) -> None:
    """Embed what lacks vectors, and mark what is nearly the same by them, unless these very images are marked so."""
    import numpy as np

    from lookalike.commands.models import named_model
    from lookalike.data.apart import read_apart, rows_apart
    from lookalike.data.collection import Collection
    from lookalike.data.duplicates import SEEN, Alike, Close, mark
    from lookalike.retrieval.alike import first_alike, like_any
    from lookalike.vectors.column import ensure_embeddings, read_embeddings
    from lookalike.vectors.copies import bar_of

    collection = Collection.open(config.out)
    column = ensure_embeddings(embedder, collection).column
    encoder = {"fingerprint": embedder.fingerprint, "column": column}
    duplicates = collection.card["duplicates"]
    if duplicates["of"] == collection.fingerprint and encoder.items() <= duplicates.get("embedding", {}).items():
        return
    with locked(config.out, "prepare"):
        collection = Collection.open(config.out)  # another process may have changed it meanwhile
        ids, vectors = read_embeddings(embedder, collection, column)
        if len(bad := np.flatnonzero(~np.isfinite(vectors).all(axis=1))):
            raise EncoderError(
                f"`{config.model}` gives embeddings that are not finite: {len(bad):,} of {len(ids):,}, first of row "
                f"{ids[bad[0]]} of `{config.out}`.",
                hint="give another `--model`",
            )
        rows = collection.table([*SEEN.names, "split", "sha256"])
        alone = Alike.of(rows).first(len(rows)) < 0
        bar = bar_of(embedder, collection, ids[alone], vectors[alone])
        first, learned_too = np.full(len(rows), -1), np.zeros(len(rows), bool)
        if bar.cosine is not None:
            first = first_alike(vectors, bar.cosine, rows_apart(rows["sha256"], read_apart(config.out)))
            learned = rows["split"].to_numpy(zero_copy_only=False) == "train"
            learned_too[~learned] = like_any(vectors[~learned], vectors[learned], bar.cosine)
        told = {**bar._asdict(), "model": str(Path(named_model(config.model)).absolute()), **encoder}
        marked = mark(collection, Close(first, learned_too, told))
        collection.update_card({"duplicates": marked})
    note(
        f"`{config.model}` can't tell copies of these images (cosine {bar.copies:.3f}) from other images "
        f"({bar.others:.3f}): nothing is marked by its embeddings"
        if bar.cosine is None
        else f"{marked['embedding']['images']:,} images are nearly the same as an earlier one by their embeddings "
        f"(cosine {bar.cosine:.3f} or more) and not by their looks"
    )


def _named(config: Config) -> "list[str | tuple[str, str]]":
    """The sources, each data set with its place; UsageError if they are not as many."""
    from lookalike.data.sources.dataset import dataset_of

    if not config.from_:
        return list(config.sources)
    for name in config.sources:
        dataset_of(name)
    if len(config.from_) != len(config.sources):
        raise UsageError(
            f"{len(config.sources)} data sets are named, and `--from` gives {len(config.from_)} places.",
            hint="give a place for each, in the same order: `lookalike prepare sop cars196 --from DIR1 DIR2`",
        )
    return list(zip(config.sources, config.from_, strict=True))


def _check(named: "list[str | tuple[str, str]]") -> None:
    from lookalike.data.sources.checksums import compare, told
    from lookalike.data.sources.dataset import check, dataset_of

    whole = True
    for source in named:
        if isinstance(source, str):
            raise UsageError(
                "`--check` is for data sets, and there is no `--from`.", hint="lookalike prepare sop --from DIR --check"
            )
        name, place = source
        if compared := compare(dataset_of(name).checksums, place):
            print(told(compared), end="\n\n")
        if is_wrong := any(one.is_wrong for one in compared):
            note("a file with a wrong checksum is damaged, or of another edition: download it again")
        try:
            found = check(name, place)
        except SourceError as error:
            if not is_wrong:
                raise
            note(f"{error.message} {error.hint}")  # a wrong file explains it
        else:
            print(found.text)
            whole = whole and found.whole
        whole = whole and not is_wrong
    if not whole:
        raise SystemExit(1)


def _list() -> None:
    from lookalike.data.sources.dataset import dataset_of
    from lookalike.data.sources.datasets import DATASETS

    sets = [dataset_of(name) for name in sorted(DATASETS)]
    print(
        table(
            ["name", "what", "size", "licence", "forbids"],
            [[s.name, s.what, s.size, s.licence, s.forbids] for s in sets],
        )
    )
