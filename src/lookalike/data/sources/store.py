"""Files in an object store, by those verbs of a `Path` with which sources are read: s3://BUCKET/KEY and gs://BUCKET/KEY.

Clients are Arrow's own. Credentials are the store's usual ones (AWS_ACCESS_KEY_ID, AWS_PROFILE,
GOOGLE_APPLICATION_CREDENTIALS); without any a bucket is read as the public may. AWS_ENDPOINT_URL and AWS_REGION name
another store that speaks S3. A store that does not answer within `SECONDS` is asked three times.

Arrow is imported late: a process that decodes images from a disk starts without it.
"""

import io
import os
import posixpath
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from lookalike.core.errors import ImageError, SourceError

SCHEMES = ("s3", "gs")
SECONDS = 20.0
BLOCK = 2**20  # bytes of a request, at least, where a file is read from front to back: as long as an answer is awaited
_TRIES = 3
_AWS = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")


def is_remote(path: str) -> bool:
    """Whether a path is the address of something in a store."""
    return path.partition("://")[0] in SCHEMES and "://" in path


class Status(NamedTuple):
    """Of a file in a store, what `os.stat` says of one on the disk."""

    st_size: int
    st_mtime_ns: int

    @property
    def stamp(self) -> str:
        """By which another version of the file is known."""
        return f"{self.st_size}-{self.st_mtime_ns}"


@dataclass(frozen=True)
class Address:
    """A file or a folder in a store. What was listed is shared by all addresses that come of one another: 200 bytes a
    file, and no request for what it tells.

    Whatever the store answers but files is a SourceError.
    """

    url: str  # without a slash at its end
    _listed: dict[str, dict[str, Status | bool]] = field(default_factory=dict, compare=False, repr=False)
    """url of a folder -> names in it: the status of a file, True for a folder"""
    _loaded: set[str] = field(default_factory=set, compare=False, repr=False)
    """urls of folders below which all was listed"""

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, path: str) -> "Address":
        scheme, _, key = (path if is_remote(path) else f"{self.url}/{path}").partition("://")
        return Address(f"{scheme}://{posixpath.normpath(key)}", self._listed, self._loaded)

    @property
    def name(self) -> str:
        """The last part."""
        return self.url.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The suffix with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> "Address":
        """The folder that it lies in; a bucket lies in itself."""
        above = self.url.rpartition("/")[0]
        return self if above.endswith("/") else Address(above, self._listed, self._loaded)

    def with_suffix(self, suffix: str) -> "Address":
        """The same with another suffix."""
        return self.parent / f"{self.stem}{suffix}"

    def exists(self) -> bool:
        """Whether it is a file or a folder."""
        return self.is_file() or self.is_dir()

    def is_dir(self) -> bool:
        """Whether something lies below; it is listed."""
        if self.url not in self._listed and self._known() is None:
            self._list(allow_not_found=True)
        return self.url in self._listed or self._known() is True

    def is_file(self) -> bool:
        """Whether it is a file: a request where no listing tells it."""
        return self.look() is not None

    def stat(self) -> Status:
        """The status of a file; SourceError if it is none."""
        if (found := self.look()) is not None:
            return found
        raise SourceError(f"`{self.url}` can't be read: nothing lies there (404).", hint=_hint(self.url, "404"))

    def names(self) -> list[str]:
        """Names in the folder; SourceError if it can't be listed."""
        if self.url not in self._listed:
            self._list()
        return list(self._listed[self.url])

    def load(self) -> None:
        """List all that lies below, if it was not: a request for a thousand files, and none for what they are asked."""
        if self.url not in self._loaded:
            self._list(recursive=True)
            self._loaded.add(self.url)

    def walk(self) -> Iterator[tuple[str, Status]]:
        """The files below, once it is loaded, by their names relative to it, and in the order of names."""
        for name, found in sorted(self._listed.get(self.url, {}).items()):
            if isinstance(found, Status):
                yield name, found
            if (below := self / name).url in self._listed:
                yield from ((f"{name}/{inner}", status) for inner, status in below.walk())

    def glob(self, pattern: str) -> Iterator["Address"]:
        """Files below, once it is loaded, that a pattern fits part by part."""
        wanted = pattern.split("/")
        for name, _ in self.walk():
            parts = name.split("/")
            if len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted)):
                yield self / name

    def open(self, mode: str = "rb", **words: Any) -> Any:
        """The file, to be read; `words` are those of a text (encoding, errors, newline)."""
        store, key = _store(self.url)
        try:
            file = store.open_input_file(key)
            size = file.size()
        except OSError as error:
            raise self._refused("read", error) from error

        def read_at(wanted: int, offset: int) -> bytes:
            try:
                return bytes(file.read_at(wanted, offset))
            except OSError as error:
                raise self._refused("read", error) from error

        reader = io.BufferedReader(Stretch(read_at, 0, size), BLOCK)
        return reader if "b" in mode else io.TextIOWrapper(reader, **words)

    def look(self) -> Status | None:
        """The status of a file; None if it is none."""
        if (known := self._known()) is not None:
            return known if isinstance(known, Status) else None
        from pyarrow import fs

        store, key = _store(self.url)
        try:
            info = store.get_file_info(key)
        except OSError as error:
            raise self._refused("read", error) from error
        return Status(info.size, info.mtime_ns) if info.type == fs.FileType.File else None

    def _known(self) -> Status | bool | None:
        """What the listings say of it; None: nothing."""
        if (above := self.parent) == self:
            return None
        if (names := self._listed.get(above.url)) is not None:
            return names.get(self.name, False)
        return False if above._known() is False else None

    def _list(self, *, recursive: bool = False, allow_not_found: bool = False) -> None:
        from pyarrow import fs

        store, root = _store(self.url)
        try:
            found = store.get_file_info(fs.FileSelector(root, allow_not_found, recursive))
        except OSError as error:
            raise self._refused("listed", error) from error
        scheme = self.url.partition("://")[0]
        if not allow_not_found:
            self._listed[self.url] = {}
        for info in found:
            if {"", ".", ".."} & {*info.path.split("/")}:  # a store allows them, and no address leads there
                continue
            is_file = info.type == fs.FileType.File
            folder, _, name = f"{scheme}://{info.path}".rpartition("/")
            names = self._listed.setdefault(folder, {})
            names[name] = Status(info.size, info.mtime_ns) if is_file else names.get(name, True)
            while recursive and folder != self.url:  # a store keeps files, and folders only as parts of their names
                folder, _, name = folder.rpartition("/")
                self._listed.setdefault(folder, {}).setdefault(name, True)

    def _refused(self, what: str, error: OSError) -> SourceError:
        reason = _reason(error)
        return SourceError(f"`{self.url}` can't be {what}: {reason}.", hint=_hint(self.url, reason))


