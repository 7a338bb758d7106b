"""The engine in a thread of its own: requests and calls go in, news of requests come out.

Everything that touches the engine happens on this thread, between steps. An idle engine sleeps.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from selenite.clock import Clock
from selenite.errors import UnavailableError
from selenite.model.transformer import Transformer
from selenite.runtime import apply_threads
from selenite.serve.engine.engine import AtSwap, Engine
from selenite.serve.engine.request import Request
from selenite.types import FinishReason

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Listener = Callable[[Request], None]
"""Called on the engine's thread whenever the request has new tokens, and at its end."""


class EngineThread:
    """Runs an engine's steps while there is work.

    ``is_alive`` turns false when a step failed in a way that no single request is to blame for; all
    requests have then ended with that error.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._calls: deque[Callable[[], None]] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._paused = False
        self._asleep = False
        self._listeners: dict[Request, Listener] = {}
        self._failure: BaseException | None = None
        self._has_ended = False  # the thread takes no further calls
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    @property
    def clock(self) -> Clock:
        """The engine's."""
        return self.engine.clock

    @property
    def longest(self) -> int:
        """Tokens of a prompt and what follows it, at most."""
        pool = self.engine.pool
        return min(self.engine.runner.model.config.max_positions, pool.num_pages * pool.page_size)

    @property
    def is_alive(self) -> bool:
        """Whether steps are run."""
        return self._thread.is_alive() and self._failure is None

    def submit(self, request: Request, listener: Listener) -> Future[None]:
        """Queues a request. The future carries the ``ConfigError`` of one that cannot run."""

        def add() -> None:
            self.engine.add(request)
            self._listeners[request] = listener

        return self.call(add)

    def abort(self, request: Request) -> Future[None]:
        """Ends a request before the next step; its listener is told."""

        def end() -> None:
            if request.finish_reason is None:
                self.engine.abort(request)
                self._tell(request)

        return self.call(end)

    def abort_all(self) -> Future[None]:
        """Ends all requests before the next step; their listeners are told."""

        def end() -> None:
            for request in list(self._listeners):
                self.engine.abort(request)
                self._tell(request)

        return self.call(end)

    def call(self, function: Callable[[], Result]) -> Future[Result]:
        """Runs ``function`` on the engine's thread between two steps."""
        future: Future[Result] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            if self._has_ended:
                future.set_exception(self._failure or UnavailableError("the engine was stopped"))
                return
            try:
                result = function()
            except Exception as error:  # noqa: BLE001 - whoever waits for the result is told
                future.set_exception(error)
            else:
                future.set_result(result)

        self._calls.append(run)
        self._wake.set()
        if self._has_ended:
            self._run_calls()
        return future

    def pause(self) -> Future[None]:
        """Runs no more steps until ``resume``; requests stay where they are."""
        return self.call(lambda: setattr(self, "_paused", True))

    @property
    def is_paused(self) -> bool:
        """Whether steps wait for ``resume``."""
        return self._paused

    def sleep(self) -> Future[None]:
        """Pauses, and gives the memory of the cache back. Asleep already: nothing."""

        def sleep() -> None:
            self._paused = True
            if not self._asleep:
                self.engine.sleep()
                self._asleep = True

        return self.call(sleep)

    def resume(self) -> Future[None]:
        """Runs steps again. An engine that sleeps takes the cache's memory first; the future
        carries torch's error where there is none, and the engine sleeps on."""

        def resume() -> None:
            if self._asleep:
                self.engine.wake()
                self._asleep = False
            self._paused = False

        return self.call(resume)

    def swap_weights(self, model: Transformer, version: int, running: AtSwap) -> Future[None]:
        """``Engine.swap_weights`` before the next step; listeners of aborted requests are told."""

        def swap() -> None:
            for request in self.engine.swap_weights(model, version, running):
                self._tell(request)

        return self.call(swap)

    def stop(self) -> None:
        """Ends all requests and the thread, and waits for it."""
        self._stopping = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        apply_threads()
        try:
            while True:
                self._wake.clear()  # before the test: a stop after it wakes the wait below
                if self._stopping:
                    break
                self._run_calls()
                if not self.engine.has_work():
                    self.engine.check_integrity()
                    self._wake.wait()
                    continue
                if self._paused:
                    self._wake.wait()
                    continue
                for request in self.engine.step():
                    self._tell(request)
            self._end_all(FinishReason.ABORT, None)
            self._has_ended = True
            self._run_calls()
        except BaseException as error:
            # Nobody else waits for this thread: without this, every client would wait for ever.
            logger.exception("the engine stopped")
            self._failure = error
            self._end_all(FinishReason.ERROR, error)
            self._has_ended = True
            self._run_calls()
            if not isinstance(error, Exception):
                raise

    def _run_calls(self) -> None:
        """After the end, whoever calls may run this beside the thread: nothing is lost or waits."""
        while self._calls:
            try:
                call = self._calls.popleft()
            except IndexError:  # another thread was faster
                return
            call()

    def _end_all(self, reason: FinishReason, error: BaseException | None) -> None:
        for request in list(self._listeners):
            if request.finish_reason is None:
                request.finish_reason = reason
                request.error = error if isinstance(error, Exception) else None
            self._tell(request)

    def _tell(self, request: Request) -> None:
        listener = self._listeners.get(request)
        if listener is None:
            return
        if request.finish_reason is not None:
            del self._listeners[request]
        listener(request)
