"""Published models from the Hugging Face Hub: only safetensors and JSON are fetched, and nothing there is ever run.

`look` asks what a repository holds and gets its configs (a few kilobytes), so that size and licence can be said, and
what can't be read refused, before `fetch` gets the tensors. The files lie in the Hub's own cache; `HF_HOME`,
`HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` mean what they mean everywhere. Large files go on where they stopped, and
every file is checked by its digest.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lookalike.core.errors import EncoderError
from lookalike.core.files import locked, storage_errors
from lookalike.core.journal import Progress
from lookalike.encoders.directory import pickles_only
from lookalike.published.layout import Layout
from lookalike.published.layouts import matching
from lookalike.published.stored import INDEX, shard_names

_CARD = "README.md"
_CONFIGS = (
    *("config.json", "card.json", "open_clip_config.json"),
    *("preprocessor_config.json", "processor_config.json"),
)
# What a text side may need; tens of megabytes in some models.
_TEXTS = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"),
    *("spiece.model", "tokenizer.model", "sentencepiece.bpe.model"),
)
_TOKEN = "`hf auth login`, or set HF_TOKEN"
_MB = 1_000_000


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
    files: Mapping[str, Any]
    """What is wanted, by name, as the Hub's library describes it: `size`, `blob_id`, `lfs`."""


