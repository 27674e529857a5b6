"""Published models from the Hugging Face Hub: only safetensors and JSON are fetched, and nothing there is ever run.

`look` asks what a repository holds and gets its configs (a few kilobytes), so that size and licence can be said, and
what can't be read refused, before `fetch` gets the tensors. The files lie in the Hub's own cache; `HF_HOME`,
`HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` mean what they mean everywhere.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lookalike.core.errors import EncoderError
from lookalike.core.files import storage_errors
from lookalike.encoders.pickles import is_pickle, pickles_only
from lookalike.published.blobs import Published, check, fetch_blob, silent
from lookalike.published.layout import Layout
from lookalike.published.layouts import matching
from lookalike.published.stored import shard_names

_CONFIGS = (
    "config.json",
    "card.json",
    "open_clip_config.json",
    "preprocessor_config.json",
    "processor_config.json",
)
_CARD = "README.md"
_INDEX = ".index.json"
_TOKEN = "`hf auth login`, or set HF_TOKEN"
_PATIENCE = 30
"""Seconds that the Hub may take to say what a repository holds."""

_TEXTS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)
"""What a text side may need; tens of megabytes in some models."""


@dataclass(frozen=True)
class Remote:
    """A model on the Hub, its configs fetched, its tensors not yet."""

    repository: str
    commit: str | None
    """None: the Hub can't be reached, and the cache holds all that is needed."""
    license: str | None
    """As the model's card names it."""
    configs: Path
    """The directory that holds them, and will hold the rest."""
    files: Mapping[str, Published]
    """What is wanted, by name."""

    @property
    def size(self) -> int:
        """Bytes of all that is wanted."""
        return sum(file.size for file in self.files.values())


