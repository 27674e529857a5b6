"""Which model a command takes: the one that is named, that the index notes, or the default; downloaded if it must be.

    --model, else LOOKALIKE_MODEL    a model directory; a short name of `pull --list` or ORG/NAME, kept in the cache
    else the index's card            the encoder of its vectors, wherever it now lies: it is known by its fingerprint
    else DEFAULT                     which the first use downloads

The cache is `models/` in LOOKALIKE_HOME, or in ~/.cache/lookalike (`core.files.user_cache`).
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lookalike.core.errors import CollectionError, EncoderError, StorageError, UsageError
from lookalike.core.files import kind_of, read_card, read_json, user_cache
from lookalike.core.journal import note

DEFAULT = "laptop"
VARIABLE = "LOOKALIKE_MODEL"


def model_of(asked: str, index: str | Path | None = None) -> str:
    """The directory of the model to take, `asked` being what `--model` says; see the module.

    EncoderError if there is none, or it can't be downloaded; StorageError if it can't be kept; CollectionError if the
    one that `index` notes is no longer there.
    """
    if named := asked or os.environ.get(VARIABLE):
        return named_model(named)
    noted = read_card(index).get("model") if index is not None else None
    return _noted(str(index), noted) if noted else named_model(DEFAULT)


def only_model(given: Sequence[str], asked: str, usage: str) -> str:
    """The model that is named, before the other arguments or by `--model`; "" if none is, UsageError if several are."""
    named = [*given, *filter(None, [asked])]
    if len(named) > 1:
        raise UsageError(f"One model is taken, and {len(named)} are named: {', '.join(named)}.", hint=usage)
    return "".join(named)


def named_model(named: str) -> str:
    """The directory of a model by its path, its short name, or ORG/NAME on the Hub; downloaded on first use."""
    path = Path(named)
    if path.exists() or (len(path.parts) > 1 and path.parent.is_dir()):  # whoever reads it says what is wrong with it
        return named
    from lookalike.published.presets import preset_of

    preset = preset_of(named)
    kept = _cache() / (preset[0] if preset else named.replace("/", "--"))
    if kind_of(kept) != "encoder":
        _download(named, kept)
    return str(kept)


def entry_of(model: str, index: str | Path, fingerprint: str, column: str) -> dict[str, str]:
    """What the card of an index notes of the model of its vectors, so that it is found again after a move."""
    path = Path(model).absolute()
    with suppress(StorageError):  # a user without a home has no cache
        if path.parent == _cache().absolute():
            return _entry(path, path.name.replace("--", "/"), index, fingerprint, column)
    return _entry(path, str(read_card(path).get("name") or path.name), index, fingerprint, column)


def _entry(path: Path, name: str, index: str | Path, fingerprint: str, column: str) -> dict[str, str]:
    near = os.path.relpath(path, Path(index).absolute())
    return {"path": str(path), "near": near, "name": name, "fingerprint": fingerprint, "column": column}


def _noted(index: str, noted: dict[str, Any]) -> str:
    """Where the model that an index notes lies now."""
    for place in _places(index, noted):
        if kind_of(place) == "encoder" and _is_that(place, noted["fingerprint"]):
            return str(place)
    if Path(noted["path"]).exists():
        return str(noted["path"])  # another by now, as whoever loads it says
    if _is_published(name := str(noted.get("name", ""))):
        return named_model(name)
    raise CollectionError(
        f"`{index}` was indexed with the encoder `{noted['path']}`, which is no longer there, nor beside the index.",
        hint="`--model MODEL` says where it is now",
    )


def untouched_of(model: str, index: str | Path) -> tuple[str, str | None] | None:
    """The name of the encoder that a trained one began with, and where that lies now, None if nowhere near.

    None for an encoder that was not trained here. It is known by its fingerprint: where the run says it was, beside
    the run, beside the index, in the cache.
    """
    began = read_card(model).get("began_from")
    if not isinstance(began, dict) or not began.get("fingerprint"):
        return None
    run = Path(model).absolute().parent
    noted: dict[str, Any] = {"path": _asked_for(run) or model, "fingerprint": began["fingerprint"]}
    places = (*_places(str(index), noted), *(run.parent.iterdir() if run.parent.is_dir() else ()))
    found = (str(place) for place in places if kind_of(place) == "encoder" and _is_that(place, began["fingerprint"]))
    return str(began.get("name") or "the encoder that it began with"), next(found, None)


def _is_that(place: Path, fingerprint: str) -> bool:
    return bool(read_card(place).get("fingerprint") == fingerprint)


def _asked_for(run: Path) -> str:
    """Which model a run began with, as its config has it."""
    config = read_json(run / "config.json") if (run / "config.json").is_file() else {}
    return str(config.get("model") or "") if isinstance(config, dict) else ""


def _places(index: str, noted: dict[str, Any]) -> Iterator[Path]:
    """Where the model may lie: where it was, at the same way from the index, beside it, in the cache."""
    yield Path(noted["path"])
    yield Path(os.path.normpath(Path(index).absolute() / noted.get("near", "")))
    folders = [Path(index).absolute().parent]
    with suppress(StorageError):
        folders.append(_cache())
    for folder in folders:
        yield from sorted(folder.iterdir()) if folder.is_dir() else ()


def _is_published(name: str) -> bool:
    from lookalike.published.presets import preset_of

    return preset_of(name) is not None or "/" in name


def _cache() -> Path:
    try:
        return user_cache() / "models"
    except FileNotFoundError as error:
        raise StorageError(
            f"There is no place to keep models in: {error}.", hint="--model DIR, or LOOKALIKE_HOME=DIR"
        ) from error


def _download(named: str, kept: Path) -> None:
    """Pull a published model into the cache, once its size and licence are said, and agreed to at a terminal."""
    from lookalike.commands.pull import Config, pull

    try:
        pull(Config(named, str(kept)), lambda: _agree(named, kept))
    except (EncoderError, StorageError) as error:
        if kind_of(kept) == "encoder":  # another process has just put it there
            return
        more = "; LOOKALIKE_HOME and HF_HOME say where models are kept" if isinstance(error, StorageError) else ""
        error.hint += f"{more}; or `--model DIR` takes a model directory on this disk"
        raise


def _agree(named: str, kept: Path) -> None:
    """Go on, if nobody is there to be asked."""
    note(f"`{named}` is kept in `{kept}`, and taken from there from now on")
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    print("download it? [Y/n] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer or answer.strip().lower() not in ("", "y", "yes"):
        raise UsageError("No model was downloaded.", hint="`--model DIR` takes one that is on this disk")