File = Path | Address


def located(path: "str | File") -> File:
    """A path on the disk, or in a store."""
    if not isinstance(path, str):
        return path
    return Address(path.rstrip("/")) if is_remote(path) else Path(path)


def for_arrow(file: File) -> Any:
    """What Arrow's readers take: they open files of the disk themselves."""
    return file if isinstance(file, Path) else file.open()


class Stretch(io.RawIOBase):
    """`size` bytes from `start` on as a file of its own, by a function of how many bytes from where."""

    def __init__(self, read_at: Callable[[int, int], bytes], start: int, size: int) -> None:
        self.read_at, self._start, self._size, self._at = read_at, start, size, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position of the stretch."""
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at

    def tell(self) -> int:
        """The position in the stretch."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Bytes from the position on; fewer at the end."""
        wanted = max(min(len(buffer), self._size - self._at), 0)
        data = self.read_at(wanted, self._start + self._at) if wanted else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def read_remote(path: str, most: int, offset: int = 0) -> bytes:
    """At most `most` bytes of what lies at an address, from `offset` on; ImageError in the store's words if it can't be
    read.
    """
    store, key = _store(path)
    try:
        with store.open_input_file(key) as file:
            return bytes(file.read_at(max(min(most, file.size() - offset), 0), offset))
    except OSError as error:
        raise ImageError(f"The file can't be read: {_reason(error)}.") from error


def copying(folder: Address) -> str:
    """The command that copies a folder."""
    command = f"{_tool(folder.url, 'cp')} {shlex.quote(folder.url)} {shlex.quote(folder.name)}"
    return f"copy it to the disk, and give that: {command}"


def _tool(path: str, verb: str) -> str:
    if path.startswith("gs:"):
        return f"gcloud storage {verb}" + (" --recursive" if verb == "cp" else "")
    return f"aws s3 {verb}" + (" --recursive" if verb == "cp" else "")


def _store(path: str) -> tuple[Any, str]:
    """The client of an address, and the key there; one client for all addresses of a store."""
    scheme, _, key = path.partition("://")
    return _client(scheme), key.rstrip("/")


@lru_cache
def _client(scheme: str) -> Any:
    from pyarrow import fs

    if scheme == "gs":
        return fs.GcsFileSystem(
            anonymous="GOOGLE_APPLICATION_CREDENTIALS" not in os.environ,
            retry_time_limit=timedelta(seconds=SECONDS * _TRIES),
        )
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


def _hint(path: str, reason: str) -> str:
    if "403" in reason:
        return "name your credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if "404" in reason:
        return f"look: {_tool(path, 'ls')} {path.rpartition('/')[0]}/"
    return "the same command again goes on; AWS_ENDPOINT_URL and AWS_REGION name another store"
