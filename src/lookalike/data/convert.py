"""From places to stored images, in several processes, in order, with few in flight.

Whatever one image does to its decoder costs that image alone: an exception of any type, and also the death of the
process (a crash in C, the system short of memory). Then the images that it was given are tried again one by one, each
in a process that it can end.

Imports neither Arrow nor Lance, so that a worker starts quickly.
"""

import ctypes
import hashlib
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from lookalike.core.errors import ImageError
from lookalike.core.machine import cores
from lookalike.core.processes import start_process
from lookalike.data.sources import Place
from lookalike.imaging.decode import QUALITY, store

CHUNK = 16  # images that a worker is given at a time
WORTH = 64  # images that are worth a process: fewer are converted before it has started


@dataclass(frozen=True, slots=True)
class Task:
    """One image to convert; with `known`, only if its bytes are not those that this SHA-256 was made of. Nothing is
    done for a `copy` of one that was converted.
    """

    place: Place
    known: bytes | None = None
    copy: bool = False


@dataclass(frozen=True, slots=True)
class Converted:
    """An image as `store` makes it; `sha256` is of the source's bytes."""

    image: bytes
    width: int
    height: int
    pixels: bytes
    phash: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """An image that can't be stored, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Same:
    """An image whose bytes are the known ones: only its stamp is new."""


@dataclass(frozen=True, slots=True)
class Copy:
    """An image whose bytes are those of another one: nothing was read."""


Outcome = Converted | Failed | Same | Copy


def convert(task: Task, size: int, quality: int = QUALITY) -> Outcome:
    """Read, compare, decode and resize one image; shorter side at most `size` pixels."""
    if task.copy:
        return Copy()
    try:
        data = task.place.read()
        digest = hashlib.sha256(data).digest()
        return Same() if digest == task.known else Converted(*store(data, size, quality, task.place.border), digest)
    except ImageError as error:
        return Failed(error.message)
    except Exception as error:  # noqa: BLE001  of a codec, or ours: a run is worth more than one image
        words = " ".join(str(error).split())[:120]
        return Failed(f"The image could not be converted: {type(error).__name__}: {words}.")


def convert_all(tasks: Iterable[Task], size: int, workers: int = 0, quality: int = QUALITY) -> Iterator[Outcome]:
    """Outcomes in the order of `tasks`, from `workers` processes (0: one a core); in this process if one suffices.

    At most 2 * workers + 2 chunks of `CHUNK` images are in flight or waiting, however slow the reader is.
    """
    tasks, workers = iter(tasks), workers or cores()
    first = list(islice(tasks, workers * WORTH))
    tasks, workers = chain(first, tasks), min(workers, -(-len(first) // WORTH))
    if workers <= 1:
        yield from (convert(task, size, quality) for task in tasks)
        return
    started, mine = list[_Worker](), threading.local()

    def begin() -> None:
        """In a thread: its worker."""
        mine.worker = _Worker(size, quality)
        started.append(mine.worker)

    def outcomes(chunk: Sequence[Task]) -> list[Outcome]:
        return list(mine.worker.convert(chunk))

    threads, waiting = ThreadPoolExecutor(workers, initializer=begin), deque[Future[list[Outcome]]]()
    try:
        while (chunk := list(islice(tasks, CHUNK))) or waiting:
            if chunk:
                waiting.append(threads.submit(outcomes, chunk))
            if not chunk or len(waiting) >= 2 * workers + 2:
                yield from waiting.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)
        for worker in started:
            worker.close()


class _Worker:
    """A process that is started with the first work, and again when it has died.

    It has a pipe to itself: the executors of the standard library share one, and a process that is killed while it
    writes there leaves its lock held and half a message, for which everyone waits for ever.
    """

    def __init__(self, size: int, quality: int) -> None:
        self._size, self._quality = size, quality
        self._process: SpawnProcess | None = None

    def convert(self, tasks: Sequence[Task]) -> list[Outcome]:
        """Outcomes of `tasks`; where the process dies, each is tried again in a process that it can end."""
        if (found := self._ask(tasks)) is not None:
            return found
        died = Failed("It ended the process that decoded it (a crash of the decoder, or too little memory).")
        return [(self._ask([task]) or [died])[0] for task in tasks]

    def _ask(self, tasks: Sequence[Task]) -> list[Outcome] | None:
        """Outcomes from the process, or None if it died."""
        if self._process is None:
            self._process, self._pipe = start_process(_serve, self._size, self._quality)
        try:
            self._pipe.send(tasks)
            return list(self._pipe.recv())
        except (EOFError, OSError):  # nobody is at the other end, before a message or within it
            self.close()
            return None

    def close(self) -> None:
        """End the process, if there is one; it reads the end of its pipe."""
        if self._process is not None:
            self._pipe.close()
            self._process.join()
            self._process = None


def _serve(pipe: Connection, size: int, quality: int) -> None:
    """In a worker: outcomes of what comes, until the pipe ends."""
    _keep_memory()
    with suppress(EOFError, OSError):
        while True:
            pipe.send([convert(task, size, quality) for task in pipe.recv()])


def _keep_memory() -> None:
    """Keep what an image has freed for the next one: to clear pages that are new for each takes a third of the time."""
    with suppress(AttributeError, OSError):  # another C library than glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD: from so many bytes on, memory goes back as soon as it is freed
        mallopt(-1, 2**27)  # M_TRIM_THRESHOLD: what more than this is free at the end goes back
