"""From places to stored images, in several processes, in order, with few in flight.

Whatever one image does to its decoder costs that image alone: an exception of any type, and also the death of the
process (a crash in C, the system short of memory). Then the images in flight are tried again one by one, each in a
process that it can end.

Imports neither Arrow nor Lance, so that a worker starts in a tenth of a second. Workers are spawned, since neither
Lance nor threads survive a fork; they ignore Ctrl-C, and end when the parent does, even if it was killed.
"""

import hashlib
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing import connection, get_context, parent_process

from lookalike.core.errors import ImageError
from lookalike.core.machine import cores
from lookalike.data.sources import Place
from lookalike.imaging.decode import store

CHUNK = 16  # images that a worker is given at a time
WORTH = 64  # images that are worth a process: fewer are converted before it has started


@dataclass(frozen=True, slots=True)
class Task:
    """One image to convert; with `known`, only if its bytes are not those that this SHA-256 was made of."""

    place: Place
    known: bytes | None = None


@dataclass(frozen=True, slots=True)
class Converted:
    """An image as `store` makes it; `sha256` is of the source's bytes."""

    image: bytes
    width: int
    height: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """An image that can't be stored, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Same:
    """An image whose bytes are the known ones: only its stamp is new."""


Outcome = Converted | Failed | Same


def convert(task: Task, size: int) -> Outcome:
    """Read, compare, decode and resize one image; shorter side at most `size` pixels."""
    try:
        data = task.place.read()
        digest = hashlib.sha256(data).digest()
        return Same() if digest == task.known else Converted(*store(data, size), digest)
    except ImageError as error:
        return Failed(error.message)
    except Exception as error:  # noqa: BLE001  of a codec, or ours: a run is worth more than one image
        words = " ".join(str(error).split())[:120]
        return Failed(f"The image could not be converted: {type(error).__name__}: {words}.")


def convert_all(tasks: Iterable[Task], size: int, workers: int = 0) -> Iterator[Outcome]:
    """Outcomes in the order of `tasks`, from `workers` processes (0: one a core); in this process if one suffices.

    At most 2 * workers + 2 chunks of `CHUNK` images are in flight or waiting, however slow the reader is.
    """
    tasks, workers = iter(tasks), workers or cores()
    first = list(islice(tasks, workers * WORTH))
    tasks, workers = chain(first, tasks), min(workers, -(-len(first) // WORTH))
    if workers <= 1:
        yield from (convert(task, size) for task in tasks)
        return
    with closing(_Workers(workers)) as many, closing(_Workers(1)) as careful:
        waiting: deque[tuple[Sequence[Task], Future[list[Outcome]]]] = deque()
        while (chunk := list(islice(tasks, CHUNK))) or waiting:
            if chunk:
                waiting.append((chunk, many.submit(chunk, size)))
            if not chunk or len(waiting) >= 2 * workers + 2:
                oldest, future = waiting.popleft()
                try:
                    yield from future.result()
                except BrokenProcessPool:
                    yield from (careful.one(task, size) for task in oldest)


def _convert_chunk(tasks: Sequence[Task], size: int) -> list[Outcome]:
    return [convert(task, size) for task in tasks]


class _Workers:
    """Processes that are started with the first work, and again when one of them has died."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, tasks: Sequence[Task], size: int) -> "Future[list[Outcome]]":
        """Outcomes of `tasks`, or BrokenProcessPool if a process dies before they are there."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self._count, mp_context=get_context("spawn"), initializer=_end_with_parent)
        # A process started meanwhile never hears Ctrl-C; this one hears it afterwards.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self._pool.submit(_convert_chunk, tasks, size)
        except BrokenProcessPool:
            self._pool.shutdown()
            self._pool = None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return self.submit(tasks, size)

    def one(self, task: Task, size: int) -> Outcome:
        try:
            return self.submit([task], size).result()[0]
        except BrokenProcessPool:
            return Failed("It ended the process that decoded it (a crash of the decoder, or too little memory).")

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    def wait() -> None:
        if (parent := parent_process()) is not None:
            connection.wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
