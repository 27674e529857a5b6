"""A folder of images in an object store: s3://BUCKET/FOLDER or gs://BUCKET/FOLDER, by Arrow's own clients.

Layout and labels are those of a folder on the disk. Credentials are the store's usual ones (AWS_ACCESS_KEY_ID,
AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS); without any a bucket is read as the public may. AWS_ENDPOINT_URL and
AWS_REGION name another store that speaks S3. A store that does not answer within `SECONDS` is asked three times.

Arrow is imported late: a process that decodes images from a disk starts without it.
"""

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lookalike.core.errors import ImageError, SourceError

if TYPE_CHECKING:
    import pyarrow as pa

    from lookalike.data.sources.listed import Source

SCHEMES = ("s3", "gs")
SECONDS = 20.0
_TRIES = 3
_AWS = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")


def is_remote(path: str) -> bool:
    """Whether a path is the address of something in a store."""
    return path.partition("://")[0] in SCHEMES and "://" in path


def open_source(path: str, exclude: Sequence[str] = ()) -> "Source":
    """The folder at the address `path` as a source."""
    import pyarrow as pa

    from lookalike.data.sources.listed import BATCH, LISTED, Source

    if path.lower().endswith((".csv", ".parquet", ".tar", ".zip", ".jsonl")):
        raise SourceError(
            f"`{path}` is no folder, and of a store only folders of images are read.",
            hint=f"copy it to the disk, and give that: aws s3 cp {shlex.quote(path)} .",
        )

    def batches() -> Iterator["pa.RecordBatch"]:
        rows = _rows(path, exclude)
        while some := list(islice(rows, BATCH)):
            yield pa.RecordBatch.from_pylist(some, LISTED)

    return Source(path, "remote", batches)


def read_remote(path: str, most: int) -> bytes:
    """The first `most` bytes of what lies at an address; ImageError in the store's words if it can't be read."""
    store, key = _store(path)
    try:
        with store.open_input_stream(key) as file:
            data: bytes = file.read(most)
    except OSError as error:
        raise ImageError(f"The file can't be read: {_reason(error)}.") from error
    return data


def _rows(path: str, exclude: Sequence[str]) -> Iterator[dict[str, Any]]:
    from pyarrow import fs

    from lookalike.data.sources import excluded, nfc
    from lookalike.data.sources.folder import SUFFIXES

    store, root = _store(path)
    try:
        found = store.get_file_info(fs.FileSelector(root, recursive=True))
    except OSError as error:
        raise SourceError(f"`{path}` can't be listed: {_reason(error)}.", hint=_hint(path, error)) from error
    name, images = nfc(root.rpartition("/")[2]), 0
    for info in sorted(found, key=lambda info: info.path):
        image = info.path.removeprefix(f"{root}/")
        *folders, _ = image.split("/")
        if info.type != fs.FileType.File or not image.lower().endswith(SUFFIXES) or excluded(image, exclude):
            continue
        images += 1
        yield {
            "source": image,
            "place.path": f"{urlsplit(path).scheme}://{info.path}".encode(),
            "stamp": f"{info.size}-{info.mtime_ns}",
            "label": nfc(folders[min(len(folders), 2) - 1]) if folders else None,
            "domain": nfc(folders[0]) if len(folders) >= 2 else name,
            "is_query": True,
            "is_gallery": True,
        }
    if not images:
        raise SourceError(
            f"`{path}` holds no images.", hint="images lie in it, or in label/ or domain/label/ inside it"
        )


def _store(path: str) -> tuple[Any, str]:
    """The client of an address, and the key there; one client for all addresses of a store."""
    parts = urlsplit(path)
    return _client(parts.scheme), f"{parts.netloc}{parts.path}".rstrip("/")


@lru_cache
def _client(scheme: str) -> Any:
    from pyarrow import fs

    if scheme == "gs":
        return fs.GcsFileSystem(anonymous="GOOGLE_APPLICATION_CREDENTIALS" not in os.environ)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    known = any(name in os.environ for name in _AWS) or os.path.exists(os.path.expanduser("~/.aws/credentials"))  # noqa: PTH110, PTH111
    return fs.S3FileSystem(
        anonymous=not known,
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        scheme=urlsplit(endpoint).scheme or "https",
        endpoint_override=urlsplit(endpoint).netloc or None,
        request_timeout=SECONDS,
        connect_timeout=SECONDS / 2,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_TRIES),
    )


def _reason(error: OSError) -> str:
    """What a store says, in a few words: Arrow's message tells the request as well."""
    words = str(error)
    for pattern, reason in (
        (r"ACCESS_DENIED|HTTP status 403|Forbidden|PERMISSION_DENIED", "the store refuses access (403)"),
        (r"NO_SUCH_BUCKET|bucket does not exist", "there is no such bucket (404)"),
        (
            r"NO_SUCH_KEY|RESOURCE_NOT_FOUND|HTTP status 404|not found|does not exist|NOT_FOUND",
            "nothing lies there (404)",
        ),
        (r"[Tt]imeout|timed out|curlCode: 28", f"the store did not answer within {SECONDS:g} seconds"),
        (r"curlCode: (?:6|7)\b|NETWORK_CONNECTION|[Cc]ould ?n.t (?:resolve|connect)", "the store can't be reached"),
    ):
        if re.search(pattern, words):
            return reason
    return " ".join(words.split())[:200].rstrip(".")


def _hint(path: str, error: OSError) -> str:
    if "403" in _reason(error):
        return "name your credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if "404" in _reason(error):
        return f"look: aws s3 ls {path.rpartition('/')[0]}/"
    return "the same command again goes on; AWS_ENDPOINT_URL and AWS_REGION name another store"
