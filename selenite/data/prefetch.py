"""A worker thread that keeps a few items ready ahead of the consumer.

Used by ``loader.py``; reading and packing then overlap the training step.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Iterates over ``items`` in a thread, at most ``depth`` items ahead.

    An exception in the worker is raised by ``get`` after the items that came before it. ``close``
    ends the worker and waits for it; it may be called twice.
    """

    def __init__(self, items: Iterator[T], depth: int) -> None:
        assert depth >= 1, depth
        self._items = items
        self._depth = depth
        self._ready: deque[T] = deque()
        self._error: BaseException | None = None
        self._ended = False
        self._closed = False
        self._changed = threading.Condition()
        # A daemon: a consumer that forgot to close must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)
        self._thread.start()

    def get(self) -> T:
        """The next item; raises ``StopIteration`` after the last, or the worker's exception."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._ended or self._closed)
            if self._ready:
                item = self._ready.popleft()
                self._changed.notify_all()
                return item
            if self._error is not None:
                raise self._error
            raise StopIteration

    def close(self) -> None:
        """Ends the worker after the item it is making."""
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        try:
            for item in self._items:
                with self._changed:
                    self._ready.append(item)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: len(self._ready) < self._depth or self._closed)
                    if self._closed:
                        return
        except BaseException as error:
            # All of them, for it is no swallowing: the consumer raises it. What ended a thread
            # without a word would look like the end of the data.
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
