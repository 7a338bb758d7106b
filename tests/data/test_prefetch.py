"""The prefetch worker: order, bound, end, and errors in their place."""

from __future__ import annotations

import threading

import pytest

from selenite.data.prefetch import Prefetcher


def test_items_come_in_order_and_end():
    worker = Prefetcher(iter(range(5)), depth=2)
    assert [worker.get() for _ in range(5)] == list(range(5))
    with pytest.raises(StopIteration):
        worker.get()
    worker.close()


@pytest.mark.parametrize("depth", [1, 3])
def test_the_worker_is_never_further_ahead_than_its_depth(depth):
    made = threading.Semaphore(0)
    count = 0

    def items():
        nonlocal count
        while True:
            count += 1
            made.release()
            yield count

    worker = Prefetcher(items(), depth)
    for consumed in range(4):
        while made.acquire(timeout=0.05):  # until the worker makes no more
            pass
        assert count == consumed + depth
        assert worker.get() == consumed + 1
    worker.close()


def test_an_error_comes_after_the_items_before_it_and_stays():
    def items():
        yield 1
        raise ValueError("line 2 is broken")

    worker = Prefetcher(items(), depth=4)
    assert worker.get() == 1
    for _ in range(2):
        with pytest.raises(ValueError, match="line 2 is broken"):
            worker.get()
    worker.close()
