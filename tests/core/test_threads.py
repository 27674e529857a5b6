"""A thread for each core: what is mapped, and what is left behind."""

import threading
import time

import pytest
from threadpoolctl import threadpool_info

from lookalike.core.threads import in_threads


def blas_threads() -> list[int]:
    """NumPy's: SciPy has another one, which nobody here multiplies by."""
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return [pool["num_threads"] for pool in pools if "numpy" in pool["filepath"]]


def test_results_come_in_order_and_each_thread_multiplies_alone() -> None:
    with in_threads() as apply:
        assert list(apply(lambda number: number**2, range(50))) == [number**2 for number in range(50)]
        assert set(blas_threads()) <= {1}


def test_nothing_is_left_of_what_was_interrupted() -> None:
    before, threads, started = blas_threads(), threading.active_count(), list[int]()

    def interrupt() -> None:
        with in_threads() as apply:
            apply(lambda number: (started.append(number), time.sleep(0.01)), range(1000))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert threading.active_count() == threads
    assert blas_threads() == before
    assert len(started) < 1000
    with in_threads() as apply:  # and another one can begin
        assert list(apply(abs, [-1])) == [1]
