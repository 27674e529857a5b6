"""lookalike index: a folder, a table or a collection -> a collection that can be searched, in one step."""

from dataclasses import dataclass
from pathlib import Path

from lookalike.core.config import option
from lookalike.core.files import kind_of, read_card
from lookalike.core.journal import note


@dataclass(frozen=True)
class Config:
    """Make a searchable collection of a folder or table of images, or a collection searchable.

    Does what `lookalike prepare` and `lookalike embed` do, and notes the encoder, so that `lookalike search` needs no
    `--model`. The same command again adds what is new, marks what is gone, and embeds only what is new. New
    collections store images at the size that the model reads, and at 256 px at least.
    """

    source: str = option(positional=True, metavar="SOURCE|COLL")
    """A folder of images, a CSV or Parquet file, or a collection."""
    model: str = option(metavar="MODEL")
    """The model directory to embed with."""
    out: str = option(metavar="COLL")
    """The collection to make or to bring up to date; SOURCE itself, if that is one, to make it searchable in place."""
    exclude: tuple[str, ...] = option(default=(), metavar="PATTERN")
    """Leave out folders and files of these names or paths within SOURCE: `thumbs`, `*.png`, `2019/*/raw`."""


def main(config: Config) -> None:
    """Prepare if there is a source, embed what lacks vectors, note the encoder."""
    from lookalike.data.collection import Collection
    from lookalike.data.duplicates import note_lost
    from lookalike.data.follow import follow
    from lookalike.data.prepare import SIZE, prepare
    from lookalike.vectors.column import ensure_embeddings
    from lookalike.vectors.runtime import load

    embedder = load(config.model)  # first: it may be what is wrong
    if kind_of(config.source) != "collection":
        size = max(SIZE, embedder.config.preprocess.resize)
        options = {"size": size, **read_card(config.out).get("options", {})}
        before = read_card(config.out)
        note(prepare([config.source], config.out, **options, exclude=config.exclude).sentence(config.out))
        note_lost(before, Collection.open(config.out))
    elif Path(config.source).resolve() != Path(config.out).resolve():
        follow(Collection.open(config.source), config.out, "index")
    collection = Collection.open(config.out)
    column, new = ensure_embeddings(embedder, collection)
    entry = {"path": str(Path(config.model).absolute()), "fingerprint": embedder.fingerprint, "column": column}
    if collection.card.get("model") != entry:
        with collection.locked("index"):
            collection.update_card({"model": entry})
    note(f"`{config.out}` can be searched: {len(collection):,} images, {new:,} newly embedded")
