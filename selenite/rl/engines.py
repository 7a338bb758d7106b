"""What rollouts need of a serving engine, wherever it runs.

``serve.engine.loop.EngineThread`` is one in this process; ``remote.engine.RemoteEngine`` stands for
one in another.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Future
from typing import Protocol

from selenite.clock import Clock
from selenite.errors import UnavailableError
from selenite.serve.engine.loop import Listener
from selenite.serve.engine.request import Request
from selenite.types import FinishReason


class RolloutEngine(Protocol):
    """Requests in, news of them out. All futures end; those of an engine that is gone carry
    ``UnavailableError``."""

    @property
    def clock(self) -> Clock:
        """For how long generating takes."""
        ...

    @property
    def longest(self) -> int:
        """Tokens of a prompt and what follows it, at most."""
        ...

    @property
    def is_alive(self) -> bool:
        """Whether requests are taken: false once it has ended for good."""
        ...

    @property
    def is_paused(self) -> bool:
        """Whether steps wait for ``resume``."""
        ...

    def submit(self, request: Request, listener: Listener) -> Future[None]:
        """Queues a request. ``listener`` is told, on another thread, of new tokens and the end; an
        engine that dies ends its requests with an error. The future carries the ``ConfigError`` of
        one that cannot run."""
        ...

    def abort(self, request: Request) -> Future[None]:
        """Ends a request before the next step, unless it has ended."""
        ...

    def pause(self) -> Future[None]:
        """Runs no more steps until ``resume``; requests stay where they are."""
        ...

    def resume(self) -> Future[None]:
        """Runs steps again."""
        ...


async def finished(engine: RolloutEngine, request: Request) -> None:
    """Runs a request to its end. Raises ``UnavailableError`` where the engine is gone or gave it
    up, and the ``ConfigError`` of a request that cannot run."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def told(request: Request) -> None:
        if request.finish_reason is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(ended.set)

    try:
        await asyncio.wrap_future(engine.submit(request, told))
    except Exception as error:
        if engine.is_alive and not isinstance(error, UnavailableError):
            raise
        raise UnavailableError(str(error)) from error
    try:
        await ended.wait()
    except asyncio.CancelledError:
        engine.abort(request)
        raise
    if request.finish_reason in (FinishReason.ABORT, FinishReason.ERROR):
        raise UnavailableError(str(request.error or "the engine was stopped"))
