"""Processes of our own: they hear no Ctrl-C, run no script again, and end with the one that started them."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing import connection, get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import ModuleType
from typing import Any

_starting = threading.Lock()


def start_process(target: Callable[..., None], *given: Any) -> tuple[SpawnProcess, Connection]:
    """A process that runs `target(pipe, *given)`, and our end of the pipe.

    It is spawned, since neither Lance nor threads survive a fork. Python would have it run the main script once more,
    for what is defined there: nothing of ours is, and a script without `if __name__ == "__main__"` would begin again
    in each process.
    """
    context = get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=_run, args=(theirs, target, given), daemon=True)
    resource_tracker.ensure_running()  # it unblocks when it starts, which would be with the first process
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which the process has from us
    with _starting:
        main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            process.start()
        finally:
            sys.modules["__main__"] = main
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return process, pipe


def _run(pipe: Connection, target: Callable[..., None], given: tuple[Any, ...]) -> None:
    """In the process: `target`, and a thread that ends it as soon as its parent has ended, even if it was killed."""

    def wait() -> None:
        if (parent := parent_process()) is not None:
            connection.wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
    target(pipe, *given)
