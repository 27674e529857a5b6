"""A function in a process of its own, whose memory and time are watched: compilers may ask for more than there is."""

import os
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from lookalike.core.errors import LookalikeError, RunError
from lookalike.core.processes import start_process

T = TypeVar("T")

_LOOK = 0.1  # seconds between looks at its memory
_PAGE = os.sysconf("SC_PAGE_SIZE")


class TooMuchError(RunError):
    """The process was ended: it took more memory or time than it may."""


def watched(function: Callable[..., T], *given: Any, memory: int, seconds: float, verb: str) -> T:
    """`function(*given)` in a fresh process; TooMuchError, "`verb` took ...", if it holds more bytes or takes longer.

    Function, arguments and result are pickled. Memory is looked at where the system tells it (Linux).
    """
    (process, pipe), begun = start_process(_serve, function, given), time.monotonic()
    try:
        while not pipe.poll(_LOOK):
            if (held := resident(process.pid or 0)) > memory:
                hint = "`--memory GIB` allows more, on a machine that has it"
                raise TooMuchError(
                    f"{verb} took {held / 2**30:.1f} GiB of this machine's memory, and was ended.", hint=hint
                )
            if time.monotonic() - begun > seconds:
                hint = "`--minutes N` allows more"
                raise TooMuchError(f"{verb} took {seconds / 60:.0f} minutes, and was ended.", hint=hint)
        good, result = pipe.recv()
    except EOFError:
        process.join()
        raise TooMuchError(
            f"{verb} ended its process (exit code {process.exitcode}).",
            hint="-9: the machine had too little memory; -6 or -11: the compiler broke down",
        ) from None
    finally:
        process.kill()
        process.join()
        pipe.close()
    if good:
        return result
    raise result


def resident(pid: int) -> int:
    """Bytes of memory that a process holds; 0 where the system does not say."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _serve(pipe: Connection, function: Callable[..., Any], given: tuple[Any, ...]) -> None:
    """In the process: the result, or what was raised; a bug with its traceback, as text."""
    try:
        answer = True, function(*given)
    except LookalikeError as error:
        answer = False, error
    except Exception:  # noqa: BLE001  a bug of ours, which the parent raises
        answer = False, RuntimeError(f"in the watched process:\n{traceback.format_exc()}")
    pipe.send(answer)
