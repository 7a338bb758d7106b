"""Processes and threads that work for this process, and are not waited for when it is interrupted.

What they make is on the disk whole or not at all, so that nothing is lost: the next call goes on.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from selenite.clock import SystemClock

_INTERRUPTED = 130  # the exit code of shells
_SECONDS = 0.5  # between two looks at whether the parent is there


@contextmanager
def processes(
    count: int, initialize: Callable[..., object] | None = None, *arguments: Any
) -> Iterator[Executor]:
    """Processes that begin with ``initialize``. An error or an interrupt ends them at once; and
    they end when this process is gone, however that came about."""
    before = set(multiprocessing.active_children())
    begin = os.getpid(), initialize, arguments
    pool = ProcessPoolExecutor(count, initializer=_begin, initargs=begin)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        raise
    pool.shutdown()


@contextmanager
def threads(count: int) -> Iterator[Executor]:
    """Threads that wait for others. After an error or an interrupt what they wait for is left."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Ends this process at an interrupt, whatever its threads still wait for."""
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on from here\n")
        sys.stderr.flush()
        os._exit(_INTERRUPTED)


def _begin(parent: int, initialize: Callable[..., object] | None, arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the parent's to say what follows
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if initialize is not None:
        initialize(*arguments)


def _watch(parent: int) -> None:
    clock, never = SystemClock(), threading.Event()
    while os.getppid() == parent:
        clock.wait(never, _SECONDS)
    os._exit(1)
