"""A thread for each core, each of which multiplies on its own.

A BLAS that spreads thin products over threads of its own waits more than it works.
"""

import functools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from lookalike.core.machine import cores

Apply = Callable[..., Iterator[Any]]
"""`map`, or what does the same in several threads."""

_one_at_a_time = threading.Lock()  # the limit on BLAS threads is the whole process's, and every call uses all cores


@contextmanager
def in_threads() -> Iterator[Apply]:
    """`map`, over the cores, with BLAS kept to the thread that calls it."""
    with _one_at_a_time, _blas().limit(limits=1, user_api="blas"):
        pool = ThreadPoolExecutor(cores())
        try:
            yield pool.map
        finally:  # who is interrupted does not finish what waits
            pool.shutdown(cancel_futures=True)


@functools.cache
def _blas() -> Any:
    """What sets the threads of NumPy's BLAS; kept, since looking for it takes milliseconds."""
    from threadpoolctl import ThreadpoolController  # here, since its import sets an environment variable

    return ThreadpoolController()
