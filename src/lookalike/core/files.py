"""Whole-or-not-at-all writes, locks, fingerprints: every effect on a local disk that must not be half done."""

import base64
import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import math
import os
import secrets
import shutil
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from lookalike.core.errors import LookalikeError, StorageError

# The names in a directory that tell its kind; the order matters, since a run holds a model.
_NAMES = {
    "collection": ("rows.lance",),
    "encoder": ("model.safetensors", "config.json"),
    "run": ("config.json", "metrics.jsonl"),
}
_TOLD = {"missing": "nothing", "empty": "an empty directory", "collection": "a collection", "run": "a run"}
_TOLD |= {"encoder": "an encoder", "export": "an export", "something else": "something else"}

_PARTIAL = ".partial-"  # between the name of a directory that is being written, hidden, and what makes it unique


def kind_of(path: str | Path) -> str:
    """What lies at `path`, judged by the names inside it: a key of `_TOLD`."""
    path = Path(path)
    if not path.is_dir():
        return "something else" if path.exists() else "missing"
    with contextlib.suppress(StorageError, OSError):  # a card that can't be read says nothing
        if "export" in read_card(path):  # first: it may hold a layout that looks like an encoder of ours
            return "export"
    for kind, names in _NAMES.items():
        if all((path / name).exists() for name in names):
            return kind
    # A lock or the scraps of a killed writer (hidden names) do not make a directory "something else".
    return "something else" if any(not name.startswith(".") for name in os.listdir(path)) else "empty"


def found_at(path: str | Path) -> str:
    """What lies at `path`, as the beginning of a sentence."""
    return f"There is {_TOLD[kind_of(path)]} at `{path}`"


def refuse_unless(path: str | Path, allowed: tuple[str, ...], wanted: str) -> str:
    """The kind of `path` if it is one of `allowed`; else StorageError, so that nothing foreign is overwritten."""
    kind = kind_of(path)
    if kind in allowed:
        return kind
    raise StorageError(
        f"`{path}` exists and is {_TOLD[kind]}, so no {wanted} is written there.",
        hint="give another `--out`, or move that directory away",
    )


def refuse_unwritable(path: str | Path) -> None:
    """StorageError if no file can be written at `path`, as far as can be told before there is what to write."""
    path = Path(path)
    _refuse_directory(path)
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise StorageError(f"`{path}` can't be written: `{above}` is a file.", hint="choose another place")
    if not (path.exists() and _belongs_to_the_system(path)) and not os.access(above, os.W_OK):
        raise StorageError(f"`{path}` can't be written: `{above}` is not writable.", hint="choose another place")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the new one, never a part.

    A device or a pipe, such as /dev/null, is written to, and never replaced.
    """
    path = Path(path)
    _refuse_directory(path)
    if _belongs_to_the_system(path):
        _write_into(path, data)
        return
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path, ".")
        try:
            temporary.write_bytes(data)
            _sync(temporary)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(path.parent)


def _refuse_directory(path: Path) -> None:
    if path.is_dir():
        raise StorageError(
            f"`{path}` is a directory, and a file would be written there.", hint="give the name of a file"
        )


def _belongs_to_the_system(path: Path) -> bool:
    """Whether it is no regular file, or lies where the system keeps such: beside /dev/null, or under /proc."""
    folder = os.path.realpath(path.parent)
    return (path.exists() and not path.is_file()) or folder == "/dev" or f"{folder}/".startswith(("/proc/", "/sys/"))


def _write_into(path: Path, data: bytes) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND)  # makes nothing; stdout may be a file that has words
        with os.fdopen(handle, "wb") as file:
            file.write(data)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError(f"`{path}` can't be written to: {error.strerror}.", hint="choose another place") from error


def _beside(path: Path, infix: str) -> Path:
    """A hidden name beside `path` that nobody else has; what is made there has the mode that the umask gives."""
    return path.with_name(f".{path.name}{infix}{secrets.token_hex(6)}")


def json_text(value: Any, indent: int | None = 2, *, ascii: bool = True) -> str:
    """`value` as JSON that every reader takes: null for NaN and infinities, base64 for bytes, else `str`.

    With `ascii` no terminal's encoding matters, and no name in it speaks to the terminal.
    """
    return json.dumps(_jsonable(value), indent=indent, ensure_ascii=ascii, allow_nan=False)


def _jsonable(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(key): _jsonable(entry) for key, entry in value.items()}
        case list() | tuple():
            return [_jsonable(entry) for entry in value]
        case None | bool() | str():
            return value
        case Integral():  # of NumPy too
            return int(value)
        case Real():
            return float(value) if math.isfinite(value) else None
        case bytes():
            return base64.b64encode(value).decode()
    return str(value)


def write_json(path: str | Path, value: Any) -> None:
    """`write_bytes` of `value` as `json_text` with a final newline."""
    write_bytes(path, (json_text(value, ascii=False) + "\n").encode(errors="backslashreplace"))


def read_json(path: str | Path) -> Any:
    """The JSON document at `path`; StorageError if it is not one."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8 or no JSON, too many digits; nested too deeply
        raise StorageError(f"`{path}` is not valid JSON: {error}.") from error


def read_card(directory: str | Path) -> dict[str, Any]:
    """What `card.json` in `directory` says of it; empty if there is none."""
    path = Path(directory) / "card.json"
    card = read_json(path) if path.exists() else {}
    return card if isinstance(card, dict) else {}