def look(repository: str, revision: str | None = None) -> Remote:
    """What `ORG/NAME` holds at `revision` (a branch, a tag or a commit; None: the main branch).

    EncoderError if there is none that may be read, in a layout that is known, with more than pickles; or if there is
    neither a connection nor a copy in the cache.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    with _hub_errors(repository, revision):
        try:
            info = HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=30)  # seconds
        except HfHubHTTPError:
            raise
        except (OSError, HTTPError):  # no connection, or none wanted
            return _cached(repository, revision)
        there = {file.rfilename: file for file in info.siblings or []}
        small = [name for name in (*_CONFIGS, _CARD) if name in there]
        path = _snapshot(repository, revision, small) if small else Path()
        first = _tensors(repository, matching(path) if small else [], there)
        shards = shard_names(_snapshot(repository, info.sha, [first]) / first) if first.endswith(INDEX) else []
        if absent := [name for name in shards if name not in there or not name.endswith(".safetensors")]:
            raise EncoderError(
                f"`{first}` of `{repository}` names `{absent[0]}`, which is no safetensors file beside it.",
                hint="another revision may be complete",
            )
    texts = [name for name in _TEXTS if name in there]
    files = {name: there[name] for name in [*small, *texts, first, *shards]}
    return Remote(repository, info.sha, _license(info.card_data), path, files)


def _tensors(repository: str, layouts: Sequence[Layout], there: Collection[str]) -> str:
    """The file of tensors, or the index of several, that goes with the layouts of the configs."""
    if name := next(filter(None, (layout.stored(there) for layout in layouts)), None):
        return name
    if not any(name.endswith(".safetensors") for name in there) and (error := pickles_only(repository, there)):
        raise error
    if layouts:
        wanted = " or ".join(sorted({f"`{layout.files[1]}`" for layout in layouts}))
        raise EncoderError(f"`{repository}` has no {wanted} beside its config.", hint="another revision may have it")
    raise EncoderError(
        f"`{repository}` is in no layout that is known.",
        hint="`lookalike pull --all` lists models that are; `docs/reference/towers.md` says which layouts are read",
    )


def _cached(repository: str, revision: str | None) -> Remote:
    """The copy in the cache; EncoderError, naming the first file that it lacks."""
    directory = _snapshot(repository, revision, [], local_files_only=True)
    layouts = matching(directory)
    if not layouts:
        raise _missing(repository, "config.json")
    there = {file.name for file in directory.iterdir() if file.is_file()}
    first = next(filter(None, (layout.stored(there) for layout in layouts)), layouts[0].files[1])
    for name in shard_names(directory / first) if first.endswith(INDEX) else [first]:
        if name not in there:
            raise _missing(repository, name)
    return Remote(repository, None, license_of(directory), directory, {})


def fetch(remote: Remote) -> Path:
    """The directory that holds all files of `remote`; EncoderError if the connection broke, or a file is damaged."""
    if remote.commit is None:
        return remote.configs
    with _hub_errors(remote.repository, remote.commit):
        for name, file in remote.files.items():
            if file.lfs is not None:
                _fetch_large(remote, name, file)
        path = _snapshot(remote.repository, remote.commit, list(remote.files))
    for name, file in remote.files.items():
        _check(remote.repository, path / name, file)
    return path


def _fetch_large(remote: Remote, name: str, file: Any) -> None:
    """Get a file of large-file storage into the Hub's cache, where `snapshot_download` then finds it.

    The library begins a broken download anew in the next process; gigabytes must not. So what has come is kept as
    `blobs/SHA256.incomplete`, and the rest is asked for by a range.
    """
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils._headers import build_hf_headers

    digest, size = str(file.lfs.sha256), file.lfs.size
    if not re.fullmatch("[0-9a-f]{64}", digest):  # it becomes a file's name, so nothing else may come in
        raise EncoderError(
            f"The Hub gives {digest[:80]!r} as the SHA-256 of `{name}`; expected 64 hex digits.",
            hint="unset HF_ENDPOINT, or mend it",
        )
    cache, folder = Path(constants.HF_HUB_CACHE), repo_folder_name(repo_id=remote.repository, repo_type="model")
    blob = cache / folder / "blobs" / digest
    if blob.exists():
        return
    part = blob.with_name(f"{digest}.incomplete")
    url = hf_hub_url(remote.repository, name, revision=remote.commit, endpoint=constants.ENDPOINT)
    # The library hands over 10 MiB at a time: a line that breaks more often would never get on.
    before, constants.DOWNLOAD_CHUNK_SIZE = (usual := constants.DOWNLOAD_CHUNK_SIZE), min(usual, 1 << 20)
    try:
        with storage_errors(part), locked(cache / ".locks" / folder, "pull"):
            part.parent.mkdir(parents=True, exist_ok=True)
            with part.open("ab") as stream:
                if stream.tell() > size:
                    stream.truncate(0)
                done = stream.tell()
                with Progress("fetch", "MB", size // _MB, done // _MB) as bar:
                    more: dict[str, Any] = {"expected_size": size, "tqdm_class": _telling(bar)}
                    http_get(url, stream, resume_size=done, headers=build_hf_headers(), **more)
            part.replace(blob)
    finally:
        constants.DOWNLOAD_CHUNK_SIZE = before


def _telling(bar: Progress | None = None) -> type[Any]:
    """A progress bar for the library that shows nothing, and tells ours what came."""
    from huggingface_hub.utils.tqdm import tqdm

    class Telling(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: Any = 1) -> None:
            self.n += n
            if bar is not None:
                bar.advance(self.n // _MB - bar.done)

    return Telling


def _check(repository: str, path: Path, file: Any) -> None:
    """EncoderError if the content is not what the Hub says; the file is then removed, so that it is got anew."""
    if (wanted := file.lfs.sha256 if file.lfs else file.blob_id) is None:
        return
    # Git's name of a small file is of `blob SIZE`, a zero byte and the content.
    begun = hashlib.sha256() if file.lfs else hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: begun)
    if digest.hexdigest() == wanted:
        return
    path.resolve().unlink()
    path.unlink(missing_ok=True)
    raise EncoderError(
        f"`{path.name}` of `{repository}` arrived damaged and was removed: its {digest.name} digest is "
        f"{digest.hexdigest()[:12]}..., and the Hub says {wanted[:12]}...",
        hint="give the same command again",
    )


def _snapshot(repository: str, revision: str | None, names: list[str], **options: Any) -> Path:
    """The directory of the cache that holds these files of a revision; those that are missing are fetched."""
    from huggingface_hub import constants, snapshot_download

    with storage_errors(constants.HF_HUB_CACHE):
        options |= {"allow_patterns": names, "tqdm_class": _telling()}
        return Path(snapshot_download(repository, revision=revision, **options))


def license_of(directory: Path) -> str | None:
    """What the model card `README.md` in a directory names; None if there is none, or none that can be read."""
    from huggingface_hub import metadata_load
    from yaml import YAMLError  # type: ignore[import-untyped]

    try:
        return _license(metadata_load(directory / _CARD))
    except (OSError, YAMLError, ValueError):  # a card is for people, and the tensors are good without it
        return None


def _license(card: Any) -> str | None:
    """What the model's card says; "other" stands for a name of its own."""
    named = (card or {}).get("license")
    if named == "other":
        named = card.get("license_name") or named
    return ", ".join(map(str, named)) if isinstance(named, list) else named and str(named)


