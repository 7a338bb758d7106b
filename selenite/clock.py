"""Time as an argument: whoever waits or measures takes a ``Clock``.

The trainer's rates, and later the scheduler, admission and cache, read time only from here, so
that tests and the simulator can run the very same code on a clock of their own (``ManualClock``).
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Seconds from an arbitrary origin; never goes backwards."""

    def now(self) -> float:
        """Seconds since this clock's origin."""
        ...

    def wait(self, event: threading.Event, timeout: float) -> bool:
        """Blocks until ``event`` is set or ``timeout`` seconds passed; says whether it was set."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Lets other tasks of the event loop run for ``seconds``; for once at 0 or less."""
        ...


class SystemClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, timeout: float) -> bool:
        return event.wait(timeout)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock that moves only when told to: whoever waits advances it by the whole time at once."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Moves time forward; raises ``ValueError`` for a negative step."""
        if seconds < 0:
            raise ValueError(f"seconds={seconds}: a clock never goes backwards")
        self._now += seconds

    def wait(self, event: threading.Event, timeout: float) -> bool:
        if not event.is_set():
            self.advance(timeout)
        return event.is_set()

    async def sleep(self, seconds: float) -> None:
        self.advance(max(0.0, seconds))
        await asyncio.sleep(0)
