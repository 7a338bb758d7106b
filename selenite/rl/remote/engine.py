"""Stands in a trainer for an engine in another process, and begins it anew when that dies.

What ran in a process that dies ends with ``UnavailableError``. The next process begins with the
weights that were committed last, and paused or not as this one was; calls that come in between wait
for it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from selenite.clock import Clock
from selenite.errors import UnavailableError
from selenite.rl.remote.messages import Accepted, Progress, Sent, Weights
from selenite.serve.engine.loop import Listener
from selenite.serve.engine.request import Request
from selenite.types import FinishReason

logger = logging.getLogger(__name__)

SILENCE = 60.0  # seconds without news or heartbeat after which a process is given up
START_SECONDS = 300.0  # that a process has until it serves
_MOST_DEATHS = 3  # in a row, without a request that came to its end


class EngineDiedError(UnavailableError):
    """The process of an engine has ended, or is as good as."""


class Channel(Protocol):
    """A way to a ``Host`` in another process."""

    def call(self, method: str, *arguments: Any) -> Future[Any]:
        """Calls come in order. The future carries ``EngineDiedError`` where the process ends."""
        ...

    def news(self) -> list[Any]:
        """``Host.news``; raises ``EngineDiedError`` where the process ends or is silent."""
        ...

    def close(self) -> None:
        """Ends the process; futures of calls end, too."""
        ...


Start = Callable[[Weights, bool], Channel]
"""Starts a process whose engine begins with these weights, paused or not, and waits until it
serves. Raises ``EngineDiedError`` where it does not come to that."""

_Send = Callable[[Channel], None]


@dataclass(frozen=True)
class _Open:
    """A request that has not ended."""

    request: Request
    listener: Listener
    accepted: Future[None]


class RemoteEngine:
    """A ``RolloutEngine`` in another process. ``start`` it; ``stop`` it after use.

    Args:
        begin: starts its process.
        weights: that it begins with.
        longest: tokens of a request at most.
        clock: for how long generating takes.
    """

    def __init__(self, begin: Start, weights: Weights, longest: int, clock: Clock) -> None:
        self.clock, self.longest = clock, longest
        self.deaths = 0  # of its processes, for people
        self._begin, self._weights = begin, weights
        self._is_paused = False
        self._lock = threading.RLock()  # never held by whoever waits for the process
        self._channel: Channel | None = None  # None: it is being begun
        self._waiting = list[tuple[_Send, Future[None]]]()
        self._open = dict[str, _Open]()
        self._is_stopping = False
        self._failure: UnavailableError | None = None
        self._deaths_in_a_row = 0
        self._thread = threading.Thread(target=self._run, name="remote engine", daemon=True)

    def start(self) -> None:
        """Begins the process, without waiting for it."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it serves, or will again."""
        return self._failure is None

    @property
    def is_paused(self) -> bool:
        """Whether steps wait for ``resume``."""
        return self._is_paused

    def submit(self, request: Request, listener: Listener) -> Future[None]:
        """``RolloutEngine.submit``."""
        accepted: Future[None] = Future()
        sent = Sent.of(request)

        def send(channel: Channel) -> None:
            self._open[request.id] = _Open(request, listener, accepted)
            channel.call("submit", sent)

        self._send(send, accepted)
        return accepted

    def abort(self, request: Request) -> Future[None]:
        """``RolloutEngine.abort``."""
        return self._call("abort", request.id)

    def pause(self) -> Future[None]:
        """``RolloutEngine.pause``."""
        self._is_paused = True
        return self._lasting("pause")

    def resume(self) -> Future[None]:
        """``RolloutEngine.resume``."""
        self._is_paused = False
        return self._lasting("resume")

    def stage(self, weights: Weights) -> Future[None]:
        """Has the engine verify a version and lay it beside what serves.

        The future carries ``CheckpointError`` where it is damaged or of another model.
        """
        return self._call("stage", weights.manifest, weights.place)

    def discard(self) -> Future[None]:
        """What is staged is not wanted."""
        return self._lasting("discard")

    def commit(self, weights: Weights) -> Future[None]:
        """Serves what was staged from the next step on, in whatever process it is."""
        with self._lock:
            self._weights = weights
            return self._lasting("commit", weights.manifest, weights.place)

    def stop(self) -> None:
        """Ends the process; requests end as aborted."""
        with self._lock:
            self._is_stopping = True
            channel = self._channel
        if channel is not None:
            channel.close()
        if self._thread.is_alive():
            self._thread.join()

    def _call(self, method: str, *arguments: Any) -> Future[None]:
        future: Future[None] = Future()

        def send(channel: Channel) -> None:
            channel.call(method, *arguments).add_done_callback(lambda done: _pass_on(done, future))

        self._send(send, future)
        return future

    def _lasting(self, method: str, *arguments: Any) -> Future[None]:
        """A call whose effect the next process has from its beginning."""
        future: Future[None] = Future()

        def told(done: Future[None]) -> None:
            if isinstance(done.exception(), EngineDiedError) and self.is_alive:
                future.set_result(None)
            else:
                _pass_on(done, future)

        self._call(method, *arguments).add_done_callback(told)
        return future

    def _send(self, send: _Send, future: Future[None]) -> None:
        with self._lock:
            if self._failure is not None:
                future.set_exception(self._failure)
            elif self._channel is None:
                self._waiting.append((send, future))
            else:
                send(self._channel)

    def _run(self) -> None:
        """Process after process."""
        while self._failure is None:
            channel = None
            try:
                with self._lock:
                    weights, is_paused = self._weights, self._is_paused
                channel = self._begin(weights, is_paused)
                self._enter(channel)
                while True:
                    for item in channel.news():
                        self._take(item)
            except EngineDiedError as error:
                if channel is not None:
                    channel.close()  # before the lock: whoever sends into it may have that
                self._bury(error)

    def _enter(self, channel: Channel) -> None:
        with self._lock:
            if self._is_stopping:
                raise EngineDiedError("it was stopped")
            self._channel = channel
            waiting, self._waiting = self._waiting, []
            for send, _ in waiting:
                send(channel)

    def _take(self, item: Accepted | Progress) -> None:
        with self._lock:
            known = self._open.get(item.id)
            refused = isinstance(item, Accepted) and item.error is not None
            ended = isinstance(item, Progress) and item.finish_reason is not None
            if known is not None and (refused or ended):
                del self._open[item.id]
        if known is None:
            return
        if isinstance(item, Accepted):
            _settle(known.accepted, item.error)
            return
        request = known.request
        request.completion += item.tokens
        request.tokens += [token.token_id for token in item.tokens]
        request.expert_ids += item.expert_ids
        request.prompt_logprobs += item.prompt_logprobs
        request.finish_reason, request.error = item.finish_reason, item.error
        if ended and item.error is None:
            self._deaths_in_a_row = 0
        known.listener(request)

    def _bury(self, error: EngineDiedError) -> None:
        """Ends what ran in the process; decides whether there is another one."""
        with self._lock:
            self._channel = None
            ended, self._open = list(self._open.values()), {}
            if self._is_stopping:
                self._failure = UnavailableError("the engine was stopped")
            else:
                self.deaths += 1
                self._deaths_in_a_row += 1
                if self._deaths_in_a_row >= _MOST_DEATHS:
                    self._failure = UnavailableError(
                        f"an engine died {_MOST_DEATHS} times in a row ({error}); its log says why"
                    )
            failure = self._failure
            waiting = [] if failure is None else self._waiting
        if not self._is_stopping:
            logger.warning("an engine's process is gone: %s (%d requests)", error, len(ended))
        reason = FinishReason.ABORT if self._is_stopping else FinishReason.ERROR
        for _, future in waiting:
            _settle(future, failure)
        for known in ended:
            known.request.finish_reason = reason
            known.request.error = None if self._is_stopping else error
            _settle(known.accepted, error)
            known.listener(known.request)


def _settle(future: Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _pass_on(done: Future[Any], to: Future[None]) -> None:
    error = done.exception()
    assert error is None or isinstance(error, Exception)
    _settle(to, error)