def look(repository: str, revision: str | None = None) -> Remote:
    """What `ORG/NAME` holds at `revision` (a branch, a tag or a commit; None: the main branch).

    Raises:
        EncoderError: There is no such model or revision, it may not be read, it is in no layout that is known, it
            holds only pickles, or there is neither a connection nor a copy in the cache.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError  # type: ignore[attr-defined]

    with _hub_errors(repository, revision):
        try:
            info = HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=_PATIENCE)
        except (HfHubHTTPError, HFValidationError):
            raise
        except (OSError, HTTPError) as error:  # no connection, or none wanted
            return _cached(repository, revision, error)
        there = {file.rfilename: Published.of(file) for file in info.siblings or []}
        small = [name for name in (*_CONFIGS, _CARD) if name in there]
        path = _snapshot(repository, revision, small) if small else Path()
        tensors = [_tensors(repository, matching(path) if small else [], there)]
        if tensors[0].endswith(_INDEX):
            _snapshot(repository, info.sha, tensors)
            tensors += _shards(repository, path / tensors[0], there)
    texts = [name for name in _TEXTS if name in there]
    files = {name: there[name] for name in [*small, *texts, *tensors]}
    return Remote(repository, info.sha, _license(info.card_data), path, files)


def fetch(remote: Remote) -> Path:
    """The directory that holds all files of `remote`, each checked against the digest that the Hub publishes.

    Large files go on where an earlier call was interrupted.

    Raises:
        EncoderError: The connection broke, or a file arrived damaged (and was removed).
    """
    if remote.commit is None:
        return remote.configs
    with _hub_errors(remote.repository, remote.commit):
        for name, file in remote.files.items():
            if file.sha256 is not None:
                fetch_blob(remote.repository, name, remote.commit, file)
        path = _snapshot(remote.repository, remote.commit, list(remote.files))
    for name, file in remote.files.items():
        check(remote.repository, path / name, file)
    return path


@contextmanager
def _hub_errors(repository: str, revision: str | None = None) -> Iterator[None]:
    """Turn what the Hub and the connection refuse inside the block into one sentence each."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page = f"{constants.ENDPOINT}/{repository}"
    try:
        with _quiet():
            yield
    except GatedRepoError as error:
        raise EncoderError(
            f"`{repository}` is given only to those who accepted its licence.",
            hint=f"accept it on {page}, then {_TOKEN}, and give the same command again",
        ) from error
    except RevisionNotFoundError as error:
        raise EncoderError(
            f"`{repository}` has no revision `{revision}`.", hint=f"{page}/commits/main lists them"
        ) from error
    except RepositoryNotFoundError as error:
        raise EncoderError(
            f"There is no model `{repository}` on the Hub, or it may not be seen without a token.",
            hint=f"look at {page}; if it is private: {_TOKEN}",
        ) from error
    except LocalEntryNotFoundError as error:
        raise _missing(repository, "config.json") from error
    except HfHubHTTPError as error:
        raise _refused(repository, error.response.status_code, error.response.headers) from error
    except HFValidationError as error:
        raise EncoderError(f"`{repository}` is no name of a model on the Hub.", hint="it is ORG/NAME") from error
    except json.JSONDecodeError as error:
        raise EncoderError(
            f"`{constants.ENDPOINT}` does not answer as a Hub does.", hint="unset HF_ENDPOINT, or mend it"
        ) from error
    except (HTTPError, OSError) as error:
        if getattr(error, "errno", None) is not None:  # the disk's
            raise
        raise EncoderError(  # an OSError without a number: fewer bytes came than were promised
            f"The connection broke while getting `{repository}`: {(str(error) or 'no reason given').splitlines()[0]}.",
            hint="give the same command again: it goes on where it stopped",
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's words on each try: what comes of it is said once."""
    from huggingface_hub import logging

    before = logging.get_verbosity()
    logging.set_verbosity(50)  # critical
    try:
        yield
    finally:
        logging.set_verbosity(before)


def license_of(directory: Path) -> str | None:
    """What the model card `README.md` in a directory names; None if there is none, or none that can be read."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError  # type: ignore[import-untyped]

    file = directory / _CARD
    if not file.exists():
        return None
    try:
        return _license(ModelCard(file.read_text(encoding="utf-8")).data)
    except (YAMLError, ValueError):  # a card is for people, and the tensors are good without it
        return None


def _license(card: Any) -> str | None:
    """What the model's card says; "other" stands for a name of its own."""
    named = getattr(card, "license", None)
    if named == "other":
        named = getattr(card, "license_name", None) or named
    return ", ".join(named) if isinstance(named, list) else named


def _snapshot(repository: str, revision: str | None, names: list[str]) -> Path:
    """The directory of the cache that holds these files of a revision; those that are missing are fetched."""
    from huggingface_hub import constants, snapshot_download

    with storage_errors(constants.HF_HUB_CACHE):
        return Path(snapshot_download(repository, revision=revision, allow_patterns=names, tqdm_class=silent()))


def _refused(repository: str, status: int, headers: Mapping[str, str]) -> EncoderError:
    """What an answer that is no success means."""
    if status == 429:
        wait = headers.get("Retry-After")
        return EncoderError(
            f"The Hub has had too many requests from here and refuses `{repository}` for now (429).",
            hint=f"wait {f'{wait} seconds' if wait else 'some minutes'}, then give the same command again; "
            f"with a token more is allowed: {_TOKEN}",
        )
    if status in (401, 403):
        return EncoderError(
            f"The Hub refuses `{repository}` ({status}): the token is missing, wrong, or may not read it.", hint=_TOKEN
        )
    return EncoderError(
        f"The Hub answers {status} when asked for `{repository}`.", hint="give the same command again later"
    )


def _missing(repository: str, name: str) -> EncoderError:
    """There is no connection, and the cache lacks this file."""
    from huggingface_hub import constants

    return EncoderError(
        f"Getting `{name}` of `{repository}` failed: there is no connection to the Hub ({constants.ENDPOINT}), and no "
        "copy in the cache.",
        hint=f"where there is one, `hf download {repository} --local-dir DIR "
        "--include '*.json' '*.safetensors' '*.txt' '*.md'`; then `lookalike pull DIR --out MODEL` here",
    )


def _tensors(repository: str, layouts: Sequence[Layout], there: Collection[str]) -> str:
    """The file of tensors, or the index of several, that goes with the layouts of the configs."""
    if name := _first_of(layouts, there):
        return name
    pickles = sorted(name for name in there if is_pickle(name) and "/" not in name)
    if pickles and not any(name.endswith(".safetensors") for name in there):
        raise pickles_only(repository, pickles, before=f"hf download {repository} --local-dir DIR && cd DIR && ")
    if layouts:
        wanted = " or ".join(sorted({f"`{layout.files[1]}`" for layout in layouts}))
        raise EncoderError(f"`{repository}` has no {wanted} beside its config.", hint="another revision may have it")
    raise EncoderError(
        f"`{repository}` is in no layout that is known.",
        hint="`lookalike pull --list` shows models that are; `docs/reference/towers.md` says which layouts are read",
    )


def _first_of(layouts: Sequence[Layout], there: Collection[str]) -> str | None:
    """The first file of tensors, or index of several, of these layouts that is there."""
    names = (f"{layout.files[1]}{ending}" for layout in layouts for ending in ("", _INDEX))
    return next((name for name in names if name in there), None)


def _shards(repository: str, index: Path, there: Collection[str]) -> list[str]:
    """The files that an index of sharded tensors names."""
    names = shard_names(index)
    if absent := [name for name in names if name not in there or not name.endswith(".safetensors")]:
        raise EncoderError(
            f"`{index.name}` of `{repository}` names `{absent[0]}`, which is no safetensors file beside it.",
            hint="another revision may be complete",
        )
    return names


def _cached(repository: str, revision: str | None, reason: BaseException) -> Remote:
    """The copy in the cache; EncoderError, naming the first file that it lacks."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(repository, name, revision=revision) for name in _CONFIGS)
    directory = next((Path(where).parent for where in found if isinstance(where, str)), None)
    layouts = matching(directory) if directory else []
    if directory is None or not layouts:
        raise _missing(repository, "config.json") from reason
    there = {file.name for file in directory.iterdir() if file.is_file()}
    first = _first_of(layouts, there) or layouts[0].files[1]
    wanted = shard_names(directory / first) if first.endswith(_INDEX) else [first]
    if lacking := [name for name in wanted if name not in there]:
        raise _missing(repository, lacking[0]) from reason
    return Remote(repository, None, license_of(directory), directory, {})