@contextmanager
def new_directory(path: str | Path, wanted: str) -> Iterator[Path]:
    """A directory to fill; it takes the name `path` only when the block ends without an error.

    `wanted` names what is written ("encoder", "page") in the error that refuses to overwrite something else. Through a
    link it takes the place of what that leads to. StorageError if `path` has no name, as the working directory `.`.
    """
    path = Path(path)
    if path.name in ("", ".."):
        raise StorageError(
            f"No {wanted} can take the place of `{path}`, as it is written beside it and then gets its name.",
            hint=f"give a place that has a name: `--out {wanted}`",
        )
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    refuse_unless(path, ("missing", "empty"), wanted)
    temporary = _beside(path, _PARTIAL)
    try:
        with storage_errors(path):  # inside, as it looks at the disk before what fills it is removed
            path.parent.mkdir(parents=True, exist_ok=True)
            clear_partial(path.parent, path.name)
            try:
                temporary.mkdir()
            except FileNotFoundError as error:  # of a file system that nobody makes directories in, as /proc
                hint = "choose another place and give the command again"
                raise StorageError(f"No directory can be made in `{path.parent}`.", hint) from error
            with _opened(temporary) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield temporary
                for file in (file for file in temporary.rglob("*") if file.is_file()):
                    _sync(file)
                    file.chmod(temporary.stat().st_mode & 0o666)  # the umask's; libraries give modes of their own
                if refuse_unless(path, ("missing", "empty"), wanted) == "empty":  # again: filling may take minutes
                    shutil.rmtree(path)
                temporary.rename(path)
            _sync(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def user_cache() -> Path:
    """Where this user's caches of ours lie; FileNotFoundError if nothing says where."""
    if ours := os.environ.get("LOOKALIKE_HOME"):
        return Path(ours)
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:  # a user without an entry in passwd, as in containers
        raise FileNotFoundError("this user has no home directory, and XDG_CACHE_HOME is not set") from error
    return Path(home) / "lookalike"


def clear_partial(directory: Path, name: str | None = None) -> None:
    """Remove what killed writers of `directory / name`, or of anything there, left: the kernel holds no lock on it."""
    for left in directory.glob(f".{'*' if name is None else glob.escape(name)}{_PARTIAL}*"):
        with contextlib.suppress(OSError), _opened(left) as lock:  # another writer's, or gone
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _sync(path: Path) -> None:
    """Make the content of a file, or a rename in a directory, survive a power cut."""
    with _opened(path) as handle:
        os.fsync(handle)


@contextmanager
def locked(directory: str | Path, verb: str) -> Iterator[None]:
    """Hold `directory` alone while writing; a second writer gets StorageError at once instead of waiting.

    The lock is the kernel's (flock), so that a killed process leaves none behind. A directory that is new and in which
    a block that failed wrote nothing goes again.
    """
    directory = Path(directory)
    lock, new = directory / ".lock", not directory.exists()
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        file = lock.open("ab")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(file.fileno()), lock.stat()):  # another's, that has just gone
                raise BlockingIOError
        except (BlockingIOError, FileNotFoundError) as error:
            raise StorageError(
                f"Another process is writing to `{directory}`, so `lookalike {verb}` did not start.",
                hint="wait until it ends, or stop it, and give the same command again",
            ) from error
        try:
            yield
        except BaseException:
            if new and os.listdir(directory) == [lock.name]:
                shutil.rmtree(directory, ignore_errors=True)
            raise


class Held:
    """A directory that readers hold together until they are gone; their locks are the kernel's."""

    def __init__(self, directory: str | Path) -> None:
        self._handle = os.open(directory, os.O_RDONLY)
        weakref.finalize(self, os.close, self._handle)
        self._lock(fcntl.LOCK_SH)

    def _lock(self, kind: int) -> bool:
        with contextlib.suppress(OSError):  # held by another; or a file system without locks, where nobody is alone
            fcntl.flock(self._handle, kind)
            return True
        return False

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether nobody else holds it; then nobody else can begin to, until the block ends."""
        try:
            yield self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            self._lock(fcntl.LOCK_SH)


def fingerprint(*parts: str | bytes) -> str:
    """SHA-256 over the parts, each preceded by its length so that no two lists collide; 64 hex digits."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


_REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EEXIST: "a part of the path is a file",  # what making its parents says
}


@contextmanager
def storage_errors(path: str | Path) -> Iterator[None]:
    """Turn the disk's refusals inside the block into StorageError; every other error passes unchanged."""
    try:
        yield
    except LookalikeError:
        raise
    except Exception as error:
        if (reason := _refusal(error, Path(path))) is None:
            raise
        raise StorageError(
            f"Writing `{path}` failed: {reason}. What was written before is intact.",
            hint="make room or choose another place, then give the same command again",
        ) from error


def _refusal(error: Exception, path: Path) -> str | None:
    """What the disk has refused, in words; None if the error is about something else."""
    # Libraries report the system's words inside a message, each in an exception of its own.
    full = "No space left" in str(error) or "StorageFull" in str(error)
    if not full and isinstance(error, RuntimeError):  # some say only that a stream has failed, and not why
        place = next(place for place in (path, *path.absolute().parents) if place.exists())
        full = shutil.disk_usage(place).free < 4096  # not even a page
    return _REFUSALS.get(errno.ENOSPC if full else getattr(error, "errno", None) or 0)