@contextmanager
def _hub_errors(repository: str, revision: str | None) -> Iterator[None]:
    """Turn what the Hub and the connection refuse inside the block into one sentence each, and hush the library."""
    from huggingface_hub import logging
    from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]

    before = logging.get_verbosity()
    logging.set_verbosity(50)  # critical
    try:
        yield
    except (HFValidationError, HTTPError, OSError, json.JSONDecodeError) as error:
        if said := _said(error, repository, revision):
            raise said from error
        raise
    finally:
        logging.set_verbosity(before)


def _said(error: Exception, repository: str, revision: str | None) -> EncoderError | None:
    """What an error of the library means; None: the disk refuses."""
    from huggingface_hub import constants, errors

    page, again = f"{constants.ENDPOINT}/{repository}", "give the same command again"
    match error:
        case errors.LocalEntryNotFoundError():
            return _missing(repository, "config.json")
        case errors.GatedRepoError():
            words = f"`{repository}` is given only to those who accepted its licence."
            hint = f"accept it on {page}, then {_TOKEN}, and {again}"
        case errors.RevisionNotFoundError():
            words, hint = f"`{repository}` has no revision `{revision}`.", f"{page}/commits/main lists them"
        case errors.RepositoryNotFoundError():
            words = f"There is no model `{repository}` on the Hub, or it may not be seen without a token."
            hint = f"look at {page}; if it is private: {_TOKEN}"
        case errors.HfHubHTTPError(response=response) if response.status_code == 429:
            wait = f"{response.headers['Retry-After']} seconds" if "Retry-After" in response.headers else "some minutes"
            words = f"The Hub has had too many requests from here and refuses `{repository}` for now (429)."
            hint = f"wait {wait}, then {again}; with a token more is allowed: {_TOKEN}"
        case errors.HfHubHTTPError(response=response) if response.status_code in (401, 403):
            words = f"The Hub refuses `{repository}` ({response.status_code}): the token is missing, wrong, or may not "
            words, hint = f"{words}read it.", _TOKEN
        case errors.HfHubHTTPError(response=response):
            words = f"The Hub answers {response.status_code} when asked for `{repository}`."
            hint = f"{again} later"
        case errors.HFValidationError():
            words, hint = f"`{repository}` is no name of a model on the Hub.", "it is ORG/NAME"
        case json.JSONDecodeError():
            words = f"`{constants.ENDPOINT}` does not answer as a Hub does."
            hint = "unset HF_ENDPOINT, or mend it"
        case _ if getattr(error, "errno", None) is None:  # an OSError without a number: fewer bytes came than promised
            reason = (str(error) or "no reason given").splitlines()[0]
            words = f"The connection broke while getting `{repository}`: {reason}."
            hint = f"{again}: it goes on where it stopped"
        case _:
            return None
    return EncoderError(words, hint=hint)


def _missing(repository: str, name: str) -> EncoderError:
    """There is no connection, and the cache lacks this file."""
    from huggingface_hub import constants

    return EncoderError(
        f"Getting `{name}` of `{repository}` failed: there is no connection to the Hub ({constants.ENDPOINT}), and no "
        "copy in the cache.",
        hint=f"where there is one, `hf download {repository} --local-dir DIR "
        "--include '*.json' '*.safetensors' '*.txt' '*.md'`; then `lookalike pull DIR --out MODEL` here",
    )
