"""Stopping a run in good order: what SIGINT and SIGTERM do to it.

The first signal asks: the loop finishes its step, saves a checkpoint and ends. The second has the
operating system's default effect, and kills at once.
"""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """While entered, ``received`` turns from none to the first signal that arrived.

    Only the main thread may handle signals; elsewhere it says so and leaves them alone.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.getsignal(number) for number in SIGNALS}
            for number in SIGNALS:
                signal.signal(number, self._receive)
        else:
            logger.info("not in the main thread: signals are left to it, and will not save a step")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        for other in SIGNALS:
            signal.signal(other, signal.SIG_DFL)
        logger.warning(
            "%s: finishing the step and saving a checkpoint; once more kills at once",
            self.received.name,
        )
