"""Files of the Hub one by one: the large ones go on where they stopped, and every one is checked by its digest."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from lookalike.core.errors import EncoderError
from lookalike.core.files import locked, storage_errors
from lookalike.core.journal import Progress, progress

_MB = 1_000_000
_PIECE = 1 << 20


@dataclass(frozen=True)
class Published:
    """What the Hub says of a file."""

    size: int
    """In bytes."""
    sha256: str | None
    """Of the content; None for small files, which are not kept in large-file storage."""
    git: str | None
    """Git's name of a small file: SHA-1 of `blob SIZE`, a zero byte and the content."""

    @classmethod
    def of(cls, file: Any) -> "Published":
        """From an entry of `model_info(files_metadata=True).siblings`.

        Raises:
            EncoderError: What stands for a digest is none. It becomes the name of a file, so nothing else may come in.
        """
        if file.lfs is not None:
            if not re.fullmatch("[0-9a-f]{64}", str(file.lfs.sha256)):
                raise EncoderError(
                    f"The Hub gives {str(file.lfs.sha256)[:80]!r} as the SHA-256 of `{file.rfilename}`; expected 64 "
                    "hex digits.",
                    hint="unset HF_ENDPOINT, or mend it",
                )
            return cls(file.lfs.size, file.lfs.sha256, None)
        return cls(file.size or 0, None, file.blob_id)


def fetch_blob(repository: str, name: str, commit: str, file: Published) -> None:
    """Get a file of large-file storage into the Hub's cache, where `snapshot_download` then finds it.

    The library begins a broken download anew in the next process; gigabytes must not. So what has come is kept as
    `blobs/SHA256.incomplete`, and the rest is asked for by a range.
    """
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils._headers import build_hf_headers

    folder = repo_folder_name(repo_id=repository, repo_type="model")
    blob = Path(constants.HF_HUB_CACHE) / folder / "blobs" / str(file.sha256)
    if blob.exists():
        return
    part = blob.with_name(f"{blob.name}.incomplete")
    with storage_errors(part), locked(Path(constants.HF_HUB_CACHE) / ".locks" / folder, "pull"):
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as stream:
            if stream.tell() > file.size:
                stream.truncate(0)
            done = stream.tell()
            with progress("fetch", "MB", file.size // _MB, done // _MB) as bar, _small_pieces():
                http_get(
                    hf_hub_url(repository, name, revision=commit, endpoint=constants.ENDPOINT),
                    cast(BinaryIO, _Counted(stream, bar)),
                    resume_size=done,
                    headers=build_hf_headers(),
                    expected_size=file.size,
                    tqdm_class=silent(),
                )
        part.replace(blob)


@contextmanager
def _small_pieces() -> Iterator[None]:
    """The library hands over 10 MiB at a time: a line that breaks more often would never get on."""
    from huggingface_hub import constants

    before, constants.DOWNLOAD_CHUNK_SIZE = (size := constants.DOWNLOAD_CHUNK_SIZE), min(size, _PIECE)
    try:
        yield
    finally:
        constants.DOWNLOAD_CHUNK_SIZE = before


class _Counted:
    """A file that says how much was written to it."""

    def __init__(self, stream: BinaryIO, bar: Progress) -> None:
        self._stream, self._bar = stream, bar
        self.tell, self.seek, self.truncate = stream.tell, stream.seek, stream.truncate

    def write(self, data: bytes) -> int:
        count = self._stream.write(data)
        self._bar.advance(self._stream.tell() // _MB - self._bar.done)
        return count


def silent() -> type[Any]:
    """A progress bar for the library that says nothing, since ours does."""
    from huggingface_hub.utils.tqdm import tqdm

    class Silent(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})

    return Silent


def check(repository: str, path: Path, file: Published) -> None:
    """EncoderError if the content is not what the Hub says; the file is then removed, so that it is got anew."""
    wanted = file.sha256 or file.git
    if wanted is None:
        return
    begun = hashlib.sha256() if file.sha256 else hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
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
