"""lookalike index: folders, tables or a collection -> an index that can be searched, in one step, and again."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lookalike.core.config import option
from lookalike.core.errors import StorageError, UsageError
from lookalike.core.files import kind_of, read_card, refuse_unless
from lookalike.core.journal import note

if TYPE_CHECKING:
    from lookalike.vectors.runtime import Embedder


@dataclass(frozen=True)
class Config:
    """Make images searchable: a folder `photos` gets the index `photos.lookalike` beside it.

    Does what `lookalike prepare` and `lookalike embed` do, and notes sources and model. The same command again, as
    well as `lookalike index INDEX`, or `lookalike index` alone where INDEX lies, adds what is new, marks what is gone,
    and embeds only what is new.

    Without a model, `laptop` of `lookalike pull --list` is downloaded once and kept in the cache. New indexes store
    images at the size that the model reads, and at 256 px at least. A collection becomes searchable in place.
    """

    sources: tuple[str, ...] = option(positional=True, metavar="SOURCE|INDEX", default=())
    """Folders of images, CSV or Parquet files and all else that `prepare` takes; or an index or a collection."""
    out: str = option(default="", metavar="INDEX")
    """The index to make or to bring up to date; SOURCE.lookalike unless given."""
    model: str = option(default="", metavar="MODEL")
    """The model to embed with: a directory, a short name of `lookalike pull --list`, or ORG/NAME on the Hub. Unless
    given, LOOKALIKE_MODEL, then what the index was made with, then `laptop`."""
    test: float | None = None
    """Share of the labels that become split `test` where the source gives no split (the others: `train`)."""
    exclude: tuple[str, ...] = option(default=(), metavar="PATTERN")
    """Leave out folders and files of these names or paths within SOURCE: `thumbs`, `*.png`, `2019/*/raw`. They stay
    left out until others are given."""
    retry_failed: bool = False
    """Try images again that could not be read before."""


_Job = tuple[tuple[str | tuple[str, str], ...], tuple[str, ...]]  # sources as `prepare` takes them, what is left out


@dataclass(frozen=True)
class _Work:
    """What is to be done for an index."""

    out: str
    jobs: "tuple[_Job, ...]" = ()
    copied: str = ""  # the collection that it follows


def main(config: Config) -> None:
    """Make the index."""
    run(config)


def run(config: Config) -> str:
    """Prepare if there are sources, embed what lacks vectors, note the encoder; where the index is."""
    from lookalike.commands.models import entry_of, model_of
    from lookalike.data.collection import Collection
    from lookalike.data.follow import follow
    from lookalike.vectors.column import ensure_embeddings
    from lookalike.vectors.runtime import load

    work = _planned(config)
    _check(work, config)  # before a model is downloaded
    model = model_of(config.model, work.out)
    if (verdict := read_card(model).get("verdict", {})).get("which") == "worse":
        note(f"`{model}`: {verdict['words'][0].lower()}{verdict['words'][1:]}")
    embedder = load(model)
    for sources, exclude in work.jobs:
        _prepare(sources, exclude, work.out, config, embedder)
    if work.copied:
        follow(Collection.open(work.copied), work.out, "index")
    collection = Collection.open(work.out)
    column, new = ensure_embeddings(embedder, collection)
    entries: dict[str, Any] = {"model": entry_of(model, work.out, embedder.fingerprint, column)}
    entries |= {"indexed": True} if work.jobs else {}
    if not entries.items() <= collection.card.items():
        with collection.locked("index"):
            collection.update_card(entries)
    note(f"`{work.out}` can be searched: {len(collection):,} images, {new:,} newly embedded")
    return work.out


def _planned(config: Config) -> _Work:
    """Which index, and what it is brought up to date with."""
    from lookalike.commands.indexes import index_for, index_here

    sources = config.sources
    out = config.out or (index_for(sources) if sources else index_here("lookalike index"))
    if not sources:
        sources = (out,)
    if len(sources) > 1 or kind_of(sources[0]) != "collection":
        known = {entry["path"]: entry for entry in read_card(out).get("sources", [])}
        return _Work(out, _grouped([(source, _left_out(config, known, source)) for source in sources]))
    (place,) = sources
    if config.out and Path(place).resolve() != Path(config.out).resolve():
        work = _Work(config.out, copied=place)
    else:
        work = _Work(place, _again(place, config))
    if not work.jobs and (config.exclude or config.test is not None or config.retry_failed):
        raise UsageError(
            f"`--test`, `--exclude` and `--retry-failed` are for sources, and `{place}` is a collection.",
            hint="give them to `lookalike prepare`, which made it",
        )
    return work


def _left_out(config: Config, known: dict[str, Any], source: str) -> tuple[str, ...]:
    from lookalike.data.sources import kept

    return config.exclude or tuple(known.get(kept(source), {}).get("exclude", ()))


def _again(index: str, config: Config) -> Any:
    """The sources that the card of an index knows and that are still there; none of what `prepare` made."""
    from lookalike.data.sources.datasets import DATASETS
    from lookalike.data.sources.store import is_remote

    card, found = read_card(index), list[Any]()
    for entry in card.get("sources", []) if card.get("indexed") else []:
        path = entry["path"]
        if not is_remote(path) and not Path(path).exists():
            note(
                f"`{path}` is not there now; its images stay as they are. "
                f"`lookalike index NEW_PLACE --out {shlex.quote(index)}` says where it is"
            )
            continue
        source = (entry["layout"], path) if entry["layout"] in DATASETS else path
        found.append((source, config.exclude or tuple(entry.get("exclude", ()))))
    return _grouped(found)


def _grouped(sources: list[Any]) -> Any:
    """Sources of which the same is left out, together."""
    groups: dict[tuple[str, ...], list[Any]] = {}
    for source, exclude in sources:
        groups.setdefault(exclude, []).append(source)
    return tuple((tuple(some), exclude) for exclude, some in groups.items())


def _check(work: _Work, config: Config) -> None:
    """Refuse what can't become an index: no such source, another thing in its place, a folder that is read-only."""
    from lookalike.data.sources import layout_of
    from lookalike.data.sources.store import is_remote

    for sources, _ in work.jobs:
        for source in sources:
            if isinstance(source, str) and not is_remote(source):
                layout_of(source)
    if refuse_unless(work.out, ("missing", "empty", "collection"), "index") != "missing":
        return
    folder = Path(work.out).absolute().parent
    if not config.out and folder.is_dir() and not os.access(folder, os.W_OK):
        raise StorageError(
            f"`{folder}` can't be written to, so that no index is made beside the images.",
            hint=f"lookalike index {shlex.join(config.sources)} --out ~/{shlex.quote(Path(work.out).name)}",
        )


def _prepare(sources: Any, exclude: tuple[str, ...], out: str, config: Config, embedder: "Embedder") -> None:
    from lookalike.data.collection import Collection
    from lookalike.data.duplicates import note_lost
    from lookalike.data.prepare import SIZE, prepare

    before = read_card(out)
    options = {"size": max(SIZE, embedder.config.preprocess.resize), **before.get("options", {})}
    options |= {"retry_failed": config.retry_failed} | ({} if config.test is None else {"test": config.test})
    note(prepare(sources, out, **options, exclude=exclude).sentence(out))
    note_lost(before, Collection.open(out))
